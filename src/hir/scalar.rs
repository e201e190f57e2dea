//! Values while a method is evaluated: numbers known when compiling, and terms.

use super::formula::TermId;
use super::program::HyperValue;
use crate::ty::Dim;

/// What an expression stands for. `None` in a float or a boolean means that it depends on a size
/// that is not known yet: a method is also evaluated without any model.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Int(Dim),
    Float(Option<f64>),
    Bool(Option<bool>),
    String(String),
    Term(TermId),
    List(Vec<Value>),
    /// A named axis: `tokens` or `features`.
    Axis(NamedAxis),
}

impl From<&HyperValue> for Value {
    fn from(value: &HyperValue) -> Value {
        match value {
            HyperValue::Int(value) => Value::Int(Dim::from(*value)),
            HyperValue::Float(value) => Value::Float(Some(*value)),
            HyperValue::Bool(value) => Value::Bool(Some(*value)),
            HyperValue::String(value) => Value::String(value.clone()),
            HyperValue::Ints(values) => {
                Value::List(values.iter().map(|v| Value::Int(Dim::from(*v))).collect())
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedAxis {
    Batch,
    Tokens,
    Features,
}

impl Value {
    /// The kind in the user's words, with an article.
    pub fn describe(&self) -> &'static str {
        match self {
            Value::Int(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Bool(_) => "a truth value",
            Value::String(_) => "a string",
            Value::Term(_) => "a tensor",
            Value::List(_) => "a list",
            Value::Axis(_) => "an axis",
        }
    }

    /// Whether it is a tensor, or a list with one in it.
    pub fn holds_tensor(&self) -> bool {
        match self {
            Value::Term(_) => true,
            Value::List(items) => items.iter().any(Value::holds_tensor),
            _ => false,
        }
    }

    /// The number, if it is one; the inner `None` is a number that is not known yet.
    pub fn number(&self) -> Option<Option<f64>> {
        match self {
            Value::Int(dim) => Some(dim.known().map(|value| value as f64)),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }
}
