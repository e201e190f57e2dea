use super::{check_grad, check_refused};
use crate::graph::Attribute;

#[test]
fn layer_normalization_with_and_without_a_bias() {
    let x = "normal[B, S, 6]";
    check_grad(
        "LayerNormalization",
        17,
        &[x, "normal[6]", "normal[6]"],
        &[],
    );
    check_grad(
        "LayerNormalization",
        17,
        &[x, "normal[6]"],
        &[Attribute::float("epsilon", 0.1)],
    );
    let axis = [Attribute::int("axis", 1)];
    check_grad(
        "LayerNormalization",
        17,
        &["normal[B, 3, 4]", "normal[3, 4]"],
        &axis,
    );
    check_grad(
        "LayerNormalization",
        17,
        &[x, "frozen normal[6]", "frozen normal[6]"],
        &[],
    );
}

#[test]
fn rms_normalization_in_both_spellings() {
    let operands = ["normal[B, S, 6]", "normal[6]"];
    check_grad("SimplifiedLayerNormalization", 17, &operands, &[]);
    check_grad("RMSNormalization", 23, &operands, &[]);
    let axis = [Attribute::int("axis", -2), Attribute::float("epsilon", 0.1)];
    check_grad(
        "RMSNormalization",
        23,
        &["normal[B, 3, 4]", "normal[3, 4]"],
        &axis,
    );
}

#[test]
fn instances_and_groups() {
    let operands = ["normal[B, 4, H]", "normal[4]", "normal[4]"];
    check_grad("InstanceNormalization", 13, &operands, &[]);
    let operands = ["normal[B, 4, 3, W]", "normal[4]", "normal[4]"];
    check_grad("InstanceNormalization", 13, &operands, &[]);
    let groups = [Attribute::int("num_groups", 2)];
    check_grad("GroupNormalization", 21, &operands, &groups);
    let operands = ["normal[B, 4, 3, 5]", "normal[2]", "normal[2]"];
    check_grad("GroupNormalization", 18, &operands, &groups);
}

#[test]
fn batch_normalization_with_running_statistics() {
    let operands = [
        "normal[B, 3, H]",
        "normal[3]",
        "normal[3]",
        "normal[3]",
        "positive[3]",
    ];
    check_grad("BatchNormalization", 15, &operands, &[]);
    check_grad("BatchNormalization", 11, &operands, &[]);
    let trains = [Attribute::int("training_mode", 1)];
    check_refused(
        "BatchNormalization",
        15,
        &operands,
        &trains,
        "training mode",
    );
}

#[test]
fn norms_along_an_axis() {
    for p in [1, 2] {
        let attributes = [Attribute::int("axis", 1), Attribute::int("p", p)];
        check_grad("LpNormalization", 11, &["apart[2, S, 4]"], &attributes);
    }
    check_grad(
        "MeanVarianceNormalization",
        13,
        &["normal[B, 3, 4, 5]"],
        &[],
    );
}
