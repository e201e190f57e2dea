//! Value infos: names, types, dimensions.

use crate::onnx::proto::type_proto::Value as TypeValue;
use crate::onnx::proto::{Dimension, DimensionValue, TypeProto};
use crate::ty::{DType, Dim, Shape, TensorType};

/// The tensor type of a value; `None` for values that are no tensors and for unstated types.
pub(super) fn tensor_type(value: &str, ty: &TypeProto) -> Option<TensorType> {
    let Some(TypeValue::TensorType(tensor)) = &ty.value else {
        return None;
    };
    let dtype = DType::from_number(tensor.elem_type.unwrap_or_default())?;
    let shape = tensor.shape.as_ref().map(|shape| {
        Shape(
            shape
                .dim
                .iter()
                .enumerate()
                .map(|(axis, dim)| dimension(value, axis, dim))
                .collect(),
        )
    });
    Some(TensorType { dtype, shape })
}

/// A dimension that the model leaves open becomes a symbol of its own, marked so that it is not
/// mistaken for one that the model names, and so that it is written as open again.
fn dimension(value: &str, axis: usize, dim: &Dimension) -> Dim {
    match &dim.value {
        // Some exporters write -1 for an unknown size.
        Some(DimensionValue::DimValue(size)) if *size >= 0 => Dim::from(*size),
        Some(DimensionValue::DimParam(name)) if !name.is_empty() => {
            expression(name).unwrap_or_else(|| Dim::symbol(name))
        }
        _ => Dim::open(value, axis),
    }
}

/// Reads what exporters write for computed sizes, such as `past_sequence_length + 1` or `2*s0`:
/// sums and products of names and numbers. Anything else is one opaque name, hyphens included:
/// a minus sign stands between spaces.
fn expression(text: &str) -> Option<Dim> {
    if is_name(text) {
        return Some(Dim::symbol(text));
    }
    let mut sum = Dim::from(0);
    for (index, part) in text.split('+').enumerate() {
        let mut terms = part.split(" - ");
        let first = terms.next()?;
        sum = match (index, first.trim()) {
            (0, "") => return None,
            _ => sum + product(first)?,
        };
        for term in terms {
            sum = sum - product(term)?;
        }
    }
    Some(sum)
}

fn product(text: &str) -> Option<Dim> {
    text.split('*').try_fold(Dim::from(1), |product, factor| {
        let factor = factor.trim();
        let factor = match factor.parse::<u32>() {
            Ok(number) => Dim::from(i64::from(number)),
            Err(_) if is_name(factor) => Dim::symbol(factor),
            Err(_) => return None,
        };
        Some(product * factor)
    })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Dim {
        let value = Some(DimensionValue::DimParam(text.to_owned()));
        dimension(
            "x",
            0,
            &Dimension {
                value,
                denotation: None,
            },
        )
    }

    #[test]
    fn sums_of_names_are_expressions() {
        assert_eq!(
            named("past_sequence_length + 1"),
            Dim::symbol("past_sequence_length") + Dim::from(1)
        );
        assert_eq!(named("2*s0"), Dim::symbol("s0") * Dim::from(2));
        assert_eq!(
            named("a + b - 1"),
            Dim::symbol("a") + Dim::symbol("b") - Dim::from(1)
        );
    }

    #[test]
    fn other_texts_are_one_name() {
        for text in [
            "batch-size",
            "Concat/out.0_dim_1",
            "a + ",
            "floor(a/2)",
            "+",
            "a b",
            "a ** 2",
        ] {
            assert_eq!(named(text), Dim::symbol(text), "{text}");
        }
    }

    #[test]
    fn open_dimensions_are_different_symbols() {
        let open = Dimension::default();
        assert_ne!(dimension("x", 0, &open), dimension("x", 1, &open));
        assert_ne!(dimension("x", 0, &open), dimension("y", 0, &open));
    }
}
