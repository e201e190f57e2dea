//! Shapes: reading them and changing them.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::rows::stretch;
use super::sizes;
use super::table::{Entry, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("Shape", 1, shape),
    one("Size", 1, |cx| {
        Array::ints(DType::I64, &[], vec![cx.operand(0)?.len() as i128])
    }),
    one("Identity", 1, |cx| Ok(cx.operand(0)?.clone())),
    one("Reshape", 1, |cx| {
        let target = cx.ints("shape").map(<[i64]>::to_vec).unwrap_or_default();
        reshape(cx, &target)
    }),
    one("Reshape", 5, |cx| reshape(cx, &cx.numbers(1)?)),
    one("Flatten", 1, flatten),
    one("Squeeze", 1, |cx| {
        squeeze(cx, cx.ints("axes").map(<[i64]>::to_vec))
    }),
    one("Squeeze", 13, |cx| squeeze(cx, cx.optional_numbers(1)?)),
    one("Unsqueeze", 1, |cx| match cx.ints("axes") {
        Some(axes) => unsqueeze(cx.operand(0)?, axes),
        None => mismatch!("no `axes`"),
    }),
    one("Unsqueeze", 13, |cx| {
        unsqueeze(cx.operand(0)?, &cx.numbers(1)?)
    }),
    one("Expand", 8, |cx| {
        let x = cx.operand(0)?;
        let target = sizes::sizes(&cx.numbers(1)?)?;
        stretch(x, &sizes::broadcast(x.dims(), &target)?)
    }),
];

/// The sizes, from axis `start` to before axis `end`.
fn shape(cx: &Cx<'_>) -> Result<Array, Fault> {
    let dims = cx.operand(0)?.dims();
    let rank = dims.len() as i64;
    let bound = |value: i64| {
        let from_start = if value < 0 {
            value.saturating_add(rank)
        } else {
            value
        };
        from_start.clamp(0, rank) as usize
    };
    let start = bound(cx.int_or("start", 0));
    let end = bound(cx.int_or("end", rank));
    let part = dims.get(start..end.max(start)).unwrap_or_default();
    Ok(Array::vector(
        &part.iter().map(|n| *n as i64).collect::<Vec<_>>(),
    ))
}

/// `-1` is what is left over, `0` copies the size of the operand unless `allowzero`.
fn reshape(cx: &Cx<'_>, target: &[i64]) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let mut dims = Vec::with_capacity(target.len());
    let mut open = None;
    for (axis, size) in target.iter().enumerate() {
        dims.push(match (size, x.dims().get(axis)) {
            (-1, _) if open.is_none() => {
                open = Some(axis);
                1
            }
            (0, Some(size)) if !cx.flag("allowzero") => *size,
            (0, None) if !cx.flag("allowzero") => {
                return mismatch!("0 copies axis {axis} of {} axes", x.rank());
            }
            (size, _) => sizes::size(*size)?,
        });
    }
    if let Some(axis) = open {
        let others = sizes::count(&dims)?;
        match x.len().checked_div(others) {
            Some(size) => dims[axis] = size,
            None => return mismatch!("-1 in {target:?}, beside a size of 0"),
        }
    }
    x.clone().reshaped(&dims)
}

/// `[product before axis, product from axis on]`.
fn flatten(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let axis = match cx.int_or("axis", 1) {
        end if end == x.rank() as i64 => x.rank(),
        axis => sizes::axis(axis, x.rank())?,
    };
    let (outer, inner) = x.dims().split_at(axis);
    let dims = [sizes::count(outer)?, sizes::count(inner)?];
    x.clone().reshaped(&dims)
}

fn squeeze(cx: &Cx<'_>, axes: Option<Vec<i64>>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let dims = x.dims();
    let removed = match axes {
        Some(axes) => sizes::axes(&axes, x.rank())?,
        None => (0..x.rank()).filter(|axis| dims[*axis] == 1).collect(),
    };
    if let Some(axis) = removed.iter().find(|axis| dims[**axis] != 1) {
        return mismatch!("axis {axis} of {dims:?} is not of size 1");
    }
    let kept = (0..x.rank()).filter(|axis| !removed.contains(axis));
    let kept: Vec<usize> = kept.map(|axis| dims[axis]).collect();
    x.clone().reshaped(&kept)
}

pub(super) fn unsqueeze(x: &Array, axes: &[i64]) -> Result<Array, Fault> {
    let added = sizes::axes(axes, x.rank() + axes.len())?;
    let mut dims = x.dims().to_vec();
    for axis in added {
        dims.insert(axis, 1);
    }
    x.clone().reshaped(&dims)
}
