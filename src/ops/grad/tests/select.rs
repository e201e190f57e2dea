use super::{Case, check_case, check_grad};
use crate::graph::Attribute;

#[test]
fn a_choice_passes_the_gradient_to_what_is_chosen() {
    check_grad(
        "Where",
        16,
        &["bool[B, S]", "normal[B, S]", "normal[S]"],
        &[],
    );
    check_grad(
        "Where",
        16,
        &["bool[B, 1, S]", "normal[]", "normal[B, T, S]"],
        &[],
    );
    check_grad("Where", 16, &["bool[2, 1]", "f64[] = -3", "normal[S]"], &[]);
}

#[test]
fn the_largest_elements_get_their_gradient_back() {
    for (axis, largest) in [(-1, 1), (1, 0)] {
        check_case(&Case {
            op: "TopK",
            opset: 11,
            operands: &["apart[B, 4, 5]", "i64[1] = [3]"],
            attributes: &[
                Attribute::int("axis", axis),
                Attribute::int("largest", largest),
            ],
            results: 2,
            absent: &[],
        });
    }
}

#[test]
fn cumulative_sums_run_back() {
    for exclusive in [0, 1] {
        for reverse in [0, 1] {
            let attributes = [
                Attribute::int("exclusive", exclusive),
                Attribute::int("reverse", reverse),
            ];
            check_grad("CumSum", 14, &["normal[B, 4]", "i64[] = 1"], &attributes);
        }
    }
}
