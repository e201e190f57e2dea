//! Activations that are computed again, in ONNX Runtime: the same gradients, in less memory.

use crate::adapters::{compiled_to_train, distance, fixtures, model, recorded};
use crate::recorded::exports;
use crate::tolerances::RECOMPUTED;
use crate::training::{labels, run, stateful};
use peftc::driver::{Adam, Base, Memory, Optimizer, Recipe, Recompute, Task};
use peftc::runtime::{HostTensor, NamedTensors, Optimization, Stateful};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn recipe(family: &str, recompute: Recompute) -> Recipe {
    let label_smoothing = 0.0;
    Recipe {
        output: None,
        task: match family {
            "bert" => Task::Classification { label_smoothing },
            _ => Task::CausalLm { label_smoothing },
        },
        optimizer: Optimizer::AdamW(Adam::default()),
        max_grad_norm: None,
        base: Base::Own,
        rates: Vec::new(),
        memory: Memory {
            recompute,
            ..Memory::default()
        },
    }
}

/// An adapter of all linear layers, compiled to train; its manifest.
pub(crate) fn compiled(export: &str, recompute: Recompute, folder: &Path) -> Value {
    let family = export.split('.').next().unwrap();
    let spec = "use std::lora\nadapter a { adapt all linear with lora(rank = 2, dropout = 0.3) }\n";
    let recipe = recipe(family, recompute);
    compiled_to_train(spec, &model(export), None, Some(recipe), folder);
    let text = std::fs::read_to_string(folder.join("out/manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A start at which every gradient is another number: B is zero at the usual one.
pub(crate) fn fill(grad: &mut Stateful, manifest: &Value) {
    let names: Vec<String> = ports(manifest, "parameter");
    let mut sink = peftc::diag::Sink::new();
    for (seed, (name, dims)) in names.iter().zip(shapes(manifest)).enumerate() {
        let count = dims.iter().product::<i64>();
        let values: Vec<f32> = (0..count)
            .map(|at| ((at * 31 + seed as i64 * 17) % 101) as f32 * 4e-3 - 0.2)
            .collect();
        grad.set(name, &HostTensor::from_f32(&dims, &values), &mut sink)
            .unwrap();
    }
}

/// A batch of a recording, with labels and a seed.
pub(crate) fn inputs(family: &str) -> NamedTensors {
    let path = fixtures().join(format!("peft/{family}.lora.safetensors"));
    let mut inputs = recorded(&path, "input.");
    inputs.push("labels", labels(family, &inputs));
    inputs.push("seed", HostTensor::from_i64(&[], &[7]));
    inputs
}

/// Loss and gradients, and how many nodes are copies.
fn gradients(export: &str, recompute: Recompute, inputs: &NamedTensors) -> (NamedTensors, usize) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = compiled(export, recompute, folder.path());
    let out = folder.path().join("out");
    let bytes = std::fs::read(out.join("grad.onnx")).unwrap();
    let copies = bytes.windows(6).filter(|part| part == b"again/").count();
    let mut grad = stateful(&out, &manifest, "grad", Optimization::All);
    fill(&mut grad, &manifest);
    (run(&mut grad, inputs), copies)
}

fn ports(manifest: &Value, role: &str) -> Vec<String> {
    let inputs = manifest["graphs"]["grad"]["inputs"].as_array().unwrap();
    let found = inputs.iter().filter(|port| port["role"] == role);
    found
        .map(|port| port["name"].as_str().unwrap().to_owned())
        .collect()
}

fn shapes(manifest: &Value) -> Vec<Vec<i64>> {
    let inputs = manifest["graphs"]["grad"]["inputs"].as_array().unwrap();
    let found = inputs.iter().filter(|port| port["role"] == "parameter");
    let dims = |port: &Value| {
        let shape = port["shape"].as_array().unwrap().iter();
        shape.map(|dim| dim.as_i64().unwrap()).collect()
    };
    found.map(dims).collect()
}

/// With the masks of dropouts, which a copy draws from the same seed.
#[test]
fn gradients_are_those_of_activations_that_are_kept() {
    for family in ["llama", "gpt2", "bert"] {
        let inputs = inputs(family);
        for export in exports(family) {
            let (plain, none) = gradients(export, Recompute::Off, &inputs);
            let (again, copies) = gradients(export, Recompute::Blocks, &inputs);
            assert_eq!(none, 0);
            assert!(copies > 20, "{export}: {copies}");
            for (name, tensor) in plain.iter() {
                let (difference, scale) = distance(again.get(name).unwrap(), tensor);
                assert!(
                    difference <= RECOMPUTED * scale,
                    "{export}: {name} is off by {difference} of {scale}"
                );
            }
        }
    }
}

/// The most memory that a step of training takes on 64 × 64 tokens.
fn peak(more: &[&str]) -> f64 {
    peak_on("64", more)
}

/// The same on so many rows of as many tokens.
fn peak_on(size: &str, more: &[&str]) -> f64 {
    let quickstart = fixtures().join("quickstart");
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.args(["bench", "train", "--format", "json"]);
    command.args([quickstart.join("tasks.peft"), quickstart.join("model.onnx")]);
    command.args(["--adapter", "math_task", "--batch", size, "--length", size]);
    command.args(["--steps", "1", "--warmup", "1"]).args(more);
    let output = command.output().expect("peftc starts");
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    found["peak_memory_bytes"].as_f64().unwrap()
}

/// Three layers of 128: copies that ONNX Runtime took for their originals would take more, not less.
#[test]
#[cfg(target_os = "linux")]
fn a_step_takes_less_memory() {
    let (plain, again) = (peak(&[]), peak(&["--recompute"]));
    assert!(again < 0.8 * plain, "{again} of {plain}");
}

/// What `peftc plan` says of a step on 64 × 64 tokens: with activations kept and computed again.
fn planned() -> [f64; 2] {
    let step = planned_step(&[]);
    ["kept", "recomputed"].map(|which| step[which]["bytes"].as_f64().unwrap())
}

fn planned_step(more: &[&str]) -> Value {
    let quickstart = fixtures().join("quickstart");
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.args(["plan", "--format", "json"]);
    command.arg(quickstart.join("tasks.peft"));
    command.arg("--model").arg(quickstart.join("model.onnx"));
    command.args(["--adapter", "math_task"]);
    if !more.contains(&"--length") {
        command.args(["--length", "64"]);
    }
    if !more.contains(&"--batch") {
        command.args(["--batch", "64"]);
    }
    let output = command.args(more).output().expect("peftc starts");
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    found["plans"][0]["training_step"].clone()
}

#[test]
#[cfg(target_os = "linux")]
fn the_estimate_is_near_the_peak() {
    let [kept, again] = planned();
    let int8 = planned_step(&["--base", "int8"]);
    let weights = ["weights", "state"].map(|part| int8["kept"][part].as_f64().unwrap());
    assert!(weights[0] < 2e6 && weights[1] > 1e6, "{weights:?}");
    let int8 = int8["kept"]["bytes"].as_f64().unwrap();
    let weights_alone = planned_step(&["--base", "int8_weights"]);
    let codes = weights_alone["kept"]["weights"].as_f64().unwrap();
    let whole = planned_step(&[])["kept"]["weights"].as_f64().unwrap();
    assert!(codes < 0.3 * whole, "{codes} {whole}");
    let weights_alone = weights_alone["kept"]["bytes"].as_f64().unwrap();
    // A build for debugging has larger code, of which more or less lies in memory from day to day.
    let small = &planned_step(&["--batch", "2", "--length", "2"])["kept"];
    let code = match cfg!(debug_assertions) {
        true => (peak_on("2", &[]) - small["bytes"].as_f64().unwrap()).max(0.0),
        false => 0.0,
    };
    assert!(code < 6e7, "{code}");
    for (estimate, how) in [
        (kept, &[][..]),
        (again, &["--recompute"]),
        (int8, &["--base", "int8"]),
        (weights_alone, &["--base", "int8_weights"]),
    ] {
        // Which thread comes first moves the peak, the more the busier the machine is: of three runs, one
        // has to take what was planned.
        let mut measured = Vec::new();
        let is_near = |measured: f64| (0.8..1.2).contains(&(estimate / measured));
        while !measured.last().copied().is_some_and(is_near) {
            assert!(measured.len() < 3, "{estimate} for {measured:?}");
            measured.push(peak(how) - code);
        }
    }
}

/// Compiles with a budget; answers with whether activations are computed again, or with the codes of
/// what is said against it.
fn within(budget: f64) -> Result<bool, String> {
    let quickstart = fixtures().join("quickstart");
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.args(["compile", "--train", "--adapter", "math_task"]);
    command.args([quickstart.join("tasks.peft"), quickstart.join("model.onnx")]);
    command.args(["--batch", "64", "--length", "64", "--memory"]);
    command
        .arg(format!("{budget:.0}"))
        .arg("-o")
        .arg(folder.path());
    let output = command.output().expect("peftc starts");
    match output.status.success() {
        true => {
            let bytes = std::fs::read(folder.path().join("step.onnx")).unwrap();
            Ok(bytes.windows(6).any(|part| part == b"again/"))
        }
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn a_budget_decides_what_is_kept() {
    let [kept, again] = planned();
    assert!(again < 0.9 * kept, "{again} {kept}");
    assert_eq!(within(kept * 1.01), Ok(false));
    assert_eq!(within((kept + again) / 2.0), Ok(true));
    let said = within(again * 0.99).unwrap_err();
    assert!(
        said.contains("E0757") && said.contains("64 × 64 tokens"),
        "{said}"
    );
}

/// Codes of 8 bits take less than means in 32; pieces of these small logits take more, as they are padded.
#[test]
fn the_plan_knows_how_a_recipe_saves() {
    let state = |more: &[&str]| planned_step(more)["kept"]["state"].as_f64().unwrap();
    let (means, codes) = (state(&[]), state(&["--optimizer-state", "int8"]));
    assert!(codes < 0.6 * means, "{codes} of {means}");
    let whole = planned_step(&["--loss-pieces", "1"]);
    assert_eq!(whole, planned_step(&[]));
    assert_ne!(whole, planned_step(&["--loss-pieces", "8"]));
    // Pieces of at most 64 MiB, unless their number is given: a row more than fits.
    let many = |more: &[&str]| planned_step(&[&["--batch", "1025"], more].concat());
    assert_eq!(many(&[]), many(&["--loss-pieces", "2"]));
    assert_ne!(many(&[]), many(&["--loss-pieces", "1"]));
    // Of attention nothing is kept that is as large as queries by keys: here 16 MiB a layer.
    let attention = |more: &[&str]| {
        let more = [&["--batch", "4", "--length", "512"], more].concat();
        planned_step(&more)["kept"]["bytes"].as_f64().unwrap()
    };
    let (fused, operators) = (attention(&[]), attention(&["--no-kernels"]));
    assert!(operators - fused > 3.0 * 16e6, "{fused} {operators}");
}
