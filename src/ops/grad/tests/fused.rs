use super::{Case, check_case, check_grad, check_refused, forward_and_backward};
use crate::graph::{Attribute, AttributeValue};
use crate::ty::DType;

const X: &str = "normal[B, S, 8]";

fn check(op: &str, operands: &[&str], attributes: &[Attribute]) {
    check_grad(&format!("com.microsoft:{op}"), 18, operands, attributes);
}

#[test]
fn activations_with_a_bias() {
    check("Gelu", &[X], &[]);
    check("QuickGelu", &[X], &[]);
    check("QuickGelu", &[X], &[Attribute::float("alpha", 1.3)]);
    check("FastGelu", &[X], &[]);
    check("FastGelu", &[X, "normal[8]"], &[]);
    check("BiasGelu", &[X, "normal[8]"], &[]);
    check("BiasSplitGelu", &["normal[B, S, 8]", "normal[8]"], &[]);
}

#[test]
fn sums_and_a_softmax_with_a_bias() {
    check("BiasAdd", &[X, "normal[8]", X], &[]);
    check("BiasDropout", &[X, "normal[8]", X], &[]);
    check("BiasDropout", &[X, "normal[8]"], &[]);
    let axis = [
        Attribute::int("axis", 2),
        Attribute::int("is_inner_broadcast", 0),
    ];
    check("BiasSoftmax", &[X, "normal[1, S, 8]"], &axis);
}

fn check_norm(op: &str, operands: &[&str], results: usize) {
    check_case(&Case {
        op: &format!("com.microsoft:{op}"),
        opset: 18,
        operands,
        attributes: &[Attribute::float("epsilon", 1e-3)],
        results,
        absent: &[],
    });
}

#[test]
fn normalizations_of_a_sum() {
    let w = "normal[8]";
    check("SkipLayerNormalization", &[X, X, w, w, w], &[]);
    check("SkipLayerNormalization", &[X, X, w, w], &[]);
    check("SkipLayerNormalization", &[X, "normal[S, 8]", w], &[]);
    check("SkipSimplifiedLayerNormalization", &[X, X, w, w], &[]);
    check_norm("SkipSimplifiedLayerNormalization", &[X, X, w], 1);
    check_norm("SimplifiedLayerNormalization", &[X, w], 1);
    let operands = [
        "int5[B, S]",
        "int2[B, S]",
        "normal[5, 8]",
        "normal[S, 8]",
        "normal[2, 8]",
        w,
        w,
    ];
    check_norm("EmbedLayerNormalization", &operands, 2);
    check_norm("EmbedLayerNormalization", &operands, 3);
}

#[test]
fn the_sum_of_a_normalization_is_read_too() {
    let w = "normal[8]";
    check_sum("SkipLayerNormalization", &[X, X, w, w]);
    check_sum("SkipSimplifiedLayerNormalization", &[X, X, w]);
}

/// With results 0 and 3, of which 1 and 2 are absent.
fn check_sum(op: &str, operands: &[&str]) {
    check_case(&Case {
        op: &format!("com.microsoft:{op}"),
        opset: 18,
        operands,
        attributes: &[],
        results: 4,
        absent: &[1, 2],
    });
}

#[test]
fn products_with_transposed_operands() {
    let flags = |names: &[&str]| -> Vec<Attribute> {
        let flags = names.iter().map(|name| Attribute::int(name, 1));
        flags.chain([Attribute::float("alpha", 0.5)]).collect()
    };
    check(
        "FusedMatMul",
        &["normal[B, S, 8]", "normal[B, T, 8]"],
        &flags(&["transB"]),
    );
    check(
        "FusedMatMul",
        &["normal[B, 8, S]", "normal[B, 8, T]"],
        &flags(&["transA"]),
    );
    let batch = flags(&["transBatchA", "transB"]);
    check(
        "FusedMatMul",
        &["normal[S, B, 8]", "normal[B, T, 8]"],
        &batch,
    );
    check(
        "TransposeMatMul",
        &["normal[S, 8]", "normal[T, 8]"],
        &flags(&["transB"]),
    );
}

#[test]
fn products_with_an_activation() {
    let activated = |name: &str, params: &[(&str, f32)]| -> Vec<Attribute> {
        let params = params
            .iter()
            .map(|(name, value)| Attribute::float(name, *value));
        [Attribute::string("activation", name)]
            .into_iter()
            .chain(params)
            .collect()
    };
    let operands = ["normal[S, 8]", "normal[8, 3]", "normal[3]"];
    check("FusedGemm", &operands, &activated("Tanh", &[]));
    check(
        "FusedGemm",
        &operands,
        &activated("LeakyRelu", &[("activation_alpha", 0.3)]),
    );
    let unknown = [Attribute::string("activation", "Foo")];
    check_refused("com.microsoft:FusedGemm", 18, &operands, &unknown, "`Foo`");
    let clip = [
        Attribute::string("activation", "Clip"),
        Attribute::new("activation_params", AttributeValue::Floats(vec![-0.5, 0.5])),
        Attribute::ints("pads", [1, 1]),
    ];
    let operands = ["normal[2, 3, 9]", "normal[4, 3, 3]", "normal[4]"];
    check("FusedConv", &operands, &clip);
}

#[test]
fn group_normalization_with_channels_behind() {
    let operands = ["normal[B, 3, 2, 8]", "normal[8]", "normal[8]"];
    let mut attributes = vec![
        Attribute::int("groups", 4),
        Attribute::int("activation", 0),
        Attribute::int("channels_last", 1),
    ];
    check("GroupNorm", &operands, &attributes);
    attributes[1] = Attribute::int("activation", 1);
    check("GroupNorm", &operands, &attributes);
}

#[test]
fn weights_of_few_bits_stay_packed() {
    for opset in [17, 21] {
        for (bits, size, bytes) in [(4, 16, 8), (8, 16, 16)] {
            let attributes = [
                Attribute::int("K", 32),
                Attribute::int("N", 3),
                Attribute::int("bits", bits),
                Attribute::int("block_size", size),
            ];
            let codes = codes(3 * 2 * bytes);
            let packed = format!("u8[3, 2, {bytes}] = {codes}");
            let scales = "f64[3, 2] = [0.5, 0.25, 1, 0.3, 0.2, 0.7]";
            let operands = ["normal[B, S, 32]", &packed, scales];
            check_grad("com.microsoft:MatMulNBits", opset, &operands, &attributes);
            let zeros = match bits {
                4 => "u8[3, 1] = [120, 137, 5]",
                _ => "u8[3, 2] = [120, 137, 5, 1, 2, 255]",
            };
            let operands = ["normal[S, 32]", &packed, scales, zeros];
            check_grad("com.microsoft:MatMulNBits", opset, &operands, &attributes);
        }
    }
}

#[test]
fn a_product_that_is_differentiated_has_no_rounded_activations() {
    let attributes = [
        Attribute::int("K", 16),
        Attribute::int("N", 2),
        Attribute::int("block_size", 16),
        Attribute::int("accuracy_level", 4),
    ];
    let packed = format!("u8[2, 1, 8] = {}", codes(16));
    let operands = ["normal[S, 16]", &packed, "f64[2] = [0.5, 0.25]"];
    check_grad("com.microsoft:MatMulNBits", 21, &operands, &attributes);
}

#[test]
fn a_last_block_may_be_shorter() {
    let attributes = [
        Attribute::int("K", 24),
        Attribute::int("N", 2),
        Attribute::int("block_size", 16),
    ];
    let packed = format!("u8[2, 2, 8] = {}", codes(32));
    let operands = ["normal[S, 24]", &packed, "f64[4] = [0.5, 0.25, 1, 0.3]"];
    for opset in [17, 21] {
        check_grad("com.microsoft:MatMulNBits", opset, &operands, &attributes);
    }
}

fn codes(count: usize) -> String {
    let list: Vec<String> = (0..count).map(|at| (at * 37 % 256).to_string()).collect();
    format!("[{}]", list.join(", "))
}

/// A tensor as far as eight bits can tell, at most half a step away: `step · (largest - smallest, 0
/// included) / 255`.
fn half_step(values: &[f64]) -> f64 {
    let (low, high) = values
        .iter()
        .fold((0.0_f64, 0.0_f64), |(low, high), value| {
            (low.min(*value), high.max(*value))
        });
    (high - low) / 255.0 / 2.0
}

/// The function is made of steps, so differences say nothing: its gradient is that of the product
/// without rounding, up to what rounding the arriving gradient changes.
#[test]
fn products_in_8_bits_pass_the_gradient_through_their_rounding() {
    const CODES: [[f64; 3]; 4] = [
        [63.0, -12.0, 5.0],
        [-40.0, 63.0, 0.0],
        [7.0, 31.0, -63.0],
        [-1.0, -63.0, 22.0],
    ];
    const SCALES: [f64; 3] = [0.5, 0.25, 1.0];
    let list: Vec<String> = CODES.iter().flatten().map(f64::to_string).collect();
    let codes = format!("i8[4, 3] = [{}]", list.join(", "));
    let case = Case {
        op: "com.microsoft:DynamicQuantizeMatMul",
        opset: 18,
        operands: &["normal[B, S, 4]", &codes, "f64[3] = [0.5, 0.25, 1]"],
        attributes: &[],
        results: 1,
        absent: &[],
    };
    let [x, y, p, dx] = forward_and_backward(&case, DType::F32);
    let scaled: Vec<f64> = p
        .iter()
        .enumerate()
        .map(|(at, p)| p * SCALES[at % 3])
        .collect();
    // Rounding of a zero point and of f32 itself.
    let (half_x, half_p) = (1.1 * half_step(&x), 1.1 * half_step(&scaled));
    for (row, (x, scaled)) in x.chunks(4).zip(scaled.chunks(3)).enumerate() {
        for (column, scale) in SCALES.iter().enumerate() {
            let exact: f64 = (0..4).map(|k| x[k] * CODES[k][column] * scale).sum();
            let reach: f64 = (0..4).map(|k| CODES[k][column].abs() * scale).sum();
            let found = y[row * 3 + column];
            assert!((found - exact).abs() <= half_x * reach, "{found} {exact}");
        }
        for (k, codes) in CODES.iter().enumerate() {
            let exact: f64 = scaled.iter().zip(codes).map(|(dy, code)| dy * code).sum();
            let reach: f64 = codes.iter().map(|code| code.abs()).sum();
            let found = dx[row * 4 + k];
            assert!((found - exact).abs() <= half_p * reach, "{found} {exact}");
        }
    }
    let refused = [
        "normal[S, 4]",
        &codes,
        "f64[3] = [0.5, 0.25, 1]",
        "i8[3] = [1, 2, 3]",
    ];
    check_refused(
        "com.microsoft:DynamicQuantizeMatMul",
        18,
        &refused,
        &[],
        "zero point",
    );
}
