use super::{check_grad, check_refused};
use crate::graph::Attribute;

fn window(kernel: &[i64], strides: &[i64], pads: &[i64]) -> Vec<Attribute> {
    vec![
        Attribute::ints("kernel_shape", kernel),
        Attribute::ints("strides", strides),
        Attribute::ints("pads", pads),
    ]
}

#[test]
fn the_largest_of_a_window_gets_the_gradient() {
    let x = ["apart[B, 2, 6, 7]"];
    check_grad("MaxPool", 16, &x, &window(&[2, 2], &[2, 2], &[0, 0, 0, 0]));
    check_grad("MaxPool", 16, &x, &window(&[3, 3], &[2, 1], &[1, 1, 1, 1]));
    check_grad(
        "MaxPool",
        16,
        &["apart[B, 2, H]"],
        &window(&[3], &[2], &[1, 1]),
    );
    check_grad("MaxPool", 12, &x, &window(&[2, 2], &[2, 2], &[0, 0, 0, 0]));
    check_refused(
        "MaxPool",
        12,
        &x,
        &window(&[3, 3], &[2, 2], &[0, 0, 0, 0]),
        "opset 16",
    );
}

#[test]
fn averages_are_spread_over_their_window() {
    let x = ["normal[B, 2, 6, 7]"];
    check_grad(
        "AveragePool",
        19,
        &x,
        &window(&[2, 2], &[2, 2], &[0, 0, 0, 0]),
    );
    check_grad(
        "AveragePool",
        19,
        &x,
        &window(&[3, 2], &[2, 1], &[0, 0, 0, 0]),
    );
    check_grad(
        "AveragePool",
        19,
        &["normal[B, S, H]"],
        &window(&[3], &[2], &[0, 0]),
    );
    let mut padded = window(&[3, 3], &[2, 2], &[1, 1, 1, 1]);
    check_grad("AveragePool", 19, &x, &padded);
    padded.push(Attribute::int("count_include_pad", 1));
    check_grad("AveragePool", 19, &x, &padded);
    padded.push(Attribute::int("ceil_mode", 1));
    check_grad("AveragePool", 19, &x, &padded);
    let mut rounded = window(&[3, 3], &[2, 2], &[0, 0, 0, 0]);
    rounded.push(Attribute::int("ceil_mode", 1));
    check_grad("AveragePool", 19, &x, &rounded);
}

#[test]
fn pools_over_all_of_space() {
    for x in ["apart[B, 3, 4]", "apart[B, 3, H, W]"] {
        check_grad("GlobalAveragePool", 13, &[x], &[]);
        check_grad("GlobalMaxPool", 13, &[x], &[]);
        check_grad("GlobalLpPool", 13, &[x], &[]);
    }
}

#[test]
fn norms_of_windows() {
    check_grad(
        "LpPool",
        18,
        &["normal[B, 2, 6, 7]"],
        &window(&[3, 2], &[2, 1], &[0, 0, 0, 0]),
    );
}
