//! Operators that make tensors.

use super::array::{Array, Kind, each, kind};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::sizes::{self, count};
use super::table::{Entry, one};
use crate::graph::AttributeValue;
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("Constant", 1, constant),
    one("ConstantOfShape", 9, constant_of_shape),
    one("Range", 11, range),
    one("EyeLike", 9, eye_like),
    one("RandomNormal", 1, random),
    one("RandomUniform", 1, random),
    one("RandomNormalLike", 1, random),
    one("RandomUniformLike", 1, random),
    one("Bernoulli", 15, random),
    one("Multinomial", 7, random),
];

/// Nobody could say what is right.
fn random(_: &Cx<'_>) -> Result<Array, Fault> {
    unsupported!("random numbers")
}

/// The value that one of the attributes states.
fn constant(cx: &Cx<'_>) -> Result<Array, Fault> {
    if let Some(value) = cx.tensor("value")? {
        return Ok(value);
    }
    let names = ["value_int", "value_ints", "value_float", "value_floats"];
    match names.iter().find_map(|name| cx.attribute(name)) {
        Some(AttributeValue::Int(value)) => Array::vector(&[*value]).reshaped(&[]),
        Some(AttributeValue::Ints(values)) => Ok(Array::vector(values)),
        Some(AttributeValue::Float(value)) => Array::scalar(DType::F32, f64::from(*value)),
        Some(AttributeValue::Floats(values)) => {
            let data = values.iter().map(|value| f64::from(*value)).collect();
            Array::floats(DType::F32, &[values.len()], data)
        }
        _ => unsupported!("a constant of this kind"),
    }
}

/// `y = value` everywhere, in the shape that the operand holds.
fn constant_of_shape(cx: &Cx<'_>) -> Result<Array, Fault> {
    let dims = sizes::sizes(&cx.numbers(0)?)?;
    let value = match cx.tensor("value")? {
        Some(value) => value,
        None => Array::scalar(DType::F32, 0.0)?,
    };
    if value.len() != 1 {
        return mismatch!("{} values to fill with, 1 is needed", value.len());
    }
    let total = count(&dims)?;
    let elements = each!(value, |data| vec![data[0]; total]);
    Array::new(value.dtype(), &dims, elements)
}

/// `y = [start, start + delta, …]` below `limit`: `max(0, ceil((limit - start) / delta))` elements.
fn range(cx: &Cx<'_>) -> Result<Array, Fault> {
    let dtype = cx.operand(0)?.dtype();
    match kind(dtype)? {
        Kind::Int => {
            let (start, limit, delta) = (cx.number(0)?, cx.number(1)?, cx.number(2)?);
            let [start, limit, delta] = [start, limit, delta].map(i128::from);
            if delta == 0 {
                return mismatch!("a range with steps of 0");
            }
            let span = (limit - start) * delta.signum();
            let steps = (span.max(0) + delta.abs() - 1) / delta.abs();
            let steps = count(&[usize::try_from(steps).unwrap_or(usize::MAX)])?;
            let data = (0..steps as i128)
                .map(|index| start + index * delta)
                .collect();
            Array::ints(dtype, &[steps], data)
        }
        Kind::Float => {
            let number = |slot| match cx.single(slot)? {
                Some(number) => Ok(number),
                None => mismatch!("operand {slot} is absent"),
            };
            let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
            let steps = ((limit - start) / delta).ceil().max(0.0);
            // A float beyond the integers becomes the largest of them.
            let steps = count(&[steps as usize])?;
            let data = (0..steps)
                .map(|index| start + index as f64 * delta)
                .collect();
            Array::floats(dtype, &[steps], data)
        }
    }
}

/// 1 on diagonal `k`, else 0, in the shape of the operand.
fn eye_like(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let dtype = cx.dtype("dtype")?.unwrap_or(x.dtype());
    let [_, columns] = x.dims() else {
        return mismatch!("an identity of {} axes", x.rank());
    };
    let k = i128::from(cx.int_or("k", 0));
    let is_one = |position: usize| (position % columns) as i128 - (position / columns) as i128 == k;
    match kind(dtype)? {
        Kind::Float => {
            let data = (0..x.len()).map(|at| f64::from(is_one(at))).collect();
            Array::floats(dtype, x.dims(), data)
        }
        Kind::Int => {
            let data = (0..x.len()).map(|at| i128::from(is_one(at))).collect();
            Array::ints(dtype, x.dims(), data)
        }
    }
}
