//! Reshape: the sizes that it leaves open are solved for.

use super::cx::{InferCx, Mismatch, Outcome, mismatch};
use super::shape::target_shape;
use super::shapes;
use crate::ty::{Dim, Proof};

/// `y = x` in the shape of the attribute `shape`; before opset 5.
pub(super) fn reshape_by_attribute(cx: &mut InferCx<'_>) -> Outcome {
    let target = cx
        .ints("shape")
        .map(|sizes| sizes.iter().map(|n| Some(Dim::from(*n))).collect());
    reshape_to(cx, target)
}

/// `y = x` in the shape that the second operand holds: -1 is what is left over, 0 copies the size
/// of the same axis unless `allowzero` is set.
pub(super) fn reshape(cx: &mut InferCx<'_>) -> Outcome {
    let target = target_shape(cx, 1);
    reshape_to(cx, target)
}

/// One size of the target.
enum Size {
    Stated(Dim),
    /// -1.
    Rest,
    Unknown,
}

fn reshape_to(cx: &mut InferCx<'_>, target: Option<Vec<Option<Dim>>>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(target) = target else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let from = cx.shape(0);
    let sizes = read_target(target, from, cx.flag("allowzero"))?;
    let open: Vec<usize> = (0..sizes.len())
        .filter(|axis| !matches!(sizes[*axis], Size::Stated(_)))
        .collect();
    if open
        .iter()
        .filter(|axis| matches!(sizes[**axis], Size::Rest))
        .count()
        > 1
    {
        return mismatch!("a shape with more than one -1");
    }
    let mut solved = None;
    if let Some(from) = from
        && open.len() <= 1
    {
        let stated: Vec<&Dim> = sizes
            .iter()
            .filter_map(|size| match size {
                Size::Stated(dim) => Some(dim),
                _ => None,
            })
            .collect();
        solved = solve(from, &stated, open.len() == 1)?;
    }
    let dims = sizes
        .into_iter()
        .enumerate()
        .map(
            |(axis, size)| match (size, solved.take_if(|_| open.contains(&axis))) {
                (Size::Stated(dim), _) | (_, Some(dim)) => dim,
                _ => cx.fresh(0, axis),
            },
        )
        .collect();
    cx.set(0, dtype, dims);
    Ok(())
}

fn read_target(
    target: Vec<Option<Dim>>,
    from: Option<&[Dim]>,
    allow_zero: bool,
) -> Result<Vec<Size>, Mismatch> {
    let mut sizes = Vec::with_capacity(target.len());
    for (axis, dim) in target.into_iter().enumerate() {
        let number = dim.as_ref().and_then(Dim::known);
        sizes.push(match (dim, number, from) {
            (None, ..) => Size::Unknown,
            (_, Some(-1), _) => Size::Rest,
            (_, Some(0), Some(from)) if !allow_zero => match from.get(axis) {
                Some(dim) => Size::Stated(dim.clone()),
                None => return mismatch!("0 copies axis {axis} of {} axes", from.len()),
            },
            (_, Some(0), None) if !allow_zero => Size::Unknown,
            (_, Some(n), _) if n < 0 => return mismatch!("a size of {n}"),
            // An expression that may be -1 says nothing.
            (Some(dim), _, _) if dim.lower_bound().is_none_or(|bound| bound < 0) => Size::Unknown,
            (Some(dim), ..) => Size::Stated(dim),
        });
    }
    Ok(sizes)
}

/// The size that is left over for the open axis, if there is one; a mismatch if the number of
/// elements cannot be the same.
fn solve(from: &[Dim], stated: &[&Dim], open: bool) -> Result<Option<Dim>, Mismatch> {
    // Sizes that occur on both sides cancel, so that sums need not be multiplied out.
    let mut left: Vec<Dim> = from.to_vec();
    let mut right: Vec<Dim> = Vec::new();
    for dim in stated {
        match left.iter().position(|other| other == *dim) {
            Some(at) if dim.known() != Some(0) => {
                left.swap_remove(at);
            }
            _ => right.push((*dim).clone()),
        }
    }
    let (Some(elements), Some(divisor)) = (shapes::product(&left), shapes::product(&right)) else {
        return Ok(None);
    };
    if !open {
        return match elements.compare(&divisor) {
            Proof::Different => mismatch!(
                "{} elements into a shape of {}",
                whole(from),
                whole(&stated.iter().map(|d| (*d).clone()).collect::<Vec<_>>())
            ),
            _ => Ok(None),
        };
    }
    match (elements.known(), divisor.known()) {
        (_, Some(0)) => Ok(None),
        (Some(n), Some(d)) if n % d != 0 => {
            mismatch!("{n} elements do not divide by {d}")
        }
        _ => Ok(Some(elements.floor_div(&divisor))),
    }
}

fn whole(dims: &[Dim]) -> String {
    shapes::product(dims).map_or_else(|| "many".to_owned(), |product| product.to_string())
}
