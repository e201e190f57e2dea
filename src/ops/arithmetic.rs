//! Arithmetic on known elements: the folds of the elementwise operators.

use super::cx::InferCx;
use super::known::{Element, Known};
use crate::ty::{DType, Dim, Proof};
use std::borrow::Cow;

/// Folds `y = f(x)`.
pub(super) fn unary(cx: &mut InferCx<'_>, f: impl Fn(&Element) -> Element) -> Option<()> {
    let x = cx.known(0)?;
    cx.set_elements(0, x.elements.iter().map(f).collect())
}

/// Folds a function of floats; integers with symbols stay, if `f` leaves integers alone.
pub(super) fn float(cx: &mut InferCx<'_>, f: fn(f64) -> f64) -> Option<()> {
    // 1.5 is no integer, 3 is one: a function that keeps 3 here is a rounding.
    let rounds = f(3.0) == 3.0;
    unary(cx, |x| match x.float() {
        Some(value) => Element::from_float(f(value)),
        None if rounds => x.clone(),
        None => Element::Unknown,
    })
}

/// Folds `y = f(a, b)` with broadcasting.
pub(super) fn binary(
    cx: &mut InferCx<'_>,
    f: impl Fn(&Element, &Element) -> Element,
) -> Option<()> {
    let (a, b) = (cx.known(0)?, cx.known(1)?);
    let dims = cx.small_dims(0)?;
    cx.set_elements(0, combine(&a, &b, &dims, &f))
}

/// Folds an operator that combines all its operands, two at a time.
pub(super) fn variadic(
    cx: &mut InferCx<'_>,
    f: impl Fn(&Element, &Element) -> Element,
) -> Option<()> {
    let dims = cx.small_dims(0)?;
    let mut total: Option<Cow<'_, Known>> = None;
    for operand in 0..cx.operand_count() {
        let next = cx.known(operand)?;
        total = Some(match total {
            None => next,
            Some(sum) => Cow::Owned(Known {
                dtype: sum.dtype,
                dims: dims.clone(),
                elements: combine(&sum, &next, &dims, &f),
            }),
        });
    }
    let elements = stretched(&*total?, &dims);
    cx.set_elements(0, elements)
}

fn combine(
    a: &Known,
    b: &Known,
    dims: &[i64],
    f: &impl Fn(&Element, &Element) -> Element,
) -> Vec<Element> {
    stretched(a, dims)
        .iter()
        .zip(&stretched(b, dims))
        .map(|(a, b)| f(a, b))
        .collect()
}

/// The elements of a tensor broadcast to larger dimensions.
pub(super) fn stretched(known: &Known, dims: &[i64]) -> Vec<Element> {
    if known.dims == dims {
        return known.elements.clone();
    }
    let count: i64 = dims.iter().product();
    (0..count)
        .map(|flat| {
            let (mut rest, mut offset, mut stride) = (flat, 0, 1);
            for (from_end, size) in dims.iter().rev().enumerate() {
                let at = rest % size;
                rest /= size;
                let Some(axis) = known.dims.len().checked_sub(from_end + 1) else {
                    break;
                };
                if known.dims[axis] != 1 {
                    offset += at * stride;
                }
                stride *= known.dims[axis];
            }
            known
                .elements
                .get(offset as usize)
                .cloned()
                .unwrap_or(Element::Unknown)
        })
        .collect()
}

pub(super) fn add(a: &Element, b: &Element) -> Element {
    exact(a, b, |a, b| a + b, |a, b| a + b)
}

pub(super) fn subtract(a: &Element, b: &Element) -> Element {
    exact(a, b, |a, b| a - b, |a, b| a - b)
}

pub(super) fn multiply(a: &Element, b: &Element) -> Element {
    exact(a, b, |a, b| a * b, |a, b| a * b)
}

/// `a^b` for numbers.
pub(super) fn power(a: &Element, b: &Element) -> Element {
    match (a.float(), b.float()) {
        (Some(a), Some(b)) => Element::from_float(a.powf(b)),
        _ => Element::Unknown,
    }
}

pub(super) fn larger(a: &Element, b: &Element) -> Element {
    exact(a, b, |a, b| a.larger(&b), f64::max)
}

pub(super) fn smaller(a: &Element, b: &Element) -> Element {
    exact(a, b, |a, b| a.smaller(&b), f64::min)
}

/// Integers by `dims`, anything else by `floats`.
fn exact(
    a: &Element,
    b: &Element,
    dims: fn(Dim, Dim) -> Dim,
    floats: fn(f64, f64) -> f64,
) -> Element {
    match (a, b) {
        (Element::Int(a), Element::Int(b)) => Element::bounded(dims(a.clone(), b.clone())),
        _ => match (a.float(), b.float()) {
            (Some(a), Some(b)) => Element::from_float(floats(a, b)),
            _ => Element::Unknown,
        },
    }
}

/// Folds `Div`: integers are divided towards zero.
pub(super) fn divide(cx: &mut InferCx<'_>) -> Option<()> {
    match cx.dtype(0)?.is_int() {
        true => binary(cx, integer_quotient),
        false => binary(cx, |a, b| match (a.float(), b.float()) {
            (Some(a), Some(b)) => Element::from_float(a / b),
            _ => match (a.int(), b.int()) {
                // Only a quotient without a remainder is an integer.
                (Some(a), Some(b)) => {
                    let quotient = a.floor_div(b);
                    if (quotient.clone() * b.clone()).compare(a) == Proof::Equal {
                        Element::bounded(quotient)
                    } else {
                        Element::Unknown
                    }
                }
                _ => Element::Unknown,
            },
        }),
    }
}

fn integer_quotient(a: &Element, b: &Element) -> Element {
    let (Some(a), Some(b)) = (a.int(), b.int()) else {
        return Element::Unknown;
    };
    match (a.known(), b.known()) {
        (_, Some(0)) => Element::Unknown,
        (Some(a), Some(b)) => a
            .checked_div(b)
            .map_or(Element::Unknown, |q| Element::Int(Dim::from(q))),
        // Towards zero is downwards where nothing is negative.
        _ if is_natural(a) && is_natural(b) => Element::bounded(a.floor_div(b)),
        _ => Element::Unknown,
    }
}

fn is_natural(dim: &Dim) -> bool {
    dim.lower_bound().is_some_and(|bound| bound >= 0)
}

/// Folds `Mod`, whose sign is the divisor's unless `fmod` says otherwise.
pub(super) fn modulo(cx: &mut InferCx<'_>) -> Option<()> {
    if cx.flag("fmod") || !cx.dtype(0).is_some_and(DType::is_int) {
        return None;
    }
    binary(cx, |a, b| match (a.int(), b.int()) {
        (Some(a), Some(b)) if b.known() != Some(0) => {
            Element::bounded(a.clone() - a.floor_div(b) * b.clone())
        }
        _ => Element::Unknown,
    })
}

pub(super) fn absolute(x: &Element) -> Element {
    match x {
        Element::Int(dim) if is_natural(dim) => x.clone(),
        _ => x
            .float()
            .map_or(Element::Unknown, |value| Element::from_float(value.abs())),
    }
}

pub(super) fn negate(x: &Element) -> Element {
    match x {
        Element::Int(dim) => Element::Int(-dim.clone()),
        Element::Float(value) => Element::Float(-value),
        Element::Unknown => Element::Unknown,
    }
}

fn truth(value: bool) -> Element {
    Element::Int(Dim::from(i64::from(value)))
}

pub(super) fn equal(a: &Element, b: &Element) -> Element {
    if let (Some(a), Some(b)) = (a.float(), b.float()) {
        return truth(a == b);
    }
    match (a.int(), b.int()) {
        (Some(a), Some(b)) => match a.compare(b) {
            Proof::Equal => truth(true),
            Proof::Different => truth(false),
            Proof::Unknown => Element::Unknown,
        },
        _ => Element::Unknown,
    }
}

pub(super) fn less(a: &Element, b: &Element) -> Element {
    if let (Some(a), Some(b)) = (a.float(), b.float()) {
        return truth(a < b);
    }
    let (Some(a), Some(b)) = (a.int(), b.int()) else {
        return Element::Unknown;
    };
    let at_least = |bound: i64, dim: Dim| dim.lower_bound().is_some_and(|found| found >= bound);
    if at_least(1, b.clone() - a.clone()) {
        truth(true)
    } else if at_least(0, a.clone() - b.clone()) {
        truth(false)
    } else {
        Element::Unknown
    }
}

pub(super) fn not(x: &Element) -> Element {
    x.number()
        .map_or(Element::Unknown, |value| truth(value == 0))
}

pub(super) fn and(a: &Element, b: &Element) -> Element {
    match (a.number(), b.number()) {
        (Some(0), _) | (_, Some(0)) => truth(false),
        (Some(_), Some(_)) => truth(true),
        _ => Element::Unknown,
    }
}

pub(super) fn or(a: &Element, b: &Element) -> Element {
    not(&and(&not(a), &not(b)))
}
