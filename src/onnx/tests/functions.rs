//! Local functions are inlined: names, attributes, opsets, nesting, and what is refused.

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
fn another_version_of_an_opset_is_refused() {
    let mut model = with(
        vec![product()],
        vec![call("fc", "Product", &["x", "w"], &["y"])],
    );
    model.functions[0].opset_import = vec![opset("ai.onnx", 18)];
    let newest = crate::onnx::errors::NEWEST_OPSET.to_string();
    let words = ["local::Product", "18", &newest, "ai.onnx"];
    check_refused(&model, Code::E0621, &words);
    // One that nothing calls does no harm.
    graph(&mut model).node = small().graph.unwrap().node;
    accepted(&model);
}

#[test]
fn functions_that_call_each_other_are_refused() {
    let caller = |name: &str, called: &str| {
        let nodes = vec![call("", called, &["a"], &["r"])];
        function(name, &["a"], &["r"], nodes)
    };
    let start = vec![call("f", "A", &["x"], &["y"])];
    let circle = vec![caller("A", "B"), caller("B", "C"), caller("C", "B")];
    check_refused(
        &with(circle, start.clone()),
        Code::E0620,
        &["`local::B` → `local::C` → `local::B`"],
    );
    check_refused(
        &with(vec![caller("A", "A")], start.clone()),
        Code::E0620,
        &["`local::A` → `local::A`"],
    );
    // Through a subgraph.
    let mut hidden = caller("A", "A");
    let body = GraphProto {
        node: std::mem::take(&mut hidden.node),
        ..GraphProto::default()
    };
    hidden.node = vec![NodeProto {
        attribute: vec![subgraph("body", &body)],
        ..node("Loop", &["a"], &["r"])
    }];
    check_refused(&with(vec![hidden], start), Code::E0620, &["`local::A`"]);
}

/// `levels` functions, each of which calls the next one `times` times.
fn tower(levels: usize, times: usize) -> ModelProto {
    let level = |at: usize| {
        let nodes = (0..times)
            .map(|time| {
                let result = format!("r{time}");
                match at + 1 == levels {
                    true => node("Abs", &["a"], &[&result]),
                    false => call("", &format!("F{}", at + 1), &["a"], &[&result]),
                }
            })
            .collect();
        function(&format!("F{at}"), &["a"], &["r0"], nodes)
    };
    with(
        (0..levels).map(level).collect(),
        vec![call("f", "F0", &["x"], &["y"])],
    )
}

#[test]
fn an_expansion_is_counted_before_it_is_made() {
    let words = ["000 nodes when they are inlined"];
    check_refused(&tower(60, 10), Code::E0607, &words);
    check_refused(&tower(6, 10), Code::E0607, &words);
    assert_eq!(accepted(&tower(4, 10)).graph.node_ids().count(), 10_000);
    check_refused(&tower(65, 1), Code::E0607, &["64 levels"]);
    let largest = accepted(&tower(64, 1));
    assert_eq!(largest.graph.node_ids().count(), 1);
}

#[test]
fn a_large_file_may_become_more_than_a_small_one() {
    let mut model = tower(2, 250);
    check_refused(&model, Code::E0607, &["more than 51000 nodes"]);
    graph(&mut model).doc_string = Some("d".repeat(200_000));
    assert_eq!(accepted(&model).graph.node_ids().count(), 62_500);
}

#[test]
fn long_names_and_large_attributes_are_counted_too() {
    let mut model = tower(2, 200);
    graph(&mut model).node[0].name = Some("n".repeat(1 << 19));
    check_refused(&model, Code::E0607, &["bytes"]);
    let mut model = tower(2, 200);
    graph(&mut model).node[0].attribute = vec![attribute("given", |a| {
        a.ints = vec![1; 1 << 19];
        a.r#type = Some(attribute_type::INTS);
    })];
    let reference = attribute("axes", |a| a.ref_attr_name = text("given"));
    for function in &mut model.functions {
        for node in &mut function.node {
            node.attribute.push(AttributeProto {
                name: text(if node.domain.is_some() {
                    "given"
                } else {
                    "axes"
                }),
                ..reference.clone()
            });
        }
    }
    check_refused(&model, Code::E0607, &["bytes"]);
}

#[test]
fn functions_and_calls_that_do_not_fit_are_refused() {
    let start = vec![call("fc", "Product", &["x", "w"], &["y"])];
    let check = |change: fn(&mut ModelProto), words: &[&str]| {
        let mut model = with(vec![product()], start.clone());
        change(&mut model);
        check_refused(&model, Code::E0606, words);
    };
    check(
        |m| graph(m).node[0].input.push("x".to_owned()),
        &["`fc`", "3 inputs", "`local::Product` has 2"],
    );
    check(
        |m| graph(m).node[0].output.push("z".to_owned()),
        &["`fc`", "2 outputs", "1"],
    );
    check(
        |m| m.functions[0].input[1] = "a".to_owned(),
        &["`local::Product`", "`a`"],
    );
    check(
        |m| m.functions[0].output[0] = "q".to_owned(),
        &["`local::Product`", "`q`"],
    );
    check(
        |m| m.functions.push(product()),
        &["`local::Product`", "twice"],
    );
    check(
        |m| m.training_info = vec![TrainingInfoProto::default()],
        &["training graphs"],
    );
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
