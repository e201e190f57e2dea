//! Operators that move, repeat, join or cut elements.

use super::cx::{InferCx, Outcome, mismatch};
use super::grad::{self, help};
use super::known::Element;
use super::registry::{Grad, OpDef, at_least, between, exactly, microsoft, op};
use super::resize::{resize, upsample};
use super::shape::{target_shape, vector};
use super::shapes;
use super::slice::{fold_slice, slice};
use super::split::{fold_split, split};
use crate::ty::Dim;

pub(super) const OPS: &[OpDef] = &[
    op(
        "Transpose",
        1,
        exactly(1),
        transpose,
        Grad::Rule(grad::movement::transpose),
    )
    .folds(fold_transpose),
    op(
        "Concat",
        1,
        at_least(1),
        concat,
        Grad::Rule(grad::movement::concat),
    )
    .folds(fold_concat),
    op(
        "Split",
        1,
        between(1, 2),
        split,
        Grad::Rule(grad::movement::split),
    )
    .results(at_least(1))
    .folds(fold_split),
    op(
        "Split",
        2,
        exactly(1),
        split,
        Grad::Rule(grad::movement::split),
    )
    .results(at_least(1))
    .folds(fold_split),
    op(
        "Split",
        13,
        between(1, 2),
        split,
        Grad::Rule(grad::movement::split),
    )
    .results(at_least(1))
    .folds(fold_split),
    op(
        "Slice",
        1,
        exactly(1),
        slice,
        Grad::Rule(grad::movement::slice),
    )
    .folds(fold_slice),
    op(
        "Slice",
        10,
        between(3, 5),
        slice,
        Grad::Rule(grad::movement::slice),
    )
    .folds(fold_slice),
    op(
        "Tile",
        6,
        exactly(2),
        tile,
        Grad::Rule(grad::movement::tile),
    ),
    op("Pad", 1, exactly(1), pad, Grad::Rule(grad::movement::pad)),
    op(
        "Pad",
        11,
        between(2, 3),
        pad,
        Grad::Rule(grad::movement::pad),
    ),
    op(
        "Pad",
        18,
        between(2, 4),
        pad,
        Grad::Rule(grad::movement::pad),
    ),
    op(
        "CenterCropPad",
        18,
        exactly(2),
        center_crop_pad,
        Grad::Missing(help::OTHER),
    ),
    op(
        "DepthToSpace",
        1,
        exactly(1),
        |cx| blocks(cx, Blocks::ToSpace),
        Grad::Rule(grad::movement::depth_to_space),
    ),
    op(
        "SpaceToDepth",
        1,
        exactly(1),
        |cx| blocks(cx, Blocks::ToDepth),
        Grad::Rule(grad::movement::space_to_depth),
    ),
    op(
        "ReverseSequence",
        10,
        exactly(2),
        same,
        Grad::Missing(help::OTHER),
    ),
    op(
        "Trilu",
        14,
        between(1, 2),
        same,
        Grad::Rule(grad::movement::trilu),
    ),
    microsoft(
        "Trilu",
        between(1, 2),
        same,
        Grad::Rule(grad::movement::trilu),
    ),
    op(
        "Resize",
        10,
        exactly(2),
        upsample,
        Grad::Rule(grad::resize::resize),
    ),
    op(
        "Resize",
        11,
        between(3, 4),
        resize,
        Grad::Rule(grad::resize::resize),
    ),
    op(
        "Resize",
        13,
        between(1, 4),
        resize,
        Grad::Rule(grad::resize::resize),
    ),
    op(
        "Upsample",
        7,
        exactly(1),
        upsample,
        Grad::Missing(help::OLD),
    ),
    op(
        "Upsample",
        9,
        exactly(2),
        upsample,
        Grad::Missing(help::OLD),
    ),
];

/// The operand's type.
fn same(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// `y[i0, i1, …] = x[…]` with axis `k` of the result the axis `perm[k]` of the operand; reversed
/// axes if there is no `perm`.
fn transpose(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = match (cx.shape(0), cx.ints("perm")) {
        (Some(dims), None) => Some(dims.iter().rev().cloned().collect()),
        (Some(dims), Some(perm)) => {
            if shapes::axes(perm, dims.len())?.len() != dims.len() || perm.len() != dims.len() {
                return mismatch!("{perm:?} is no permutation of {} axes", dims.len());
            }
            let mut moved = Vec::with_capacity(dims.len());
            for axis in perm {
                moved.push(dims[shapes::axis(*axis, dims.len())?].clone());
            }
            Some(moved)
        }
        (None, Some(perm)) => Some(cx.fresh_shape(0, perm.len())),
        (None, None) => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

fn fold_transpose(cx: &mut InferCx<'_>) -> Option<()> {
    let x = cx.known(0)?;
    // Only where the order of the elements stays.
    if x.dims.iter().filter(|n| **n != 1).count() > 1 {
        return None;
    }
    cx.set_elements(0, x.into_owned().elements)
}

/// `y = [x0; x1; …]` along `axis`: its sizes add up, the others are the same.
fn concat(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = (0..cx.operand_count()).find_map(|operand| cx.dtype(operand)) else {
        return Ok(());
    };
    let first = (0..cx.operand_count()).find_map(|operand| cx.shape(operand));
    let Some(first) = first else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let rank = first.len();
    let default = if cx.opset < 4 { 1 } else { 0 };
    let axis = shapes::axis(cx.int_or("axis", default), rank)?;
    let mut dims = first.to_vec();
    let mut total = Some(Dim::from(0));
    for operand in 0..cx.operand_count() {
        let Some(shape) = cx.shape(operand) else {
            total = None;
            continue;
        };
        if shape.len() != rank {
            return mismatch!("tensors with {rank} and {} axes are joined", shape.len());
        }
        for at in (0..rank).filter(|at| *at != axis) {
            dims[at] = shapes::same("sizes of joined tensors", &dims[at], &shape[at])?;
        }
        total = total.map(|total| total + shape[axis].clone());
    }
    dims[axis] = total.unwrap_or_else(|| cx.fresh(0, axis));
    cx.set(0, dtype, dims);
    Ok(())
}

/// Folds a concatenation of vectors, of which some may be unknown.
fn fold_concat(cx: &mut InferCx<'_>) -> Option<()> {
    let mut elements = Vec::new();
    let limit = *cx.small_dims(0)?.first()?;
    for operand in 0..cx.operand_count() {
        match cx.known(operand) {
            Some(known) => elements.extend_from_slice(vector(&known)?),
            None => match cx.shape(operand)? {
                [count] => {
                    let count = count.known().filter(|count| *count <= limit)?;
                    elements.extend((0..count).map(|_| Element::Unknown));
                }
                _ => return None,
            },
        }
    }
    cx.set_elements(0, elements)
}

/// `y = x` repeated `repeats[k]` times along axis `k`.
fn tile(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let repeats = target_shape(cx, 1);
    let tiled = dims
        .iter()
        .enumerate()
        .map(|(axis, dim)| {
            let count = repeats
                .as_ref()
                .and_then(|counts| counts.get(axis)?.clone());
            match count {
                Some(count) => dim.clone() * count,
                None => cx.fresh(0, axis),
            }
        })
        .collect();
    cx.set(0, dtype, tiled);
    Ok(())
}

/// `y = x` with `pads[k]` elements before and `pads[k + n]` behind each of the `n` padded axes;
/// every axis, or from opset 18 on those of the fourth operand.
fn pad(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let pads: Option<Vec<Option<Dim>>> = if cx.opset < 11 {
        cx.ints("pads")
            .or_else(|| cx.ints("paddings"))
            .map(|pads| pads.iter().map(|n| Some(Dim::from(*n))).collect())
    } else {
        target_shape(cx, 1)
    };
    let axes = match (cx.has(3), cx.numbers(3)) {
        (true, None) => None,
        (true, Some(list)) => {
            let axes = list.iter().map(|axis| shapes::axis(*axis, dims.len()));
            Some(axes.collect::<Result<Vec<_>, _>>()?)
        }
        (false, _) => Some((0..dims.len()).collect()),
    };
    let padded = match (pads, axes) {
        (Some(pads), Some(axes)) => {
            if pads.len() != 2 * axes.len() {
                return mismatch!("{} pads for {} axes", pads.len(), axes.len());
            }
            let mut padded = dims.to_vec();
            for (at, axis) in axes.iter().enumerate() {
                padded[*axis] = match (&pads[at], &pads[at + axes.len()]) {
                    (Some(a), Some(b)) => dims[*axis].clone() + a.clone() + b.clone(),
                    _ => cx.fresh(0, *axis),
                };
            }
            padded
        }
        _ => cx.fresh_shape(0, dims.len()),
    };
    cx.set(0, dtype, padded);
    Ok(())
}

/// `y = x` cut or padded around its centre to the sizes of the second operand on `axes`.
fn center_crop_pad(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let axes = match cx.ints("axes") {
        Some(list) => list
            .iter()
            .map(|axis| shapes::axis(*axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let sizes = target_shape(cx, 1);
    let mut cut = dims.to_vec();
    for (at, axis) in axes.into_iter().enumerate() {
        let size = sizes.as_ref().and_then(|sizes| sizes.get(at)?.clone());
        cut[axis] = size.unwrap_or_else(|| cx.fresh(0, axis));
    }
    cx.set(0, dtype, cut);
    Ok(())
}

#[derive(Clone, Copy)]
enum Blocks {
    ToSpace,
    ToDepth,
}

/// `[n, c·b², h, w]` ↔ `[n, c, h·b, w·b]` with `b = blocksize`.
fn blocks(cx: &mut InferCx<'_>, direction: Blocks) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let size = Dim::from(cx.int_or("blocksize", 1).clamp(1, 1 << 20));
    let dims = match cx.shape(0) {
        Some([n, c, h, w]) => {
            let square = size.clone() * size.clone();
            match direction {
                Blocks::ToSpace => vec![
                    n.clone(),
                    c.floor_div(&square),
                    h.clone() * size.clone(),
                    w.clone() * size,
                ],
                Blocks::ToDepth => vec![
                    n.clone(),
                    c.clone() * square,
                    h.floor_div(&size),
                    w.floor_div(&size),
                ],
            }
        }
        Some(dims) => return mismatch!("a tensor with {} axes, 4 are needed", dims.len()),
        None => cx.fresh_shape(0, 4),
    };
    cx.set(0, dtype, dims);
    Ok(())
}

#[cfg(test)]
#[path = "movement_tests.rs"]
mod tests;
