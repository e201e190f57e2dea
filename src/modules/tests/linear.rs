use super::builder::Build;
use super::sites;
use crate::graph::Attribute;
use crate::ty::DType;

/// `x: [n, n, 8]` in front of the node.
fn start() -> Build {
    Build::new().input("x", &[-1, -1, 8])
}

#[test]
fn matmul_reads_in_out() {
    let build = start()
        .weight("m.q.weight", &[8, 4])
        .node("MatMul(x, m.q.weight) -> y");
    assert_eq!(
        sites(build.output("y")),
        ["m.q linear [4, 8] in_out x->y weight_name"]
    );
}

#[test]
fn transposed_weight_is_stored_out_in() {
    let build = start()
        .weight("m.q.weight", &[4, 8])
        .node("Transpose(m.q.weight) -> t")
        .perm(&[1, 0])
        .node("Identity(t) -> t2")
        .node("MatMul(x, t2) -> y");
    assert_eq!(
        sites(build.output("y")),
        ["m.q linear [4, 8] out_in x->y weight_name"]
    );
}

#[test]
fn bias_on_either_side_belongs_to_the_module() {
    for add in ["Add(b, h) -> y", "Add(h, b) -> y"] {
        let build = start()
            .weight("w", &[8, 4])
            .described("b", DType::F32, &[4], &[])
            .named("/m/q/MatMul", "MatMul(x, w) -> h")
            .named("/m/q/Add", add)
            .output("y");
        assert_eq!(sites(build), ["m.q linear [4, 8] in_out x->y +b node_path"]);
    }
}

#[test]
fn a_sum_that_is_no_bias_stays_outside() {
    let wrong_module = start()
        .weight("w", &[8, 4])
        .weight("b", &[4])
        .named("/m/q/MatMul", "MatMul(x, w) -> h")
        .named("/m/Add", "Add(h, b) -> y");
    let wrong_size = start()
        .weight("w", &[8, 4])
        .weight("b", &[3, 4])
        .named("/m/q/MatMul", "MatMul(x, w) -> h")
        .named("/m/q/Add", "Add(h, b) -> y");
    let read_twice = start()
        .weight("w", &[8, 4])
        .weight("b", &[4])
        .named("/m/q/MatMul", "MatMul(x, w) -> h")
        .named("/m/q/Add", "Add(h, b) -> y")
        .output("h");
    for build in [wrong_module, wrong_size, read_twice] {
        assert_eq!(
            sites(build.output("y")),
            ["m.q linear [4, 8] in_out x->h node_path"]
        );
    }
}

#[test]
fn gemm_has_both_layouts_and_a_bias() {
    let build = Build::new()
        .input("x", &[-1, 8])
        .weight("a.weight", &[4, 8])
        .weight("a.bias", &[4])
        .weight("b.weight", &[4, 3])
        .node("Gemm(x, a.weight, a.bias) -> h")
        .int("transB", 1)
        .node("Gemm(h, b.weight) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        [
            "a linear [4, 8] out_in x->h +a.bias weight_name",
            "b linear [3, 4] in_out h->y weight_name"
        ]
    );
}

#[test]
fn scaled_or_residual_gemms_are_no_linear_layer() {
    let scaled = Build::new()
        .input("x", &[-1, 8])
        .weight("a.weight", &[8, 4])
        .node("Gemm(x, a.weight) -> y")
        .with(Attribute::float("alpha", 0.5));
    let residual = Build::new()
        .input("x", &[-1, 8])
        .input("r", &[-1, 4])
        .weight("a.weight", &[8, 4])
        .node("Gemm(x, a.weight, r) -> y");
    for build in [scaled, residual] {
        assert!(sites(build.output("y")).is_empty());
    }
}

/// `x.view(-1, 8) @ w + b`, viewed back, as HF's Conv1D exports.
fn conv1d(scope_of_reshape: &str, target: &[i64]) -> Build {
    start()
        .ints("rows", &[-1, 8])
        .ints("back", target)
        .weight("c.weight", &[8, 4])
        .weight("c.bias", &[4])
        .node("Reshape(x, rows) -> flat")
        .scope(scope_of_reshape)
        .node("Gemm(flat, c.weight, c.bias) -> h")
        .scope("c")
        .node("Reshape(h, back) -> y")
        .scope("c")
        .output("y")
}

#[test]
fn conv1d_begins_and_ends_at_its_reshapes() {
    let expected = ["c linear [4, 8] in_out x->y +c.bias name_scopes"];
    assert_eq!(sites(conv1d("c", &[1, -1, 4])), expected);
}

#[test]
fn reshapes_of_other_shape_or_module_stay_outside() {
    let expected = ["c linear [4, 8] in_out flat->h +c.bias name_scopes"];
    assert_eq!(sites(conv1d("c", &[1, -1, 2, 2])), expected);
    assert_eq!(sites(conv1d("around", &[1, -1, 4])), expected);
}

#[test]
fn products_of_computed_values_are_no_site() {
    let build = start().node("MatMul(x, x) -> y").output("y");
    assert!(sites(build).is_empty());
    // Rotary frequencies: a constant of rank three.
    let build = Build::new()
        .input("p", &[1, 1, -1])
        .weight("inv_freq", &[1, 4, 1])
        .node("MatMul(inv_freq, p) -> y")
        .output("y");
    assert!(sites(build).is_empty());
}

#[test]
fn a_left_weight_counts_between_transposes() {
    let build = start()
        .weight("m.weight", &[4, 8])
        .node("Transpose(x) -> xt")
        .perm(&[0, 2, 1])
        .node("MatMul(m.weight, xt) -> yt")
        .node("Transpose(yt) -> y")
        .perm(&[0, 2, 1])
        .output("y");
    assert_eq!(sites(build), ["m linear [4, 8] out_in x->y weight_name"]);
    let build = start()
        .weight("m.weight", &[4, 8])
        .node("MatMul(m.weight, x) -> y")
        .output("y");
    assert!(sites(build).is_empty());
}

#[test]
fn packed_codes_are_out_in() {
    let build = start()
        .constant("m.q_proj.MatMul.weight_Q4", DType::U8, &[4, 1, 4])
        .weight("m.q_proj.MatMul.weight_scales", &[4])
        .node("com.microsoft:MatMulNBits(x, m.q_proj.MatMul.weight_Q4, m.q_proj.MatMul.weight_scales) -> y")
        .int("K", 8)
        .int("N", 4)
        .int("bits", 4)
        .int("block_size", 16)
        .output("y");
    assert_eq!(
        sites(build),
        ["m.q_proj linear [4, 8] out_in x->y MatMulNBits/4 weight_name"]
    );
}

#[test]
fn dequantized_weights_are_seen_through() {
    let build = start()
        .constant("m.q.weight_DQ_Q4", DType::I4, &[4, 8])
        .weight("s", &[4, 1])
        .node("DequantizeLinear(m.q.weight_DQ_Q4, s) -> w")
        .int("block_size", 8)
        .node("Transpose(w) -> wt")
        .node("MatMul(x, wt) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        ["m.q linear [4, 8] out_in x->y DequantizeLinear/4 weight_name"]
    );
}

#[test]
fn integer_products_reach_from_float_to_float() {
    let build = start()
        .constant("m.q.weight_quantized", DType::I8, &[8, 4])
        .weight("m.q.weight_scale", &[1])
        .constant("zero", DType::I8, &[1])
        .weight("m.q.bias", &[4])
        .node("DynamicQuantizeLinear(x) -> xq, xs, xz")
        .node("MatMulInteger(xq, m.q.weight_quantized, xz, zero) -> yi")
        .node("Cast(yi) -> yf")
        .int("to", 1)
        .node("Mul(xs, m.q.weight_scale) -> s")
        .node("Mul(yf, s) -> h")
        .node("Add(m.q.bias, h) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        ["m.q linear [4, 8] in_out x->y +m.q.bias MatMulInteger/8 weight_name"]
    );
}

#[test]
fn packed_attention_lists_its_members() {
    let build = start()
        .weight("w", &[8, 16])
        .named(
            "/model/layers.0/attn/qkv_proj/MatMul",
            "MatMul(x, w) -> qkv",
        )
        .named(
            "/model/layers.0/attn/GroupQueryAttention",
            "com.microsoft:GroupQueryAttention(qkv, _, _, x) -> y",
        )
        .int("num_heads", 4)
        .int("kv_num_heads", 2)
        .output("y");
    assert_eq!(
        sites(build),
        [
            "model.layers.0.self_attn.q_proj linear [8, 8] in_out x->qkv 0..8 node_path",
            "model.layers.0.self_attn.k_proj linear [4, 8] in_out x->qkv 8..12 node_path",
            "model.layers.0.self_attn.v_proj linear [4, 8] in_out x->qkv 12..16 node_path",
        ]
    );
}

#[test]
fn a_split_projection_of_the_builder_lists_its_members() {
    let build = start()
        .weight("w", &[8, 6])
        .named(
            "/model/layers.0/mlp/gate_up_proj/MatMul",
            "MatMul(x, w) -> h",
        )
        .node("Split(h) -> g, u")
        .int("axis", -1)
        .int("num_outputs", 2)
        .node("Mul(g, u) -> y")
        .named(
            "/model/layers.0/attn/GroupQueryAttention",
            "com.microsoft:GroupQueryAttention(x, x, x) -> z",
        )
        .output("y");
    assert_eq!(
        sites(build),
        [
            "model.layers.0.mlp.gate_proj linear [3, 8] in_out x->h 0..3 node_path",
            "model.layers.0.mlp.up_proj linear [3, 8] in_out x->h 3..6 node_path",
        ]
    );
}

#[test]
fn a_torch_module_called_qkv_proj_is_one_module() {
    let build = start()
        .weight("w", &[8, 12])
        .named(
            "/model/layers.0/self_attn/qkv_proj/MatMul",
            "MatMul(x, w) -> qkv",
        )
        .node("Split(qkv) -> q, k, v")
        .int("axis", -1)
        .int("num_outputs", 3)
        .output("q");
    assert_eq!(
        sites(build),
        ["model.layers.0.self_attn.qkv_proj linear [12, 8] in_out x->qkv node_path"]
    );
}

#[test]
fn projections_inside_an_attention_node_are_unnamed_members() {
    let build = start()
        .weight("Attention_0_qkv_weight", &[8, 24])
        .weight("Attention_0_qkv_bias", &[24])
        .named(
            "Attention_0",
            "com.microsoft:Attention(x, Attention_0_qkv_weight, Attention_0_qkv_bias) -> y",
        )
        .output("y");
    let lines = sites(build);
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[1],
        "? linear [8, 8] in_out x->y 8..16 +Attention_0_qkv_bias none"
    );
}

#[test]
fn sites_in_branches_read_outer_weights() {
    let branch = |out: &str| {
        Build::new()
            .captured("x")
            .captured("onnx::MatMul_1_merged_0")
            .named(
                "/decoder/fc/MatMul",
                &format!("MatMul(x, onnx::MatMul_1_merged_0) -> {out}"),
            )
            .output(out)
    };
    let build = start()
        .ids("flag", &[])
        .weight("onnx::MatMul_1_merged_0", &[8, 4])
        .node("If(flag) -> y")
        .body(branch("then"))
        .body(branch("else"))
        .output("y");
    assert_eq!(
        sites(build),
        [
            "decoder.fc linear [4, 8] in_out x->then node_path",
            "decoder.fc linear [4, 8] in_out x->else node_path"
        ]
    );
}
