//! Twenty steps on every kind of model against those that PyTorch and PEFT took (`fixtures/make_steps.py`).

use crate::adapters::{compiled_to_train, fixtures};
use crate::differentiated::{fixture, floats};
use crate::gradients_recorded::Recording;
use crate::reference::inputs_of;
use crate::tolerances::{GRADIENT_TIMES_TORCH, TRAINING_LOSSES};
use crate::training::{number, recorded_recipe, run, stateful, with_kernels, with_rate};
use peftc::driver::Task;
use peftc::runtime::{HostTensor, NamedTensors, Optimization, Stateful};
use serde_json::Value;

/// The exports of what is recorded.
const EXPORTS: &[(&str, &[&str])] = &[
    ("llama", &["llama.dynamo", "llama.ts"]),
    ("llama_unpadded", &["llama.genai_fp32"]),
    ("quickstart", &["quickstart"]),
    ("qwen2", &["qwen2.dynamo", "qwen2.ts"]),
    ("gpt2", &["gpt2.dynamo", "gpt2.ts"]),
    ("bert", &["bert.dynamo", "bert.ts"]),
    ("t5", &["t5.dynamo", "t5.ts"]),
    ("vit", &["vit.dynamo", "vit.ts"]),
    ("convnet", &["convnet.dynamo_bn", "convnet.ts_bn"]),
    ("convnet_folded", &["convnet.dynamo", "convnet.ts"]),
];

fn task(name: &str) -> Task {
    let label_smoothing = 0.0;
    match name {
        "classification" => Task::Classification { label_smoothing },
        "seq2seq" => Task::Seq2Seq { label_smoothing },
        _ => Task::CausalLm { label_smoothing },
    }
}

/// As the script makes them.
fn labels(task: &str, inputs: &NamedTensors) -> HostTensor {
    let (_, first) = inputs.iter().next().unwrap();
    if task == "classification" {
        let rows = first.dims()[0];
        let classes: Vec<i64> = (0..rows).map(|row| row % 3).collect();
        return HostTensor::from_i64(&[rows], &classes);
    }
    let whole = |name: &str| inputs.get(name).map(|tensor| tensor.to_f64s().unwrap());
    let name = match task {
        "seq2seq" => "decoder_input_ids",
        _ => "input_ids",
    };
    let ids = whole(name).unwrap().into_iter().map(|id| id as i64);
    let labels: Vec<i64> = match (task, whole("attention_mask")) {
        ("seq2seq", _) => ids.map(|id| (id * 7 + 3) % 40).collect(),
        (_, Some(mask)) => ids
            .zip(mask)
            .map(|(id, mask)| if mask == 1.0 { id } else { -100 })
            .collect(),
        _ => ids.collect(),
    };
    HostTensor::from_i64(inputs.get(name).unwrap().dims(), &labels)
}

/// The adapter's tensors that the recording starts from.
fn start(step: &mut Stateful, manifest: &Value, recording: &str) {
    let ports = manifest["graphs"]["step"]["inputs"].as_array().unwrap();
    let mut sink = peftc::diag::Sink::new();
    for port in ports.iter().filter(|port| port["role"] == "parameter") {
        let name = port["name"].as_str().unwrap();
        let dims = port["shape"].as_array().unwrap().iter();
        let dims: Vec<i64> = dims.map(|dim| dim.as_i64().unwrap()).collect();
        let size = if name.ends_with(".A") { 0.5 } else { 0.35 };
        let values = floats(&format!("{recording}/{name}"), &dims, size);
        step.set(name, &values, &mut sink).unwrap();
    }
}

#[test]
fn twenty_steps_on_every_kind_of_model_are_pytorchs() {
    let path = fixtures().join("gradients/steps.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let rate = all["learning_rate"].as_f64().unwrap() as f32;
    for (recording, exports) in EXPORTS {
        let mut runs = all["runs"].as_array().unwrap().iter();
        let of = runs.find(|of| of["recording"] == *recording).unwrap();
        let name = of["task"].as_str().unwrap();
        let losses = of["losses"].as_array().unwrap().iter();
        let losses: Vec<f64> = losses.map(|loss| loss.as_f64().unwrap()).collect();
        let own = of["float32"].as_f64().unwrap();
        let bound = TRAINING_LOSSES.max(GRADIENT_TIMES_TORCH * own);
        let spec = Recording::read(recording).spec();
        for export in *exports {
            let folder = tempfile::tempdir().unwrap();
            let path = fixture(export);
            compiled_to_train(
                &spec,
                &path,
                None,
                Some(recorded_recipe(&all, task(name))),
                folder.path(),
            );
            let out = folder.path().join("out");
            let text = std::fs::read_to_string(out.join("manifest.json")).unwrap();
            let manifest: Value = serde_json::from_str(&text).unwrap();
            let mut inputs = inputs_of(export, &path);
            let labels = labels(name, &inputs);
            let ports = manifest["graphs"]["step"]["inputs"].as_array().unwrap();
            let reads = |name: &str| ports.iter().any(|port| port["name"] == name);
            inputs.0.retain(|(name, _)| reads(name));
            inputs.push("labels", labels);
            let plain = stateful(&out, &manifest, "step", Optimization::All);
            let (fused, _) = with_kernels(&out, &manifest, "step");
            for (mut step, kind) in [(plain, "plain"), (fused, "with kernels")] {
                start(&mut step, &manifest, recording);
                for (number_of_step, expected) in losses.iter().enumerate() {
                    let inputs = with_rate(inputs.clone(), rate, number_of_step as i64 + 1);
                    let found = number(&run(&mut step, &inputs), "loss");
                    assert!(
                        (found - expected).abs() <= bound,
                        "{export} {kind}, step {number_of_step}: {found} is not {expected}"
                    );
                }
            }
        }
    }
}
