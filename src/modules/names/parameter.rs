//! Module paths in the names of weights and biases.

use super::exporter::{string_list, tidy};
use crate::graph::Value;

const FOLDED_FROM: &str = "pkg.onnxscript.optimizer.folded_from";

/// The torch parameter that a value holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// `<path>.weight` or `<path>.bias`: the parameter of a module of its own.
    OfModule(String),
    /// Another parameter, by its whole name, such as `attn.in_proj_weight`.
    Other(String),
}

/// The parameter in `folded_from` metadata, if the value was folded from exactly one.
pub(super) fn folded(value: &Value) -> Option<Parameter> {
    let sources = string_list(value.metadata(FOLDED_FROM)?)?;
    // Intermediate values have no dot.
    let mut parameters = sources.iter().filter(|name| name.contains('.'));
    let only = parameters.next()?;
    parameters.next().is_none().then(|| parameter(only))
}

/// The parameter that an initializer's name says, tools' suffixes removed.
pub(super) fn named(value: &Value) -> Option<Parameter> {
    if value.name.starts_with('/') || value.name.starts_with("onnx::") {
        return None;
    }
    let name = strip_numbered(&value.name, "_merged_");
    let name = strip_tools(name);
    let anonymous = !name.contains('.') || name.contains("/Constant");
    (!anonymous).then(|| parameter(name))
}

fn parameter(name: &str) -> Parameter {
    const OPERATORS: &[&str] = &["MatMul", "Gather", "Gemm", "Conv", "Add"];
    let module = name
        .strip_suffix(".weight")
        .or_else(|| name.strip_suffix(".bias"))
        .or_else(|| name.strip_suffix(".qweight"));
    let Some(module) = module else {
        return Parameter::Other(name.to_owned());
    };
    let module = match module.rsplit_once('.') {
        Some((path, operator)) if OPERATORS.contains(&operator) => path,
        _ => module,
    };
    Parameter::OfModule(tidy(module))
}

/// Without the suffixes that quantizers add, such as `_Q4`, `_DQ_Q4`, `_Q4G32` or `_quantized`,
/// and `_transposed`.
fn strip_tools(name: &str) -> &str {
    const SUFFIXES: &[&str] = &[
        "_quantized",
        "_scales",
        "_zero_points",
        "_scale",
        "_zero_point",
        "_transposed",
        "_t",
    ];
    let name = SUFFIXES
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    if let Some(name) = name.strip_suffix("_DQ") {
        return name;
    }
    let Some(at) = name.rfind("_Q") else {
        return name;
    };
    // A dequantized weight is called after its codes.
    let code = &name[at + 2..];
    let code = code.strip_suffix("_output").unwrap_or(code);
    let is_code = code.starts_with(|c: char| c.is_ascii_digit())
        && code.chars().all(|c| c.is_ascii_digit() || c == 'G');
    if !is_code {
        return name;
    }
    let name = &name[..at];
    name.strip_suffix("_DQ").unwrap_or(name)
}

/// Without `marker` and digits at the end.
fn strip_numbered<'a>(name: &'a str, marker: &str) -> &'a str {
    match name.rfind(marker) {
        Some(at)
            if name[at + marker.len()..]
                .chars()
                .all(|c| c.is_ascii_digit()) =>
        {
            &name[..at]
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ty::{DType, Shape, TensorType};

    fn value(name: &str) -> Value {
        let ty = TensorType::new(DType::F32, Shape::new([1i64]));
        Value::computed(name, Some(ty))
    }

    #[test]
    fn tool_suffixes_are_removed() {
        let cases = [
            ("model.layers.0.q_proj.weight", "model.layers.0.q_proj"),
            (
                "model.layers.0.q_proj.MatMul.weight_Q4",
                "model.layers.0.q_proj",
            ),
            (
                "model.layers.0.q_proj.MatMul.weight_DQ_Q4",
                "model.layers.0.q_proj",
            ),
            (
                "model.layers.0.q_proj.MatMul.weight_DQ_scales",
                "model.layers.0.q_proj",
            ),
            (
                "model.layers.0.q_proj.MatMul.weight_DQ_Q4_output",
                "model.layers.0.q_proj",
            ),
            ("encoder.fc.weight_merged_0", "encoder.fc"),
            ("encoder.fc.weight_quantized", "encoder.fc"),
            ("encoder.fc.weight_transposed", "encoder.fc"),
            ("encoder.fc.weight_Q4G32", "encoder.fc"),
            ("encoder.fc.Add.bias", "encoder.fc"),
            ("lm_head.weight", "lm_head"),
            (
                "bert.embeddings.LayerNorm.weight",
                "bert.embeddings.LayerNorm",
            ),
            ("m.q_proj.base_layer.weight", "m.q_proj"),
        ];
        for (name, path) in cases {
            assert_eq!(
                named(&value(name)),
                Some(Parameter::OfModule(path.to_owned())),
                "{name}"
            );
        }
    }

    #[test]
    fn anonymous_weights_have_no_parameter() {
        for name in [
            "val_12",
            "onnx::MatMul_716",
            "onnx::MatMul_505_merged_0",
            "/a/b.0/Constant_1_output_0",
        ] {
            assert_eq!(named(&value(name)), None, "{name}");
        }
    }

    #[test]
    fn folding_from_one_parameter_names_it() {
        let folded_value = |list: &str| {
            let mut value = value("val_1");
            value
                .metadata
                .push((FOLDED_FROM.to_owned(), list.to_owned()));
            folded(&value)
        };
        let q = Some(Parameter::OfModule("m.q".to_owned()));
        assert_eq!(folded_value("['m.q.weight']"), q);
        assert_eq!(folded_value("['m.q.weight', 'val_3']"), q);
        assert_eq!(folded_value("['m.q.weight', 'm.k.weight']"), None);
        assert_eq!(folded_value("['val_4']"), None);
        assert_eq!(
            folded_value("['mha.in_proj_weight']"),
            Some(Parameter::Other("mha.in_proj_weight".to_owned()))
        );
    }
}
