use super::{Case, check_case, check_grad, check_refused};
use crate::graph::Attribute;

#[test]
fn transposition_is_undone() {
    check_grad("Transpose", 13, &["normal[B, S, 4]"], &[]);
    let perm = [Attribute::ints("perm", [2, 0, 1])];
    check_grad("Transpose", 13, &["normal[B, S, 4]"], &perm);
}

#[test]
fn joined_tensors_get_their_part() {
    let axis = [Attribute::int("axis", 1)];
    let operands = ["normal[2, S]", "normal[2, 3]", "normal[2, T]"];
    check_grad("Concat", 13, &operands, &axis);
    check_grad(
        "Concat",
        13,
        &["normal[2, 3]", "normal[B, 3]"],
        &[Attribute::int("axis", 0)],
    );
    check_grad(
        "Concat",
        13,
        &["normal[2, 3]", "frozen normal[2, 1]"],
        &axis,
    );
}

fn check_split(opset: i64, operands: &[&str], attributes: &[Attribute], results: usize) {
    check_case(&Case {
        op: "Split",
        opset,
        operands,
        attributes,
        results,
        absent: &[],
    });
}

#[test]
fn parts_of_a_split_are_joined() {
    let axis = Attribute::int("axis", -1);
    check_split(
        13,
        &["normal[B, 6]", "i64[2] = [2, 4]"],
        std::slice::from_ref(&axis),
        2,
    );
    check_split(13, &["normal[B, 6]"], std::slice::from_ref(&axis), 3);
    check_split(
        11,
        &["normal[B, 6]"],
        &[axis, Attribute::ints("split", [1, 5])],
        2,
    );
}

fn check_slice(x: &str, start: &str, end: &str, axis: &str, step: &str) {
    let count = axis.matches(',').count() + 1;
    let list = |text: &str| format!("i64[{count}] = [{text}]");
    let operands = [x, &list(start), &list(end), &list(axis), &list(step)];
    check_grad("Slice", 13, &operands, &[]);
}

const END: &str = "9223372036854775807";

#[test]
fn slices_are_padded_with_zeros() {
    check_slice("normal[B, 6]", "1", "4", "1", "1");
    check_slice("normal[B, 6]", "-4", "-1", "-1", "1");
    check_slice("normal[B, S, 4]", "1", END, "1", "1");
    check_slice("normal[B, S, 4]", "-1", END, "1", "1");
    check_slice("normal[B, S, 4]", "0", "-1", "1", "1");
    check_slice("normal[B, S, 6]", "1, 2", "2, 5", "0, 2", "1, 1");
}

#[test]
fn slices_by_steps_are_written_back() {
    check_slice("normal[B, 6]", "0", END, "1", "2");
    check_slice("normal[B, 6]", "5", "-9223372036854775807", "1", "-1");
    check_slice("normal[B, 7]", "1", "6", "-1", "3");
}

#[test]
fn repetitions_are_summed() {
    check_grad("Tile", 13, &["normal[B, 3]", "i64[2] = [2, 3]"], &[]);
    check_grad("Tile", 13, &["normal[B, 3]", "i64[2] = [1, 2]"], &[]);
}

#[test]
fn padding_is_cut_off() {
    check_grad("Pad", 13, &["normal[B, 3]", "i64[4] = [0, 1, 0, 2]"], &[]);
    check_grad("Pad", 13, &["normal[B, 5]", "i64[4] = [1, -1, 0, -2]"], &[]);
    check_grad(
        "Pad",
        18,
        &["normal[B, 3]", "i64[2] = [1, 2]", "_", "i64[1] = [1]"],
        &[],
    );
    let reflect = [Attribute::string("mode", "reflect")];
    check_refused(
        "Pad",
        13,
        &["normal[B, 3]", "i64[4] = [0, 1, 0, 2]"],
        &reflect,
        "own elements",
    );
}

#[test]
fn triangles_and_blocks() {
    check_grad("Trilu", 14, &["normal[B, 3, 4]"], &[]);
    check_grad(
        "Trilu",
        14,
        &["normal[B, S, 4]", "i64[] = -1"],
        &[Attribute::int("upper", 0)],
    );
    check_grad("com.microsoft:Trilu", 13, &["normal[B, 3, 4]"], &[]);
    let size = [Attribute::int("blocksize", 2)];
    check_grad("DepthToSpace", 13, &["normal[B, 8, 2, 3]"], &size);
    let columns = [size[0].clone(), Attribute::string("mode", "CRD")];
    check_grad("DepthToSpace", 13, &["normal[B, 8, 2, 3]"], &columns);
    check_grad("SpaceToDepth", 13, &["normal[B, 2, 4, 6]"], &size);
}
