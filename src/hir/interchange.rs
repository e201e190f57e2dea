//! What a method is in another tool: how the rule `interchange` is understood.

use super::errors;
use super::eval::Eval;
use super::program::{HyperKind, HyperSpec, HyperValue};
use crate::diag::{Reported, Sink, Span, Spanned};
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, MethodItem, UnaryOp};
use std::collections::BTreeSet;

/// The tools that there are: Hugging Face PEFT.
pub const TOOLS: &[&str] = &["peft"];

/// How the tool has a tensor in its file, by name.
const FORMS: &[(&str, Form)] = &[
    ("transposed", Form::Transposed),
    ("kernel", Form::Kernel),
    ("point", Form::Point),
    ("row", Form::Row),
    ("column", Form::Column),
];

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
    /// The setting that holds, by module, the values of those that differ.
    pub exceptions: Option<String>,
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
    /// The modules for which this hyper-parameter is true.
    Modules(String),
    /// The ranges of the adapter's `layers`.
    Sequence,
}

/// A parameter in the tool's file.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// Behind the path of the module.
    pub name: String,
    /// By its place in the instance.
    pub parameter: usize,
    pub form: Form,
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
    /// A vector as `[1, n]`, at a convolution with ones behind it.
    Row,
    /// A vector as `[n, 1]`, at a convolution as `[1, n, 1, …]`.
    Column,
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
        if let Some(first) = before.find(|first| first.key.node == key.node) {
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
        if !parameters.contains(name.node.as_str()) {
            let known = parameters.iter().copied();
            result = Err(sink.emit(errors::interchange_word(name, "a parameter", known)));
        }
        if let Some(form) = &tensor.form
            && form_of(&form.node).is_none()
        {
            result = Err(sink.emit(errors::interchange_word(form, "a form", forms())));
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

fn form_of(name: &str) -> Option<Form> {
    let known = FORMS.iter().find(|(known, _)| *known == name);
    known.map(|(_, form)| *form)
}

fn setting(
    written: &ast::InterchangeSetting,
    hypers: &[HyperSpec],
    sink: &mut Sink,
) -> Result<Setting, Reported> {
    let value = &written.value;
    let found = match (&value.kind, &written.when) {
        (ExprKind::Name(name), Some(when)) if name == "modules" => {
            let flag = match &when.kind {
                ExprKind::Name(flag) => hypers.iter().find(|hyper| hyper.name.node == *flag),
                _ => None,
            };
            flag.filter(|hyper| hyper.kind == HyperKind::Bool)
                .map(|hyper| SettingValue::Modules(hyper.name.node.clone()))
                .ok_or_else(|| errors::interchange_flag(when.span))
        }
        (_, Some(when)) => Err(errors::interchange_flag(when.span)),
        (ExprKind::Name(name), None) => {
            if hypers.iter().any(|hyper| hyper.name.node == *name) {
                Ok(SettingValue::Hyper(name.clone()))
            } else if name == "any" {
                Ok(SettingValue::Any)
            } else if name == "sequence" {
                Ok(SettingValue::Sequence)
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
        exceptions,
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
        if found.iter().any(|other| other.name == tensor.name.node) {
            let diagnostic = errors::interchange_twice(tensor.name.span, &tensor.name.node);
            return Err(eval.fail(diagnostic));
        }
        found.push(Foreign {
            name: tensor.name.node.clone(),
            parameter,
            form: tensor
                .form
                .as_ref()
                .and_then(|form| form_of(&form.node))
                .unwrap_or(Form::Same),
        });
    }
    Ok(found)
}
