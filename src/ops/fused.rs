//! Fusions of ONNX Runtime (`com.microsoft`) other than attention and quantization.

use super::cx::{InferCx, Outcome};
use super::elementwise;
use super::grad::{self, help};
use super::lower;
use super::normalization::statistics;
use super::registry::{Grad, OpDef, between, exactly, microsoft};
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    microsoft("Gelu", exactly(1), same, Grad::Rule(grad::activation::gelu)),
    microsoft(
        "QuickGelu",
        exactly(1),
        same,
        Grad::Rule(grad::activation::swish),
    ),
    microsoft(
        "FastGelu",
        between(1, 2),
        same,
        Grad::Rule(grad::fused::fast_gelu),
    ),
    microsoft(
        "BiasGelu",
        exactly(2),
        with_bias,
        Grad::Rule(grad::fused::bias_gelu),
    ),
    microsoft("BiasAdd", exactly(3), same, Grad::Rule(grad::fused::sum)),
    microsoft(
        "BiasSoftmax",
        exactly(2),
        same,
        Grad::Rule(grad::fused::bias_softmax),
    ),
    microsoft(
        "BiasSplitGelu",
        exactly(2),
        bias_split_gelu,
        Grad::Lower(lower::bias_split_gelu),
    ),
    microsoft(
        "BiasDropout",
        between(2, 5),
        bias_dropout,
        Grad::Rule(grad::fused::bias_dropout),
    )
    .results(between(1, 2)),
    microsoft(
        "SkipLayerNormalization",
        between(3, 5),
        skip_norm,
        Grad::Lower(lower::skip_layer_norm),
    )
    .results(between(1, 4)),
    microsoft(
        "SkipSimplifiedLayerNormalization",
        between(3, 4),
        skip_norm,
        Grad::Lower(lower::skip_rms_norm),
    )
    .results(between(1, 4)),
    microsoft(
        "EmbedLayerNormalization",
        between(7, 9),
        embed_norm,
        Grad::Lower(lower::embed_norm),
    )
    .results(between(1, 3)),
    microsoft("MoE", between(5, 8), same, Grad::Missing(help::OTHER)),
    microsoft("QMoE", between(6, 21), same, Grad::Missing(help::OTHER)),
];

/// `y = f(x)`: the operand's type.
pub(super) fn same(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// `y = f(x + b)`: both broadcast.
fn with_bias(cx: &mut InferCx<'_>) -> Outcome {
    match cx.dtype(0) {
        Some(dtype) => elementwise::broadcast(cx, dtype),
        None => Ok(()),
    }
}

/// `a, g = split(x + b); y = a · gelu(g)`: half of the last axis.
fn bias_split_gelu(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = cx.shape(0).map(|x| {
        let mut dims = x.to_vec();
        if let Some(last) = dims.last_mut() {
            *last = last.floor_div(&Dim::from(2));
        }
        dims
    });
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// `y = dropout(x + b) + residual`, and the mask.
fn bias_dropout(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    cx.same_shape_as(1, 0, DType::Bool);
    Ok(())
}

/// `y, mean, inv_std, sum = norm(x + skip + bias)`: `y` and `sum` have the operand's type, the
/// statistics size 1 in the last axis.
fn skip_norm(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    statistics(cx, DType::F32)?;
    cx.same_as(3, 0);
    Ok(())
}

/// `y, mask_index, sum` of three embeddings: `[b, s] → [b, s, h]`, `[b]`, `[b, s, h]`.
fn embed_norm(cx: &mut InferCx<'_>) -> Outcome {
    let (Some(dtype), Some([b, s])) = (cx.dtype(2), cx.shape(0)) else {
        return Ok(());
    };
    let hidden = match cx.shape(2) {
        Some([_, hidden]) => hidden.clone(),
        _ => cx.fresh(0, 2),
    };
    let dims = vec![b.clone(), s.clone(), hidden];
    cx.set(0, dtype, dims.clone());
    cx.set(1, DType::I32, vec![b.clone()]);
    cx.set(2, dtype, dims);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::ops::check::check_infer;

    #[test]
    fn fused_activations_keep_the_shape() {
        for name in ["Gelu", "QuickGelu", "FastGelu"] {
            let name = format!("com.microsoft:{name}");
            check_infer(&name, 1, &["f16[B, S, 8]"], &[], &["f16[B, S, 8]"]);
        }
        let operands = ["f32[B, S, 8]", "f32[8]"];
        check_infer(
            "com.microsoft:BiasGelu",
            1,
            &operands,
            &[],
            &["f32[B, S, 8]"],
        );
        check_infer(
            "com.microsoft:BiasSplitGelu",
            1,
            &operands,
            &[],
            &["f32[B, S, 4]"],
        );
    }

    #[test]
    fn skip_normalizations_give_the_sum_too() {
        let x = "f16[B, S, 8]";
        let operands = [x, x, "f16[8]"];
        let results = [x, "f32[B, S, 1]", "f32[B, S, 1]", x];
        check_infer(
            "com.microsoft:SkipSimplifiedLayerNormalization",
            1,
            &operands,
            &[],
            &results,
        );
        let operands = [x, x, "f16[8]", "f16[8]", "f16[8]"];
        check_infer(
            "com.microsoft:SkipLayerNormalization",
            1,
            &operands,
            &[],
            &results,
        );
    }

    #[test]
    fn embeddings_are_summed() {
        let operands = [
            "i32[B, S]",
            "_",
            "f32[V, 8]",
            "f32[512, 8]",
            "_",
            "f32[8]",
            "f32[8]",
        ];
        let results = ["f32[B, S, 8]", "i32[B]"];
        check_infer(
            "com.microsoft:EmbedLayerNormalization",
            1,
            &operands,
            &[],
            &results,
        );
    }
}
