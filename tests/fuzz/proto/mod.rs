//! Mutations of models that know what the fields of ONNX mean.

mod graph;
mod nesting;
mod node;
mod tensor;

use crate::random::Random;
use crate::wire;
use onnx_protobuf::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use protobuf::Message;

/// Sizes and numbers at which readers err.
const EDGES: &[i64] = &[
    -1,
    0,
    1,
    2,
    3,
    31,
    32,
    255,
    65_536,
    1 << 20,
    i32::MAX as i64,
    1 << 32,
    1 << 40,
    3_037_000_500,
    1 << 62,
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
];

/// Names that readers take apart.
const NAMES: &[&str] = &[
    "",
    ".",
    "..",
    "/",
    "//",
    "a..b",
    ".weight",
    "weight",
    "model.layers.0.self_attn.q_proj.weight",
    "/model/layers.0/self_attn/q_proj/MatMul",
    "/model/layers.18446744073709551616/q_proj/MatMul",
    "onnx::MatMul_1",
    "val_0",
    "['', 'model', 'model.layers.0']",
    "['",
    "[",
    "{\"name_scopes\": [",
    "\0",
    "é.ü",
    "\u{202e}",
    "a\nb",
    "node_MatMul_1",
    "_attn_qkv",
    "lm_head",
];

/// Changes a model once or several times, by its meaning, by its bytes, or both.
pub fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let bytes = random.pick_short(corpus).clone();
    let model = match random.once_in(4) {
        true => None,
        false => ModelProto::parse_from_bytes(&bytes).ok(),
    };
    let Some(mut model) = model else {
        return wire::mutated(bytes, corpus, random);
    };
    for _ in 0..=random.below(4) {
        change(&mut model, random);
    }
    let bytes = model.write_to_bytes().expect("it is small");
    match random.once_in(5) {
        true => wire::mutated(bytes, corpus, random),
        false => bytes,
    }
}

fn change(model: &mut ModelProto, random: &mut Random) {
    match random.below(20) {
        0 => header(model, random),
        1 => nesting::function(model, random),
        2 => {
            let functions = &mut model.functions;
            if !functions.is_empty() {
                let at = random.below(functions.len());
                nesting::change_function(&mut functions[at], random);
            }
        }
        number => {
            let Some(graph) = model.graph.as_mut() else {
                return;
            };
            let graph = some_graph(graph, random);
            match number {
                3 => nesting::subgraph(graph, random),
                4..8 => tensor::change_some(graph, random),
                8..13 => node::change_some(graph, random),
                _ => graph::change(graph, random),
            }
        }
    }
}

/// The graph or one inside it.
fn some_graph<'g>(graph: &'g mut GraphProto, random: &mut Random) -> &'g mut GraphProto {
    let bodies = |graph: &GraphProto| -> Vec<(usize, usize)> {
        let nodes = graph.node.iter().enumerate();
        let attributes = nodes.flat_map(|(at, node)| {
            let attributes = node.attribute.iter().enumerate();
            attributes
                .filter(|(_, attribute)| attribute.g.is_some())
                .map(move |(slot, _)| (at, slot))
        });
        attributes.collect()
    };
    let inside = bodies(graph);
    if inside.is_empty() || random.once_in(2) {
        return graph;
    }
    let (at, slot) = *random.pick(&inside);
    let body = graph.node[at].attribute[slot].g.as_mut();
    some_graph(body.expect("it was found"), random)
}

fn header(model: &mut ModelProto, random: &mut Random) {
    let opset = |random: &mut Random| OperatorSetIdProto {
        domain: (*random.pick(&["", "ai.onnx", "com.microsoft", "f", "ai.onnx.ml"])).to_owned(),
        version: random.below(30) as i64,
        ..Default::default()
    };
    match random.below(6) {
        0 => model.ir_version = *random.pick(EDGES),
        1 => model.ir_version = random.below(16) as i64,
        2 => model.opset_import.push(opset(random)),
        3 => model.opset_import.clear(),
        4 => {
            for entry in &mut model.opset_import {
                entry.version = random.below(30) as i64;
            }
        }
        _ => model.metadata_props.push(metadata(random)),
    }
}

fn metadata(random: &mut Random) -> StringStringEntryProto {
    let keys = [
        "pkg.torch.onnx.name_scopes",
        "pkg.torch.onnx.class_hierarchy",
        "namespace",
        "peft.names",
        "folded_from",
        "pkg.onnxscript.optimizer.folded_from",
        "",
    ];
    StringStringEntryProto {
        key: (*random.pick(&keys)).to_owned(),
        value: any_name(random),
        ..Default::default()
    }
}

/// A name from the list, rarely a very long one.
fn any_name(random: &mut Random) -> String {
    let name = random.pick(NAMES);
    match random.once_in(30) {
        true => format!("{name}{}", "a.".repeat(1 << random.below(15))),
        false => (*name).to_owned(),
    }
}

/// A name that stands in the graph.
fn name_in(graph: &GraphProto, random: &mut Random) -> String {
    let found = match random.below(8) {
        0 if !graph.input.is_empty() => Some(&random.pick(&graph.input).name),
        1 if !graph.output.is_empty() => Some(&random.pick(&graph.output).name),
        2 | 3 if !graph.initializer.is_empty() => Some(&random.pick(&graph.initializer).name),
        _ if !graph.node.is_empty() => {
            let outputs = &random.pick(&graph.node).output;
            (!outputs.is_empty()).then(|| random.pick(outputs))
        }
        _ => None,
    };
    match (found, random.once_in(20)) {
        (Some(name), false) => name.clone(),
        _ => any_name(random),
    }
}
