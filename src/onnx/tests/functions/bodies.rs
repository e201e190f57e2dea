//! Functions with subgraphs, and calls in them.

use super::*;

/// `r` is `a` or, in the other branch, a call of `Product`.
fn choice() -> FunctionProto {
    let then = GraphProto {
        node: vec![node("Add", &["a", "one"], &["t"])],
        initializer: vec![floats("one", &[1])],
        output: vec![ValueInfoProto {
            r#type: None,
            ..info("t", None)
        }],
        ..GraphProto::default()
    };
    let other = GraphProto {
        node: vec![call("fc", "Product", &["a", "b"], &["t"])],
        output: vec![info("t", None)],
        ..GraphProto::default()
    };
    function(
        "Choice",
        &["c", "a", "b"],
        &["r"],
        vec![NodeProto {
            attribute: vec![subgraph("then", &then), subgraph("else", &other)],
            ..node("If", &["c"], &["r"])
        }],
    )
}

#[test]
fn subgraphs_of_functions_are_renamed_with_what_they_read() {
    let model = with(
        vec![choice(), product()],
        vec![
            node("Cast", &["x"], &["c"]),
            call("one", "Choice", &["c", "x", "w"], &["h"]),
            call("two", "Choice", &["c", "h", "w"], &["y"]),
        ],
    );
    let imported = check(
        &model,
        &[
            "Cast_c: c = Cast x",
            "one/If_r: h = If c",
            "two/If_r: y = If c",
        ],
    );
    let graph = &imported.graph;
    assert_eq!(lines(body(graph, 1)), ["one/Add_t: one/t = Add x one/one"]);
    let second = graph.node_ids().nth(2).unwrap();
    let AttributeValue::Graph(other) = &graph.node(second).attributes[1].value else {
        panic!("the second attribute is a graph");
    };
    let expected = [
        "two/fc/MatMul_p: two/fc/p = MatMul h w",
        "two/fc/Relu: two/t_1 = Relu two/fc/p",
    ];
    assert_eq!(lines(other), expected);
    assert!(!String::from_utf8_lossy(&written(&imported)).contains("Product"));
}

#[test]
fn calls_in_subgraphs_are_replaced_in_what_is_written() {
    let inner = GraphProto {
        node: vec![call("fc", "Product", &["x", "w"], &["t"])],
        output: vec![info("t", None)],
        ..GraphProto::default()
    };
    let model = with(
        vec![product()],
        vec![
            node("Cast", &["x"], &["c"]),
            NodeProto {
                attribute: vec![subgraph("then", &inner)],
                ..node("If", &["c"], &["y"])
            },
        ],
    );
    let imported = accepted(&model);
    let expected = ["fc/MatMul_p: fc/p = MatMul x w", "fc/Relu: t = Relu fc/p"];
    assert_eq!(lines(body(&imported.graph, 1)), expected);
    let again = accepted_with_warnings(Bytes::from(written(&imported))).0;
    assert_eq!(lines(body(&again.model.graph, 1)), expected);
}

#[test]
fn a_graph_that_a_call_passes_speaks_of_the_values_around_the_call() {
    let passed = GraphProto {
        node: vec![node("MatMul", &["x", "w"], &["t"])],
        output: vec![info("t", None)],
        ..GraphProto::default()
    };
    let choose = function(
        "Choose",
        &["x"],
        &["r"],
        vec![NodeProto {
            attribute: vec![attribute("then", |a| {
                a.ref_attr_name = text("body");
                a.r#type = Some(attribute_type::GRAPH);
            })],
            ..node("If", &["x"], &["r"])
        }],
    );
    let model = with(
        vec![choose],
        vec![
            node("Cast", &["x"], &["c"]),
            NodeProto {
                attribute: vec![subgraph("body", &passed)],
                ..call("f", "Choose", &["c"], &["y"])
            },
        ],
    );
    let imported = check(&model, &["Cast_c: c = Cast x", "f/If_r: y = If c"]);
    assert_eq!(
        lines(body(&imported.graph, 1)),
        ["MatMul_t: t = MatMul x w"]
    );
}
