//! Resampling.

use super::{GradCx, GradOutcome};
use crate::ops::build::refuse;
use crate::ty::{Dim, Proof};

/// Every element of `x` becomes a block: `dx = Σ dy` over the block. Only for the nearest element
/// and whole factors.
pub fn resize(cx: &mut GradCx<'_>) -> GradOutcome {
    let mode = cx.node.string("mode").unwrap_or("nearest");
    if mode != "nearest" || !is_blockwise(cx) {
        return refuse!("it interpolates: only copies of the nearest element have a gradient");
    }
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let (dims, resized) = (x.dims()?, dy.dims()?);
    let mut apart = Vec::new();
    for (size, large) in dims.iter().zip(&resized) {
        let factor = large.floor_div(size);
        let whole = (size.clone() * factor.clone()).compare(large) == Proof::Equal;
        if !whole || factor.known().is_none() {
            return refuse!("it resizes {size} to {large}, by no whole factor");
        }
        apart.extend([size.clone(), factor]);
    }
    let blocks: Vec<usize> = (0..dims.len())
        .map(|axis| 2 * axis + 1)
        .filter(|axis| apart[*axis] != Dim::from(1))
        .collect();
    cx.try_give(0, || {
        let summed = dy.reshape(&apart)?.sum_dropping(&blocks);
        summed.reshape(&dims)
    })
}

/// Whether every element of the result lies in the block of its nearest element.
fn is_blockwise(cx: &GradCx<'_>) -> bool {
    let transformation = cx.node.string("coordinate_transformation_mode");
    let rounding = cx
        .node
        .string("nearest_mode")
        .unwrap_or("round_prefer_floor");
    // Before opset 11 there was one way.
    if cx.opset < 11 || &*cx.node.op.op_type == "Upsample" {
        return true;
    }
    match transformation.unwrap_or("half_pixel") {
        "half_pixel" | "pytorch_half_pixel" => rounding.starts_with("round"),
        "asymmetric" => rounding == "floor",
        _ => false,
    }
}
