use super::{Case, check_case, check_grad, check_refused};
use crate::graph::{Attribute, Graph, OpName, Value};
use crate::ops::build::Builder;
use crate::ops::grad::{Around, GradCx};
use crate::ty::{DType, Dim, Shape, TensorType};
use rustc_hash::FxHashMap;

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
fn statistics_that_are_read_have_their_gradient() {
    for (op, results) in [
        ("LayerNormalization", 3),
        ("SimplifiedLayerNormalization", 2),
    ] {
        for (operands, axis) in [
            (["normal[B, S, 6]", "normal[6]"], -1),
            (["normal[B, S, 4]", "normal[S, 4]"], 1),
        ] {
            check_case(&Case {
                op,
                opset: 17,
                operands: &operands,
                attributes: &[Attribute::int("axis", axis)],
                results,
                absent: &[],
            });
        }
    }
}

#[test]
fn a_gradient_that_a_rule_does_not_follow_is_refused() {
    let mut graph = Graph::new("two");
    let two = TensorType::new(DType::F32, Shape(vec![Dim::from(2)]));
    let mut value = |name: &str| {
        let value = Value::computed(name, Some(two.clone()));
        graph.add_value(value).unwrap()
    };
    let (x, y, z) = (value("x"), value("y"), value("z"));
    let op = OpName::new("", "Split");
    let node = graph.add_node(op, "split", Vec::new(), &[Some(x)], &[Some(y), Some(z)]);
    let known = FxHashMap::default();
    let build = Builder::new(&graph, &known, 17);
    let incoming = || vec![Some(build.expr(y)), Some(build.expr(z))];
    let cx = || GradCx::new(&build, 17, node, incoming(), vec![true], Around::default());

    let (first, both) = (cx(), cx());
    assert!(first.dy().is_ok());
    let refusal = first.finish().err().unwrap();
    assert!(refusal.0.contains("its result 1"), "{}", refusal.0);
    assert!(both.dy().is_ok() && both.dy_of(1).unwrap().is_some());
    assert!(both.finish().is_ok());
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
