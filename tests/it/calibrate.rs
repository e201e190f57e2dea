//! `peftc calibrate`, and compiling with what it has measured.

use crate::adapters::fixtures;
use crate::method_nets::net;
use crate::methods::error;
use crate::starts::statistic_of;
use crate::tolerances::STATISTICS;
use crate::train_tasks::npz_of;
use peftc::diag::Sink;
use peftc::graph::{Model, Tensor};
use peftc::hir::Statistic;
use peftc::onnx;
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::weights::read_tensors;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const SPEC: &str = "use std::{eva, corda, lora_ga}
adapter a {
  adapt \"layers.0.q\" with corda(rank = 4) + lora_ga(rank = 4) + eva(rank = 4)
  adapt \"layers.0.v\" with corda(rank = 4) + eva(rank = 4)
}
";

const CONFIG: &str = "model: net.onnx
spec: a.peft
data: {train: d.npz, order: as_read}
task: regression
model_output: output.layers.0.q
batch_size: 1
steps: 1
calibration: c.safetensors
output: out
";

/// A net of two layers whose inputs are one batch of the recorded calibration data; all weights and
/// biases are multiplied with a factor.
fn recorded(factor: f32) -> (Model, NamedTensors) {
    let path = fixtures().join("methods/start_lora_ga");
    let text = std::fs::read_to_string(path.with_extension("json")).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut recording =
        NamedTensors::read_safetensors(&path.with_extension("safetensors")).unwrap();
    let data = recording.clone();
    for (name, tensor) in &mut recording.0 {
        if let Some(site) = name.strip_prefix("input.") {
            let all = data.get(&format!("calibration.{site}")).unwrap();
            let dims = [1, all.dims()[1], all.dims()[2]];
            *tensor = HostTensor::from_f32(&dims, &vec![0.0; (dims[1] * dims[2]) as usize]);
        } else if name.starts_with("base.") {
            let values = tensor.to_f64s().unwrap();
            let values: Vec<f32> = values.iter().map(|v| *v as f32 * factor).collect();
            *tensor = HostTensor::from_f32(tensor.dims(), &values);
        }
    }
    (net(&description, &recording), recording)
}

/// Model, data, spec and configuration in a folder.
fn prepared(folder: &Path) -> NamedTensors {
    let (model, recording) = recorded(1.0);
    let mut sink = Sink::new();
    onnx::save(&model, &folder.join("net.onnx"), &mut sink).unwrap();
    let bytes = |values: &[f64]| -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| (*value as f32).to_le_bytes())
            .collect()
    };
    let input = |site: &str| {
        let data = recording.get(&format!("calibration.{site}")).unwrap();
        (data.dims().to_vec(), bytes(&data.to_f64s().unwrap()))
    };
    let ((q, q_bytes), (v, v_bytes)) = (input("layers.0.q"), input("layers.0.v"));
    let labels = [q[0], q[1], 16];
    let zeros = bytes(&vec![0.0; labels.iter().product::<i64>() as usize]);
    let arrays = npz_of(&[
        ("input.layers.0.q", &q, "<f4", q_bytes),
        ("input.layers.0.v", &v, "<f4", v_bytes),
        ("labels", &labels, "<f4", zeros),
    ]);
    std::fs::write(folder.join("d.npz"), arrays).unwrap();
    std::fs::write(folder.join("a.peft"), SPEC).unwrap();
    std::fs::write(folder.join("run.yaml"), CONFIG).unwrap();
    recording
}

/// What a command says in a folder, or the codes of its errors.
fn peftc(folder: &Path, arguments: &[&str]) -> Result<Value, Vec<String>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command
        .current_dir(folder)
        .args(arguments)
        .args(["--format", "json"]);
    let Output { status, stdout, .. } = command.output().unwrap();
    let said: Value = serde_json::from_slice(&stdout).unwrap();
    if status.success() {
        return Ok(said);
    }
    let found = said["diagnostics"].as_array().unwrap().iter();
    Err(found
        .map(|d| d["code"].as_str().unwrap().to_owned())
        .collect())
}

#[test]
fn calibrations_are_what_the_data_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let recording = prepared(folder);
    let said = peftc(folder, &["calibrate", "run.yaml"]).unwrap();
    assert_eq!((&said["modules"], &said["batches"]), (&2.into(), &4.into()));
    let file = folder.join("c.safetensors");
    let found = read_tensors(&file, &mut Sink::new()).unwrap();
    assert_eq!(found.len(), 5);
    for tensor in found {
        let (site, name) = tensor.name.rsplit_once('.').unwrap();
        let statistic = Statistic::named(name).unwrap();
        let (dims, expected) = statistic_of(&recording, site, statistic).unwrap();
        assert_eq!(tensor.dims, dims, "{}", tensor.name);
        let values = Tensor::from_raw(tensor.dtype, &tensor.dims, tensor.data);
        let error = error(&values.to_f64s().unwrap(), &expected);
        assert!(error < STATISTICS, "{} is off by {error:e}", tensor.name);
    }
    let first = std::fs::read(&file).unwrap();
    peftc(folder, &["calibrate", "run.yaml"]).unwrap();
    assert_eq!(
        std::fs::read(&file).unwrap(),
        first,
        "twice, and the same bytes"
    );
    peftc(folder, &["calibrate", "run.yaml", "--batches", "2"]).unwrap();
    assert_ne!(std::fs::read(&file).unwrap(), first, "of other batches");
}

#[test]
fn start_values_come_from_the_calibration_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepared(folder);
    let compile = ["compile", "a.peft", "net.onnx", "-o", "o"];
    assert_eq!(peftc(folder, &compile), Err(vec!["E0459".to_owned(); 5]));
    assert!(!folder.join("o").exists());
    peftc(folder, &["calibrate", "run.yaml"]).unwrap();
    let with = [&compile[..], &["--calibration", "c.safetensors"]].concat();
    peftc(folder, &with).unwrap();
    let manifest = std::fs::read_to_string(folder.join("o/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let bytes = std::fs::read(folder.join("c.safetensors")).unwrap();
    let digest = format!("blake3:{}", blake3::hash(&bytes).to_hex());
    assert_eq!(manifest["calibration"]["digest"], digest);
    assert_eq!(manifest["calibration"]["name"], "c.safetensors");
    // A smaller adapter takes the calibration of a larger one; a larger one does not.
    let of = |methods: &str| format!("use std::{{eva, lora_ga}}\nadapter a {{ {methods} }}\n");
    let spec = |text: &str| std::fs::write(folder.join("a.peft"), of(text)).unwrap();
    spec("adapt \"layers.0.v\" with eva(rank = 2)");
    peftc(folder, &with).unwrap();
    spec("adapt \"layers.0.v\" with lora_ga(rank = 2)");
    assert_eq!(peftc(folder, &with), Err(vec!["E0907".to_owned()]));
    spec("adapt \"layers.0.q\" with eva(rank = 2)");
    peftc(folder, &["train", "run.yaml"]).unwrap();
    let manifest = std::fs::read_to_string(folder.join("out/manifest.json")).unwrap();
    assert!(manifest.contains(&digest), "{manifest}");
}

#[test]
fn a_calibration_of_another_model_or_with_no_numbers_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepared(folder);
    peftc(folder, &["calibrate", "run.yaml"]).unwrap();
    let file = folder.join("c.safetensors");
    let with = [
        "compile",
        "a.peft",
        "net.onnx",
        "-o",
        "o",
        "--calibration",
        "c.safetensors",
    ];
    let whole = std::fs::read(&file).unwrap();
    let mut broken = whole.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, broken).unwrap();
    assert_eq!(peftc(folder, &with), Err(vec!["E0907".to_owned()]));
    std::fs::write(&file, &whole).unwrap();
    let (model, _) = recorded(2.0);
    onnx::save(&model, &folder.join("net.onnx"), &mut Sink::new()).unwrap();
    assert_eq!(peftc(folder, &with), Err(vec!["E0907".to_owned()]));
    assert!(!folder.join("o").exists());
}
