//! Every task on BERT's encoder, with a head and LoRA: losses of PyTorch (`fixtures/peft/make_tasks.py`).

use crate::adapters::{compiled_with_head, fixtures, model};
use crate::recorded;
use crate::tolerances::TRAINING_LOSSES;
use crate::training::{number, run, stateful, with_rate};
use peftc::diag::Sink;
use peftc::driver::{Adam, Base, Head, Memory, Optimizer, Pool, Recipe, TaskKind, Trains};
use peftc::graph::Patch;
use peftc::runtime::{HostTensor, NamedTensors, Optimization};
use peftc::ty::DType;
use peftc::weights::{NamedTensor, read_tensors, write_tensors};
use peftc::{onnx, passes};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The classifier of a fixture without pooler and classifier: `last_hidden_state` is its output.
pub(crate) fn encoder(export: &str, folder: &Path) -> PathBuf {
    let mut sink = Sink::new();
    let mut model = onnx::import(&model(export), &mut sink).unwrap().model;
    passes::infer(&mut model, &mut sink).unwrap();
    let graph = &model.graph;
    let order = graph.order().unwrap();
    let is_norm = |node: &&_| graph.node(**node).op.is("LayerNormalization");
    let last = order.iter().rev().find(is_norm).unwrap();
    let mut patch = Patch::new();
    patch.drop_outputs();
    let states = graph.result(*last, 0).unwrap();
    patch.named_output(states.into(), "last_hidden_state");
    model.graph.apply(patch).unwrap();
    let path = folder.join("encoder.onnx");
    onnx::save(&model, &path, &mut sink).unwrap();
    path
}

fn floats(value: &Value, into: &mut Vec<f64>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| floats(item, into)),
        number => into.push(number.as_f64().unwrap()),
    }
}

/// A tensor of nested lists: integers unless a number has a fraction.
fn tensor(value: &Value) -> HostTensor {
    let mut dims = Vec::new();
    let mut at = value;
    while let Value::Array(items) = at {
        dims.push(items.len() as i64);
        at = &items[0];
    }
    let mut all = Vec::new();
    floats(value, &mut all);
    match at.is_i64() {
        true => {
            let numbers: Vec<i64> = all.iter().map(|number| *number as i64).collect();
            HostTensor::from_i64(&dims, &numbers)
        }
        false => {
            let numbers: Vec<f32> = all.iter().map(|number| *number as f32).collect();
            HostTensor::from_f32(&dims, &numbers)
        }
    }
}

/// The start of the head that the recording has.
fn start_of_head(name: &str, dims: &[i64]) -> NamedTensor {
    let count = dims.iter().product::<i64>();
    let values = (1..=count).map(|number| ((number as f64).sin() / 10.0) as f32);
    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
    NamedTensor {
        name: name.to_owned(),
        dtype: DType::F32,
        dims: dims.to_vec(),
        data: bytes.into(),
    }
}

fn pool(name: &str) -> Pool {
    match name {
        "mean" => Pool::Mean,
        "first" => Pool::First,
        "last" => Pool::Last,
        _ => Pool::None,
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The recorded adapter and the head's start, as `--values` takes them.
fn values(size: i64, folder: &Path) -> PathBuf {
    let recording = fixtures().join("peft/bert.lora.safetensors");
    let path = recorded::renamed(&recording, folder);
    let mut sink = Sink::new();
    let mut all = read_tensors(&path, &mut sink).unwrap();
    if size > 0 {
        all.push(start_of_head("head.bias", &[size]));
        all.push(start_of_head("head.weight", &[size, 64]));
    }
    let path = folder.join("start.safetensors");
    write_tensors(&path, &all, ("from", "recording".to_owned()), &mut sink).unwrap();
    path
}

#[test]
fn ten_steps_of_every_task_are_pytorchs() {
    let all = json(&fixtures().join("peft/tasks.json"));
    let inputs = all["inputs"].as_object().unwrap();
    let about = json(&fixtures().join("peft/bert.lora.json"));
    let spec = format!(
        "{}\nadapter a {{\n{}\n}}\n",
        recorded::library("bert.lora"),
        recorded::statements(&about)
    );
    let folder = tempfile::tempdir().unwrap();
    for export in recorded::exports("bert") {
        let encoder = encoder(export, folder.path());
        for of in all["runs"].as_array().unwrap() {
            let task = TaskKind::parse(of["task"].as_str().unwrap()).unwrap();
            let size = of["size"].as_i64().unwrap();
            let temperature = match task {
                TaskKind::Distillation => all["temperature"].as_f64(),
                _ => None,
            };
            let head = Head {
                on: None,
                pool: pool(of["pool"].as_str().unwrap()),
                size: (size > 0).then_some(size),
                trains: Trains::HeadAndAdapter,
            };
            let recipe = Recipe {
                task: task.with(0.0, temperature),
                output: None,
                optimizer: Optimizer::AdamW(Adam::default()),
                max_grad_norm: None,
                base: Base::Own,
                rates: Vec::new(),
                memory: Memory::default(),
            };
            let values = values(size, folder.path());
            let (head, recipe) = (Some(head), Some(recipe));
            compiled_with_head(&spec, &encoder, Some(&values), head, recipe, folder.path());
            let out = folder.path().join("out");
            let manifest = json(&out.join("manifest.json"));
            let mut step = stateful(&out, &manifest, "step", Optimization::All);
            let mut batch = NamedTensors::default();
            for (name, value) in inputs {
                batch.push(name, tensor(value));
            }
            batch.push("labels", tensor(&of["labels"]));
            let rate = all["learning_rate"].as_f64().unwrap() as f32;
            for (at, expected) in of["losses"].as_array().unwrap().iter().enumerate() {
                let inputs = with_rate(batch.clone(), rate, at as i64 + 1);
                let found = number(&run(&mut step, &inputs), "loss");
                let expected = expected.as_f64().unwrap();
                assert!(
                    (found - expected).abs() <= TRAINING_LOSSES,
                    "{} on {export}, step {at}: {found} is not {expected}",
                    of["task"]
                );
            }
        }
    }
}
