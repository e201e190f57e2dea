//! Convolutions.

use super::cx::{InferCx, Mismatch, Outcome, mismatch};
use super::grad::{self, help};
use super::lower;
use super::registry::{Grad, OpDef, between, exactly, microsoft, op};
use super::window::{Window, list};
use super::{fused, shapes};
use crate::ty::Dim;

pub(super) const OPS: &[OpDef] = &[
    op("Conv", 1, between(2, 3), conv, Grad::Rule(grad::conv::conv)),
    op(
        "ConvTranspose",
        1,
        between(2, 3),
        conv_transpose,
        Grad::Rule(grad::conv::conv_transpose),
    ),
    op(
        "DeformConv",
        19,
        between(3, 5),
        conv,
        Grad::Missing(help::OTHER),
    ),
    microsoft(
        "FusedConv",
        between(2, 4),
        conv,
        Grad::Lower(lower::fused_conv),
    ),
    op(
        "CausalConvWithState",
        27,
        between(2, 4),
        causal,
        Grad::Missing(help::OTHER),
    )
    .results(exactly(2)),
    microsoft(
        "Inverse",
        exactly(1),
        fused::same,
        Grad::Missing(help::OTHER),
    ),
];

/// `y = conv(x, w)`: `[n, c, s…] × [m, c / group, k…] → [n, m, window(s)…]`.
fn conv(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = conv_dims(cx, 0, 1)?;
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// The shape of a convolution of two operands; `None` if not even the rank is known.
pub(super) fn conv_dims(
    cx: &mut InferCx<'_>,
    data: usize,
    weight: usize,
) -> Result<Option<Vec<Dim>>, Mismatch> {
    let Some(x) = cx.shape(data) else {
        let rank = cx.rank(weight);
        return Ok(rank.map(|rank| cx.fresh_shape(0, rank)));
    };
    let kernel = kernel_sizes(cx, x.len(), weight)?;
    if let Some(w) = cx.shape(weight) {
        let channels = w[1].clone() * Dim::from(cx.int_or("group", 1));
        shapes::same(
            "input channels of the data and of the weight",
            &x[1],
            &channels,
        )?;
    }
    let window = Window::read(cx, kernel)?;
    let mut dims = vec![x[0].clone()];
    dims.push(match cx.shape(weight) {
        Some(w) => w[0].clone(),
        None => cx.fresh(0, 1),
    });
    for (axis, size) in x[2..].iter().enumerate() {
        let size = window.forward(axis, size);
        dims.push(size.unwrap_or_else(|| cx.fresh(0, axis + 2)));
    }
    Ok(Some(dims))
}

/// `kernel_shape`, or the sizes of the weight.
fn kernel_sizes(
    cx: &InferCx<'_>,
    rank: usize,
    weight: usize,
) -> Result<Vec<Option<Dim>>, Mismatch> {
    if rank < 3 {
        return mismatch!("a tensor with {rank} axes, at least 3 are needed");
    }
    if let Some(w) = cx.shape(weight)
        && w.len() != rank
    {
        return mismatch!("data with {rank} axes and a weight with {}", w.len());
    }
    if cx.ints("kernel_shape").is_some() {
        let kernel = list(cx, "kernel_shape", rank - 2, 1)?;
        return Ok(kernel.into_iter().map(|n| Some(Dim::from(n))).collect());
    }
    Ok(match cx.shape(weight) {
        Some(w) => w[2..].iter().cloned().map(Some).collect(),
        None => vec![None; rank - 2],
    })
}

/// `y = convᵀ(x, w)`: `[n, c, s…] × [c, m / group, k…] → [n, m, …]`, of the size `output_shape`
/// if it is stated.
fn conv_transpose(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(x) = cx.shape(0) else {
        let dims = cx.rank(1).map(|rank| cx.fresh_shape(0, rank));
        cx.set_maybe(0, dtype, dims);
        return Ok(());
    };
    let kernel = kernel_sizes(cx, x.len(), 1)?;
    let spatial = kernel.len();
    let window = Window::read(cx, kernel)?;
    let extra = list(cx, "output_padding", spatial, 0)?;
    let stated = cx
        .ints("output_shape")
        .filter(|sizes| sizes.len() >= spatial);
    let mut dims = vec![x[0].clone()];
    dims.push(match cx.shape(1) {
        Some(w) => w[1].clone() * Dim::from(cx.int_or("group", 1)),
        None => cx.fresh(0, 1),
    });
    for (axis, size) in x[2..].iter().enumerate() {
        let size = match stated {
            Some(sizes) => Some(Dim::from(sizes[sizes.len() - spatial + axis])),
            None => window.transposed(axis, size, extra[axis]),
        };
        dims.push(size.unwrap_or_else(|| cx.fresh(0, axis + 2)));
    }
    cx.set(0, dtype, dims);
    Ok(())
}

/// `y, state = causal_conv(x, w, b, state)`: the data's type; the state holds the last `k - 1`
/// positions.
fn causal(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    if let (Some(dtype), Some([n, c, _]), Some([_, _, k])) = (cx.dtype(0), cx.shape(0), cx.shape(1))
    {
        let dims = vec![n.clone(), c.clone(), k.clone() - Dim::from(1)];
        cx.set(1, dtype, dims);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn conv_slides_a_window() {
        let attributes = [
            Attribute::ints("strides", [2, 2]),
            Attribute::ints("pads", [3, 3, 3, 3]),
        ];
        let operands = ["f32[N, 3, 224, H]", "f32[64, 3, 7, 7]"];
        check_infer(
            "Conv",
            11,
            &operands,
            &attributes,
            &["f32[N, 64, 112, floor(H - 1 / 2) + 1]"],
        );
        let operands = ["f32[N, 3, L]", "f32[8, 3, 3]", "f32[8]"];
        check_infer(
            "Conv",
            11,
            &operands,
            &[Attribute::ints("pads", [1, 1])],
            &["f32[N, 8, L]"],
        );
        let dilated = [Attribute::ints("dilations", [2])];
        check_infer("Conv", 11, &operands, &dilated, &["f32[N, 8, L - 4]"]);
        let patches = [Attribute::ints("strides", [16, 16])];
        let operands = ["f32[N, 3, 32, 48]", "f32[64, 3, 16, 16]"];
        check_infer("Conv", 11, &operands, &patches, &["f32[N, 64, 2, 3]"]);
    }

    #[test]
    fn conv_pads_by_itself() {
        let same = [
            Attribute::string("auto_pad", "SAME_UPPER"),
            Attribute::ints("strides", [2]),
        ];
        check_infer(
            "Conv",
            11,
            &["f32[N, 3, 9]", "f32[8, 3, 3]"],
            &same,
            &["f32[N, 8, 5]"],
        );
        let valid = [Attribute::string("auto_pad", "VALID")];
        check_infer(
            "Conv",
            11,
            &["f32[N, 3, 9]", "f32[8, 3, 3]"],
            &valid,
            &["f32[N, 8, 7]"],
        );
    }

    #[test]
    fn conv_checks_its_channels() {
        let depthwise = [Attribute::int("group", 6)];
        check_infer(
            "Conv",
            11,
            &["f32[N, 6, 9]", "f32[6, 1, 3]"],
            &depthwise,
            &["f32[N, 6, 7]"],
        );
        check_mismatch(
            "Conv",
            11,
            &["f32[N, 6, 9]", "f32[6, 1, 3]"],
            &[],
            "6 and 1",
        );
        check_mismatch("Conv", 11, &["f32[N, 6]", "f32[6, 1]"], &[], "at least 3");
        let strides = [Attribute::ints("strides", [0])];
        check_mismatch(
            "Conv",
            11,
            &["f32[N, 1, 9]", "f32[6, 1, 3]"],
            &strides,
            "`strides`",
        );
    }

    #[test]
    fn unknown_operands_leave_what_is_known() {
        check_infer(
            "Conv",
            11,
            &["f32[?]", "f32[6, 1, 3]"],
            &[],
            &["f32[y.0, y.1, y.2]"],
        );
        check_infer(
            "Conv",
            11,
            &["f32[N, 3, 9]", "f32[?]"],
            &[],
            &["f32[N, y.1, y.2]"],
        );
    }

    #[test]
    fn transposed_convolution_grows() {
        let attributes = [Attribute::ints("strides", [2])];
        let operands = ["f32[N, 4, L]", "f32[4, 3, 2]"];
        check_infer(
            "ConvTranspose",
            11,
            &operands,
            &attributes,
            &["f32[N, 3, 2*L]"],
        );
        let stated = [Attribute::ints("output_shape", [9])];
        check_infer("ConvTranspose", 11, &operands, &stated, &["f32[N, 3, 9]"]);
    }
}
