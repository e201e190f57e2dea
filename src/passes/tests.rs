//! Specialization on a graph with a branch, and its diagnostics.

use super::{infer, specialize};
use crate::diag::{Code, Sink};
use crate::graph::{
    Attribute, AttributeValue, Graph, Model, NodeId, OpName, Tensor, Value, ValueId, ValueKind,
};
use crate::reference::{self, Array};
use crate::ty::{DType, Dim, Shape, TensorType};

fn float(dims: &[i64]) -> TensorType {
    let dims = dims.iter().map(|size| Dim::from(*size)).collect();
    TensorType::new(DType::F32, Shape(dims))
}

fn add(graph: &mut Graph, op: &str, operands: &[ValueId], result: &str) -> (NodeId, ValueId) {
    let result = graph.add_value(Value::computed(result, None)).unwrap();
    let operands: Vec<Option<ValueId>> = operands.iter().map(|id| Some(*id)).collect();
    let node = graph.add_node(
        OpName::new("", op),
        &format!("/{op}"),
        Vec::new(),
        &operands,
        &[Some(result)],
    );
    (node, result)
}

/// A body that computes one value from captured ones.
fn body(name: &str, build: impl FnOnce(&mut Graph) -> ValueId) -> Graph {
    let mut graph = Graph::new(name);
    let output = build(&mut graph);
    graph.add_output(output);
    graph
}

fn branches(then: Graph, other: Graph) -> Vec<Attribute> {
    let graph = |name, body| Attribute::new(name, AttributeValue::Graph(Box::new(body)));
    vec![graph("then_branch", then), graph("else_branch", other)]
}

/// `y = flag ? then : else` of `x: f32[2]`, with `past` read by the else branch alone.
fn model(then: Graph, other: Graph) -> Model {
    let mut graph = Graph::new("test");
    let input =
        |name: &str, ty| Value::with_kind(name, Some(ty), ValueKind::Input { default: None });
    let truth = TensorType::new(DType::Bool, Shape(vec![Dim::from(1)]));
    let flag = graph.add_value(input("flag", truth)).unwrap();
    let x = graph.add_value(input("x", float(&[2]))).unwrap();
    let past = graph.add_value(input("past", float(&[2]))).unwrap();
    let w = Value::initializer("w", Tensor::from_f32(&[2], &[2.0, 3.0]));
    let w = graph.add_value(w).unwrap();
    let y = graph.add_value(Value::computed("y", None)).unwrap();
    let captured: Vec<&str> = [&then, &other]
        .iter()
        .flat_map(|body| body.value_ids().map(move |id| (body, id)))
        .filter(|(body, id)| matches!(body.value(*id).kind, ValueKind::Captured))
        .map(|(body, id)| match &*body.value(id).name {
            "x" => "x",
            "w" => "w",
            _ => "past",
        })
        .collect();
    let node = graph.add_node(
        OpName::new("", "If"),
        "/If",
        branches(then.clone(), other.clone()),
        &[Some(flag)],
        &[Some(y)],
    );
    for (name, id) in [("x", x), ("past", past), ("w", w)] {
        if captured.contains(&name) {
            graph.add_capture(node, id);
        }
    }
    graph.add_output(y);
    assert!(graph.verify().is_empty(), "{:?}", graph.verify());
    Model::new("test.onnx", graph, 10, 17)
}

fn times_w() -> Graph {
    body("then", |graph| {
        let (x, w) = (graph.capture_value("x"), graph.capture_value("w"));
        add(graph, "Mul", &[x, w], "scaled").1
    })
}

fn plus_past() -> Graph {
    body("else", |graph| {
        let (x, past) = (graph.capture_value("x"), graph.capture_value("past"));
        add(graph, "Add", &[x, past], "sum").1
    })
}

fn specialized(mut model: Model, flag: bool) -> Result<Model, Code> {
    let mut sink = Sink::new();
    infer(&mut model, &mut sink).unwrap();
    match specialize(&mut model, &[("flag".to_owned(), flag)], &mut sink) {
        Ok(()) => Ok(model),
        Err(_) => Err(sink.diagnostics()[0].code),
    }
}

fn inputs(model: &Model) -> Vec<&str> {
    let graph = &model.graph;
    graph
        .inputs()
        .iter()
        .map(|id| &*graph.value(*id).name)
        .collect()
}

#[test]
fn the_branch_that_is_taken_replaces_the_node() {
    let all = |values: &[f64]| Array::floats(DType::F32, &[2], values.to_vec()).unwrap();
    let whole = model(times_w(), plus_past());
    let y = whole.graph.find_value("y").unwrap();
    for (flag, expected, left) in [
        (true, [2.0, 6.0], vec!["x"]),
        (false, [11.0, 22.0], vec!["x", "past"]),
    ] {
        let found = specialized(whole.clone(), flag).unwrap();
        assert_eq!(inputs(&found), left);
        assert_eq!(found.graph.find_value("y"), Some(y));
        let names = found
            .graph
            .node_ids()
            .map(|id| found.graph.node(id).op.to_string());
        assert!(!names.collect::<Vec<_>>().contains(&"If".to_owned()));
        let mut given = vec![("x", all(&[1.0, 2.0]))];
        if !flag {
            given.push(("past", all(&[10.0, 20.0])));
        }
        let run = reference::run(&found, &given, &reference::Options::default()).unwrap();
        assert_eq!(run[0].1.to_f64s(), expected);
    }
}

#[test]
fn an_output_that_nothing_computes_gets_a_node() {
    let passes = body("then", |graph| graph.capture_value("x"));
    let found = specialized(model(passes, plus_past()), true).unwrap();
    let graph = &found.graph;
    let node = graph.producer(graph.find_value("y").unwrap()).unwrap();
    assert!(graph.node(node).op.is("Identity"));
}

#[test]
fn what_is_no_flag_cannot_be_fixed() {
    let mut found = model(times_w(), plus_past());
    let mut sink = Sink::new();
    let flags = [("x".to_owned(), true), ("flug".to_owned(), true)];
    assert!(specialize(&mut found, &flags, &mut sink).is_err());
    let codes: Vec<Code> = sink.diagnostics().iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::E0514, Code::E0514]);
    assert!(sink.diagnostics()[1].help[0].contains("`flag`"));
}

/// A branch with an inner branch that reads `name`, which the branch computes.
fn nested(name: &str) -> Graph {
    body("then", |graph| {
        let x = graph.capture_value("x");
        let (_, h) = add(graph, "Exp", &[x], name);
        let (condition, y) = (
            Value::initializer("is", Tensor::from_raw(DType::Bool, &[], vec![1])),
            Value::computed("inner", None),
        );
        let (condition, y) = (
            graph.add_value(condition).unwrap(),
            graph.add_value(y).unwrap(),
        );
        let inner = || {
            body("inner", |graph| {
                let h = graph.capture_value(name);
                add(graph, "Neg", &[h], "negated").1
            })
        };
        let attributes = branches(inner(), inner());
        let op = OpName::new("", "If");
        let node = graph.add_node(op, "/Inner", attributes, &[Some(condition)], &[Some(y)]);
        graph.add_capture(node, h);
        y
    })
}

#[test]
fn branches_of_branches_are_inlined_too() {
    let found = specialized(model(nested("h"), plus_past()), true).unwrap();
    let graph = &found.graph;
    let order = graph.order().unwrap().into_iter();
    let ops: Vec<String> = order.map(|id| graph.node(id).op.to_string()).collect();
    assert_eq!(ops, ["Exp", "Neg"]);
}

#[test]
fn a_name_that_is_taken_cannot_be_read_by_a_body() {
    let found = specialized(model(nested("past"), plus_past()), true);
    assert_eq!(found.err(), Some(Code::E0515));
}

/// A graph of one reduction.
fn reducing(op: &str, opset: i64, axes: &[i64], keeps: bool, dims: &[i64]) -> Model {
    let mut graph = Graph::new("test");
    let x = Value::with_kind("x", Some(float(dims)), ValueKind::Input { default: None });
    let x = graph.add_value(x).unwrap();
    let mut operands = vec![Some(x)];
    let mut attributes = vec![Attribute::int("keepdims", i64::from(keeps))];
    if opset >= 18 {
        let axes = Value::initializer("axes", Tensor::from_i64(&[axes.len() as i64], axes));
        operands.push(Some(graph.add_value(axes).unwrap()));
    } else {
        attributes.push(Attribute::ints("axes", axes));
    }
    let y = graph.add_value(Value::computed("y", None)).unwrap();
    let name = OpName::new("", op);
    graph.add_node(name, "/sum", attributes, &operands, &[Some(y)]);
    graph.add_output(y);
    Model::new("test", graph, 8, opset)
}

#[test]
fn sums_of_rows_become_products() {
    let numbers: Vec<f64> = (0..24).map(|at| f64::from(at * 5 % 7) - 2.5).collect();
    let cases = [
        ("ReduceSum", 11, &[-1][..], true, 1),
        ("ReduceSum", 18, &[2], false, 1),
        ("ReduceMean", 13, &[2], true, 1),
        ("ReduceMean", 18, &[-1], false, 1),
        // Other axes, and other sums.
        ("ReduceSum", 18, &[1], true, 0),
        ("ReduceSum", 18, &[1, 2], true, 0),
        ("ReduceMax", 18, &[-1], true, 0),
    ];
    for (op, opset, axes, keeps, expected) in cases {
        let plain = reducing(op, opset, axes, keeps, &[2, 3, 4]);
        let mut model = plain.clone();
        let mut sink = Sink::new();
        let count = super::sums_as_products(&mut model, &mut sink).unwrap();
        assert_eq!(count, expected, "{op} {opset} {axes:?}");
        let results = [&plain, &model].map(|model| {
            let options = reference::Options::default();
            let evaluator = reference::Evaluator::new(model, &options).unwrap();
            let x = Array::floats(DType::F32, &[2, 3, 4], numbers.clone()).unwrap();
            let found = evaluator.values(&[("x", x)], &["y"]).unwrap();
            (found[0].1.dims().to_vec(), found[0].1.to_f64s())
        });
        assert_eq!(results[0].0, results[1].0, "{op} {opset}");
        let pairs = results[0].1.iter().zip(&results[1].1);
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-6, "{op} {opset}: {worst}");
    }
    // Rows alone have no axis in front, and a size that is not fixed has no vector.
    let mut vector = reducing("ReduceSum", 18, &[0], true, &[4]);
    assert_eq!(
        super::sums_as_products(&mut vector, &mut Sink::new()),
        Ok(0)
    );
}
