use crate::graph::Attribute;
use crate::ops::check::{check_infer, check_mismatch, check_values};
use crate::ty::DType;

#[test]
fn shape_has_as_many_elements_as_axes() {
    check_infer("Shape", 13, &["f32[B, S, 4]"], &[], &["i64[3]"]);
    check_values("Shape", 13, &["f32[B, S, 4]"], &[], "[B, S, 4]");
    let tail = [Attribute::int("start", -2)];
    check_values("Shape", 15, &["f32[B, S, 4]"], &tail, "[S, 4]");
    let middle = [Attribute::int("start", 1), Attribute::int("end", 2)];
    check_values("Shape", 15, &["f32[B, S, 4]"], &middle, "[S]");
    check_infer("Shape", 13, &["f32[?]"], &[], &["i64[y.0]"]);
    check_values("Size", 13, &["f32[B, S, 4]"], &[], "4*B*S");
}

#[test]
fn cast_changes_the_element_type() {
    let to = [Attribute::int("to", i64::from(DType::F16.number()))];
    check_infer("Cast", 13, &["f32[B, 4]"], &to, &["f16[B, 4]"]);
    check_infer(
        "CastLike",
        15,
        &["f32[B, 4]", "i64[1]"],
        &[],
        &["i64[B, 4]"],
    );
    check_infer("Cast", 13, &["f32[B]"], &[Attribute::int("to", 99)], &["_"]);
    let to = [Attribute::int("to", i64::from(DType::I64.number()))];
    check_values("Cast", 13, &["f32[3] = [S, -2.5, ?]"], &to, "[S, -2, ?]");
    let to = [Attribute::int("to", i64::from(DType::Bool.number()))];
    check_values("Cast", 13, &["i64[2] = [3, 0]"], &to, "[1, 0]");
}

#[test]
fn squeeze_removes_listed_axes() {
    check_infer(
        "Squeeze",
        13,
        &["f32[B, 1, 4]", "i64[1] = [1]"],
        &[],
        &["f32[B, 4]"],
    );
    check_infer(
        "Squeeze",
        11,
        &["f32[B, 1, 4]"],
        &[Attribute::ints("axes", [-2])],
        &["f32[B, 4]"],
    );
    check_infer("Squeeze", 13, &["f32[2, 1, 4]"], &[], &["f32[2, 4]"]);
    check_infer("Squeeze", 13, &["f32[B, 1, 4]"], &[], &["f32[?]"]);
    check_infer("Squeeze", 13, &["f32[B, 1, 4]", "i64[1]"], &[], &["f32[?]"]);
    check_mismatch(
        "Squeeze",
        13,
        &["f32[2, 3]", "i64[1] = [0]"],
        &[],
        "2 and 1",
    );
}

#[test]
fn unsqueeze_adds_axes_of_size_1() {
    check_infer(
        "Unsqueeze",
        13,
        &["f32[B, 4]", "i64[2] = [0, -1]"],
        &[],
        &["f32[1, B, 4, 1]"],
    );
    check_infer(
        "Unsqueeze",
        11,
        &["f32[B]"],
        &[Attribute::ints("axes", [1])],
        &["f32[B, 1]"],
    );
    check_infer(
        "Unsqueeze",
        13,
        &["f32[B]", "i64[1]"],
        &[],
        &["f32[y.0, y.1]"],
    );
    check_values("Unsqueeze", 13, &["i64[] = S", "i64[1] = [0]"], &[], "[S]");
    check_mismatch("Unsqueeze", 13, &["f32[B]", "i64[1] = [5]"], &[], "axis 5");
    check_mismatch(
        "Unsqueeze",
        13,
        &["f32[B]", "i64[2] = [0, 0]"],
        &[],
        "twice",
    );
}

#[test]
fn flatten_gives_a_matrix() {
    check_infer("Flatten", 13, &["f32[B, 3, 4]"], &[], &["f32[B, 12]"]);
    check_infer(
        "Flatten",
        13,
        &["f32[B, S, 4]"],
        &[Attribute::int("axis", 2)],
        &["f32[B*S, 4]"],
    );
    check_infer(
        "Flatten",
        13,
        &["f32[B, S]"],
        &[Attribute::int("axis", 2)],
        &["f32[B*S, 1]"],
    );
    check_infer(
        "Flatten",
        13,
        &["f32[]"],
        &[Attribute::int("axis", 0)],
        &["f32[1, 1]"],
    );
    check_mismatch(
        "Flatten",
        13,
        &["f32[B]"],
        &[Attribute::int("axis", 3)],
        "axis 3",
    );
}

#[test]
fn expand_broadcasts_against_the_target() {
    check_infer(
        "Expand",
        13,
        &["f32[1, S]", "i64[3] = [B, 1, 1]"],
        &[],
        &["f32[B, 1, S]"],
    );
    check_infer(
        "Expand",
        13,
        &["f32[1, S]", "i64[2] = [?, 1]"],
        &[],
        &["f32[y.0, S]"],
    );
    check_infer(
        "Expand",
        13,
        &["f32[4, 1]", "i64[3]"],
        &[],
        &["f32[y.0, 4, y.2]"],
    );
    check_infer("Expand", 13, &["f32[4, 1]", "i64[N]"], &[], &["f32[?]"]);
    check_values(
        "Expand",
        13,
        &["i64[1] = [S]", "i64[1] = [3]"],
        &[],
        "[S, S, S]",
    );
    check_mismatch(
        "Expand",
        13,
        &["f32[3]", "i64[1] = [2]"],
        &[],
        "do not broadcast",
    );
}

#[test]
fn reshape_solves_minus_one() {
    check_infer(
        "Reshape",
        14,
        &["f32[B, S, 64]", "i64[4] = [B, S, 4, -1]"],
        &[],
        &["f32[B, S, 4, 16]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[B, S, 64]", "i64[3] = [0, -1, 16]"],
        &[],
        &["f32[B, 4*S, 16]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[B, H, S, P + S]", "i64[3] = [-1, S, P + S]"],
        &[],
        &["f32[B*H, S, P + S]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[4, 6]", "i64[2] = [-1, 8]"],
        &[],
        &["f32[3, 8]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[N, 6]", "i64[2] = [-1, 4]"],
        &[],
        &["f32[floor(6*N / 4), 4]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[N, 6]", "i64[1] = [-1]"],
        &[],
        &["f32[6*N]"],
    );
}

#[test]
fn reshape_solves_the_one_size_that_is_not_known() {
    check_infer(
        "Reshape",
        14,
        &["f32[B, S, 64]", "i64[3] = [B, ?, 64]"],
        &[],
        &["f32[B, S, 64]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[B, S, 64]", "i64[3] = [?, -1, 64]"],
        &[],
        &["f32[y.0, y.1, 64]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[B, S, 64]", "i64[2]"],
        &[],
        &["f32[y.0, y.1]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[B, S, 64]", "i64[N]"],
        &[],
        &["f32[?]"],
    );
    check_infer(
        "Reshape",
        14,
        &["f32[?]", "i64[2] = [2, -1]"],
        &[],
        &["f32[2, y.1]"],
    );
}

#[test]
fn reshape_takes_zero_as_a_copy_or_as_zero() {
    check_infer(
        "Reshape",
        14,
        &["f32[B, S, 64]", "i64[3] = [0, 0, 64]"],
        &[],
        &["f32[B, S, 64]"],
    );
    let zero = [Attribute::int("allowzero", 1)];
    check_infer(
        "Reshape",
        14,
        &["f32[0, 3]", "i64[2] = [3, 0]"],
        &zero,
        &["f32[3, 0]"],
    );
    check_infer(
        "Reshape",
        1,
        &["f32[2, 6]"],
        &[Attribute::ints("shape", [3, -1])],
        &["f32[3, 4]"],
    );
}

#[test]
fn reshape_refuses_another_number_of_elements() {
    check_mismatch(
        "Reshape",
        14,
        &["f32[2, 3]", "i64[2] = [2, 4]"],
        &[],
        "6 elements",
    );
    check_mismatch(
        "Reshape",
        14,
        &["f32[2, 3]", "i64[2] = [-1, 4]"],
        &[],
        "6 elements",
    );
    check_mismatch(
        "Reshape",
        14,
        &["f32[2, 3]", "i64[2] = [-1, -1]"],
        &[],
        "more than one -1",
    );
    check_mismatch("Reshape", 14, &["f32[2]", "i64[2] = [2, 0]"], &[], "axis 1");
    check_values("Reshape", 14, &["i64[1] = [S]", "i64[0] = []"], &[], "S");
}
