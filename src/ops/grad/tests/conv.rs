use super::{check_grad, check_refused};
use crate::graph::Attribute;

fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute::ints(name, values)
}

#[test]
fn convolutions_of_every_kind() {
    let operands = ["normal[B, 4, 9, 8]", "normal[6, 4, 3, 3]", "normal[6]"];
    check_grad("Conv", 11, &operands, &[]);
    check_grad("Conv", 11, &operands, &[ints("pads", &[1, 1, 1, 1])]);
    check_grad(
        "Conv",
        11,
        &operands,
        &[ints("strides", &[2, 3]), ints("pads", &[1, 0, 2, 1])],
    );
    check_grad(
        "Conv",
        11,
        &operands,
        &[ints("dilations", &[2, 1]), ints("strides", &[1, 2])],
    );
    check_grad(
        "Conv",
        11,
        &["normal[B, 3, 9]", "normal[4, 3, 2]"],
        &[ints("strides", &[2])],
    );
    check_grad(
        "Conv",
        11,
        &["normal[2, 2, 5, 4, 6]", "normal[3, 2, 2, 2, 3]"],
        &[],
    );
}

#[test]
fn convolutions_in_groups() {
    for (weight, group) in [("normal[6, 2, 3, 3]", 2), ("normal[8, 1, 3, 3]", 4)] {
        let attributes = [
            Attribute::int("group", group),
            ints("strides", &[2, 1]),
            ints("pads", &[1, 1, 1, 1]),
        ];
        check_grad("Conv", 11, &["normal[B, 4, 7, 6]", weight], &attributes);
    }
}

#[test]
fn convolutions_of_data_of_any_size() {
    let operands = ["normal[B, 3, H, W]", "normal[4, 3, 3, 3]", "normal[4]"];
    check_grad("Conv", 11, &operands, &[ints("pads", &[1, 1, 1, 1])]);
    check_grad(
        "Conv",
        11,
        &operands,
        &[ints("strides", &[2, 2]), ints("pads", &[1, 1, 1, 1])],
    );
}

#[test]
fn convolutions_that_pad_by_themselves() {
    for mode in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
        let attributes = [
            Attribute::string("auto_pad", mode),
            ints("strides", &[2, 1]),
        ];
        check_grad(
            "Conv",
            11,
            &["normal[B, 2, 8, 7]", "normal[3, 2, 3, 2]"],
            &attributes,
        );
    }
    let same = [
        Attribute::string("auto_pad", "SAME_UPPER"),
        ints("strides", &[2]),
    ];
    let any = ["normal[B, 2, H]", "normal[3, 2, 3]"];
    check_refused("Conv", 11, &any, &same, "symbolic size");
}

#[test]
fn transposed_convolutions() {
    let operands = ["normal[B, 4, 5, 4]", "normal[4, 3, 3, 2]", "normal[3]"];
    check_grad("ConvTranspose", 11, &operands, &[]);
    let strided = [
        ints("strides", &[2, 3]),
        ints("pads", &[1, 0, 1, 1]),
        ints("output_padding", &[1, 2]),
    ];
    check_grad("ConvTranspose", 11, &operands, &strided);
    let grouped = [Attribute::int("group", 2), ints("dilations", &[1, 2])];
    check_grad(
        "ConvTranspose",
        11,
        &["normal[B, 4, 5, H]", "normal[4, 3, 3, 2]"],
        &grouped,
    );
    let stated = [ints("strides", &[2, 2]), ints("output_shape", &[10, 9])];
    check_grad("ConvTranspose", 11, &operands, &stated);
}
