use super::{check_grad, check_refused};
use crate::graph::Attribute;

const ALL: &[(&str, &str)] = &[
    ("ReduceSum", "normal"),
    ("ReduceMean", "normal"),
    ("ReduceMax", "apart"),
    ("ReduceMin", "apart"),
    ("ReduceProd", "positive"),
    ("ReduceL1", "apart"),
    ("ReduceL2", "normal"),
    ("ReduceLogSum", "positive"),
    ("ReduceLogSumExp", "normal"),
    ("ReduceSumSquare", "normal"),
];

#[test]
fn over_axes_that_stay_or_go() {
    for (op, kind) in ALL {
        let x = format!("{kind}[B, S, 4]");
        for keep in [0, 1] {
            let keep = Attribute::int("keepdims", keep);
            check_grad(op, 18, &[&x, "i64[1] = [-1]"], std::slice::from_ref(&keep));
            check_grad(
                op,
                18,
                &[&x, "i64[2] = [0, 2]"],
                std::slice::from_ref(&keep),
            );
            check_grad(op, 18, &[&x], std::slice::from_ref(&keep));
            check_grad(op, 11, &[&x], &[keep, Attribute::ints("axes", [1])]);
        }
    }
}

#[test]
fn over_no_axes_it_is_a_function_of_every_element() {
    let none = [Attribute::int("noop_with_empty_axes", 1)];
    check_grad("ReduceSum", 13, &["normal[B, 4]"], &none);
}

#[test]
fn axes_that_only_a_run_tells_are_refused() {
    let operands = ["normal[B, 4]", "frozen index2[1]"];
    check_refused("ReduceSum", 13, &operands, &[], "axes are not constants");
}
