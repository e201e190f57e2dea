//! Every task on BERT's encoder, with a head and LoRA, and a decoder's on T5: losses of PyTorch
//! (`fixtures/peft/make_tasks.py`).

use crate::adapters::{compiled_to_train, compiled_with_head, fixtures, model};
use crate::recorded;
use crate::tolerances::TRAINING_LOSSES;
use crate::training::{number, run, stateful, with_rate};
use peftc::data::{
    BatchOptions, BatchTensor, Batcher, Broken, Dataset, Elements, Encoder, EncoderOptions, Source,
    Task,
};
use peftc::diag::{Sink, SourceMap};
use peftc::driver::{Adam, Base, Head, Memory, Optimizer, Pool, Recipe, TaskKind, Trains};
use peftc::graph::Patch;
use peftc::runtime::{HostTensor, NamedTensors, Optimization, Stateful};
use peftc::ty::DType;
use peftc::weights::{NamedTensor, read_tensors, write_tensors};
use peftc::{onnx, passes};
use serde_json::Value;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Steps on one batch have the losses of a recording.
fn check_losses(
    step: &mut Stateful,
    batch: &NamedTensors,
    recorded: &Value,
    all: &Value,
    what: &str,
) {
    let rate = all["learning_rate"].as_f64().unwrap() as f32;
    let losses = recorded["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 10);
    for (at, expected) in losses.iter().enumerate() {
        let inputs = with_rate(batch.clone(), rate, at as i64 + 1);
        let found = number(&run(step, &inputs), "loss");
        let expected = expected.as_f64().unwrap();
        assert!(
            (found - expected).abs() <= TRAINING_LOSSES,
            "{what}, step {at}: {found} is not {expected}"
        );
    }
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
            check_losses(
                &mut step,
                &batch,
                of,
                &all,
                &format!("{} on {export}", of["task"]),
            );
        }
    }
}

/// A batch of rows with these ids and labels, as a run makes it.
fn batch_of(rows: &[(Vec<i64>, Vec<i64>)], folder: &Path) -> NamedTensors {
    let lines = rows.iter().map(|(ids, labels)| {
        serde_json::json!({ "input_ids": ids, "labels": labels }).to_string() + "\n"
    });
    let path = folder.join("rows.jsonl");
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let encoder = Encoder::open(EncoderOptions::new(Task::Seq2Seq), &mut sink).unwrap();
    let source = [Source { path, format: None }];
    let dataset = Dataset::load(&source, &encoder, Broken::Refuse, &mut sources, &mut sink);
    let options = BatchOptions::in_order(NonZeroUsize::new(rows.len()).unwrap());
    let dataset = Arc::new(dataset.unwrap_or_else(|_| panic!("{:?}", sink.diagnostics())));
    let batch = Batcher::new(dataset, options, &mut sink)
        .unwrap()
        .next_batch();
    let mut named = NamedTensors::default();
    for BatchTensor {
        input,
        dims,
        elements,
    } in batch.tensors
    {
        let dims: Vec<i64> = dims.iter().map(|dim| *dim as i64).collect();
        let Elements::I64(values) = elements else {
            panic!("tokens are whole numbers")
        };
        named.push(input.name(), HostTensor::from_i64(&dims, &values));
    }
    named
}

#[test]
fn ten_steps_of_a_decoder_are_pytorchs() {
    let all = json(&fixtures().join("peft/tasks.json"));
    let recorded = &all["seq2seq"];
    let numbers =
        |value: &Value| -> Vec<Vec<i64>> { serde_json::from_value(value.clone()).unwrap() };
    let mask = numbers(&recorded["inputs"]["attention_mask"]);
    // Without their padding, which batches put there again.
    let kept = mask.iter().zip(numbers(&recorded["inputs"]["input_ids"]));
    let ids = kept.map(|(mask, ids)| ids[..mask.iter().sum::<i64>() as usize].to_vec());
    let labels = numbers(&recorded["labels"]).into_iter();
    let labels = labels.map(|row| row.into_iter().filter(|label| *label >= 0).collect());
    let rows: Vec<(Vec<i64>, Vec<i64>)> = ids.zip(labels).collect();
    let folder = tempfile::tempdir().unwrap();
    let batch = batch_of(&rows, folder.path());
    for name in ["input_ids", "attention_mask"] {
        assert_eq!(
            batch.get(name),
            Some(&tensor(&recorded["inputs"][name])),
            "{name}"
        );
    }
    for name in ["labels", "decoder_input_ids"] {
        assert_eq!(batch.get(name), Some(&tensor(&recorded[name])), "{name}");
    }
    let spec = "use std::lora\nadapter a {\n  adapt \"{q,v}\" with lora(rank = 4, alpha = 8)\n}\n";
    for export in ["t5.dynamo", "t5.ts"] {
        let recipe = Recipe {
            task: TaskKind::Seq2Seq.with(0.0, None),
            output: None,
            optimizer: Optimizer::AdamW(Adam::default()),
            max_grad_norm: None,
            base: Base::Own,
            rates: Vec::new(),
            memory: Memory::default(),
        };
        let model = model(export);
        compiled_to_train(spec, &model, None, Some(recipe.clone()), folder.path());
        let out = folder.path().join("out");
        let mut sink = Sink::new();
        let starts = read_tensors(&out.join("adapter.safetensors"), &mut sink).unwrap();
        let starts: Vec<NamedTensor> = starts
            .iter()
            .map(|tensor| start_of_head(&tensor.name, &tensor.dims))
            .collect();
        let values = folder.path().join("start.safetensors");
        write_tensors(&values, &starts, ("from", "formula".to_owned()), &mut sink).unwrap();
        compiled_to_train(spec, &model, Some(&values), Some(recipe), folder.path());
        let manifest = json(&out.join("manifest.json"));
        let mut step = stateful(&out, &manifest, "step", Optimization::All);
        let mut inputs = batch.clone();
        inputs
            .0
            .retain(|(name, _)| name != "decoder_attention_mask");
        check_losses(&mut step, &inputs, recorded, &all, export);
    }
}
