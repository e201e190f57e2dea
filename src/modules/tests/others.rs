use super::builder::Build;
use super::sites;
use crate::ty::DType;

#[test]
fn convolutions_count_channels_of_all_groups() {
    let build = Build::new()
        .input("x", &[-1, 8, 4, 4])
        .weight("conv.weight", &[6, 4, 3, 3])
        .weight("conv.bias", &[6])
        .node("Conv(x, conv.weight, conv.bias) -> y")
        .int("group", 2)
        .output("y");
    assert_eq!(
        sites(build),
        ["conv conv [6, 8] out_in_kernel x->y +conv.bias weight_name"]
    );
}

#[test]
fn embeddings_gather_rows_by_ids() {
    let build = Build::new()
        .ids("ids", &[-1, -1])
        .weight("wte.weight", &[10, 8])
        .node("Gather(wte.weight, ids) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        ["wte embedding [8, 10] out_in ids->y weight_name"]
    );
}

#[test]
fn a_transposed_head_can_be_the_embedding() {
    let build = Build::new()
        .ids("ids", &[-1])
        .weight("lm_head.MatMul.weight", &[8, 10])
        .node("Transpose(lm_head.MatMul.weight) -> t")
        .perm(&[1, 0])
        .named("/model/embed_tokens/Gather", "Gather(t, ids) -> e")
        .named("/lm_head/MatMul", "MatMul(e, lm_head.MatMul.weight) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        [
            "model.embed_tokens embedding [8, 10] in_out ids->e node_path",
            "lm_head linear [10, 8] in_out e->y node_path"
        ]
    );
}

#[test]
fn gathers_that_look_nothing_up_are_no_site() {
    let shapes = Build::new()
        .ids("ids", &[-1])
        .constant("position_ids", DType::I64, &[1, 512])
        .node("Gather(position_ids, ids) -> y");
    let columns = Build::new()
        .ids("ids", &[-1])
        .weight("a.weight", &[4, 4])
        .node("Gather(a.weight, ids) -> y")
        .int("axis", 1);
    let row = Build::new()
        .ids("ids", &[])
        .weight("a.weight", &[4, 4])
        .node("Gather(a.weight, ids) -> y");
    let buffer = Build::new()
        .ids("ids", &[-1])
        .described(
            "rope.cos_cached",
            DType::F32,
            &[64, 4],
            &[("pkg.torch.export.graph_signature.InputSpec.kind", "BUFFER")],
        )
        .node("Gather(rope.cos_cached, ids) -> y");
    for build in [shapes, columns, row, buffer] {
        assert!(sites(build.output("y")).is_empty());
    }
}

#[test]
fn block_quantized_rows_count_codes() {
    let build = Build::new()
        .ids("ids", &[-1])
        .constant("lm_head.MatMul.weight_Q4", DType::U8, &[10, 2, 16])
        .ints("flat", &[10, -1])
        .weight("scales", &[10, 2])
        .node("Reshape(lm_head.MatMul.weight_Q4, flat) -> codes")
        .named(
            "/model/embed_tokens/GatherBlockQuantized",
            "com.microsoft:GatherBlockQuantized(codes, ids, scales) -> y",
        )
        .int("block_size", 32)
        .output("y");
    assert_eq!(
        sites(build),
        ["model.embed_tokens embedding [64, 10] out_in ids->y GatherBlockQuantized/4 node_path"]
    );
}

#[test]
fn one_node_norms() {
    let build = Build::new()
        .input("x", &[-1, 8])
        .weight("a.weight", &[8])
        .weight("a.bias", &[8])
        .node("LayerNormalization(x, a.weight, a.bias) -> h")
        .weight("b.weight", &[8])
        .node("SimplifiedLayerNormalization(h, b.weight) -> g")
        .weight("c.weight", &[8])
        .node("com.microsoft:SkipSimplifiedLayerNormalization(g, h, c.weight) -> y, _, _, sum")
        .output("y");
    assert_eq!(
        sites(build),
        [
            "a norm [8, 8] out_in x->h +a.bias weight_name",
            "b norm [8, 8] out_in h->g weight_name",
            "c norm [8, 8] out_in sum->y weight_name"
        ]
    );
}

#[test]
fn decomposed_rms_norm_in_both_spellings() {
    let exporters = [
        "Sqrt(e) -> s; Reciprocal(s) -> r; Mul(x, r) -> n; Mul(norm.weight, n) -> y",
        "Sqrt(e) -> s; Div(one, s) -> r; Mul(x, r) -> n; Mul(n, norm.weight) -> y",
        "Sqrt(e) -> s; Div(x, s) -> n; Mul(n, norm.weight) -> y",
    ];
    for exporter in exporters {
        let build = Build::new()
            .input("x", &[-1, 8])
            .floats("two", &[2.0])
            .floats("one", &[1.0])
            .floats("epsilon", &[1e-6])
            .weight("norm.weight", &[8])
            .node("Pow(x, two) -> p")
            .node("ReduceMean(p) -> m")
            .node("Add(m, epsilon) -> e");
        let build = exporter.split("; ").fold(build, Build::node);
        assert_eq!(
            sites(build.output("y")),
            ["norm norm [8, 8] out_in x->y weight_name"],
            "{exporter}"
        );
    }
}

#[test]
fn a_half_precision_norm_begins_before_its_cast() {
    let build = Build::new()
        .input("x", &[-1, 8])
        .floats("two", &[2.0])
        .floats("epsilon", &[1e-6])
        .constant("norm.weight", DType::F16, &[8])
        .node("Cast(x) -> x32")
        .int("to", 1)
        .node("Pow(x32, two) -> p")
        .node("ReduceMean(p) -> m")
        .node("Add(m, epsilon) -> e")
        .node("Sqrt(e) -> s")
        .node("Reciprocal(s) -> r")
        .node("Mul(x32, r) -> n")
        .node("Cast(n) -> n16")
        .int("to", 10)
        .node("Mul(norm.weight, n16) -> y")
        .output("y");
    assert_eq!(sites(build), ["norm norm [8, 8] out_in x->y weight_name"]);
}

#[test]
fn decomposed_layer_norm_has_a_bias() {
    let build = Build::new()
        .input("x", &[-1, 8])
        .floats("two", &[2.0])
        .floats("epsilon", &[1e-6])
        .weight("norm.weight", &[8])
        .weight("norm.bias", &[8])
        .node("ReduceMean(x) -> mu")
        .node("Sub(x, mu) -> d")
        .node("Pow(d, two) -> p")
        .node("ReduceMean(p) -> m")
        .node("Add(m, epsilon) -> e")
        .node("Sqrt(e) -> s")
        .node("Div(d, s) -> n")
        .node("Mul(n, norm.weight) -> h")
        .node("Add(h, norm.bias) -> y")
        .output("y");
    assert_eq!(
        sites(build),
        ["norm norm [8, 8] out_in x->y +norm.bias weight_name"]
    );
}

#[test]
fn products_with_vectors_are_no_norm() {
    let build = Build::new()
        .input("x", &[-1, 8])
        .weight("scale.weight", &[8])
        .node("Sqrt(x) -> s")
        .node("Div(x, s) -> n")
        .node("Mul(n, scale.weight) -> y")
        .output("y");
    assert!(sites(build).is_empty());
}
