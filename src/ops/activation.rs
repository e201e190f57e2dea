//! Activations, softmax and dropout.

use super::arithmetic;
use super::cx::{InferCx, Outcome};
use super::elementwise::unary;
use super::grad;
use super::registry::{Grad, OpDef, between, exactly, op};
use super::shapes;
use crate::ty::DType;

pub(super) const OPS: &[OpDef] = &[
    op(
        "Relu",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::relu),
    )
    .folds(|cx| {
        let zero = super::Element::Int(0.into());
        arithmetic::unary(cx, |x| arithmetic::larger(x, &zero))
    }),
    op(
        "Sigmoid",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::sigmoid),
    ),
    op(
        "Tanh",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::tanh),
    ),
    op(
        "Softplus",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::softplus),
    ),
    op(
        "Softsign",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::softsign),
    ),
    op(
        "Gelu",
        20,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::gelu),
    ),
    op(
        "Mish",
        18,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::mish),
    ),
    op(
        "Swish",
        24,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::swish),
    ),
    op(
        "HardSwish",
        14,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::hard_swish),
    ),
    op(
        "HardSigmoid",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::hard_sigmoid),
    ),
    op(
        "Elu",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::elu),
    ),
    op(
        "Selu",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::selu),
    ),
    op(
        "Celu",
        12,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::celu),
    ),
    op(
        "LeakyRelu",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::leaky_relu),
    ),
    op(
        "ThresholdedRelu",
        10,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::thresholded_relu),
    ),
    op(
        "Shrink",
        9,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::shrink),
    ),
    op(
        "Clip",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::activation::clip),
    ),
    op(
        "Clip",
        11,
        between(1, 3),
        unary,
        Grad::Rule(grad::activation::clip),
    ),
    op(
        "Softmax",
        1,
        exactly(1),
        along_axis,
        Grad::Rule(grad::activation::softmax),
    ),
    op(
        "LogSoftmax",
        1,
        exactly(1),
        along_axis,
        Grad::Rule(grad::activation::log_softmax),
    ),
    op("Hardmax", 1, exactly(1), along_axis, Grad::Zero),
    op(
        "SwiGLU",
        28,
        exactly(2),
        gated,
        Grad::Rule(grad::activation::swiglu),
    ),
    op(
        "Dropout",
        1,
        exactly(1),
        dropout,
        Grad::Rule(grad::activation::dropout),
    )
    .results(between(1, 2)),
    op(
        "Dropout",
        12,
        between(1, 3),
        dropout,
        Grad::Rule(grad::activation::dropout),
    )
    .results(between(1, 2)),
];

/// `y = softmax(x)`: the operand's type. Default axis: the last from opset 13 on, 1 before (and
/// then everything behind it too); the shape is the same either way.
fn along_axis(cx: &mut InferCx<'_>) -> Outcome {
    if let (Some(rank), Some(axis)) = (cx.rank(0), cx.int("axis")) {
        // Before opset 13 an axis may stand behind the last one.
        if cx.opset >= 13 || axis != rank as i64 {
            shapes::axis(axis, rank)?;
        }
    }
    unary(cx)
}

/// `y = swish(gate) · up`: the broadcast of both.
fn gated(cx: &mut InferCx<'_>) -> Outcome {
    match cx.dtype(0) {
        Some(dtype) => super::elementwise::broadcast(cx, dtype),
        None => Ok(()),
    }
}

/// `y, mask = dropout(x)`: the operand's type; the mask is boolean from opset 10 on.
fn dropout(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    match cx.opset {
        10.. => cx.same_shape_as(1, 0, DType::Bool),
        _ => cx.same_as(1, 0),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn activations_keep_type_and_shape() {
        for name in ["Relu", "Sigmoid", "Gelu", "HardSigmoid", "Softplus"] {
            check_infer(name, 22, &["f16[B, 3]"], &[], &["f16[B, 3]"]);
        }
        check_infer("Clip", 13, &["f32[N]", "_", "f32[]"], &[], &["f32[N]"]);
        check_infer("Clip", 6, &["f32[N]"], &[], &["f32[N]"]);
    }

    #[test]
    fn softmax_checks_its_axis() {
        let axis = [Attribute::int("axis", 2)];
        check_infer("Softmax", 11, &["f32[B, 3]"], &axis, &["f32[B, 3]"]);
        check_mismatch(
            "Softmax",
            13,
            &["f32[B, 3]"],
            &axis,
            "axis 2 of a tensor with 2 axes",
        );
    }

    #[test]
    fn the_mask_of_dropout_is_boolean_from_opset_10_on() {
        check_infer(
            "Dropout",
            13,
            &["f16[B]", "f32[]"],
            &[],
            &["f16[B]", "bool[B]"],
        );
        check_infer("Dropout", 7, &["f16[B]"], &[], &["f16[B]", "f16[B]"]);
    }
}
