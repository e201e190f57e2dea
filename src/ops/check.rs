//! How the tests of this room ask about one node.
//!
//! Operands and results are written as text: `f32[B, S, 64]`, `f32[?]` for an unknown rank, `_`
//! for an absent operand, `i64[2] = [B, -1]` for one with known elements, where `?` is an unknown
//! one. Fresh sizes are named `y.<axis>`, those of further results `y.<result>.<axis>`.

use super::cx::{InferCx, OperandFacts};
use super::known::{Element, Known};
use super::registry::{Infer, MICROSOFT, find};
use crate::graph::Attribute;
use crate::ty::{DType, Dim, Shape, TensorType};

/// Checks the types of the results; `_` expects that nothing is known.
#[track_caller]
pub(super) fn check_infer(
    op: &str,
    opset: i64,
    operands: &[&str],
    attributes: &[Attribute],
    expected: &[&str],
) {
    let results = run(op, opset, operands, attributes, expected.len(), false)
        .unwrap_or_else(|mismatch| panic!("{op} does not fit: {mismatch}"));
    let found: Vec<String> = results
        .0
        .iter()
        .map(|ty| ty.as_ref().map_or("_".to_owned(), ToString::to_string))
        .collect();
    assert_eq!(found, expected, "{op} of {operands:?}");
}

/// Checks the elements of the first result.
#[track_caller]
pub(super) fn check_values(
    op: &str,
    opset: i64,
    operands: &[&str],
    attributes: &[Attribute],
    expected: &str,
) {
    let (_, values) = run(op, opset, operands, attributes, 1, true).expect("the operands fit");
    let found = match values.first() {
        Some(Some(known)) => print(known),
        _ => "_".to_owned(),
    };
    assert_eq!(found, expected, "{op} of {operands:?}");
}

/// Checks that the operands are refused, with a message that contains the text.
#[track_caller]
pub(super) fn check_mismatch(
    op: &str,
    opset: i64,
    operands: &[&str],
    attributes: &[Attribute],
    message: &str,
) {
    match run(op, opset, operands, attributes, 1, false) {
        Ok((types, _)) => panic!("{op} of {operands:?} is accepted: {types:?}"),
        Err(found) => assert!(found.contains(message), "{found:?} says {message:?}"),
    }
}

type Results = (Vec<Option<TensorType>>, Vec<Option<Known>>);

#[track_caller]
fn run(
    op: &str,
    opset: i64,
    operands: &[&str],
    attributes: &[Attribute],
    results: usize,
    fold: bool,
) -> Result<Results, String> {
    let (domain, op, opset) = match op.strip_prefix("com.microsoft:") {
        Some(op) => (MICROSOFT, op, 1),
        None => ("", op, opset),
    };
    let entry = find(domain, op, opset).unwrap_or_else(|| panic!("{op} is in the registry"));
    assert!(
        entry.operands.allows(operands.len()),
        "{op} takes {:?}",
        entry.operands
    );
    assert!(
        entry.results.allows(results),
        "{op} gives {:?}",
        entry.results
    );
    let parsed: Vec<Option<(TensorType, Option<Known>)>> =
        operands.iter().map(|text| parse_operand(text)).collect();
    let facts: Vec<Option<OperandFacts<'_>>> = parsed
        .iter()
        .map(|operand| {
            operand.as_ref().map(|(ty, known)| OperandFacts {
                ty: Some(ty),
                constant: None,
                known: known.as_ref(),
            })
        })
        .collect();
    let mut fresh = |result: usize, axis: usize| match result {
        0 => Dim::symbol(&format!("y.{axis}")),
        _ => Dim::symbol(&format!("y.{result}.{axis}")),
    };
    let mut cx = InferCx::new(opset, attributes, &facts, results, &mut fresh);
    let Infer::Rule(infer) = entry.infer else {
        panic!("{op} has a rule");
    };
    infer(&mut cx).map_err(|mismatch| mismatch.0)?;
    if fold {
        let _ = entry.fold.unwrap_or_else(|| panic!("{op} folds"))(&mut cx);
    }
    Ok(cx.finish())
}

fn parse_operand(text: &str) -> Option<(TensorType, Option<Known>)> {
    if text == "_" {
        return None;
    }
    let (ty, elements) = match text.split_once(" = ") {
        Some((ty, elements)) => (ty, Some(elements)),
        None => (text, None),
    };
    let ty = parse_type(ty);
    let known = elements.map(|elements| Known {
        dtype: ty.dtype,
        dims: ty
            .shape
            .as_ref()
            .and_then(Shape::known)
            .expect("known elements have known sizes"),
        elements: list(elements).iter().map(|e| parse_element(e)).collect(),
    });
    Some((ty, known))
}

fn parse_type(text: &str) -> TensorType {
    let (dtype, dims) = text.split_once('[').expect("a type is written f32[N]");
    let dtype = *DType::ALL
        .iter()
        .find(|known| known.name() == dtype)
        .expect("an element type");
    let dims = dims.strip_suffix(']').expect("a type ends in ]");
    if dims == "?" {
        return TensorType::unranked(dtype);
    }
    TensorType::new(
        dtype,
        Shape(list(dims).iter().map(|d| parse_dim(d)).collect()),
    )
}

fn list(text: &str) -> Vec<&str> {
    let text = text.trim_start_matches('[').trim_end_matches(']');
    if text.is_empty() {
        return Vec::new();
    }
    text.split(", ").collect()
}

fn parse_dim(text: &str) -> Dim {
    match text.split_once(" + ") {
        Some((a, b)) => parse_dim(a) + parse_dim(b),
        None => text
            .parse()
            .map_or_else(|_| Dim::symbol(text), |value: i64| Dim::from(value)),
    }
}

fn parse_element(text: &str) -> Element {
    match text {
        "?" => Element::Unknown,
        _ if text.contains('.') => text.parse().map_or(Element::Unknown, Element::from_float),
        _ => Element::Int(parse_dim(text)),
    }
}

fn print(known: &Known) -> String {
    let elements: Vec<String> = known
        .elements
        .iter()
        .map(|element| match element {
            Element::Unknown => "?".to_owned(),
            Element::Int(dim) => dim.to_string(),
            Element::Float(value) => value.to_string(),
        })
        .collect();
    if known.dims.is_empty() {
        elements[0].clone()
    } else {
        format!("[{}]", elements.join(", "))
    }
}
