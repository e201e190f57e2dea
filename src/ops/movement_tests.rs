use crate::graph::Attribute;
use crate::ops::check::{check_infer, check_mismatch, check_values};

#[test]
fn transpose_moves_axes() {
    let perm = [Attribute::ints("perm", [0, 2, 1, 3])];
    check_infer(
        "Transpose",
        13,
        &["f32[B, S, H, 8]"],
        &perm,
        &["f32[B, H, S, 8]"],
    );
    check_infer("Transpose", 13, &["f32[B, S]"], &[], &["f32[S, B]"]);
    check_infer(
        "Transpose",
        13,
        &["f32[?]"],
        &perm,
        &["f32[y.0, y.1, y.2, y.3]"],
    );
    check_mismatch("Transpose", 13, &["f32[B, S]"], &perm, "axis 2");
    check_mismatch(
        "Transpose",
        13,
        &["f32[B]"],
        &[Attribute::ints("perm", [0, 0])],
        "no permutation",
    );
}

#[test]
fn concat_adds_along_its_axis() {
    let axis = [Attribute::int("axis", -2)];
    check_infer(
        "Concat",
        13,
        &["f32[B, P, 8]", "f32[B, S, 8]"],
        &axis,
        &["f32[B, P + S, 8]"],
    );
    let first = [Attribute::int("axis", 0)];
    check_infer(
        "Concat",
        13,
        &["f32[2, N]", "f32[?]"],
        &first,
        &["f32[y.0, N]"],
    );
    check_infer(
        "Concat",
        13,
        &["f32[2, N]", "f32[3, 4]"],
        &first,
        &["f32[5, 4]"],
    );
    check_mismatch("Concat", 13, &["f32[2, 3]", "f32[2, 4]"], &first, "3 and 4");
    check_mismatch(
        "Concat",
        13,
        &["f32[2]", "f32[2, 4]"],
        &first,
        "1 and 2 axes",
    );
    check_values(
        "Concat",
        13,
        &["i64[1] = [B]", "i64[2] = [-1, ?]", "i64[1]"],
        &first,
        "[B, -1, ?, ?]",
    );
}

#[test]
fn tile_multiplies() {
    check_infer(
        "Tile",
        13,
        &["f32[B, 4]", "i64[2] = [2, S]"],
        &[],
        &["f32[2*B, 4*S]"],
    );
    check_infer(
        "Tile",
        13,
        &["f32[B, 4]", "i64[2]"],
        &[],
        &["f32[y.0, y.1]"],
    );
}

#[test]
fn pad_adds_on_both_sides() {
    let pads = [Attribute::ints("pads", [0, 1, 0, 2])];
    check_infer("Pad", 2, &["f32[B, S]"], &pads, &["f32[B, S + 3]"]);
    check_infer(
        "Pad",
        13,
        &["f32[B, S]", "i64[4] = [0, 1, 0, -1]"],
        &[],
        &["f32[B, S]"],
    );
    let some = ["f32[B, S]", "i64[2] = [1, ?]", "_", "i64[1] = [-1]"];
    check_infer("Pad", 18, &some, &[], &["f32[B, y.1]"]);
    check_mismatch(
        "Pad",
        13,
        &["f32[B, S]", "i64[2] = [1, 1]"],
        &[],
        "2 pads for 2 axes",
    );
}

#[test]
fn blocks_move_between_depth_and_space() {
    let size = [Attribute::int("blocksize", 2)];
    check_infer(
        "DepthToSpace",
        13,
        &["f32[N, 12, H, W]"],
        &size,
        &["f32[N, 3, 2*H, 2*W]"],
    );
    check_infer(
        "SpaceToDepth",
        13,
        &["f32[N, 3, 8, 6]"],
        &size,
        &["f32[N, 12, 4, 3]"],
    );
}

#[test]
fn center_crop_pad_takes_the_sizes() {
    let axes = [Attribute::ints("axes", [1])];
    check_infer(
        "CenterCropPad",
        18,
        &["f32[N, 7]", "i64[1] = [5]"],
        &axes,
        &["f32[N, 5]"],
    );
}

#[test]
fn trilu_keeps_the_shape() {
    check_infer("Trilu", 14, &["f32[S, S]", "i64[]"], &[], &["f32[S, S]"]);
}
