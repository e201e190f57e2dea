//! Logits in pieces, in ONNX Runtime: the same loss, gradients and figures as with all of them at once.

use crate::adapters::{compiled_to_train, distance, fixtures, model, recorded};
use crate::recorded::exports;
use crate::tolerances::{GRADIENT_HALF, PIECES};
use crate::training::{labels, run, stateful};
use peftc::driver::{Adam, Base, Memory, Optimizer, Recipe, Task};
use peftc::runtime::{HostTensor, NamedTensors, Optimization};
use serde_json::Value;

const SPEC: &str = "use std::lora\nadapter a { adapt all linear with lora(rank = 2) }\n";

/// What a graph gives with logits in so many pieces, and how many those were.
fn results(
    export: &str,
    graph: &str,
    (pieces, label_smoothing): (Option<usize>, f64),
    inputs: &NamedTensors,
) -> (NamedTensors, Value) {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        output: None,
        task: Task::CausalLm { label_smoothing },
        optimizer: Optimizer::AdamW(Adam::default()),
        max_grad_norm: None,
        base: Base::Own,
        rates: Vec::new(),
        memory: Memory {
            pieces,
            ..Memory::default()
        },
    };
    compiled_to_train(SPEC, &model(export), None, Some(recipe), folder.path());
    let out = folder.path().join("out");
    let text = std::fs::read_to_string(out.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let mut session = stateful(&out, &manifest, graph, Optimization::All);
    let mut sink = peftc::diag::Sink::new();
    let ports = manifest["graphs"][graph]["inputs"].as_array().unwrap();
    let parameters = ports.iter().filter(|port| port["role"] == "parameter");
    for (seed, port) in parameters.enumerate() {
        let shape = port["shape"].as_array().unwrap().iter();
        let dims: Vec<i64> = shape.map(|dim| dim.as_i64().unwrap()).collect();
        let values: Vec<f32> = (0..dims.iter().product::<i64>())
            .map(|at| ((at * 31 + seed as i64 * 17) % 101) as f32 * 4e-3 - 0.2)
            .collect();
        let name = port["name"].as_str().unwrap();
        session
            .set(name, &HostTensor::from_f32(&dims, &values), &mut sink)
            .unwrap();
    }
    let pieces = manifest["training"]["loss_pieces"].clone();
    (run(&mut session, inputs), pieces)
}

fn equal(export: &str, whole: &NamedTensors, parts: &NamedTensors, tolerance: f64) {
    for (name, tensor) in whole.iter() {
        let other = parts
            .get(name)
            .unwrap_or_else(|| panic!("{export}: no {name}"));
        let (difference, scale) = distance(other, tensor);
        assert!(
            difference <= tolerance * scale,
            "{export}: {name} is off by {difference} of {scale}"
        );
    }
}

/// Compares both graphs of an export, also where the tokens do not fill the last piece, where a piece has
/// none that counts, and with more pieces than tokens.
fn compare(export: &str, inputs: &NamedTensors, tolerance: f64) {
    for graph in ["grad", "eval"] {
        let (whole, one) = results(export, graph, (Some(1), 0.1), inputs);
        assert_eq!(one, 1);
        for count in [3, 100] {
            let (parts, found) = results(export, graph, (Some(count), 0.1), inputs);
            assert_eq!(found, count, "{export}");
            equal(export, &whole, &parts, tolerance);
        }
    }
}

fn batch(family: &str) -> NamedTensors {
    let path = format!("peft/{family}.lora.safetensors");
    let mut inputs = recorded(&fixtures().join(path), "input.");
    inputs.push("labels", labels(family, &inputs));
    inputs
}

#[test]
fn loss_gradients_and_figures_are_those_of_all_logits_at_once() {
    for family in ["llama", "gpt2"] {
        let inputs = batch(family);
        for export in exports(family) {
            compare(export, &inputs, PIECES);
        }
    }
}

/// Where gradients on their way are those of the sum over labels.
#[test]
fn a_model_in_half_precision_comes_in_pieces_too() {
    compare("llama.fp16.dynamo", &batch("llama"), GRADIENT_HALF);
}
