//! Which query stands in front of a layer, and why there is none.

use super::builder::Build;
use super::recovered;
use crate::graph::Attribute;

/// What the layer `o` of a graph reads: the query with its heads, or the reason.
fn found(build: Build) -> String {
    let model = build
        .weight("o.weight", &[8, 6])
        .node("MatMul(merged, o.weight) -> y")
        .output("y")
        .model();
    let modules = recovered(&model);
    let site = modules.sites.iter().find(|site| site.path == "o");
    match site.expect("a layer `o`").query(&model.graph) {
        Ok(query) => {
            let name = &model.graph.value(query.value).name;
            format!("{name} {} × {} {:?}", query.heads, query.size, query.form)
        }
        Err(why) => why,
    }
}

/// Queries, keys and values of two heads of four features.
fn heads() -> Build {
    Build::new()
        .input("q", &[-1, 2, -1, 4])
        .input("k", &[-1, 2, 4, -1])
        .input("v", &[-1, 2, -1, 4])
        .input("mask", &[-1, 1, -1, -1])
        .ints("sizes", &[0, 0, 8])
}

/// Behind scores: their softmax, its product with the values, and the heads side by side.
fn behind(build: Build, way: &str) -> Build {
    build
        .node(way)
        .int("axis", -1)
        .node("MatMul(weights, v) -> mixed")
        .node("Transpose(mixed) -> turned")
        .perm(&[0, 2, 1, 3])
        .node("Reshape(turned, sizes) -> merged")
}

const SOFTMAX: &str = "Softmax(scores) -> weights";

#[test]
fn the_query_stands_in_front_of_numbers() {
    let scaled = heads()
        .floats("half", &[0.5])
        .node("Cast(q) -> wide")
        .int("to", 1)
        .node("Mul(half, wide) -> a")
        .node("Div(a, half) -> b")
        .node("MatMul(b, k) -> raw")
        .node("Add(raw, mask) -> scores");
    assert_eq!(found(behind(scaled, SOFTMAX)), "q 2 × 4 Heads");
    // What is multiplied with as many numbers as it has features is another query.
    let turned = heads()
        .floats("cos", &[0.5, 1.0, 1.0, 0.5])
        .typed("a", &["batch", "2", "tokens", "4"])
        .node("Mul(q, cos) -> a")
        .node("MatMul(a, k) -> scores");
    assert_eq!(
        found(behind(turned, SOFTMAX)),
        "how many heads its query has is not known"
    );
}

#[test]
fn what_is_no_attention_has_no_query() {
    let plain = || heads().node("MatMul(q, k) -> scores");
    assert_eq!(found(behind(plain(), SOFTMAX)), "q 2 × 4 Heads");
    let no_softmax = behind(plain(), "Sigmoid(scores) -> weights");
    assert_eq!(
        found(no_softmax),
        "no softmax gives the weights of its attention"
    );
    let two = heads()
        .node("MatMul(q, k) -> first")
        .node("MatMul(q, k) -> second")
        .node("Add(first, second) -> scores");
    assert_eq!(
        found(behind(two, SOFTMAX)),
        "no single product of queries and keys gives its scores"
    );
    let gated = behind(plain(), SOFTMAX)
        .input("gate", &[-1, -1, 8])
        .node("Mul(merged, gate) -> gated")
        .weight("p.weight", &[8, 6])
        .node("MatMul(gated, p.weight) -> z")
        .output("z");
    let model = gated.model();
    let modules = recovered(&model);
    let site = modules.sites.iter().find(|site| site.path == "p").unwrap();
    let why = site.query(&model.graph).unwrap_err();
    assert!(why.contains("(Mul)"), "{why}");
    // Of the axis of queries.
    let other = plain()
        .named("soft", "Softmax(scores) -> weights")
        .int("axis", 2)
        .node("MatMul(weights, v) -> mixed")
        .node("Transpose(mixed) -> turned")
        .perm(&[0, 2, 1, 3])
        .node("Reshape(turned, sizes) -> merged");
    assert_eq!(found(other), "`soft` (Softmax) is not over the last axis");
    let layer = Build::new()
        .input("x", &[-1, -1, 8])
        .weight("u.weight", &[8, 8])
        .node("Transpose(u.weight) -> t")
        .perm(&[1, 0])
        .named("layer", "MatMul(x, t) -> merged");
    assert_eq!(found(layer), "it reads what `layer` (MatMul) gives");
    let nothing = Build::new().input("merged", &[-1, -1, 8]);
    assert_eq!(found(nothing), "`merged` is no result");
}

#[test]
fn heads_are_merged_behind_their_tokens() {
    let why = "the heads of its input are not merged as `[batch, tokens, heads, …]`";
    let merged = |perm: &[i64]| {
        heads()
            .node("MatMul(q, k) -> scores")
            .node(SOFTMAX)
            .int("axis", -1)
            .node("MatMul(weights, v) -> mixed")
            .node("Transpose(mixed) -> turned")
            .perm(perm)
            .node("Reshape(turned, sizes) -> merged")
    };
    assert_eq!(found(merged(&[0, 2, 1, 3])), "q 2 × 4 Heads");
    assert_eq!(found(merged(&[0, 2, 3, 1])), why);
    let flat = Build::new()
        .input("q", &[-1, -1, 8])
        .input("k", &[-1, 8, -1])
        .input("v", &[-1, -1, 8])
        .node("MatMul(q, k) -> scores")
        .node(SOFTMAX)
        .int("axis", -1)
        .node("MatMul(weights, v) -> merged");
    assert_eq!(found(flat), why);
    let more = heads()
        .input("wide", &[-1, 2, -1, 6])
        .input("keys", &[-1, 2, 6, -1])
        .node("MatMul(wide, keys) -> scores");
    assert_eq!(
        found(behind(more, SOFTMAX)),
        "its query has 2 heads of 6 features, and its values 8 features in all"
    );
}

#[test]
fn an_operator_may_make_its_query_inside() {
    let rows = || {
        Build::new()
            .input("q", &[-1, -1, 8])
            .input("k", &[-1, -1, 8])
            .input("v", &[-1, -1, 8])
            .weight("w", &[8, 24])
            .weight("bias", &[24])
            .weight("norm", &[4])
            .ints("lengths", &[1])
    };
    let whole = |text: &str| rows().named("whole", text).int("num_heads", 2);
    let multi = "com.microsoft:MultiHeadAttention";
    let grouped = "com.microsoft:GroupQueryAttention";
    let plain = format!("{multi}(q, k, v) -> merged");
    assert_eq!(found(whole(&plain)), "q 2 × 4 Rows");
    let biased = format!("{multi}(q, k, v, bias) -> merged");
    let why = "`whole` (MultiHeadAttention) adds a bias to its query inside";
    assert_eq!(found(whole(&biased)), why);
    let packed = "com.microsoft:Attention(q, w, bias) -> merged";
    let why = "`whole` (Attention) has the projection of its query inside";
    assert_eq!(found(whole(packed)), why);
    let normed =
        format!("{grouped}(q, k, v, _, _, lengths, _, _, _, _, _, _, _, _, norm) -> merged");
    let why = "`whole` (GroupQueryAttention) has the norm of its query inside";
    assert_eq!(found(whole(&normed)), why);
    let turned = format!("{grouped}(q, k, v, _, _, lengths) -> merged");
    let why = "`whole` (GroupQueryAttention) turns its query without tables of cosines and sines";
    assert_eq!(found(whole(&turned).int("do_rotary", 1)), why);
    let cache = format!("{multi}(q, k, v) -> out, merged, more");
    let why = "it reads the cache of `whole` (MultiHeadAttention)";
    assert_eq!(found(whole(&cache)), why);
    let silent = rows()
        .named("whole", "Attention(q, k, v) -> merged")
        .with(Attribute::int("is_causal", 1));
    let why = "`whole` (Attention) does not say how many heads its query has";
    assert_eq!(found(silent), why);
    let uneven = rows().node(&plain).int("num_heads", 3);
    let why = "its query has 3 heads of 2 features, and its values 8 features in all";
    assert_eq!(found(uneven), why);
}
