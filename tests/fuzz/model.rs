//! Models: read as a file with its weights, typed, recovered, planned, compiled in memory, written
//! and read again.

use crate::corpus::below;
use crate::guard;
use crate::spec::planned;
use crate::told::{resolved, told};
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use peftc::adapt::{self, Plan, Starts};
use peftc::diag::{Sink, SourceMap};
use peftc::driver::{Loaded, ModelOptions, Session, modules_json, modules_text};
use peftc::graph::{Model, Tensor};
use peftc::{onnx, passes};
use protobuf::Message;
use std::collections::BTreeMap;

/// Larger models of the fixtures lose their weights.
const LARGEST: usize = 200_000;
/// Smaller weights stay: shapes and axes are among them.
const SMALL_WEIGHT: usize = 1024;
/// Texts of this length say nothing about modules.
const LONG_TEXT: usize = 500;
/// The file of the weights: more than a model without its weights asks for.
pub const WEIGHTS: (&str, usize) = ("w.bin", 4 << 20);

/// Every model has modules for some of these adapters.
pub const ADAPTERS: &str = "use std::{lora, bitfit, dora, dynamic_lora, ia3}
adapter linear { adapt all linear with lora(rank = 1) + bitfit() }
adapter weight { adapt all linear with dora(rank = 1) }
adapter tokens { adapt all linear with dynamic_lora(rank = 1, hidden = 2, pool = \"masked_mean\") }
adapter norm { train all norm }
adapter conv { adapt all conv with ia3() }
adapter embedding { adapt all embedding with lora(rank = 1) }
";

pub fn seeds() -> Vec<Vec<u8>> {
    below("fixtures", ".onnx").map(without_weights).collect()
}

pub fn run(input: &[u8]) -> String {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let reached = through(input, &mut sources, &mut sink);
    format!("{} {reached}", told(&sources, &sink))
}

/// How far the model came with every adapter; nothing if it cannot be read.
fn through(input: &[u8], sources: &mut SourceMap, sink: &mut Sink) -> String {
    let path = guard::scratch().join("m.onnx");
    // A new file: the last one may still be mapped.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, input).unwrap();
    let options = ModelOptions {
        fingerprint: true,
        roles: true,
        ..ModelOptions::default()
    };
    let Ok(loaded) = Session { sources, sink }.model(&path, &options) else {
        return String::new();
    };
    assert!(modules_json(&loaded).is_object() && !modules_text(&loaded).is_empty());
    assert_eq!(written_twice(&loaded.model), None);
    let spec = resolved("all.peft", ADAPTERS, sources, sink).expect("it is well formed");
    let adapters = spec.program.adapters.iter();
    adapters
        .map(
            |adapter| match planned(&spec, adapter, &loaded, sources, sink) {
                Ok(planned) => compiled(&planned.plan, &loaded, sink),
                Err(_) => '-',
            },
        )
        .collect()
}

/// What goes wrong when the model is written, read, and written again.
fn written_twice(model: &Model) -> Option<String> {
    let written = |model: &Model| {
        let mut bytes = Vec::new();
        onnx::write_model(model, &mut bytes).map(|()| bytes)
    };
    let first = match written(model) {
        Ok(bytes) => bytes,
        Err(error) => return Some(format!("it is not written: {error}")),
    };
    let mut sink = Sink::new();
    let Ok(again) = onnx::import_bytes("again.onnx", first.clone().into(), &mut sink) else {
        return Some(format!(
            "what was written is not read: {:?}",
            sink.diagnostics()
        ));
    };
    let second = written(&again.model).ok();
    (second != Some(first)).then(|| "the second writing differs from the first".to_owned())
}

/// How far an adapter came: applied, written, read again and typed.
pub fn compiled(plan: &Plan, loaded: &Loaded, sink: &mut Sink) -> char {
    let reader = |tensor: &Tensor, sink: &mut Sink| loaded.weights.read(tensor, sink);
    let mut model = loaded.model.clone();
    let none = BTreeMap::new();
    let modules = &loaded.modules;
    let starts = Starts::new(0, &reader, &none);
    if adapt::apply(plan, &mut model, modules, &starts, sink).is_err() {
        return 'p';
    }
    assert_eq!(written_twice(&model), None);
    let mut bytes = Vec::new();
    onnx::write_model(&model, &mut bytes).expect("it was written before");
    let mut again = Sink::new();
    let typed = onnx::import_bytes("written.onnx", bytes.into(), &mut again)
        .and_then(|read| passes::infer(&mut { read.model }, &mut again));
    assert!(
        typed.is_ok(),
        "what was written has types: {:?}",
        again.diagnostics()
    );
    'c'
}

/// A large model with its weights, and every model with its external data, in the file that
/// [`guard::scratch`] holds.
fn without_weights(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(mut model) = ModelProto::parse_from_bytes(&bytes) else {
        return bytes;
    };
    let smallest = if bytes.len() > LARGEST {
        SMALL_WEIGHT
    } else {
        usize::MAX
    };
    if let Some(graph) = model.graph.as_mut() {
        move_out(graph, smallest, &mut 0);
    }
    model.write_to_bytes().unwrap()
}

fn move_out(graph: &mut GraphProto, smallest: usize, offset: &mut usize) {
    for tensor in &mut graph.initializer {
        if tensor.raw_data.len() > smallest {
            refer(tensor, *offset);
            *offset += tensor.raw_data.len().next_multiple_of(64);
            assert!(*offset <= WEIGHTS.1, "the weights fit");
            tensor.raw_data.clear();
        }
        for entry in tensor
            .external_data
            .iter_mut()
            .filter(|entry| entry.key == "location")
        {
            WEIGHTS.0.clone_into(&mut entry.value);
        }
    }
    for node in &mut graph.node {
        if smallest < usize::MAX {
            // Where in Python it comes from.
            node.metadata_props
                .retain(|entry| entry.value.len() < LONG_TEXT);
        }
        for attribute in &mut node.attribute {
            let one = attribute.g.as_mut().into_iter();
            for inner in one.chain(&mut attribute.graphs) {
                move_out(inner, smallest, offset);
            }
        }
    }
}

fn refer(tensor: &mut TensorProto, offset: usize) {
    let length = tensor.raw_data.len().to_string();
    let entries = [
        ("location", WEIGHTS.0.to_owned()),
        ("offset", offset.to_string()),
        ("length", length),
    ];
    tensor.data_location = DataLocation::EXTERNAL.into();
    tensor.external_data = entries
        .map(|(key, value)| StringStringEntryProto {
            key: key.to_owned(),
            value,
            ..Default::default()
        })
        .to_vec();
}
