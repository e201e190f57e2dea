//! Names that are empty, doubled or aliases, and nodes in any order, in bodies too.

use super::build::*;
use super::*;
use crate::onnx::proto::*;

/// The graph of what is written, with the warnings that were said.
fn again(model: &ModelProto) -> (GraphProto, Vec<Code>) {
    let (imported, codes) = accepted_with_warnings(serialized(model));
    let proto = ModelProto::decode(&written(&imported.model)[..]).unwrap();
    (proto.graph.unwrap(), codes)
}

fn names(graph: &GraphProto) -> Vec<&str> {
    graph
        .node
        .iter()
        .map(|n| n.name.as_deref().unwrap_or_default())
        .collect()
}

/// [`small`] with a node whose body is this graph.
fn around(body: &GraphProto) -> ModelProto {
    small_with(|graph| {
        let mut choice = node("If", &["x"], &["c"]);
        choice.attribute = vec![AttributeProto {
            name: text("then_branch"),
            r#type: Some(attribute_type::GRAPH),
            g: Some(body.encode_to_vec().into()),
            ..AttributeProto::default()
        }];
        graph.node.push(choice);
    })
}

fn body_of(graph: &GraphProto) -> GraphProto {
    let node = graph.node.iter().find(|n| n.op_type == text("If")).unwrap();
    GraphProto::decode(node.attribute[0].g.clone().unwrap()).unwrap()
}

#[test]
fn nodes_without_a_name_stay_without() {
    let model = small_with(|graph| {
        graph.node[0].name = None;
        graph.node[1].name = text("");
    });
    let (imported, codes) = accepted_with_warnings(serialized(&model));
    assert_eq!(codes, []);
    assert_eq!(written(&imported.model), serialized(&model));
}

#[test]
fn names_that_several_nodes_have_get_a_number() {
    let model = small_with(|graph| {
        graph.node.push(node("Abs", &["y"], &["z"]));
        graph.node.push(node("Abs", &["z"], &["z2"]));
        for (node, name) in graph.node.iter_mut().zip(["n", "n", "n", "n_2"]) {
            node.name = text(name);
        }
    });
    let (graph, codes) = again(&model);
    assert_eq!(codes, [Code::W0609]);
    assert_eq!(names(&graph), ["n", "n_3", "n_4", "n_2"]);
}

#[test]
fn a_body_has_names_and_an_order_of_its_own() {
    let mut body = GraphProto {
        node: vec![node("Abs", &["b1"], &["b2"]), node("Abs", &["x"], &["b1"])],
        name: text("body"),
        output: vec![info("b2", None)],
        ..GraphProto::default()
    };
    // Names of the graph around it are no names of its own.
    body.node[0].name = text("MatMul_h");
    let (graph, codes) = again(&around(&body));
    assert_eq!(codes, [Code::W0501]);
    assert_eq!(names(&body_of(&graph)), ["Abs_b1", "MatMul_h"]);
    body.node[1].name = text("MatMul_h");
    let (graph, codes) = again(&around(&body));
    assert_eq!(codes, [Code::W0501, Code::W0609]);
    assert_eq!(names(&body_of(&graph)), ["MatMul_h_2", "MatMul_h"]);
}

#[test]
fn the_default_domain_has_two_names() {
    let mut model = small_with(|graph| graph.node[0].domain = text("ai.onnx"));
    for domain in ["", "ai.onnx"] {
        model.opset_import = vec![opset(domain, 20)];
        let imported = accepted(&model);
        let product = imported
            .graph
            .producer(imported.graph.find_value("h").unwrap());
        assert!(imported.graph.node(product.unwrap()).op.is("MatMul"));
        assert_eq!(imported.opsets, [(String::new(), 20)]);
        assert_eq!(written(&imported), serialized(&model));
    }
}

#[test]
fn a_domain_without_an_import_is_carried() {
    let model = small_with(|graph| {
        let mut custom = node("Custom", &["y"], &["z"]);
        custom.domain = text("com.example");
        graph.node.push(custom);
    });
    assert_eq!(written(&accepted(&model)), serialized(&model));
}
