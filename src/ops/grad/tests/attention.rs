use super::{Case, check_case, check_grad, check_refused};
use crate::graph::Attribute;

#[test]
fn rotary_embeddings_turn_back() {
    for interleaved in [0, 1] {
        let interleaved = Attribute::int("interleaved", interleaved);
        let heads = Attribute::int("num_heads", 2);
        let tables = ["frozen normal[B, S, 2]", "frozen normal[B, S, 2]"];
        let x = "normal[B, 2, S, 4]";
        let attributes = [interleaved.clone()];
        check_grad(
            "RotaryEmbedding",
            23,
            &[x, tables[0], tables[1]],
            &attributes,
        );
        let attributes = [interleaved.clone(), heads.clone()];
        let x = "normal[B, S, 8]";
        check_grad(
            "RotaryEmbedding",
            23,
            &[x, tables[0], tables[1]],
            &attributes,
        );
        let tables = ["frozen normal[9, 2]", "frozen normal[9, 2]"];
        let positions = "frozen index9[B, S]";
        check_grad(
            "RotaryEmbedding",
            23,
            &[x, tables[0], tables[1], positions],
            &attributes,
        );
        check_grad(
            "com.microsoft:RotaryEmbedding",
            17,
            &[x, positions, tables[0], tables[1]],
            &[interleaved],
        );
    }
    let part = [
        Attribute::int("rotary_embedding_dim", 2),
        Attribute::int("num_heads", 2),
    ];
    let operands = [
        "normal[B, S, 8]",
        "frozen normal[B, S, 1]",
        "frozen normal[B, S, 1]",
    ];
    check_grad("RotaryEmbedding", 23, &operands, &part);
}

fn heads(n: i64, g: i64) -> Vec<Attribute> {
    vec![
        Attribute::int("q_num_heads", n),
        Attribute::int("kv_num_heads", g),
    ]
}

fn with(mut attributes: Vec<Attribute>, more: &[Attribute]) -> Vec<Attribute> {
    attributes.extend(more.iter().cloned());
    attributes
}

#[test]
fn attention_of_onnx() {
    let grouped = ["normal[B, S, 12]", "normal[B, T, 6]", "normal[B, T, 6]"];
    check_grad("Attention", 23, &grouped, &heads(4, 2));
    let scaled = [
        Attribute::float("scale", 0.7),
        Attribute::float("softcap", 2.0),
    ];
    check_grad("Attention", 23, &grouped, &with(heads(4, 2), &scaled));
    let apart = [
        "normal[B, 2, S, 4]",
        "normal[B, 2, T, 4]",
        "normal[B, 2, T, 3]",
    ];
    check_grad("Attention", 23, &apart, &[]);
    let square = [
        "normal[B, 2, S, 4]",
        "normal[B, 2, S, 4]",
        "normal[B, 2, S, 3]",
    ];
    check_grad("Attention", 23, &square, &[Attribute::int("is_causal", 1)]);
}

#[test]
fn attention_of_onnx_with_masks_and_caches() {
    let [q, k, v] = [
        "normal[B, 2, S, 4]",
        "normal[B, 2, S, 4]",
        "normal[B, 2, S, 3]",
    ];
    check_grad("Attention", 23, &[q, k, v, "bool[B, 1, S, S]"], &[]);
    check_grad("Attention", 23, &[q, k, v, "frozen normal[S, S]"], &[]);
    check_grad("Attention", 23, &[q, k, v, "normal[B, 1, S, S]"], &[]);
    let past = ["normal[B, 2, T, 4]", "normal[B, 2, T, 3]"];
    check_case(&Case {
        op: "Attention",
        opset: 23,
        operands: &[q, k, v, "_", past[0], past[1]],
        attributes: &[Attribute::int("is_causal", 1)],
        results: 3,
        absent: &[],
    });
    let windows = [
        Attribute::int("left_window_size", 1),
        Attribute::int("right_window_size", 0),
    ];
    check_grad("Attention", 25, &[q, k, v], &windows);
    let short = [q, k, v, "bool[S, 2]"];
    check_refused("Attention", 23, &short, &[], "its mask covers");
}

fn check_grouped(operands: &[&str], more: &[Attribute]) {
    let heads = vec![
        Attribute::int("num_heads", 4),
        Attribute::int("kv_num_heads", 2),
    ];
    check_case(&Case {
        op: "com.microsoft:GroupQueryAttention",
        opset: 18,
        operands,
        attributes: &with(heads, more),
        results: 3,
        absent: &[],
    });
}

#[test]
fn grouped_queries() {
    // Two samples of three tokens, none of them cached. ONNX Runtime rotates heads of 16 only.
    let cache = "frozen normal[2, 2, 0, 16]";
    let lengths = ["i32[2] = [2, 2]", "i32[] = 3"];
    let packed = [
        "normal[2, 3, 128]",
        "_",
        "_",
        cache,
        cache,
        lengths[0],
        lengths[1],
    ];
    check_grouped(&packed, &[]);
    let apart = [
        "normal[2, 3, 64]",
        "normal[2, 3, 32]",
        "normal[2, 3, 32]",
        cache,
        cache,
        lengths[0],
        lengths[1],
    ];
    check_grouped(&apart, &[Attribute::float("softcap", 3.0)]);
    check_grouped(&apart, &[Attribute::int("local_window_size", 2)]);
    check_grouped(&apart, &[Attribute::int("smooth_softmax", 1)]);
    let mut rotated = packed.to_vec();
    rotated.extend(["frozen normal[9, 8]", "frozen normal[9, 8]"]);
    check_grouped(&rotated, &[Attribute::int("do_rotary", 1)]);
    let turned = [
        Attribute::int("do_rotary", 1),
        Attribute::int("rotary_interleaved", 1),
    ];
    check_grouped(&rotated, &turned);
    let mut biased = rotated.clone();
    biased.extend(["_", "normal[2, 1, 3, 3]", "normal[4]"]);
    check_grouped(&biased, &[Attribute::int("do_rotary", 1)]);
    biased.extend(["_", "_", "normal[16]", "normal[16]"]);
    check_grouped(&biased, &[Attribute::int("do_rotary", 1)]);
}

#[test]
fn grouped_queries_behind_a_cache() {
    let cache = "normal[1, 2, 2, 16]";
    let operands = [
        "normal[1, 3, 128]",
        "_",
        "_",
        cache,
        cache,
        "i32[1] = [4]",
        "i32[] = 5",
        "frozen normal[9, 8]",
        "frozen normal[9, 8]",
    ];
    check_grouped(&operands, &[Attribute::int("do_rotary", 1)]);
}

fn check_multi(operands: &[&str], more: &[Attribute]) {
    let heads = vec![Attribute::int("num_heads", 2)];
    check_grad(
        "com.microsoft:MultiHeadAttention",
        18,
        operands,
        &with(heads, more),
    );
}

#[test]
fn many_heads() {
    let (q, k, v) = ("normal[B, S, 8]", "normal[B, T, 8]", "normal[B, T, 6]");
    check_multi(&[q, k, v], &[]);
    check_multi(&[q, k, k, "normal[24]"], &[Attribute::float("scale", 0.4)]);
    check_multi(&[q, q, q, "_", "_", "normal[B, 2, S, S]"], &[]);
    check_multi(&[q, q, q], &[Attribute::int("unidirectional", 1)]);
    check_multi(&["normal[B, S, 2, 3, 4]"], &[]);
    check_multi(&[q, "normal[B, T, 2, 2, 4]"], &[]);
    check_multi(&[q, "normal[B, 2, T, 4]", "normal[B, 2, T, 4]"], &[]);
}

#[test]
fn many_heads_with_masks_and_caches() {
    let q = "normal[B, S, 8]";
    check_multi(&[q, q, q, "_", "frozen alternating[B, S]"], &[]);
    check_multi(&[q, q, q, "_", "frozen alternating[B, S, S]"], &[]);
    // How many tokens of each sample there are: of as many samples as there are numbers.
    let two = "normal[2, S, 8]";
    check_multi(&[two, two, two, "_", "i32[2] = [3, 1]"], &[]);
    let cache = "normal[B, 2, T, 4]";
    check_case(&Case {
        op: "com.microsoft:MultiHeadAttention",
        opset: 18,
        operands: &[q, q, q, "_", "_", "_", cache, cache],
        attributes: &[Attribute::int("num_heads", 2)],
        results: 3,
        absent: &[],
    });
}

#[test]
fn packed_attention() {
    let heads = Attribute::int("num_heads", 2);
    let check = |operands: &[&str], more: &[Attribute]| {
        let attributes = with(vec![heads.clone()], more);
        check_grad("com.microsoft:Attention", 18, operands, &attributes);
    };
    let x = "normal[B, S, 5]";
    check(&[x, "normal[5, 24]", "normal[24]"], &[]);
    check(
        &[x, "normal[5, 24]", "normal[24]"],
        &[Attribute::int("unidirectional", 1)],
    );
    let sizes = [Attribute::ints("qkv_hidden_sizes", [8, 8, 6])];
    check(&[x, "normal[5, 22]", "normal[22]"], &sizes);
    check(
        &[x, "normal[5, 24]", "normal[24]", "frozen alternating[B, S]"],
        &[],
    );
    check_case(&Case {
        op: "com.microsoft:Attention",
        opset: 18,
        operands: &[
            x,
            "normal[5, 24]",
            "normal[24]",
            "_",
            "normal[2, B, 2, T, 4]",
        ],
        attributes: std::slice::from_ref(&heads),
        results: 2,
        absent: &[],
    });
}

#[test]
fn counts_that_nothing_can_have_are_refused() {
    let q = ["normal[B, S, 8]"; 3];
    let heads = [Attribute::int("num_heads", i64::MAX)];
    let words = format!("its `num_heads` is {}", i64::MAX);
    check_refused("com.microsoft:MultiHeadAttention", 18, &q, &heads, &words);
}
