//! Operators that read or change the shape and leave the elements in order.

use super::cx::{InferCx, Mismatch, Outcome, mismatch};
use super::grad::{self, help};
use super::known::{Element, Known};
use super::registry::{Grad, OpDef, between, exactly, op};
use super::reshape::{reshape, reshape_by_attribute};
use super::{arithmetic, shapes};
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    op("Shape", 1, exactly(1), shape, Grad::Zero).folds(fold_shape),
    op("Size", 1, exactly(1), size, Grad::Zero).folds(fold_size),
    op(
        "Identity",
        1,
        exactly(1),
        identity,
        Grad::Rule(grad::shape::identity),
    )
    .folds(relabel),
    op("Cast", 1, exactly(1), cast, Grad::Rule(grad::shape::cast)).folds(fold_cast),
    op(
        "CastLike",
        15,
        exactly(2),
        cast_like,
        Grad::Rule(grad::shape::cast),
    )
    .folds(fold_cast),
    op("BitCast", 26, exactly(1), cast, Grad::Missing(help::BITS)),
    op(
        "Reshape",
        1,
        exactly(1),
        reshape_by_attribute,
        Grad::Rule(grad::shape::reshape),
    )
    .folds(relabel),
    op(
        "Reshape",
        5,
        exactly(2),
        reshape,
        Grad::Rule(grad::shape::reshape),
    )
    .folds(relabel),
    op(
        "Flatten",
        1,
        exactly(1),
        flatten,
        Grad::Rule(grad::shape::reshape),
    )
    .folds(relabel),
    op(
        "Squeeze",
        1,
        exactly(1),
        squeeze_by_attribute,
        Grad::Rule(grad::shape::reshape),
    )
    .folds(relabel),
    op(
        "Squeeze",
        13,
        between(1, 2),
        squeeze_by_operand,
        Grad::Rule(grad::shape::reshape),
    )
    .folds(relabel),
    op(
        "Unsqueeze",
        1,
        exactly(1),
        unsqueeze_by_attribute,
        Grad::Rule(grad::shape::reshape),
    )
    .folds(relabel),
    op(
        "Unsqueeze",
        13,
        exactly(2),
        unsqueeze_by_operand,
        Grad::Rule(grad::shape::reshape),
    )
    .folds(relabel),
    op(
        "Expand",
        8,
        exactly(2),
        expand,
        Grad::Rule(grad::shape::expand),
    )
    .folds(fold_expand),
];

/// `y = shape(x)[start:end]`.
fn shape(cx: &mut InferCx<'_>) -> Outcome {
    let dims = match cx.rank(0) {
        Some(rank) => {
            let (start, end) = shape_range(cx, rank);
            vec![Dim::from((end - start) as i64)]
        }
        None => cx.fresh_shape(0, 1),
    };
    cx.set(0, DType::I64, dims);
    Ok(())
}

/// `start` and `end`, clamped to the rank; negative ones count from the end.
fn shape_range(cx: &InferCx<'_>, rank: usize) -> (usize, usize) {
    let rank = rank as i64;
    let clamp = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank);
    let start = clamp(cx.int_or("start", 0));
    let end = clamp(cx.int_or("end", rank));
    (start as usize, end.max(start) as usize)
}

fn fold_shape(cx: &mut InferCx<'_>) -> Option<()> {
    let dims = cx.shape(0)?;
    let (start, end) = shape_range(cx, dims.len());
    let elements = dims[start..end].iter().cloned().map(Element::Int).collect();
    cx.set_elements(0, elements)
}

/// `y = size(x)`: a scalar.
fn size(cx: &mut InferCx<'_>) -> Outcome {
    cx.set(0, DType::I64, Vec::new());
    Ok(())
}

fn fold_size(cx: &mut InferCx<'_>) -> Option<()> {
    let size = shapes::product(cx.shape(0)?)?;
    cx.set_elements(0, vec![Element::bounded(size)])
}

/// `y = x`.
fn identity(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// Folds an operator that keeps the elements in order.
fn relabel(cx: &mut InferCx<'_>) -> Option<()> {
    let x = cx.known(0)?;
    cx.set_elements(0, x.into_owned().elements)
}

/// `y = x` as the type `to`.
fn cast(cx: &mut InferCx<'_>) -> Outcome {
    if let Some(dtype) = cx.dtype_attribute("to") {
        cx.same_shape_as(0, 0, dtype);
    }
    Ok(())
}

/// `y = x` as the type of the second operand.
fn cast_like(cx: &mut InferCx<'_>) -> Outcome {
    if let Some(dtype) = cx.dtype(1) {
        cx.same_shape_as(0, 0, dtype);
    }
    Ok(())
}

fn fold_cast(cx: &mut InferCx<'_>) -> Option<()> {
    let to = cx.result_type(0)?.dtype;
    if !(to.is_int() || to.is_float() || to == DType::Bool) {
        return None;
    }
    arithmetic::unary(cx, |x| match (to, x) {
        (DType::Bool, _) => match x.float() {
            Some(value) => Element::Int(Dim::from(i64::from(value != 0.0))),
            None => Element::Unknown,
        },
        // Towards zero; a float outside the range has no defined result.
        (_, Element::Float(value)) if to.is_int() => match value.trunc() {
            whole if whole.abs() < 9e15 => Element::from_float(whole),
            _ => Element::Unknown,
        },
        _ => x.clone(),
    })
}

/// `y = x` as a matrix: the axes before `axis` and those from it on.
fn flatten(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = match cx.shape(0) {
        Some(dims) => {
            let axis = match cx.int_or("axis", 1) {
                axis if axis == dims.len() as i64 => dims.len(),
                axis => shapes::axis(axis, dims.len())?,
            };
            let parts = [&dims[..axis], &dims[axis..]];
            let mut sizes = Vec::with_capacity(2);
            for (at, part) in parts.into_iter().enumerate() {
                sizes.push(shapes::product(part).unwrap_or_else(|| cx.fresh(0, at)));
            }
            sizes
        }
        None => cx.fresh_shape(0, 2),
    };
    cx.set(0, dtype, dims);
    Ok(())
}

/// `y = x` without the axes of size 1 that the attribute lists; all of them if it is absent.
fn squeeze_by_attribute(cx: &mut InferCx<'_>) -> Outcome {
    let axes = cx.ints("axes").map(<[i64]>::to_vec);
    squeeze(cx, axes)
}

/// `y = x` without the axes of size 1 that the second operand lists; all of them if it is absent.
fn squeeze_by_operand(cx: &mut InferCx<'_>) -> Outcome {
    if !cx.has(1) {
        return squeeze(cx, None);
    }
    match cx.numbers(1) {
        Some(axes) => squeeze(cx, Some(axes)),
        None => {
            if let Some(dtype) = cx.dtype(0) {
                cx.set_unranked(0, dtype);
            }
            Ok(())
        }
    }
}

fn squeeze(cx: &mut InferCx<'_>, axes: Option<Vec<i64>>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let removed = match axes {
        Some(list) => shapes::axes(&list, dims.len())?,
        // Which symbolic sizes are 1 is not known before the run.
        None if dims.iter().any(|dim| dim.known().is_none()) => {
            cx.set_unranked(0, dtype);
            return Ok(());
        }
        None => (0..dims.len())
            .filter(|axis| dims[*axis].known() == Some(1))
            .collect(),
    };
    let one = Dim::from(1);
    for axis in &removed {
        shapes::same("the size of a squeezed axis and 1", &dims[*axis], &one)?;
    }
    let kept = dims
        .iter()
        .enumerate()
        .filter(|(axis, _)| !removed.contains(axis))
        .map(|(_, dim)| dim.clone())
        .collect();
    cx.set(0, dtype, kept);
    Ok(())
}

/// `y = x` with axes of size 1 at the places that the attribute lists.
fn unsqueeze_by_attribute(cx: &mut InferCx<'_>) -> Outcome {
    match cx.ints("axes").map(<[i64]>::to_vec) {
        Some(axes) => unsqueeze(cx, &axes),
        None => mismatch!("Unsqueeze has no axes"),
    }
}

/// `y = x` with axes of size 1 at the places that the second operand lists.
fn unsqueeze_by_operand(cx: &mut InferCx<'_>) -> Outcome {
    match cx.numbers(1) {
        Some(axes) => unsqueeze(cx, &axes),
        None => {
            unsqueeze_somewhere(cx);
            Ok(())
        }
    }
}

fn unsqueeze(cx: &mut InferCx<'_>, axes: &[i64]) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let rank = dims.len() + axes.len();
    let new = shapes::axes(axes, rank)?;
    if new.len() != axes.len() {
        return mismatch!("an axis is listed twice in {axes:?}");
    }
    let mut old = dims.iter();
    let dims = (0..rank)
        .map(|axis| match new.contains(&axis) {
            true => Dim::from(1),
            false => old.next().expect("as many as are not new").clone(),
        })
        .collect();
    cx.set(0, dtype, dims);
    Ok(())
}

/// Axes that are not known: their number tells the rank.
fn unsqueeze_somewhere(cx: &mut InferCx<'_>) {
    let Some(dtype) = cx.dtype(0) else {
        return;
    };
    let count = match cx.shape(1) {
        Some([count]) => count.known().filter(|count| (0..=64).contains(count)),
        _ => None,
    };
    let dims = match (cx.rank(0), count) {
        (Some(rank), Some(count)) => Some(cx.fresh_shape(0, rank + count as usize)),
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
}

/// `y = x` broadcast against the shape that the second operand holds.
fn expand(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let target = target_shape(cx, 1);
    let dims = match (cx.shape(0), target) {
        (Some(dims), Some(target)) => Some(stretch(cx, dims, &target)?),
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// Broadcasting against sizes that are known in part.
fn stretch(
    cx: &mut InferCx<'_>,
    dims: &[Dim],
    target: &[Option<Dim>],
) -> Result<Vec<Dim>, Mismatch> {
    let rank = dims.len().max(target.len());
    let mut result = Vec::with_capacity(rank);
    for axis in 0..rank {
        let own = (axis + dims.len()).checked_sub(rank).map(|at| &dims[at]);
        let wanted = (axis + target.len())
            .checked_sub(rank)
            .map(|at| &target[at]);
        result.push(match (own, wanted) {
            (Some(own), Some(Some(wanted))) => {
                shapes::broadcast(std::slice::from_ref(own), std::slice::from_ref(wanted))?
                    .remove(0)
            }
            (None, Some(Some(wanted))) => wanted.clone(),
            (Some(own), None) => own.clone(),
            // Whatever is asked for, a size other than 1 stays.
            (Some(own), Some(None)) if own.known().is_some_and(|n| n != 1) => own.clone(),
            (_, Some(None)) => cx.fresh(0, axis),
            (None, None) => unreachable!("one of the two has the larger rank"),
        });
    }
    Ok(result)
}

/// The sizes that an operand holds: all that is known of them, or at least how many there are.
pub(super) fn target_shape(cx: &InferCx<'_>, operand: usize) -> Option<Vec<Option<Dim>>> {
    if let Some(known) = cx.known(operand) {
        return Some(known.elements.iter().map(|e| e.int().cloned()).collect());
    }
    match cx.shape(operand)? {
        [count] => {
            let count = count.known().filter(|count| (0..=64).contains(count))?;
            Some(vec![None; count as usize])
        }
        _ => None,
    }
}

fn fold_expand(cx: &mut InferCx<'_>) -> Option<()> {
    let dims = cx.small_dims(0)?;
    let x = cx.known(0)?;
    let elements = arithmetic::stretched(&x, &dims);
    cx.set_elements(0, elements)
}

/// An operand's elements in the order of its axes; for folds that want exactly one axis.
pub(super) fn vector(known: &Known) -> Option<&[Element]> {
    (known.dims.len() == 1).then_some(known.elements.as_slice())
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
