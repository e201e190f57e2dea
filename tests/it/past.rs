//! Models that take caches of earlier tokens are trained without them.

use crate::adapters::{compiled_to_train, distance, fixtures, model, recorded};
use crate::tolerances::{GRADIENT_SINGLE, TRAINING_LOSSES};
use crate::training::{labels, number, run, stateful};
use peftc::driver::{Adam, Base, Memory, Optimizer, Recipe, Task};
use peftc::runtime::{HostTensor, NamedTensors, Optimization};
use serde_json::Value;

fn recipe() -> Recipe {
    Recipe {
        output: None,
        task: Task::CausalLm {
            label_smoothing: 0.0,
        },
        optimizer: Optimizer::AdamW(Adam::default()),
        max_grad_norm: None,
        base: Base::Own,
        rates: Vec::new(),
        memory: Memory::default(),
    }
}

/// Names of the inputs that are the model's, the loss, and the gradients in the order of modules and parameters.
fn trained(export: &str) -> (Vec<String>, f64, Vec<HostTensor>) {
    let folder = tempfile::tempdir().unwrap();
    let spec = "use std::lora\nadapter a { adapt all linear with lora(rank = 2) }\n";
    compiled_to_train(spec, &model(export), None, Some(recipe()), folder.path());
    let out = folder.path().join("out");
    let text = std::fs::read_to_string(out.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let ports = |side: &str, role: &str| -> Vec<Value> {
        let all = manifest["graphs"]["grad"][side].as_array().unwrap();
        let mut found: Vec<Value> = all
            .iter()
            .filter(|port| port["role"] == role)
            .cloned()
            .collect();
        // Nodes of exports come in different orders.
        let module = |port: &Value| format!("{}.{}", port["module"], port["parameter"]);
        found.sort_by_key(module);
        found
    };
    let name = |port: &Value| port["name"].as_str().unwrap().to_owned();
    let mut grad = stateful(&out, &manifest, "grad", Optimization::All);
    let mut sink = peftc::diag::Sink::new();
    for (seed, port) in (0..).zip(ports("inputs", "parameter")) {
        let shape = port["shape"].as_array().unwrap().iter();
        let dims: Vec<i64> = shape.map(|dim| dim.as_i64().unwrap()).collect();
        let values: Vec<f32> = (0..dims.iter().product::<i64>())
            .map(|at| ((at * 31 + seed * 17) % 101) as f32 * 4e-3 - 0.2)
            .collect();
        let tensor = HostTensor::from_f32(&dims, &values);
        grad.set(&name(&port), &tensor, &mut sink).unwrap();
    }
    let given: Vec<String> = ports("inputs", "input").iter().map(name).collect();
    let inputs = inputs(&given);
    let found = run(&mut grad, &inputs);
    let gradients = ports("outputs", "gradient");
    let gradients = gradients
        .iter()
        .map(|port| found.get(&name(port)).unwrap().clone());
    (given.clone(), number(&found, "loss"), gradients.collect())
}

/// A recorded batch, one row of it padded, with what an export takes besides.
fn inputs(given: &[String]) -> NamedTensors {
    let path = fixtures().join("peft/llama.lora.safetensors");
    let all = recorded(&path, "input.");
    let mut inputs = NamedTensors::default();
    for name in given {
        match name.as_str() {
            "position_ids" => {
                let dims = all.get("input_ids").unwrap().dims().to_vec();
                let ids: Vec<i64> = (0..dims[0] * dims[1]).map(|at| at % dims[1]).collect();
                inputs.push("position_ids", HostTensor::from_i64(&dims, &ids));
            }
            name => inputs.push(name, all.get(name).unwrap().clone()),
        }
    }
    inputs.push("labels", labels("llama", &all));
    inputs
}

/// Loss and gradients are those of the same model, exported without a cache.
#[test]
fn a_model_with_caches_is_trained_as_the_one_without() {
    let (_, loss, expected) = trained("llama.ts");
    for (export, inputs) in [
        (
            "llama.optimum_past",
            &["input_ids", "attention_mask", "position_ids"][..],
        ),
        // Its caches leave open how wide a head is.
        ("llama.genai_fp32", &["input_ids", "attention_mask"]),
    ] {
        let (given, with_past, found) = trained(export);
        assert_eq!(given, inputs, "{export}");
        assert!(
            (loss - with_past).abs() <= TRAINING_LOSSES,
            "{export}: {with_past} is not {loss}"
        );
        assert_eq!(found.len(), expected.len(), "{export}");
        let lengths = expected.iter().zip(&found).map(|(a, b)| distance(b, a));
        let (differences, scales): (Vec<f64>, Vec<f64>) = lengths.unzip();
        let scale = scales.into_iter().fold(0.0, f64::max);
        let worst = differences.into_iter().fold(0.0, f64::max);
        assert!(
            scale > 0.0 && worst <= GRADIENT_SINGLE * scale,
            "{export}: {worst} of {scale}"
        );
    }
}
