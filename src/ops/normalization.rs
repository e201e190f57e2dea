//! Normalizations: the shape stays; some also give their statistics.

use super::cx::{InferCx, Outcome};
use super::grad::{self, help};
use super::lower;
use super::registry::{Grad, OpDef, between, exactly, microsoft, op};
use super::shapes;
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    // ONNX's own from opset 17 on; ONNX Runtime takes it before, too.
    op(
        "LayerNormalization",
        1,
        between(2, 3),
        layer,
        Grad::Rule(grad::normalization::layer),
    )
    .results(between(1, 3)),
    // ONNX Runtime registers it in the default domain, too; genai writes it there.
    op(
        "SimplifiedLayerNormalization",
        1,
        exactly(2),
        layer,
        Grad::Rule(grad::normalization::rms),
    )
    .results(between(1, 2)),
    microsoft(
        "SimplifiedLayerNormalization",
        exactly(2),
        layer,
        Grad::Rule(grad::normalization::rms),
    )
    .results(between(1, 2)),
    op(
        "RMSNormalization",
        23,
        exactly(2),
        same,
        Grad::Rule(grad::normalization::rms),
    ),
    op(
        "InstanceNormalization",
        1,
        exactly(3),
        same,
        Grad::Rule(grad::normalization::instance),
    ),
    op(
        "GroupNormalization",
        18,
        exactly(3),
        same,
        Grad::Rule(grad::normalization::group),
    ),
    op(
        "BatchNormalization",
        1,
        exactly(5),
        batch,
        Grad::Rule(grad::normalization::batch),
    )
    .results(between(1, 5)),
    op(
        "BatchNormalization",
        14,
        exactly(5),
        batch,
        Grad::Rule(grad::normalization::batch),
    )
    .results(between(1, 3)),
    op(
        "LpNormalization",
        1,
        exactly(1),
        same,
        Grad::Rule(grad::normalization::lp),
    ),
    op("LRN", 1, exactly(1), same, Grad::Missing(help::OTHER)),
    op(
        "MeanVarianceNormalization",
        9,
        exactly(1),
        same,
        Grad::Rule(grad::normalization::mean_variance),
    ),
    microsoft(
        "GroupNorm",
        exactly(3),
        same,
        Grad::Lower(lower::group_norm),
    ),
];

/// `y = f(x)`: the operand's type.
fn same(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// `y, mean, inv_std = norm(x)` over the axes from `axis` on; the statistics have size 1 there and
/// the type `stash_type`. The simplified form gives the second alone.
fn layer(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    let stash = cx.dtype_attribute("stash_type").unwrap_or(DType::F32);
    statistics(cx, stash)
}

/// The shape of the statistics, for every further result.
pub(super) fn statistics(cx: &mut InferCx<'_>, dtype: DType) -> Outcome {
    let dims = match cx.shape(0) {
        Some(dims) => {
            let axis = shapes::axis(cx.int_or("axis", -1), dims.len())?;
            let kept = dims[..axis].iter().cloned();
            Some(
                kept.chain(vec![Dim::from(1); dims.len() - axis])
                    .collect::<Vec<_>>(),
            )
        }
        None => None,
    };
    for result in 1..cx.result_count().min(3) {
        cx.set_maybe(result, dtype, dims.clone());
    }
    Ok(())
}

/// `y = (x - mean) / √(var + ε) · scale + bias`, then the running statistics.
fn batch(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    for (result, operand) in [(1, 3), (2, 4), (3, 3), (4, 4)] {
        cx.same_as(result, operand);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn statistics_have_size_1_where_they_are_taken() {
        let operands = ["f16[B, S, 64]", "f16[64]", "f16[64]"];
        check_infer(
            "LayerNormalization",
            17,
            &operands,
            &[],
            &["f16[B, S, 64]", "f32[B, S, 1]", "f32[B, S, 1]"],
        );
        let operands = ["f32[B, S, 64]", "f32[64]"];
        check_infer(
            "SimplifiedLayerNormalization",
            1,
            &operands,
            &[],
            &["f32[B, S, 64]", "f32[B, S, 1]"],
        );
        let axis = [Attribute::int("axis", 1)];
        check_infer(
            "LayerNormalization",
            17,
            &operands,
            &axis,
            &["f32[B, S, 64]", "f32[B, 1, 1]"],
        );
        check_mismatch(
            "LayerNormalization",
            17,
            &operands,
            &[Attribute::int("axis", 3)],
            "axis 3",
        );
    }

    #[test]
    fn normalizations_keep_type_and_shape() {
        check_infer(
            "RMSNormalization",
            23,
            &["f32[B, 8]", "f32[8]"],
            &[],
            &["f32[B, 8]"],
        );
        let operands = ["f32[N, 3, H, W]", "f32[3]", "f32[3]"];
        check_infer(
            "InstanceNormalization",
            6,
            &operands,
            &[],
            &["f32[N, 3, H, W]"],
        );
        check_infer(
            "GroupNormalization",
            21,
            &operands,
            &[],
            &["f32[N, 3, H, W]"],
        );
    }

    #[test]
    fn batch_normalization_gives_its_running_statistics() {
        let operands = ["f32[N, 3, H, W]", "f32[3]", "f32[3]", "f32[3]", "f32[3]"];
        check_infer(
            "BatchNormalization",
            15,
            &operands,
            &[],
            &["f32[N, 3, H, W]"],
        );
        check_infer(
            "BatchNormalization",
            15,
            &operands,
            &[],
            &["f32[N, 3, H, W]", "f32[3]", "f32[3]"],
        );
    }
}
