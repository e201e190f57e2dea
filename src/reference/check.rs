//! How tests of evaluations read: operands in short form, results as numbers.

use super::{Array, Call, Fault, Rounding, evaluate};
use crate::graph::Attribute;
use crate::ty::DType;

/// A float tensor.
pub(super) fn floats(dims: &[usize], data: &[f64]) -> Array {
    Array::floats(DType::F32, dims, data.to_vec()).unwrap()
}

/// An i64 tensor.
pub(super) fn ints(dims: &[usize], data: &[i64]) -> Array {
    Array::vector(data).reshaped(dims).unwrap()
}

/// The results of one node; `domain:name` for domains other than ONNX's.
pub(super) fn eval(
    name: &str,
    opset: i64,
    operands: &[Option<&Array>],
    attributes: &[Attribute],
    results: usize,
) -> Result<Vec<Array>, Fault> {
    let (domain, op_type) = name.split_once(':').unwrap_or(("", name));
    evaluate(&Call {
        domain,
        op_type,
        opset,
        attributes,
        operands,
        results,
        rounding: Rounding::None,
    })
}

/// The first result.
#[track_caller]
pub(super) fn first(
    name: &str,
    opset: i64,
    operands: &[&Array],
    attributes: &[Attribute],
) -> Array {
    let operands: Vec<Option<&Array>> = operands.iter().map(|array| Some(*array)).collect();
    eval(name, opset, &operands, attributes, 1)
        .unwrap()
        .remove(0)
}

/// The words of the fault that a node ends with.
#[track_caller]
pub(super) fn fault(
    name: &str,
    opset: i64,
    operands: &[&Array],
    attributes: &[Attribute],
) -> String {
    let operands: Vec<Option<&Array>> = operands.iter().map(|array| Some(*array)).collect();
    eval(name, opset, &operands, attributes, 1)
        .unwrap_err()
        .to_string()
}
