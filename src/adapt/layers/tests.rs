//! Small models whose layers are found, or not, and what becomes of them in another sequence.

use super::{Relayered, relayer};
use crate::diag::{Code, FileId, Sink, Span, Spanned};
use crate::graph::{
    Attribute, AttributeValue, Graph, Model, NodeId, OpName, Tensor, Value, ValueId, ValueKind,
};
use crate::modules;
use crate::reference::{Array, Evaluator, Options};
use crate::syntax::ast::{LayerRange, Layers};
use crate::ty::{DType, Dim, Shape, TensorType};

const SIZE: i64 = 3;

/// A graph from lines: `input x`, `weight w 0.5` (a diagonal of this number and neighbours of half of it), `output y`,
/// or `name: y = Op a b`.
fn graph(text: &str) -> Graph {
    let mut graph = Graph::new("g");
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["input", name] => {
                let ty = TensorType::new(DType::F32, Shape::new([Dim::from(2), Dim::from(SIZE)]));
                let kind = ValueKind::Input { default: None };
                graph
                    .add_value(Value::with_kind(name, Some(ty), kind))
                    .unwrap();
            }
            ["weight", name, number] => {
                let number: f32 = number.parse().unwrap();
                let values = (0..SIZE * SIZE).map(|at| match at / SIZE == at % SIZE {
                    true => number,
                    false => number / 2.0,
                });
                let values: Vec<f32> = values.collect();
                let tensor = Tensor::from_f32(&[SIZE, SIZE], &values);
                graph.add_value(Value::initializer(name, tensor)).unwrap();
            }
            ["output", name] => {
                let id = graph.find_value(name).unwrap();
                graph.add_output(id);
            }
            [name, result, "=", op, operands @ ..] => {
                node(
                    &mut graph,
                    (name.trim_end_matches(':'), op),
                    operands,
                    result,
                    Vec::new(),
                );
            }
            other => panic!("{other:?}"),
        }
    }
    graph
}

fn node(
    graph: &mut Graph,
    (name, op): (&str, &str),
    operands: &[&str],
    result: &str,
    attributes: Vec<Attribute>,
) -> NodeId {
    let inputs: Vec<Option<ValueId>> = operands.iter().map(|o| graph.find_value(o)).collect();
    assert!(inputs.iter().all(Option::is_some), "{operands:?}");
    let result = graph.add_value(Value::computed(result, None)).unwrap();
    graph.add_node(
        OpName::new("", op),
        name,
        attributes,
        &inputs,
        &[Some(result)],
    )
}

/// Layers x + tanh(x W), named as an exporter names them.
fn layer(number: usize, from: &str, to: &str) -> String {
    format!(
        "/layers.{number}/q/MatMul: q{number} = MatMul {from} w{number}
        /layers.{number}/Tanh: t{number} = Tanh q{number}
        /layers.{number}/Add: {to} = Add {from} t{number}\n"
    )
}

fn stack(end: &str) -> String {
    let weights = "input x\nweight w0 0.5\nweight w1 0.3\nweight w2 0.2\nweight head 0.1\n";
    let layers = [
        layer(0, "x", "h1"),
        layer(1, "h1", "h2"),
        layer(2, "h2", "h3"),
    ];
    format!("{weights}{}{end}", layers.concat())
}

fn asked(numbers: &[i64]) -> Layers {
    let mut sources = crate::diag::SourceMap::new();
    let file: FileId = sources.add("a.peft", "layers");
    let span = Span::new(file, 0, 6);
    let ranges = numbers.iter().map(|number| LayerRange {
        start: Some(*number),
        end: Some(number + 1),
        span,
    });
    Layers {
        path: Spanned {
            node: "layers".to_owned(),
            span,
        },
        ranges: ranges.collect(),
        span,
    }
}

fn relayered(graph: Graph, numbers: &[i64]) -> Result<(Model, Relayered), Vec<(Code, String)>> {
    let mut sink = Sink::new();
    let model = Model::new("m.onnx", graph, 8, 17);
    let found = modules::recover(&model, &modules::Options::default(), &mut sink).unwrap();
    match relayer(&asked(numbers), &model, &found, &mut sink) {
        Ok(made) => Ok((model, made)),
        Err(_) => {
            let all = sink.diagnostics().iter();
            let texts = all.map(|d| {
                (
                    d.code,
                    format!("{} {:?} {:?}", d.message, d.labels, d.notes),
                )
            });
            Err(texts.collect())
        }
    }
}

fn run(model: &Model, names: &[&str]) -> Vec<Vec<f64>> {
    let data = (0..2 * SIZE).map(|at| 0.3 * at as f64 - 0.7).collect();
    let input = Array::floats(DType::F32, &[2, SIZE as usize], data).unwrap();
    let evaluator = Evaluator::new(model, &Options::default()).unwrap();
    let found = evaluator.values(&[("x", input)], names).unwrap();
    found
        .into_iter()
        .map(|(_, array)| array.to_f64s())
        .collect()
}

/// The model in this sequence gives what one gives that is written so.
#[track_caller]
fn check_sequence(end: &str, output: &str, numbers: &[i64]) -> Relayered {
    let (base, made) = relayered(graph(&stack(end)), numbers).unwrap();
    assert!(made.model.graph.verify().is_empty());
    let mut text =
        "input x\nweight w0 0.5\nweight w1 0.3\nweight w2 0.2\nweight head 0.1\n".to_owned();
    let mut from = "x".to_owned();
    for (place, number) in numbers.iter().enumerate() {
        let to = match place + 1 == numbers.len() {
            true => "h3".to_owned(),
            false => format!("p{place}"),
        };
        text += &layer(place, &from, &to).replace(&format!("w{place}"), &format!("w{number}"));
        from = to;
    }
    let written = base.around(graph(&format!("{text}{end}")));
    assert_eq!(
        run(&made.model, &[output]),
        run(&written, &[output]),
        "{numbers:?}"
    );
    let paths: Vec<&str> = made.modules.sites.iter().map(|s| s.path.as_str()).collect();
    let wanted: Vec<String> = (0..numbers.len())
        .map(|n| format!("layers.{n}.q"))
        .collect();
    let inside: Vec<&str> = paths
        .into_iter()
        .filter(|p| p.starts_with("layers."))
        .collect();
    assert_eq!(inside, wanted);
    for (number, node) in made.model.graph.order().unwrap().into_iter().enumerate() {
        let name = &made.model.graph.node(node).name;
        let place = number / 3;
        let inside = place >= numbers.len() || name.starts_with(&format!("/layers.{place}/"));
        assert!(inside, "node {number} is `{name}`");
    }
    made
}

const SEQUENCES: &[&[i64]] = &[
    &[0, 1, 2],
    &[0, 1, 2, 1, 2],
    &[2, 1, 0],
    &[1, 1],
    &[2],
    &[0, 0, 2, 2, 1, 0],
    &[0, 1],
];

#[test]
fn any_sequence_is_that_of_the_layers() {
    for numbers in SEQUENCES {
        check_sequence("/head/MatMul: y = MatMul h3 head\noutput y", "y", numbers);
    }
}

#[test]
fn what_leads_out_of_the_last_layer_keeps_its_name_where_it_is_an_output() {
    for numbers in SEQUENCES {
        let made = check_sequence("output h3", "h3", numbers);
        let graph = &made.model.graph;
        assert_eq!(&*graph.value(graph.outputs()[0]).name, "h3");
    }
}

#[test]
fn layers_that_do_not_come_leave_no_weights_and_copies_bring_none() {
    let made = check_sequence("output h3", "h3", &[1, 1, 1]);
    let graph = &made.model.graph;
    let names = graph
        .initializers()
        .iter()
        .map(|id| &*graph.value(*id).name);
    assert_eq!(names.collect::<Vec<_>>(), ["w1", "head"]);
}

#[track_caller]
fn check_refused(graph: Graph, numbers: &[i64], says: &str) {
    let faults = relayered(graph, numbers).map(|_| ()).unwrap_err();
    let [(code, text)] = faults.as_slice() else {
        panic!("{faults:?}");
    };
    assert_eq!(*code, Code::E0417);
    assert!(text.contains(says), "{text}");
}

#[test]
fn outputs_and_readers_of_the_inside_are_refused() {
    for (end, says) in [
        ("output h3\noutput h1", "`h1` (an output of the model)"),
        ("output h3\noutput t0", "`t0` (an output of the model)"),
        ("/Add: y = Add h3 q0\noutput y", "`q0`"),
        ("/Shape: s = Shape t1\noutput s\noutput h3", "`t1`"),
        ("/Shape: s = Shape h2\noutput s\noutput h3", "`h2`"),
    ] {
        check_refused(graph(&stack(end)), &[0, 1, 2, 1], says);
    }
}

#[test]
fn what_feeds_several_layers_is_no_entry() {
    let text = stack("output h3").replace("Tanh q1", "Add q1 x");
    check_refused(graph(&text), &[0, 1, 0], "leads into layer 0");
}

/// Without a residual sum every value is a candidate: operators between layers belong to one of them
/// where the first or the last layer tells, or names do.
#[test]
fn operators_between_layers_belong_to_one_of_them() {
    let chain = |names: [&str; 2], end: &str| {
        format!(
            "input x\nweight w0 0.5\nweight w1 0.3\n
            /layers.0/q/MatMul: q0 = MatMul x w0
            {}: a0 = Tanh q0
            /layers.1/q/MatMul: q1 = MatMul a0 w1
            {end}",
            names[0]
        )
        .replace("NAME", names[1])
    };
    let ended = "NAME: a1 = Tanh q1\noutput a1";
    let check = |names: [&str; 2], wanted: &[&str]| {
        let (_, made) = relayered(graph(&chain(names, ended)), &[0, 0, 1]).unwrap();
        let graph = &made.model.graph;
        let order = graph.order().unwrap();
        let found: Vec<String> = order
            .iter()
            .map(|n| graph.node(*n).op.to_string())
            .collect();
        assert_eq!(found, wanted);
    };
    let each = ["MatMul", "Tanh", "MatMul", "Tanh", "MatMul", "Tanh"];
    check(["/layers.0/Tanh", "/layers.1/Tanh"], &each);
    check(["/a", "/b"], &each);
    // It is said to be the next layer's.
    let next = ["MatMul", "MatMul", "Tanh", "MatMul", "Tanh"];
    check(["/layers.1/Tanh", "/b"], &next);
    // Without names, and the last layer has none and the first does not begin with one.
    check_refused(
        graph(&chain(["/a", "/b"], "output q1")),
        &[0, 0, 1],
        "do not touch",
    );
}

fn body(name: &str, captured: &str) -> Attribute {
    let mut body = Graph::new("body");
    let read = body.capture_value(captured);
    let result = body
        .add_value(Value::computed(&format!("{name}_out"), None))
        .unwrap();
    body.add_node(
        OpName::new("", "Tanh"),
        name,
        Vec::new(),
        &[Some(read)],
        &[Some(result)],
    );
    body.add_output(result);
    Attribute::new(name, AttributeValue::Graph(Box::new(body)))
}

#[test]
fn a_body_that_reads_values_of_its_layer_is_refused_and_another_is_copied() {
    for (captured, is_own) in [("t0", true), ("x", true), ("mask", false)] {
        let ends = "input i\ninput mask\ninput c\nweight w0 0.5\nweight w1 0.3\nweight e 0.1
            /embed/MatMul: x = MatMul i e\n";
        let mut made = graph(&format!("{ends}{}", layer(0, "x", "s0")));
        let attributes = vec![body("then_branch", captured), body("else_branch", captured)];
        let branch = node(&mut made, ("/layers.0/If", "If"), &["c"], "b0", attributes);
        let value = made.find_value(captured).unwrap();
        made.add_capture(branch, value);
        node(
            &mut made,
            ("/layers.0/Add_1", "Add"),
            &["s0", "b0"],
            "h1",
            Vec::new(),
        );
        let more = layer(1, "h1", "h2");
        for line in more.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words[0].trim_end_matches(':');
            node(
                &mut made,
                (name, words[3]),
                &words[4..],
                words[1],
                Vec::new(),
            );
        }
        let out = made.find_value("h2").unwrap();
        made.add_output(out);
        match is_own {
            true => check_refused(made, &[0, 1, 0], "the body of the node `/layers.0/If`"),
            false => {
                let (_, made) = relayered(made, &[0, 1, 0]).unwrap();
                assert!(made.model.graph.verify().is_empty());
            }
        }
    }
}
