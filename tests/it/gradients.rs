//! Gradients of adapted exports, end to end.
//!
//! LoRA on all linear layers with random values, and as loss a random projection of the first
//! output. The reference evaluates the graph that peftc emits in double precision, and the adapted
//! model itself for central differences in a random direction. ONNX Runtime runs the emitted graph
//! in single precision, optimized and not.

use crate::adapters::{fixtures, recorded};
use crate::differentiated::{
    Exact, Trained, exact_products, execute, floats, length, noise, project, reads, trained,
    with_exact,
};
use crate::reference::array;
use crate::tolerances::{GRADIENT_DIFFERENCE, GRADIENT_HALF, GRADIENT_SINGLE};
use peftc::diag::Sink;
use peftc::graph::{Model, ValueId};
use peftc::reference::Array;
use peftc::runtime::{NamedTensors, Optimization};
use peftc::ty::DType;

/// The recorded inputs and the projection.
fn inputs(name: &str) -> NamedTensors {
    let recording = fixtures()
        .join("models")
        .join(format!("{name}.io.safetensors"));
    let mut inputs = recorded(&recording, "input.");
    let outputs = recorded(&recording, "output.");
    let (_, first) = outputs.iter().next().unwrap();
    inputs.push("projection", floats("projection", first.dims(), 1.0));
    inputs
}

/// The gradients of a fixture, checked against central differences and in ONNX Runtime.
fn check(name: &str, spec: &str) {
    check_loss(name, spec, |model| {
        exact_products(model);
        project(model)
    });
}

/// The same where a flag of the model is false.
fn check_specialized(name: &str, flag: &str) {
    check_loss(name, LORA, |model| {
        let flags = [(flag.to_owned(), false)];
        peftc::passes::specialize(model, &flags, &mut Sink::new()).unwrap();
        project(model)
    });
}

fn check_loss(name: &str, spec: &str, loss: impl Fn(&mut Model) -> ValueId) {
    let values = |parameter: &str, dims: &[i64]| floats(parameter, dims, 0.3);
    let trained = trained(name, spec, loss, values);
    let mut inputs = inputs(name);
    // A model that has been specialized may read less.
    inputs.0.retain(|(name, _)| reads(&trained.path(), name));
    let parameters: Vec<&str> = trained.gradients.keys().map(String::as_str).collect();
    let outputs: Vec<&str> = trained.gradients.values().map(String::as_str).collect();
    let exact = with_exact(&trained.path(), |exact| {
        let given: Vec<(&str, Array)> = inputs.iter().map(|(name, t)| (name, array(t))).collect();
        let found = exact.run(&given, &outputs);
        along_a_direction(name, exact, &given, &trained, &parameters, &found);
        found
    });
    let scale = exact.iter().map(|g| length(g)).fold(0.0, f64::max);
    let bound = match name.contains("fp16") {
        true => GRADIENT_HALF,
        false => GRADIENT_SINGLE,
    };
    for optimization in [Optimization::Disabled, Optimization::All] {
        let found = execute(&trained.path(), &inputs, optimization);
        for ((parameter, output), exact) in parameters.iter().zip(&outputs).zip(&exact) {
            let found = found.get(output).unwrap().to_f64s().unwrap();
            let difference: Vec<f64> = found.iter().zip(exact).map(|(a, b)| a - b).collect();
            assert!(
                length(&difference) <= bound * scale,
                "{name}: the gradient of {parameter} differs by {:e} at a scale of {scale}, \
                 {optimization:?}",
                length(&difference)
            );
        }
    }
}

/// The change of the loss along a direction in which every parameter has its share.
fn along_a_direction(
    name: &str,
    exact: &Exact<'_>,
    inputs: &[(&str, Array)],
    trained: &Trained,
    parameters: &[&str],
    gradients: &[Vec<f64>],
) {
    for turn in ["first", "second"] {
        let mut directions = Vec::new();
        let (mut analytic, mut size) = (0.0, 0.0);
        for (parameter, gradient) in parameters.iter().zip(gradients) {
            let length = length(gradient);
            assert!(length > 0.0, "{name}: {parameter} has no gradient");
            let direction: Vec<f64> = noise(&format!("{turn} {parameter}"), gradient.len())
                .iter()
                .map(|v| v / length)
                .collect();
            let share: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            analytic += share;
            size += share.abs();
            directions.push(direction);
        }
        // As long as the parameters themselves differ by about the step.
        let longest = directions
            .iter()
            .flatten()
            .fold(0.0_f64, |m, v| m.max(v.abs()));
        let step = 1e-5 / longest;
        let loss_at = |step: f64| {
            let mut moved = inputs.to_vec();
            for (parameter, direction) in parameters.iter().zip(&directions) {
                let tensor = trained.values.get(parameter).unwrap();
                let values = tensor.to_f64s().unwrap();
                let values = values.iter().zip(direction).map(|(x, v)| x + step * v);
                let dims: Vec<usize> = tensor.dims().iter().map(|n| *n as usize).collect();
                let array = Array::floats(DType::F32, &dims, values.collect()).unwrap();
                moved.push((parameter, array));
            }
            exact.run(&moved, &[&trained.loss])[0][0]
        };
        let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        assert!(
            (numeric - analytic).abs() <= GRADIENT_DIFFERENCE * size,
            "{name}: the loss changes by {numeric}, the gradients say {analytic}, of {size}"
        );
    }
}

const LORA: &str = "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 4)\n}\n";

#[test]
fn lora_on_all_linear_layers_of_dynamo_exports() {
    for name in [
        "llama.dynamo",
        "llama.dynamo_external",
        "llama.dynamo_noopt",
        "llama.fp16.dynamo",
        "qwen2.dynamo",
        "gpt2.dynamo",
        "bert.dynamo",
        "t5.dynamo",
        "vit.dynamo",
    ] {
        check(name, LORA);
    }
}

#[test]
fn lora_on_all_linear_layers_of_torchscript_exports() {
    for name in [
        "llama.ts",
        "llama.ts_nofold",
        "llama.optimum_past",
        "qwen2.ts",
        "gpt2.ts",
        "bert.ts",
        "t5.ts",
        "t5.optimum_encoder",
        "vit.ts",
    ] {
        check(name, LORA);
    }
}

#[test]
fn lora_on_all_linear_layers_of_the_genai_builder() {
    for name in [
        "llama.genai_fp32",
        "llama.genai_int4",
        "llama.genai_int4_qdq",
    ] {
        check(name, LORA);
    }
}

#[test]
fn a_merged_decoder_is_differentiated_in_the_branch_that_its_flag_takes() {
    check_specialized("t5.optimum_merged", "use_cache_branch");
}
