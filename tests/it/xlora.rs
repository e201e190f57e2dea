//! X-LoRA against PEFT's (`fixtures/peft/make_xlora.py`): outputs, and gradients of what is trained.

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::differentiated::{execute, floats, length, project, trained, with_exact};
use crate::reference::array;
use crate::tolerances::{GRADIENT_RECORDED, GRADIENT_SINGLE, RECORDED_RELATIVE};
use peftc::reference::Array;
use peftc::runtime::{HostTensor, NamedTensors, Optimization};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const CASES: &[&str] = &["xlora", "xlora_layerwise", "xlora_topk", "xlora_sparse"];
const MODELS: &[&str] = &["llama.dynamo", "llama.ts"];

fn file(case: &str) -> PathBuf {
    fixtures().join(format!("peft/llama.{case}.safetensors"))
}

fn about(case: &str) -> Value {
    let text = std::fs::read_to_string(file(case).with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The same adapter as a spec, by the words of PEFT's configuration.
fn spec(about: &Value) -> String {
    let mut arguments: Vec<String> = ["experts", "rank", "alpha"]
        .iter()
        .map(|name| format!("{name} = {}", about[*name]))
        .collect();
    for (key, value) in about["config"].as_object().unwrap() {
        let name = match key.as_str() {
            "layerwise_scalings" => "layerwise",
            "xlora_depth" => "depth",
            "xlora_size" => "size",
            "softmax_temperature" => "temperature",
            "global_scaling_weight" => "strength",
            "use_trainable_adapters" => "trainable",
            "enable_softmax" => "softmax",
            "enable_softmax_topk" => "softmax_topk",
            "top_k_lora" => "top_k",
            other => panic!("{other} has no counterpart"),
        };
        arguments.push(format!("{name} = {value}"));
    }
    format!(
        "use std::xlora\nadapter a {{\n  adapt \"{{q,v}}_proj\" with xlora({}, dropout = 0)\n}}\n",
        arguments.join(", ")
    )
}

/// Tensors of one shape, one behind the other.
pub(crate) fn stacked(parts: &[&HostTensor]) -> HostTensor {
    let values: Vec<f32> = parts
        .iter()
        .flat_map(|part| part.to_f64s().unwrap())
        .map(|value| value as f32)
        .collect();
    let dims = std::iter::once(parts.len() as i64).chain(parts[0].dims().iter().copied());
    HostTensor::from_f32(&dims.collect::<Vec<i64>>(), &values)
}

/// PEFT's tensors under the names of the adapter, those of all LoRAs together; as far as there are any.
fn ours(theirs: &NamedTensors, about: &Value) -> NamedTensors {
    let experts = about["experts"].as_i64().unwrap();
    let depth = about["config"]["xlora_depth"].as_i64().unwrap_or(1);
    let mut found = NamedTensors::default();
    for (name, tensor) in theirs.iter() {
        if let Some(path) = name.strip_prefix("0.") {
            let parts = (0..experts).map(|k| theirs.get(&format!("{k}.{path}")).unwrap());
            let name = path.replace(".lora_", ".");
            found.push(name, stacked(&parts.collect::<Vec<_>>()));
        }
        // Activations stand between the layers.
        if name == "classifier.layers.0.weight" {
            let layer = |at: i64, end: &str| {
                let name = format!("classifier.layers.{}.{end}", 2 * at);
                theirs.get(&name).unwrap()
            };
            for (own, end) in [("W", "weight"), ("b", "bias")] {
                found.push(format!("shared.0.{own}"), layer(depth - 1, end).clone());
                if depth > 1 {
                    found.push(format!("shared.0.{own}1"), layer(0, end).clone());
                }
                if depth > 2 {
                    let inner: Vec<&HostTensor> = (1..depth - 1).map(|at| layer(at, end)).collect();
                    found.push(format!("shared.0.{own}2"), stacked(&inner));
                }
            }
            assert!(tensor.dims().len() == 2);
        }
    }
    found
}

#[test]
fn outputs_are_those_of_peft() {
    for case in CASES {
        let about = about(case);
        let recording = file(case);
        let folder = tempfile::tempdir().unwrap();
        let values = ours(&recorded(&recording, ""), &about);
        let path = folder.path().join("values.safetensors");
        std::fs::write(&path, values.to_safetensors().unwrap()).unwrap();
        let expected = recorded(&recording, "output.");
        for name in MODELS {
            let adapted = compiled(&spec(&about), &model(name), Some(&path), folder.path());
            let found = outputs(&adapted, &recorded(&recording, "input."));
            let found = found.get("logits").unwrap();
            let (difference, size) = distance(found, expected.get("logits").unwrap());
            eprintln!("{case} on {name}: {:.1e}", difference / size);
            assert!(
                difference <= RECORDED_RELATIVE * size,
                "{case} on {name}: {difference:e} of {size:e}"
            );
        }
    }
}

/// What is trained in PEFT is trained here, with the same gradients.
#[test]
fn gradients_are_those_of_peft() {
    for case in CASES {
        let about = about(case);
        let recording = file(case);
        let values = ours(&recorded(&recording, ""), &about);
        let expected = ours(&recorded(&recording, "gradient."), &about);
        assert!(expected.0.len() >= 2);
        let mut inputs = recorded(&recording, "input.");
        let weights = recorded(&recording, "");
        inputs.push("projection", weights.get("projection").unwrap().clone());
        for name in MODELS {
            let given = |parameter: &str, _: &[i64]| values.get(parameter).unwrap().clone();
            let trained = trained(name, &spec(&about), project, given);
            let outputs: Vec<&str> = expected
                .iter()
                .map(|(parameter, _)| trained.gradients[parameter].as_str())
                .collect();
            // What of a gradient errors are measured by: it alone, or all together.
            let all = expected
                .iter()
                .map(|(_, g)| length(&g.to_f64s().unwrap()).powi(2));
            let all = all.sum::<f64>().sqrt();
            let close = |found: &[Vec<f64>], bound: f64, scale: Option<f64>| {
                for ((parameter, expected), found) in expected.iter().zip(found) {
                    let expected = expected.to_f64s().unwrap();
                    assert_eq!(found.len(), expected.len());
                    let pairs = found.iter().zip(&expected);
                    let error = length(&pairs.map(|(a, b)| a - b).collect::<Vec<f64>>());
                    let scale = scale.unwrap_or_else(|| length(&expected));
                    eprintln!("{case} on {name}: {parameter} {:.1e}", error / scale);
                    assert!(
                        error <= bound * scale,
                        "{case} on {name}: {parameter} is off by {error:e} of {scale:e}"
                    );
                }
            };
            let single = execute(&trained.path(), &inputs, Optimization::All);
            let single: Vec<Vec<f64>> = outputs
                .iter()
                .map(|output| single.get(output).unwrap().to_f64s().unwrap())
                .collect();
            close(&single, GRADIENT_SINGLE, None);
            with_exact(&trained.path(), |exact| {
                let given: Vec<(&str, Array)> =
                    inputs.iter().map(|(name, t)| (name, array(t))).collect();
                let found: Vec<Vec<f64>> = exact.run(&given, &outputs).into_iter().collect();
                close(&found, GRADIENT_RECORDED, Some(all));
            });
        }
    }
}

/// The tensors that PEFT trains are those that the plan trains.
#[test]
fn what_is_trained_is_what_peft_trains() {
    for case in CASES {
        let about = about(case);
        let expected = ours(&recorded(&file(case), "gradient."), &about);
        let folder = tempfile::tempdir().unwrap();
        let adapted = compiled(&spec(&about), &model("llama.ts"), None, folder.path());
        let manifest = std::fs::read_to_string(adapted.with_file_name("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let parameters = manifest["parameters"].as_array().unwrap().iter();
        let trained = parameters.filter(|parameter| parameter["trainable"] == true);
        let mut trained: Vec<&str> = trained.map(|p| p["name"].as_str().unwrap()).collect();
        let mut expected: Vec<&str> = expected.iter().map(|(name, _)| name).collect();
        trained.sort_unstable();
        expected.sort_unstable();
        assert_eq!(trained, expected, "{case}");
    }
}

/// A run that starts from trained LoRAs leaves them as they are, and knows its start again.
#[test]
fn a_run_starts_from_trained_loras() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let spec = folder.join("spec.peft");
    let text = "use std::xlora\nadapter a {\n  adapt \"{q,v}_proj\" with xlora(experts = 2, rank = 2)\n}\n";
    std::fs::write(&spec, text).unwrap();
    let write = |name: &str, size: f64| {
        let mut start = NamedTensors::default();
        let layers = (0..3).flat_map(|layer| [(layer, "q_proj", 128), (layer, "v_proj", 64)]);
        for (layer, name, out) in layers {
            let path = format!("model.layers.{layer}.self_attn.{name}");
            start.push(
                format!("{path}.A"),
                floats(&format!("{path}.A"), &[2, 2, 128], size),
            );
            start.push(
                format!("{path}.B"),
                floats(&format!("{path}.B"), &[2, out, 2], size),
            );
        }
        let file = folder.join(name);
        std::fs::write(&file, start.to_safetensors().unwrap()).unwrap();
        (file, start)
    };
    let (first, start) = write("first.safetensors", 0.3);
    let (second, _) = write("second.safetensors", 0.2);
    let run = |start: &PathBuf, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
        command
            .arg("train")
            .arg(fixtures().join("quickstart/math_task.yaml"))
            .args(["--format", "json", "--with", "adapter=a"])
            .args(["--with", &format!("spec={}", spec.display())])
            .args(["--with", &format!("start={}", start.display())])
            .args([
                "--with",
                &format!("output={}", folder.join("out").display()),
            ])
            .args([
                "--with",
                "steps=3",
                "--with",
                "threads=1",
                "--with",
                "checkpoint_every=2",
            ])
            .args(["--with", "batch_size=4", "--with", "data.eval=null"])
            .args(more);
        command.output().unwrap()
    };
    let done = run(&first, &[]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let trained = recorded(&folder.join("out/adapter.safetensors"), "");
    for (name, given) in start.iter() {
        assert_eq!(trained.get(name).unwrap().bytes(), given.bytes(), "{name}");
    }
    let bias = trained.get("shared.0.b").unwrap().to_f64s().unwrap();
    assert!(bias.iter().any(|value| *value != 0.0));
    let manifest = std::fs::read_to_string(folder.join("out/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["start"]["name"], "first.safetensors");
    let other = run(&second, &["--resume"]);
    let said = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(!other.status.success() && said.contains("E1104"), "{said}");
}
