use super::{Case, check_grad, check_refused, forward_and_backward};
use crate::graph::Attribute;
use crate::ty::DType;

#[test]
fn smooth_activations() {
    for op in ["Sigmoid", "Tanh", "Softplus", "Mish"] {
        check_grad(op, 22, &["normal[B, 4]"], &[]);
    }
    check_grad("Softsign", 22, &["apart[B, 4]"], &[]);
    check_grad("Gelu", 20, &["normal[B, 4]"], &[]);
    let tanh = [Attribute::string("approximate", "tanh")];
    check_grad("Gelu", 20, &["normal[B, 4]"], &tanh);
}

#[test]
fn activations_with_a_corner() {
    let x = ["apart[B, 8]"];
    for op in [
        "Relu",
        "HardSwish",
        "HardSigmoid",
        "Elu",
        "Selu",
        "Celu",
        "LeakyRelu",
        "ThresholdedRelu",
        "Shrink",
    ] {
        check_grad(op, 16, &x, &[]);
    }
    let alpha = [Attribute::float("alpha", 0.6)];
    for op in [
        "HardSigmoid",
        "Elu",
        "Selu",
        "Celu",
        "LeakyRelu",
        "ThresholdedRelu",
    ] {
        check_grad(op, 16, &x, &alpha);
    }
}

#[test]
fn swish_and_its_gated_form() {
    let alpha = [Attribute::float("alpha", 1.5)];
    check_grad("Swish", 24, &["normal[B, 4]"], &[]);
    check_grad("Swish", 24, &["normal[B, 4]"], &alpha);
    check_grad("SwiGLU", 28, &["normal[B, 4]", "normal[B, 4]"], &alpha);
}

#[test]
fn clip_passes_the_gradient_within_its_bounds() {
    check_grad(
        "Clip",
        13,
        &["apart[B, 8]", "f64[] = -0.5", "f64[] = 0.7"],
        &[],
    );
    // What is lower than its own lower bound is the upper one.
    let crossed = ["apart[B, 8]", "positive[]", "f64[] = 0.1"];
    check_grad("Clip", 13, &crossed, &[]);
    check_grad("Clip", 13, &["apart[B, 8]", "normal[]", "positive[]"], &[]);
    check_grad("Clip", 13, &["apart[B, 8]", "normal[]"], &[]);
    check_grad("Clip", 13, &["apart[B, 8]", "_", "normal[]"], &[]);
}

#[test]
fn softmax_along_an_axis_and_before_opset_13_along_all_behind_it() {
    for op in ["Softmax", "LogSoftmax"] {
        check_grad(op, 13, &["normal[B, S, 4]"], &[]);
        check_grad(op, 13, &["normal[B, S, 4]"], &[Attribute::int("axis", 1)]);
        check_grad(op, 11, &["normal[B, S, 4]"], &[Attribute::int("axis", 1)]);
    }
}

#[test]
fn dropout_is_the_identity_where_it_does_not_train() {
    check_grad("Dropout", 13, &["normal[B, 4]", "f64[] = 0.5"], &[]);
    check_grad("Dropout", 11, &["normal[B, 4]"], &[]);
    let asks = ["normal[B, 4]", "f64[] = 0.5", "bool[]"];
    check_refused("Dropout", 13, &asks, &[], "training mode");
}

#[test]
fn dropout_in_training_scales_what_its_mask_keeps() {
    // Enough elements that a mask without a zero, or with nothing else, does not come up.
    let operands = ["normal[B, 128]", "f64[] = 0.25", "bool[] = 1"];
    for results in [1, 2] {
        let case = Case {
            op: "Dropout",
            opset: 13,
            operands: &operands,
            attributes: &[Attribute::int("seed", 7)],
            results,
            absent: &[],
        };
        let [x, y, p, dx] = forward_and_backward(&case, DType::F64);
        assert!(y.contains(&0.0) && y.iter().any(|y| *y != 0.0), "{y:?}");
        for (index, dx) in dx.iter().enumerate() {
            // The same factor in both directions: 0 or 1 / (1 - ratio).
            let factor = y[index] / x[index];
            assert!((dx - factor * p[index]).abs() < 1e-9, "{dx}");
        }
    }
}
