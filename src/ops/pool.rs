//! Pooling.

use super::cx::{InferCx, Mismatch, Outcome, mismatch};
use super::grad::{self, help};
use super::registry::{Grad, OpDef, between, exactly, op};
use super::shapes;
use super::window::{Window, list};
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    op(
        "MaxPool",
        1,
        exactly(1),
        pool,
        Grad::Rule(grad::pool::max_pool),
    ),
    op(
        "MaxPool",
        8,
        exactly(1),
        pool,
        Grad::Rule(grad::pool::max_pool),
    )
    .results(between(1, 2)),
    op(
        "AveragePool",
        1,
        exactly(1),
        pool,
        Grad::Rule(grad::pool::average_pool),
    ),
    op(
        "LpPool",
        1,
        exactly(1),
        pool,
        Grad::Rule(grad::pool::lp_pool),
    ),
    op(
        "GlobalAveragePool",
        1,
        exactly(1),
        global,
        Grad::Rule(grad::pool::global_average),
    ),
    op(
        "GlobalMaxPool",
        1,
        exactly(1),
        global,
        Grad::Rule(grad::pool::global_max),
    ),
    op(
        "GlobalLpPool",
        1,
        exactly(1),
        global,
        Grad::Rule(grad::pool::global_lp),
    ),
    op(
        "MaxRoiPool",
        1,
        exactly(2),
        max_roi_pool,
        Grad::Missing(help::OTHER),
    ),
    op(
        "RoiAlign",
        10,
        exactly(3),
        roi_align,
        Grad::Missing(help::OTHER),
    ),
    op(
        "GridSample",
        16,
        exactly(2),
        grid_sample,
        Grad::Missing(help::OTHER),
    ),
];

/// `y, indices = pool(x)`: `[n, c, s…] → [n, c, window(s)…]`.
fn pool(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = pool_dims(cx)?;
    cx.set_maybe(0, dtype, dims.clone());
    cx.set_maybe(1, DType::I64, dims);
    Ok(())
}

/// The shape of a pool over the first operand.
pub(super) fn pool_dims(cx: &mut InferCx<'_>) -> Result<Option<Vec<Dim>>, Mismatch> {
    let Some(x) = cx.shape(0) else {
        return Ok(None);
    };
    if x.len() < 3 {
        return mismatch!("a tensor with {} axes, at least 3 are needed", x.len());
    }
    if cx.ints("kernel_shape").is_none() {
        return mismatch!("no `kernel_shape`");
    }
    let kernel = list(cx, "kernel_shape", x.len() - 2, 1)?;
    let window = Window::read(cx, kernel.into_iter().map(|n| Some(Dim::from(n))).collect())?;
    let mut dims = x[..2].to_vec();
    for (axis, size) in x[2..].iter().enumerate() {
        let size = window.forward(axis, size);
        dims.push(size.unwrap_or_else(|| cx.fresh(0, axis + 2)));
    }
    Ok(Some(dims))
}

/// `y = pool(x)` over all of space: `[n, c, 1…]`.
fn global(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = cx.shape(0).map(|x| {
        let one = Dim::from(1);
        let spatial = x.len().saturating_sub(2);
        [&x[..x.len() - spatial], &vec![one; spatial]].concat()
    });
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// `[regions, c, pooled_shape…]`.
fn max_roi_pool(cx: &mut InferCx<'_>) -> Outcome {
    let sizes = cx.ints("pooled_shape").map(<[i64]>::to_vec);
    match sizes.as_deref() {
        Some([h, w]) => regions(cx, *h, *w),
        _ => mismatch!("`pooled_shape` must have 2 entries"),
    }
}

/// `[regions, c, output_height, output_width]`.
fn roi_align(cx: &mut InferCx<'_>) -> Outcome {
    let (h, w) = (cx.int_or("output_height", 1), cx.int_or("output_width", 1));
    regions(cx, h, w)
}

fn regions(cx: &mut InferCx<'_>, h: i64, w: i64) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let count = cx.shape(1).and_then(|dims| dims.first().cloned());
    let channels = cx.shape(0).and_then(|dims| dims.get(1).cloned());
    let count = count.unwrap_or_else(|| cx.fresh(0, 0));
    let channels = channels.unwrap_or_else(|| cx.fresh(0, 1));
    cx.set(0, dtype, vec![count, channels, Dim::from(h), Dim::from(w)]);
    Ok(())
}

/// `[n, c, …] × [n, s…, r] → [n, c, s…]`.
fn grid_sample(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = match (cx.shape(0), cx.shape(1)) {
        (Some(x), Some(grid)) if x.len() == grid.len() && x.len() >= 3 => {
            let n = shapes::same("batch sizes", &x[0], &grid[0])?;
            let mut dims = vec![n, x[1].clone()];
            dims.extend_from_slice(&grid[1..grid.len() - 1]);
            Some(dims)
        }
        (Some(x), Some(grid)) => {
            return mismatch!("data with {} axes and a grid with {}", x.len(), grid.len());
        }
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn a_pool_slides_a_window() {
        let attributes = [
            Attribute::ints("kernel_shape", [3, 3]),
            Attribute::ints("strides", [2, 2]),
            Attribute::ints("pads", [1, 1, 1, 1]),
        ];
        let x = ["f32[N, 64, 112, 112]"];
        check_infer("MaxPool", 12, &x, &attributes, &["f32[N, 64, 56, 56]"]);
        check_infer(
            "MaxPool",
            12,
            &x,
            &attributes,
            &["f32[N, 64, 56, 56]", "i64[N, 64, 56, 56]"],
        );
        check_mismatch("AveragePool", 11, &["f32[N, 3, 5]"], &[], "kernel_shape");
    }

    #[test]
    fn a_size_can_be_rounded_up() {
        let attributes = [
            Attribute::ints("kernel_shape", [2]),
            Attribute::ints("strides", [2]),
            Attribute::int("ceil_mode", 1),
        ];
        check_infer(
            "AveragePool",
            19,
            &["f32[N, 3, 5]"],
            &attributes,
            &["f32[N, 3, 3]"],
        );
        check_infer(
            "AveragePool",
            19,
            &["f32[N, 3, 6]"],
            &attributes,
            &["f32[N, 3, 3]"],
        );
        // The fourth window would start behind the data.
        let attributes = [
            Attribute::ints("kernel_shape", [1]),
            Attribute::ints("strides", [3]),
            Attribute::int("ceil_mode", 1),
        ];
        check_infer(
            "MaxPool",
            12,
            &["f32[N, 3, 8]"],
            &attributes,
            &["f32[N, 3, 3]"],
        );
    }

    #[test]
    fn global_pools_leave_one_element() {
        check_infer(
            "GlobalAveragePool",
            1,
            &["f32[N, 3, H, W]"],
            &[],
            &["f32[N, 3, 1, 1]"],
        );
        check_infer("GlobalMaxPool", 1, &["f32[?]"], &[], &["f32[?]"]);
    }

    #[test]
    fn regions_and_grids() {
        let sizes = [
            Attribute::int("output_height", 7),
            Attribute::int("output_width", 5),
        ];
        let operands = ["f32[N, 3, H, W]", "f32[R, 4]", "i64[R]"];
        check_infer("RoiAlign", 16, &operands, &sizes, &["f32[R, 3, 7, 5]"]);
        let operands = ["f32[N, 3, H, W]", "f32[N, 6, 7, 2]"];
        check_infer("GridSample", 16, &operands, &[], &["f32[N, 3, 6, 7]"]);
    }
}
