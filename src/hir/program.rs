//! What a resolved program is made of.

use super::claim::Expect;
use super::interchange::Interchange;
use crate::diag::{Span, Spanned};
use crate::syntax::ast;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every method and adapter that a source file declares or imports.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub methods: Vec<Arc<Method>>,
    pub adapters: Vec<Adapter>,
    /// The methods behind the statement `train`, by layer kind.
    pub train: BTreeMap<String, MethodId>,
}

/// Index into [`Program::methods`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId(pub usize);

impl Program {
    pub fn method(&self, id: MethodId) -> &Arc<Method> {
        &self.methods[id.0]
    }
}

/// A method with resolved references; its mathematics stays a syntax tree until it is
/// instantiated with hyper-parameters.
#[derive(Clone, Debug)]
pub struct Method {
    pub name: Spanned<String>,
    pub doc: String,
    pub hypers: Vec<HyperSpec>,
    /// Site kinds that it adapts, as written: `linear`, `norm`, ….
    pub kinds: Vec<Spanned<String>>,
    pub body: Arc<ast::Method>,
    /// Functions of the file, callable from the method.
    pub functions: Arc<BTreeMap<String, ast::Function>>,
    /// What it is in other tools.
    pub interchange: Vec<Interchange>,
    /// Methods that the file declares or imports, callable from `forward`.
    pub visible: BTreeMap<String, MethodId>,
}

impl Method {
    pub fn hyper(&self, name: &str) -> Option<&HyperSpec> {
        self.hypers.iter().find(|hyper| hyper.name.node == name)
    }

    /// The names of its hyper-parameters, for helps.
    pub fn hyper_list(&self) -> String {
        let names: Vec<String> = self
            .hypers
            .iter()
            .map(|h| format!("`{}`", h.name.node))
            .collect();
        names.join(", ")
    }
}

/// A declared hyper-parameter.
#[derive(Clone, Debug)]
pub struct HyperSpec {
    pub name: Spanned<String>,
    pub kind: HyperKind,
    pub default: Option<HyperValue>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum HyperKind {
    Int,
    Float,
    Bool,
    String,
    /// A list of integers.
    Ints,
    Choice(Vec<String>),
}

impl HyperKind {
    /// The type as the user writes it.
    pub fn describe(&self) -> String {
        match self {
            HyperKind::Int => "int".to_owned(),
            HyperKind::Float => "float".to_owned(),
            HyperKind::Bool => "bool".to_owned(),
            HyperKind::String => "string".to_owned(),
            HyperKind::Ints => "ints".to_owned(),
            HyperKind::Choice(options) => {
                let options: Vec<String> = options.iter().map(|o| format!("\"{o}\"")).collect();
                format!("choice({})", options.join(", "))
            }
        }
    }
}

/// The value of a hyper-parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum HyperValue {
    Int(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Ints(Vec<i64>),
}

impl std::fmt::Display for HyperValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HyperValue::Int(value) => write!(f, "{value}"),
            HyperValue::Float(value) => write!(f, "{value:?}"),
            HyperValue::Bool(value) => write!(f, "{value}"),
            HyperValue::String(value) => write!(f, "\"{value}\""),
            HyperValue::Ints(values) => write!(f, "{values:?}"),
        }
    }
}

/// A named set of statements that is compiled as one.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub name: Spanned<String>,
    pub doc: String,
    /// Which layers the model has, where they are others than its own.
    pub layers: Option<ast::Layers>,
    pub adapts: Vec<Adapt>,
    pub trains: Vec<ast::Train>,
    pub expects: Vec<Expect>,
    pub span: Span,
}

impl Adapter {
    /// Whether a target is a role.
    pub fn asks_for_roles(&self) -> bool {
        let adapted = self
            .adapts
            .iter()
            .map(|adapt| (&adapt.targets, &adapt.except));
        let trained = self
            .trains
            .iter()
            .map(|train| (&train.targets, &train.except));
        let mut targets = adapted.chain(trained).flat_map(|(t, e)| t.iter().chain(e));
        targets.any(|target| matches!(target, ast::Target::Role { .. }))
    }
}

/// One `adapt` statement.
#[derive(Clone, Debug)]
pub struct Adapt {
    pub targets: Vec<ast::Target>,
    pub except: Vec<ast::Target>,
    pub condition: Option<ast::Expr>,
    pub calls: Vec<Call>,
    pub overrides: Vec<Override>,
    pub span: Span,
}

/// A method with the hyper-parameters that the user set.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: MethodId,
    pub arguments: BTreeMap<String, HyperValue>,
    pub span: Span,
}

/// Other hyper-parameters for the sites that a pattern matches.
#[derive(Clone, Debug)]
pub struct Override {
    pub pattern: ast::Pattern,
    pub arguments: BTreeMap<String, HyperValue>,
    pub span: Span,
}

impl Call {
    /// Every hyper-parameter with its value: defaults, then the call's arguments, then `more`.
    pub fn values(
        &self,
        method: &Method,
        more: &[&BTreeMap<String, HyperValue>],
    ) -> BTreeMap<String, HyperValue> {
        let mut values = BTreeMap::new();
        for hyper in &method.hypers {
            let name = &hyper.name.node;
            let value = more
                .iter()
                .rev()
                .find_map(|m| m.get(name))
                .or_else(|| self.arguments.get(name))
                .or(hyper.default.as_ref());
            if let Some(value) = value {
                values.insert(name.clone(), value.clone());
            }
        }
        values
    }
}
