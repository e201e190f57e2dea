//! Local functions are inlined: names, attributes, opsets, nesting, and what is refused.

mod bodies;
mod limits;

use super::build::*;
use super::*;
use crate::graph::{AttributeValue, Graph, NodeId};
use crate::onnx::proto::*;

fn function(name: &str, input: &[&str], output: &[&str], node: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: text(name),
        domain: text("local"),
        input: strings(input),
        output: strings(output),
        node,
        opset_import: vec![opset("", crate::onnx::errors::NEWEST_OPSET)],
        ..FunctionProto::default()
    }
}

/// A call of a function in the domain `local`.
fn call(name: &str, function: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        name: text(name),
        domain: text("local"),
        ..node(function, inputs, outputs)
    }
}

/// A model from `x` and `w` to `y` that imports the domain `local`.
fn with(functions: Vec<FunctionProto>, nodes: Vec<NodeProto>) -> ModelProto {
    let mut model = small();
    graph(&mut model).node = nodes;
    graph(&mut model).value_info.clear();
    model.opset_import.push(opset("local", 1));
    model.functions = functions;
    model
}

/// `r = a b`, through a value `p`.
fn product() -> FunctionProto {
    let nodes = vec![
        node("MatMul", &["a", "b"], &["p"]),
        NodeProto {
            name: None,
            ..node("Relu", &["p"], &["r"])
        },
    ];
    function("Product", &["a", "b"], &["r"], nodes)
}

fn line(graph: &Graph, id: NodeId) -> String {
    let names = |ids: crate::graph::Slots| -> String {
        let name = |id: Option<_>| id.map_or("-".to_owned(), |id| graph.value(id).name.to_string());
        ids.into_iter().map(name).collect::<Vec<_>>().join(" ")
    };
    let node = graph.node(id);
    format!(
        "{}: {} = {} {}",
        node.name,
        names(graph.results(id)),
        node.op,
        names(graph.operands(id))
    )
}

/// Every node with its name, in order.
fn lines(graph: &Graph) -> Vec<String> {
    graph.node_ids().map(|id| line(graph, id)).collect()
}

/// Imports the model and compares its nodes.
fn check(model: &ModelProto, expected: &[&str]) -> Model {
    let imported = accepted(model);
    assert_eq!(lines(&imported.graph), expected);
    imported
}

fn check_refused(model: &ModelProto, code: Code, words: &[&str]) {
    let (codes, messages) = refused(serialized(model));
    assert_eq!(codes, [code], "{messages}");
    for word in words {
        assert!(messages.contains(word), "no `{word}` in: {messages}");
    }
}

/// The body that is the first attribute of a node.
fn body(graph: &Graph, at: usize) -> &Graph {
    let id = graph.node_ids().nth(at).unwrap();
    match &graph.node(id).attributes[0].value {
        AttributeValue::Graph(body) => body,
        other => panic!("{other:?}"),
    }
}

fn attribute(name: &str, set: impl FnOnce(&mut AttributeProto)) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: text(name),
        ..AttributeProto::default()
    };
    set(&mut attribute);
    attribute
}

fn float(name: &str, value: f32) -> AttributeProto {
    attribute(name, |a| {
        a.f = Some(value);
        a.r#type = Some(attribute_type::FLOAT);
    })
}

/// An attribute of type float that is the function's attribute `of`.
fn float_of(name: &str, of: &str) -> AttributeProto {
    attribute(name, |a| {
        a.ref_attr_name = text(of);
        a.r#type = Some(attribute_type::FLOAT);
    })
}

fn subgraph(name: &str, body: &GraphProto) -> AttributeProto {
    attribute(name, |a| {
        a.g = Some(Bytes::from(body.encode_to_vec()));
        a.r#type = Some(attribute_type::GRAPH);
    })
}

#[test]
fn calls_are_replaced_and_their_names_are_kept_as_prefixes() {
    let model = with(
        vec![product()],
        vec![
            call("fc1", "Product", &["x", "w"], &["h"]),
            call("fc2", "Product", &["h", "w"], &["y"]),
        ],
    );
    let imported = check(
        &model,
        &[
            "fc1/MatMul_p: fc1/p = MatMul x w",
            "fc1/Relu: h = Relu fc1/p",
            "fc2/MatMul_p: fc2/p = MatMul h w",
            "fc2/Relu: y = Relu fc2/p",
        ],
    );
    assert_eq!(imported.opsets.len(), 1);
    let written = ModelProto::decode(&written(&imported)[..]).unwrap();
    assert_eq!(written.functions, []);
    assert_eq!(written.opset_import, vec![model.opset_import[0].clone()]);
    let inputs = |model: &ModelProto| model.graph.as_ref().unwrap().input.clone();
    assert_eq!(inputs(&written), inputs(&model));
}

#[test]
fn no_byte_of_a_function_is_left() {
    let mut function = product();
    function.doc_string = text("left behind");
    function.value_info = vec![info("p", None)];
    let model = with(
        vec![
            function,
            self::function("Unused", &["q"], &["q"], Vec::new()),
        ],
        vec![call("fc", "Product", &["x", "w"], &["y"])],
    );
    let imported = accepted(&model);
    let text = String::from_utf8_lossy(&written(&imported)).into_owned();
    for gone in ["left behind", "local", "Product", "Unused"] {
        assert!(!text.contains(gone), "{gone} is still there");
    }
}

#[test]
fn names_that_are_taken_get_a_number() {
    let model = with(
        vec![product()],
        vec![
            call("", "Product", &["x", "w"], &["h"]),
            call("", "Product", &["h", "w"], &["i"]),
            call("fc", "Product", &["i", "w"], &["j"]),
            call("fc", "Product", &["j", "w"], &["fc/p"]),
            NodeProto {
                name: text("Product/Relu"),
                ..node("Abs", &["fc/p"], &["y"])
            },
        ],
    );
    check(
        &model,
        &[
            "Product/MatMul_p: Product/p = MatMul x w",
            "Product/Relu_1: h = Relu Product/p",
            "Product_1/MatMul_p: Product_1/p = MatMul h w",
            "Product_1/Relu: i = Relu Product_1/p",
            "fc/MatMul_p: fc/p_1 = MatMul i w",
            "fc/Relu: j = Relu fc/p_1",
            "fc_1/MatMul_p: fc_1/p = MatMul j w",
            "fc_1/Relu: fc/p = Relu fc_1/p",
            "Product/Relu: y = Abs fc/p",
        ],
    );
}

#[test]
fn functions_call_functions_and_overloads_are_told_apart() {
    let mut other = function("Product", &["a"], &["r"], vec![node("Abs", &["a"], &["r"])]);
    other.overload = text("one");
    let block = function(
        "Block",
        &["a", "b"],
        &["r"],
        vec![
            call("fc", "Product", &["a", "b"], &["p"]),
            NodeProto {
                overload: text("one"),
                ..call("abs", "Product", &["p"], &["r"])
            },
        ],
    );
    check(
        &with(
            vec![block, product(), other],
            vec![call("block", "Block", &["x", "w"], &["y"])],
        ),
        &[
            "block/fc/MatMul_p: block/fc/p = MatMul x w",
            "block/fc/Relu: block/p = Relu block/fc/p",
            "block/abs/Abs_r: y = Abs block/p",
        ],
    );
}

#[test]
fn absent_operands_and_results_stay_absent() {
    let clip = function(
        "Clip",
        &["a", "low", "high"],
        &["r", "s"],
        vec![
            node("Clip", &["a", "low", "high"], &["r"]),
            node("Abs", &["a"], &["s"]),
        ],
    );
    check(
        &with(
            vec![clip],
            vec![
                call("one", "Clip", &["x", "", "w"], &["", "h"]),
                call("two", "Clip", &["h"], &["y"]),
            ],
        ),
        &[
            "one/Clip_r: one/r = Clip x - w",
            "one/Abs_s: h = Abs x",
            "two/Clip_r: y = Clip h - -",
            "two/Abs_s: two/s = Abs h",
        ],
    );
}

#[test]
fn outputs_that_are_handed_through_are_copied() {
    let same = function(
        "Same",
        &["a"],
        &["a", "r", "r"],
        vec![node("Abs", &["a"], &["r"])],
    );
    check(
        &with(
            vec![same.clone()],
            vec![
                call("f", "Same", &["x"], &["h", "i", "j"]),
                node("Sum", &["h", "i", "j"], &["y"]),
            ],
        ),
        &[
            "f/Abs_r: i = Abs x",
            "f/a: h = Identity x",
            "f/r: j = Identity i",
            "Sum_y: y = Sum h i j",
        ],
    );
    let absent = with(vec![same], vec![call("f", "Same", &[""], &["y"])]);
    check_refused(&absent, Code::E0606, &["`f`", "`y`", "`a`", "absent"]);
}

#[test]
fn attributes_come_from_the_call_or_from_the_default_or_are_left_out() {
    let mut function = function(
        "Scaled",
        &["a"],
        &["r"],
        vec![NodeProto {
            attribute: vec![
                float_of("alpha", "first"),
                float_of("beta", "second"),
                float_of("gamma", "third"),
                float("delta", 4.0),
            ],
            ..node("Selu", &["a"], &["r"])
        }],
    );
    function.attribute = strings(&["first", "third"]);
    function.attribute_proto = vec![float("second", 2.0)];
    let outer = self::function(
        "Outer",
        &["a"],
        &["r"],
        vec![NodeProto {
            attribute: vec![float_of("first", "given"), float_of("second", "not_given")],
            ..call("inner", "Scaled", &["a"], &["r"])
        }],
    );
    let attributes = |attributes: Vec<AttributeProto>, called: &str| -> Vec<(String, f32)> {
        let call = NodeProto {
            attribute: attributes,
            ..call("f", called, &["x"], &["y"])
        };
        let model = accepted(&with(vec![function.clone(), outer.clone()], vec![call]));
        let id = model.graph.node_ids().next().unwrap();
        let all = model.graph.node(id).attributes.iter();
        all.map(|attribute| match attribute.value {
            AttributeValue::Float(value) => (attribute.name.clone(), value),
            ref other => panic!("{other:?}"),
        })
        .collect()
    };
    let pair = |name: &str, value| (name.to_owned(), value);
    let (beta, delta) = (pair("beta", 2.0), pair("delta", 4.0));
    let found = attributes(vec![float("first", 1.0)], "Scaled");
    assert_eq!(found, [pair("alpha", 1.0), beta.clone(), delta.clone()]);
    let found = attributes(vec![float("second", 9.0), float("third", 3.0)], "Scaled");
    assert_eq!(
        found,
        [pair("beta", 9.0), pair("gamma", 3.0), delta.clone()]
    );
    let found = attributes(vec![float("given", 7.0)], "Outer");
    assert_eq!(found, [pair("alpha", 7.0), beta, delta]);
}

#[test]
fn an_attribute_of_another_type_is_refused() {
    let mut model = with(
        vec![function(
            "F",
            &["a"],
            &["r"],
            vec![NodeProto {
                attribute: vec![float_of("alpha", "given")],
                ..node("Selu", &["a"], &["r"])
            }],
        )],
        vec![call("f", "F", &["x"], &["y"])],
    );
    graph(&mut model).node[0].attribute = vec![attribute("given", |a| {
        a.i = Some(1);
        a.r#type = Some(attribute_type::INT);
    })];
    check_refused(&model, Code::E0606, &["f/Selu_r", "`alpha`", "`given`"]);
}

#[test]
fn opsets_that_only_a_function_imports_are_added() {
    let mut function = product();
    function.node[1].domain = text("com.microsoft");
    function.opset_import.push(opset("com.microsoft", 1));
    // Not used by any node of it.
    function.opset_import.push(opset("other", 3));
    let mut model = with(
        vec![function],
        vec![call("fc", "Product", &["x", "w"], &["y"])],
    );
    model.opset_import = vec![opset("local", 1)];
    let newest = crate::onnx::errors::NEWEST_OPSET;
    let expected = [(String::new(), newest), ("com.microsoft".to_owned(), 1)];
    assert_eq!(accepted(&model).opsets, expected);
    model.functions[0].opset_import[0].version = Some(newest + 1);
    check_refused(&model, Code::E0604, &[&(newest + 1).to_string()]);
}

#[test]
fn a_function_reads_nothing_of_the_graph_around_its_call() {
    let mut function = product();
    function.node[0].input[1] = "w".to_owned();
    let model = with(
        vec![function],
        vec![call("fc", "Product", &["x", "w"], &["y"])],
    );
    check_refused(&model, Code::E0503, &["`fc/MatMul_p`", "`fc/w`"]);
}

#[test]
fn nodes_of_a_function_are_in_the_module_of_the_call() {
    const KEY: &str = "pkg.torch.onnx.name_scopes";
    let scopes = |text: &str| StringStringEntryProto {
        key: self::text(KEY),
        value: self::text(text),
    };
    let mut function = product();
    function.node[0].metadata_props = vec![scopes("own")];
    let mut model = with(
        vec![function],
        vec![call("fc", "Product", &["x", "w"], &["y"])],
    );
    graph(&mut model).node[0].metadata_props = vec![scopes("of the call")];
    let imported = accepted(&model);
    let graph = &imported.graph;
    let found: Vec<Option<&str>> = graph
        .node_ids()
        .map(|id| graph.node(id).metadata(KEY))
        .collect();
    assert_eq!(found, [Some("own"), Some("of the call")]);
}
