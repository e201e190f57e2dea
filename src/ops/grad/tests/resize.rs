use super::{check_grad, check_refused};
use crate::graph::Attribute;

#[test]
fn copies_of_the_nearest_element_are_summed() {
    let scales = "f32[4] = [1, 1, 2, 3]";
    let asymmetric = [
        Attribute::string("coordinate_transformation_mode", "asymmetric"),
        Attribute::string("nearest_mode", "floor"),
    ];
    for x in ["normal[B, 2, 3, 4]", "normal[B, 2, H, W]"] {
        check_grad("Resize", 13, &[x, "_", scales], &asymmetric);
        check_grad("Resize", 13, &[x, "_", scales], &[]);
    }
    let sizes = ["normal[2, 2, 3, 4]", "_", "_", "i64[4] = [2, 2, 9, 8]"];
    check_grad("Resize", 13, &sizes, &asymmetric);
}

#[test]
fn interpolation_is_refused() {
    let linear = [Attribute::string("mode", "linear")];
    let operands = ["normal[2, 2, 3, 4]", "_", "f32[4] = [1, 1, 2, 2]"];
    check_refused("Resize", 13, &operands, &linear, "interpolates");
}
