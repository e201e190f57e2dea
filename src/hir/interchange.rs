//! What a method is in another tool: how the rule `interchange` is understood.

use super::errors;
use super::eval::Eval;
use super::program::{HyperKind, HyperSpec, HyperValue};
use crate::diag::{Reported, Sink, Span, Spanned};
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, MethodItem, UnaryOp};
use crate::ty::DType;
use std::collections::{BTreeMap, BTreeSet};

/// The tools that there are: Hugging Face PEFT.
pub const TOOLS: &[&str] = &["peft"];

/// How the tool has a tensor in its file, by name.
const FORMS: &[(&str, Word)] = &[
    ("transposed", Word::Axes(Form::Transposed)),
    ("kernel", Word::Axes(Form::Kernel)),
    ("point", Word::Axes(Form::Point)),
    ("row", Word::Axes(Form::Row)),
    ("column", Word::Axes(Form::Column)),
    ("flat", Word::Axes(Form::Flat)),
    ("taps", Word::Axes(Form::Taps)),
    ("wide", Word::Axes(Form::Wide)),
    ("tall", Word::Axes(Form::Tall)),
    ("places", Word::Axes(Form::Places)),
    ("int32", Word::Numbers(DType::I32)),
    ("int64", Word::Numbers(DType::I64)),
    ("everywhere", Word::Everywhere),
    ("padded", Word::Padded),
];

/// What a word behind `as` says.
#[derive(Clone, Copy)]
enum Word {
    Axes(Form),
    Numbers(DType),
    Everywhere,
    Padded,
}

/// What stands for the key of a shared parameter in its name.
pub const KEY: char = '#';

/// The names of the forms.
pub fn forms() -> impl Iterator<Item = &'static str> {
    FORMS.iter().map(|(name, _)| *name)
}

/// A method as another tool has it.
#[derive(Clone, Debug)]
pub struct Interchange {
    pub tool: Spanned<String>,
    /// What the tool calls the method.
    pub kind: Spanned<String>,
    pub settings: Vec<Setting>,
    pub span: Span,
}

/// A setting of the tool's configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    pub key: Spanned<String>,
    pub value: SettingValue,
    /// Where it is so, all of them; elsewhere the next line of the same key says what is.
    pub when: Vec<When>,
    /// The setting that holds, by module, the values of those that differ.
    pub exceptions: Option<String>,
}

/// What a hyper-parameter has to be, or has not to be.
#[derive(Clone, Debug)]
pub struct When {
    pub hyper: String,
    pub value: HyperValue,
    pub equal: bool,
}

impl Setting {
    /// Whether it says what the setting is at a module with these hyper-parameters.
    pub fn holds(&self, values: &BTreeMap<String, HyperValue>) -> bool {
        let found = |when: &When| (values.get(&when.hyper) == Some(&when.value)) == when.equal;
        self.when.iter().all(found)
    }

    /// The hyper-parameters that have a value wherever this is what the setting says.
    pub fn tells(&self) -> impl Iterator<Item = (&str, &HyperValue)> {
        let told = self.when.iter().filter(|when| when.equal);
        told.map(|when| (when.hyper.as_str(), &when.value))
    }
}

impl Interchange {
    /// The lines of that key, the first of which that holds says what it is.
    pub fn lines<'r>(&'r self, key: &'r str) -> impl Iterator<Item = &'r Setting> {
        self.settings.iter().filter(move |s| s.key.node == key)
    }

    /// Whether that key lists modules.
    pub fn is_list(&self, key: &str) -> bool {
        let lists = [SettingValue::Modules, SettingValue::Names];
        self.lines(key).any(|line| lists.contains(&line.value))
    }

    /// Its keys, each once.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let mut seen = BTreeSet::new();
        let keys = self.settings.iter().map(|s| s.key.node.as_str());
        keys.filter(move |key| seen.insert(*key))
    }
}

/// What a setting says.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    /// This hyper-parameter.
    Hyper(String),
    /// One of these, which are all the method; the first is written.
    OneOf(Vec<HyperValue>),
    /// Nothing that matters to a trained adapter.
    Any,
    /// The modules where its condition holds.
    Modules,
    /// The last words of their paths.
    Names,
    /// The ranges of the adapter's `layers`.
    Sequence,
    /// How many modules have the method: the last ones of their name.
    Last,
}

/// The word for a setting, or a tensor in the tool's file, that does not matter.
pub const ANY: &str = "any";

/// A parameter in the tool's file.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Behind the path of the module, or, with a point in front, of what holds that; empty for one that is not in the file, but follows from the base model.
    pub name: String,
    /// By its place in the instance.
    pub parameter: usize,
    pub form: Form,
    /// The type of its elements there.
    pub numbers: DType,
    /// At every module, though they share it.
    pub everywhere: bool,
    /// What it lacks behind its ends is 0.
    pub padded: bool,
}

/// How the axes in the tool's file differ from the method's; the elements are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Same,
    /// A matrix the other way round.
    Transposed,
    /// At a convolution the last axis, of patches, is one of channels and those of the kernel.
    Kernel,
    /// At a convolution there is an axis of 1 for each of the kernel behind the others.
    Point,
    /// With an axis of 1 in front: a vector as `[1, n]`, at a convolution with ones behind it.
    Row,
    /// A vector as `[n, 1]`, at a convolution as `[1, n, 1, …]`.
    Column,
    /// One axis.
    Flat,
    /// The last axis is those of a convolution's kernel, and is not there elsewhere.
    Taps,
    /// A matrix: the first axis, and all others.
    Wide,
    /// A matrix: the last axis, and all others.
    Tall,
    /// One number for a row and a column of the weight: row times width plus column.
    Places,
}

/// The rules `interchange` of a method. What is wrong with one is reported, and it is left out.
pub(super) fn resolve(
    method: &ast::Method,
    hypers: &[HyperSpec],
    sink: &mut Sink,
) -> Vec<Interchange> {
    let rules = method.body.iter().filter_map(|item| match item {
        MethodItem::Interchange(rule) => Some(&**rule),
        _ => None,
    });
    rules
        .filter_map(|rule| one(rule, method, hypers, sink).ok())
        .collect()
}

fn one(
    rule: &ast::Interchange,
    method: &ast::Method,
    hypers: &[HyperSpec],
    sink: &mut Sink,
) -> Result<Interchange, Reported> {
    let mut result = Ok(());
    if !TOOLS.contains(&rule.tool.node.as_str()) {
        let known = TOOLS.iter().copied();
        result = Err(sink.emit(errors::interchange_word(&rule.tool, "a tool", known)));
    }
    let mut settings: Vec<Setting> = Vec::new();
    for (index, written) in rule.settings.iter().enumerate() {
        let key = &written.key;
        let mut before = rule.settings[..index].iter();
        // Behind a line without a condition no other is reached.
        let ends = |first: &ast::InterchangeSetting| first.when.is_none();
        if let Some(first) = before.find(|first| first.key.node == key.node && ends(first)) {
            let first = first.key.span;
            result = Err(sink.emit(errors::duplicate(key.span, first, "setting", &key.node)));
        }
        match setting(written, hypers, sink) {
            Ok(setting) => settings.push(setting),
            Err(reported) => result = Err(reported),
        }
    }
    let parameters: BTreeSet<&str> = parameters(method).collect();
    for tensor in &rule.tensors {
        let name = &tensor.parameter;
        if !parameters.contains(name.node.as_str()) && name.node != ANY {
            let known = parameters.iter().copied().chain([ANY]);
            result = Err(sink.emit(errors::interchange_word(name, "a parameter", known)));
        }
        for form in &tensor.forms {
            if word(&form.node).is_none() {
                result = Err(sink.emit(errors::interchange_word(form, "a form", forms())));
            }
        }
    }
    result.map(|()| Interchange {
        tool: rule.tool.clone(),
        kind: rule.kind.clone(),
        settings,
        span: rule.span,
    })
}

fn parameters(method: &ast::Method) -> impl Iterator<Item = &str> {
    method.body.iter().filter_map(|item| match item {
        MethodItem::Param(param) => Some(param.name.node.as_str()),
        _ => None,
    })
}

fn word(name: &str) -> Option<Word> {
    let known = FORMS.iter().find(|(known, _)| *known == name);
    known.map(|(_, word)| *word)
}

fn setting(
    written: &ast::InterchangeSetting,
    hypers: &[HyperSpec],
    sink: &mut Sink,
) -> Result<Setting, Reported> {
    let value = &written.value;
    let when = match &written.when {
        None => Vec::new(),
        Some(when) => match conditions(when, hypers) {
            Some(when) => when,
            None => return Err(sink.emit(errors::interchange_condition(when.span))),
        },
    };
    let found = match &value.kind {
        ExprKind::Name(name) if name == "modules" || name == "names" => match when.as_slice() {
            [when] if when.equal && name == "names" => Ok(SettingValue::Names),
            [when] if when.equal => Ok(SettingValue::Modules),
            _ => Err(errors::interchange_modules(value.span)),
        },
        ExprKind::Name(name) => {
            if hypers.iter().any(|hyper| hyper.name.node == *name) {
                Ok(SettingValue::Hyper(name.clone()))
            } else if name == ANY {
                Ok(SettingValue::Any)
            } else if name == "sequence" {
                Ok(SettingValue::Sequence)
            } else if name == "last" {
                Ok(SettingValue::Last)
            } else {
                let name = Spanned {
                    node: name.clone(),
                    span: value.span,
                };
                let known = hypers.iter().map(|hyper| hyper.name.node.as_str());
                Err(errors::interchange_word(&name, "a hyper-parameter", known))
            }
        }
        _ => literals(value)
            .map(SettingValue::OneOf)
            .ok_or_else(|| errors::interchange_value(value.span)),
    };
    let is_hyper = matches!(found, Ok(SettingValue::Hyper(_)) | Err(_));
    let exceptions = match &written.exceptions {
        Some(key) if !is_hyper => return Err(sink.emit(errors::interchange_exceptions(key.span))),
        key => key.as_ref().map(|key| key.node.clone()),
    };
    Ok(Setting {
        key: written.key.clone(),
        value: found.map_err(|fault| sink.emit(fault))?,
        when,
        exceptions,
    })
}

/// Conditions with `and` between them.
fn conditions(expr: &Expr, hypers: &[HyperSpec]) -> Option<Vec<When>> {
    match &expr.kind {
        ExprKind::Binary(op, left, right) if op.node == BinaryOp::And => {
            Some([conditions(left, hypers)?, conditions(right, hypers)?].concat())
        }
        _ => Some(vec![condition(expr, hypers)?]),
    }
}

/// `flag`, `not flag`, `hyper == value` or `hyper != value`.
fn condition(expr: &Expr, hypers: &[HyperSpec]) -> Option<When> {
    let (name, value, equal) = match &expr.kind {
        ExprKind::Name(name) => (name, HyperValue::Bool(true), true),
        ExprKind::Unary(UnaryOp::Not, inner) => match &inner.kind {
            ExprKind::Name(name) => (name, HyperValue::Bool(false), true),
            _ => return None,
        },
        ExprKind::Binary(op, left, right) => {
            let equal = match op.node {
                BinaryOp::Equal => true,
                BinaryOp::NotEqual => false,
                _ => return None,
            };
            let mut values = literals(right)?;
            match (&left.kind, values.len()) {
                (ExprKind::Name(name), 1) => (name, values.remove(0), equal),
                _ => return None,
            }
        }
        _ => return None,
    };
    let spec = hypers.iter().find(|hyper| hyper.name.node == *name)?;
    let value = match (&spec.kind, value) {
        (HyperKind::Float, HyperValue::Int(value)) => HyperValue::Float(value as f64),
        (HyperKind::Choice(options), HyperValue::String(value)) if !options.contains(&value) => {
            return None;
        }
        (HyperKind::Choice(_) | HyperKind::String, value @ HyperValue::String(_))
        | (HyperKind::Int, value @ HyperValue::Int(_))
        | (HyperKind::Float, value @ HyperValue::Float(_))
        | (HyperKind::Bool, value @ HyperValue::Bool(_)) => value,
        _ => return None,
    };
    Some(When {
        hyper: name.clone(),
        value,
        equal,
    })
}

/// `true`, or `true or "gaussian"`: literals joined by `or`.
fn literals(expr: &Expr) -> Option<Vec<HyperValue>> {
    let value = match &expr.kind {
        ExprKind::Int(value) => HyperValue::Int(*value),
        ExprKind::Float(value) => HyperValue::Float(*value),
        ExprKind::Bool(value) => HyperValue::Bool(*value),
        ExprKind::Str(value) => HyperValue::String(value.clone()),
        ExprKind::Unary(UnaryOp::Negate, inner) => match literals(inner)?.as_slice() {
            [HyperValue::Int(value)] => HyperValue::Int(value.checked_neg()?),
            [HyperValue::Float(value)] => HyperValue::Float(-value),
            _ => return None,
        },
        ExprKind::Binary(op, left, right) if op.node == BinaryOp::Or => {
            return Some([literals(left)?, literals(right)?].concat());
        }
        _ => return None,
    };
    Some(vec![value])
}

/// The tensors of an instance in the files of a tool.
pub(super) fn tensors(
    eval: &mut Eval<'_>,
    rule: &ast::Interchange,
) -> Result<Vec<Foreign>, Reported> {
    let mut found: Vec<Foreign> = Vec::new();
    for tensor in &rule.tensors {
        let here = match &tensor.when {
            Some(when) => eval.condition(when)?.unwrap_or(false),
            None => true,
        };
        let name = &tensor.parameter.node;
        let parameter = eval.params.iter().position(|param| param.name == *name);
        let Some(parameter) = parameter.filter(|_| here) else {
            continue;
        };
        let mut foreign = Foreign {
            name: tensor.name.node.clone(),
            parameter,
            form: Form::Same,
            numbers: DType::F32,
            everywhere: false,
            padded: false,
        };
        for form in &tensor.forms {
            match word(&form.node) {
                Some(Word::Axes(form)) => foreign.form = form,
                Some(Word::Numbers(numbers)) => foreign.numbers = numbers,
                Some(Word::Everywhere) => foreign.everywhere = true,
                Some(Word::Padded) => foreign.padded = true,
                // Reported with the rule.
                None => {}
            }
        }
        // Those that share it are told apart by their key.
        if let Some(key) = &eval.params[parameter].key {
            foreign.name = foreign.name.replace(KEY, key);
        }
        let is_same = |other: &Foreign| {
            !other.name.is_empty()
                && (&other.name, other.everywhere) == (&foreign.name, foreign.everywhere)
        };
        if found.iter().any(is_same) {
            let diagnostic = errors::interchange_twice(tensor.name.span, &tensor.name.node);
            return Err(eval.fail(diagnostic));
        }
        found.push(foreign);
    }
    Ok(found)
}
