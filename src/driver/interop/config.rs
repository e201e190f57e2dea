//! Values and module lists of a configuration.

use crate::hir::{HyperKind, HyperValue};
use crate::modules::Modules;
use regex::Regex;
use serde_json::Value;

/// A hyper-parameter as JSON.
pub(super) fn json(value: &HyperValue) -> Value {
    match value {
        HyperValue::Int(value) => Value::from(*value),
        HyperValue::Float(value) => Value::from(*value),
        HyperValue::Bool(value) => Value::from(*value),
        HyperValue::String(value) => Value::from(value.as_str()),
        HyperValue::Ints(values) => Value::from(values.as_slice()),
    }
}

/// JSON as a hyper-parameter of that kind.
pub(super) fn hyper(kind: &HyperKind, value: &Value) -> Option<HyperValue> {
    Some(match (kind, value) {
        (HyperKind::Int, Value::Number(number)) => HyperValue::Int(whole(number)?),
        (HyperKind::Float, Value::Number(number)) => HyperValue::Float(number.as_f64()?),
        (HyperKind::Bool, Value::Bool(value)) => HyperValue::Bool(*value),
        (HyperKind::String, Value::String(text)) => HyperValue::String(text.clone()),
        (HyperKind::Choice(options), Value::String(text)) if options.contains(text) => {
            HyperValue::String(text.clone())
        }
        (HyperKind::Ints, Value::Array(values)) => {
            let whole = |value: &Value| whole(value.as_number()?);
            HyperValue::Ints(values.iter().map(whole).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// `8`, and `8.0`, which is the same number.
fn whole(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i64)
    })
}

/// Whether JSON is the hyper-parameter's value.
pub(super) fn is(value: &Value, wanted: &HyperValue) -> bool {
    match (value, wanted) {
        (Value::Number(number), HyperValue::Int(wanted)) => whole(number) == Some(*wanted),
        (Value::Number(number), HyperValue::Float(wanted)) => number.as_f64() == Some(*wanted),
        (Value::Bool(value), HyperValue::Bool(wanted)) => value == wanted,
        (Value::String(text), HyperValue::String(wanted)) => text == wanted,
        _ => false,
    }
}

/// Whether a setting says nothing.
pub(super) fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(values) => values.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// These modules and no others, in PEFT's words: their paths, each of which stands for every path
/// that ends with it, or an expression where a path is the end of another module's.
pub(super) fn exact<'a>(paths: impl Iterator<Item = &'a str>, modules: &Modules) -> Value {
    let paths: Vec<&str> = paths.collect();
    let is_end = |path: &&str| {
        let longer = format!(".{path}");
        let mut others = modules
            .sites
            .iter()
            .filter(|site| site.path.ends_with(&longer));
        others.any(|other| !paths.contains(&other.path.as_str()))
    };
    match paths.iter().any(is_end) {
        false => paths.into_iter().collect(),
        true => {
            let parts: Vec<String> = paths.iter().map(|path| regex::escape(path)).collect();
            Value::String(format!("(?:{})", parts.join("|")))
        }
    }
}

/// The numbers of layers as PEFT has them: `[[0, 2], [1, 2]]`.
pub(super) fn ranges(sequence: &[usize]) -> Value {
    let runs = sequence.chunk_by(|a, b| a + 1 == *b);
    runs.map(|run| vec![run[0], run[run.len() - 1] + 1])
        .collect()
}

/// The same the other way, as a spec writes it; `None` if it is no list of pairs of numbers.
pub(super) fn written_ranges(value: &Value) -> Option<Vec<String>> {
    let pair = |value: &Value| match value.as_array()?.as_slice() {
        [start, end] => Some(format!("{}..{}", start.as_u64()?, end.as_u64()?)),
        _ => None,
    };
    value.as_array()?.iter().map(pair).collect()
}

/// Whether a list of modules has that path: the whole of it for an expression, its end for a name.
pub(super) fn lists(list: &Value, path: &str) -> bool {
    match list {
        Value::String(expression) => matches(&format!("^(?:{expression})$"), path),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(|name| {
            let end = path.strip_suffix(name);
            end.is_some_and(|front| front.is_empty() || front.ends_with('.'))
        }),
        _ => false,
    }
}

/// Whether a list of parts of names has one of the path's last word.
pub(super) fn names(list: &Value, path: &str) -> bool {
    let word = path.rsplit('.').next().unwrap_or(path);
    let mut parts = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    parts.any(|part| word.contains(part))
}

/// The value of an exception for that path: keys are expressions of the end of a path, and the
/// first one that fits is taken.
pub(super) fn exception<'v>(exceptions: &'v Value, path: &str) -> Option<&'v Value> {
    let found = exceptions.as_object()?.iter().find(|(key, _)| {
        let key = key.strip_prefix('^').unwrap_or(key);
        matches(&format!(r"^(?:.*\.)?(?:{key})$"), path)
    });
    found.map(|(_, value)| value)
}

/// The first key that is no expression here: Python's have more than those that are known.
pub(super) fn unreadable_expression(exceptions: &Value) -> Option<&str> {
    let mut keys = exceptions.as_object()?.keys().map(String::as_str);
    keys.find(|key| Regex::new(key).is_err())
}

fn matches(expression: &str, path: &str) -> bool {
    Regex::new(expression).is_ok_and(|expression| expression.is_match(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn modules_are_listed_by_their_ends_or_by_an_expression() {
        let path = "model.layers.0.self_attn.q_proj";
        assert!(lists(&json!(["v_proj", "q_proj"]), path));
        assert!(lists(&json!([path]), path));
        assert!(!lists(&json!(["proj"]), path));
        assert!(lists(&json!(r"model\.layers\.\d+\..*q_proj"), path));
        assert!(!lists(&json!("q_proj"), path));
        assert!(!lists(&json!("("), path));
        assert!(!lists(&Value::Null, path));
    }

    #[test]
    fn the_first_exception_that_fits_is_taken() {
        let of = |path: &str| {
            let exceptions = json!({"layers.1.q": 4, "q": 6, "^model.v": 2});
            exception(&exceptions, path).and_then(Value::as_i64)
        };
        assert_eq!(of("model.layers.1.q"), Some(4));
        assert_eq!(of("model.layers.0.q"), Some(6));
        assert_eq!(of("model.v"), Some(2));
        assert_eq!(of("model.k"), None);
    }

    #[test]
    fn numbers_are_read_as_python_writes_them() {
        assert_eq!(
            hyper(&HyperKind::Int, &json!(8.0)),
            Some(HyperValue::Int(8))
        );
        assert_eq!(hyper(&HyperKind::Int, &json!(8.5)), None);
        assert_eq!(
            hyper(&HyperKind::Float, &json!(8)),
            Some(HyperValue::Float(8.0))
        );
        assert!(is(&json!(8), &HyperValue::Int(8)));
        assert!(!is(&json!(true), &HyperValue::String("true".to_owned())));
        assert!(is_neutral(&json!({})) && is_neutral(&json!("none")) && !is_neutral(&json!(1)));
    }
}
