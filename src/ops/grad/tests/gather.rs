use super::{check_grad, check_refused};
use crate::graph::Attribute;

#[test]
fn rows_that_are_read_get_their_gradient() {
    for opset in [13, 16, 18] {
        check_grad(
            "Gather",
            opset,
            &["normal[5, 3]", "frozen index5[B, S]"],
            &[],
        );
        check_grad(
            "Gather",
            opset,
            &["normal[N, 3, 2]", "frozen index5[4]"],
            &[],
        );
        let last = [Attribute::int("axis", -1)];
        check_grad(
            "Gather",
            opset,
            &["normal[B, 3, 6]", "frozen index6[2, S]"],
            &last,
        );
        let middle = [Attribute::int("axis", 1)];
        check_grad(
            "Gather",
            opset,
            &["normal[B, S, 4]", "frozen index3[7]"],
            &middle,
        );
        check_grad(
            "Gather",
            opset,
            &["normal[5, 3]", "i64[3] = [-1, 0, -1]"],
            &[],
        );
        check_grad("Gather", opset, &["normal[5, 3]", "frozen int5[S]"], &[]);
    }
}

#[test]
fn one_place_is_padded_with_zeros() {
    let middle = [Attribute::int("axis", 1)];
    for index in ["0", "2", "-1"] {
        let index = format!("i64[] = {index}");
        check_grad("Gather", 13, &["normal[B, S, 4]", &index], &middle);
        check_grad("Gather", 13, &["normal[B, 4]", &index], &middle);
    }
    check_grad("Gather", 13, &["normal[B, S, 4]", "i64[1] = [-2]"], &middle);
}

#[test]
fn elements_that_are_read_get_their_gradient() {
    let axis = [Attribute::int("axis", 1)];
    check_grad(
        "GatherElements",
        16,
        &["normal[B, 4]", "frozen index4[B, 7]"],
        &axis,
    );
    check_grad(
        "GatherElements",
        18,
        &["normal[3, S]", "frozen int3[5, S]"],
        &[],
    );
    let old = ["normal[B, 4]", "frozen index4[B, 7]"];
    check_refused("GatherElements", 13, &old, &axis, "opset 16");
}

#[test]
fn places_along_several_axes() {
    check_grad(
        "GatherND",
        16,
        &["normal[2, 3, 4]", "frozen index2[S, 2]"],
        &[],
    );
    check_grad(
        "GatherND",
        16,
        &["normal[3, S]", "frozen index3[B, T, 1]"],
        &[],
    );
    let batch = [Attribute::int("batch_dims", 1)];
    check_grad(
        "GatherND",
        16,
        &["normal[B, 4, 2]", "frozen index4[B, T, 1]"],
        &batch,
    );
    check_grad(
        "GatherND",
        16,
        &["normal[2, 4, 2]", "frozen index2[2, 2]"],
        &batch,
    );
    let two = [Attribute::int("batch_dims", 2)];
    check_grad(
        "GatherND",
        16,
        &["normal[B, 3, 5]", "frozen index5[B, 3, 1]"],
        &two,
    );
}

#[test]
fn what_is_written_takes_the_gradient_of_its_place() {
    let axis = Attribute::int("axis", 1);
    let adds = Attribute::string("reduction", "add");
    // Places that differ: of two writes to one place, which wins is not defined.
    let operands = ["normal[2, S]", "i64[2, 2] = [0, 2, 1, 0]", "normal[2, 2]"];
    check_grad(
        "ScatterElements",
        16,
        &operands,
        std::slice::from_ref(&axis),
    );
    let operands = ["normal[2, 5]", "i64[2, 2] = [0, 0, 1, 3]", "normal[2, 2]"];
    check_grad(
        "ScatterElements",
        16,
        &operands,
        &[axis.clone(), adds.clone()],
    );
    let operands = [
        "normal[B, 3, 2]",
        "i64[2, 2] = [0, 2, 1, 0]",
        "normal[2, 2]",
    ];
    check_grad("ScatterND", 16, &operands, &[]);
    check_grad("ScatterND", 16, &operands, &[adds]);
    let largest = [axis, Attribute::string("reduction", "max")];
    let operands = ["normal[2, 5]", "i64[2, 1] = [0, 1]", "normal[2, 1]"];
    check_refused("ScatterElements", 18, &operands, &largest, "`max`");
}
