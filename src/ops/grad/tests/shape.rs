use super::check_grad;
use crate::graph::Attribute;
use crate::ty::DType;

#[test]
fn the_order_of_elements_stays() {
    check_grad("Identity", 13, &["normal[B, 4]"], &[]);
    check_grad("Reshape", 13, &["normal[B, S, 4]", "i64[2] = [-1, 4]"], &[]);
    check_grad(
        "Reshape",
        13,
        &["normal[B, S, 4]", "i64[4] = [0, 0, 2, 2]"],
        &[],
    );
    check_grad("Reshape", 13, &["normal[B, S, T, N]", "i64[1] = [-1]"], &[]);
    check_grad("Flatten", 13, &["normal[B, S, 4]"], &[]);
    check_grad(
        "Flatten",
        13,
        &["normal[B, S, T]"],
        &[Attribute::int("axis", 2)],
    );
    check_grad("Squeeze", 13, &["normal[B, 1, 4]", "i64[1] = [1]"], &[]);
    check_grad(
        "Squeeze",
        11,
        &["normal[B, 1, 4]"],
        &[Attribute::ints("axes", [1])],
    );
    check_grad("Unsqueeze", 13, &["normal[B, 4]", "i64[2] = [0, -1]"], &[]);
}

#[test]
fn casts_between_floats_pass_gradients() {
    for to in [DType::F32, DType::F64] {
        let to = [Attribute::int("to", i64::from(to.number()))];
        check_grad("Cast", 13, &["normal[B, 4]"], &to);
    }
    check_grad("CastLike", 15, &["normal[B, 4]", "frozen normal[]"], &[]);
}

#[test]
fn expansion_is_summed() {
    check_grad(
        "Expand",
        13,
        &["normal[B, 1, 4]", "i64[3] = [1, 3, 1]"],
        &[],
    );
    check_grad("Expand", 13, &["normal[4]", "i64[3] = [2, 3, 4]"], &[]);
    check_grad("Expand", 13, &["normal[1, 4]", "i64[3] = [2, 3, 4]"], &[]);
}
