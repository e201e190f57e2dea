//! `peftc calibrate`, and compiling with what it has measured.

use crate::adapters::{fixtures, model};
use crate::method_nets::net;
use crate::methods::error;
use crate::starts::statistic_of;
use crate::tolerances::STATISTICS;
use crate::train_tasks::{npz, npz_of, said};
use crate::training::{run, stateful};
use peftc::diag::Sink;
use peftc::graph::{Model, Tensor};
use peftc::hir::Statistic;
use peftc::onnx;
use peftc::runtime::{HostTensor, NamedTensors, Optimization};
use peftc::weights::read_tensors;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const SPEC: &str = "use std::{eva, corda, lora_ga, velora}
adapter a {
  adapt \"layers.0.q\" with corda(rank = 4) + lora_ga(rank = 4) + eva(rank = 4)
  adapt \"layers.0.v\" with corda(rank = 4) + eva(rank = 4) + velora(groups = 5, projection = \"batch_average_once\")
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
    let (net, recording) = recorded(1.0);
    let mut sink = Sink::new();
    onnx::save(&net, &folder.join("net.onnx"), &mut sink).unwrap();
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
    command.current_dir(folder).args(arguments);
    said(command)
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
    assert_eq!(found.len(), 6);
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
    let nowhere = peftc(
        folder,
        &["calibrate", "run.yaml", "-o", "nowhere/c.safetensors"],
    );
    assert_eq!(nowhere, Err(vec!["E0002".to_owned()]));
}

#[test]
fn start_values_come_from_the_calibration_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepared(folder);
    let compile = ["compile", "a.peft", "net.onnx", "-o", "o"];
    assert_eq!(peftc(folder, &compile), Err(vec!["E0459".to_owned(); 6]));
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
    let (net, _) = recorded(2.0);
    onnx::save(&net, &folder.join("net.onnx"), &mut Sink::new()).unwrap();
    assert_eq!(peftc(folder, &with), Err(vec!["E0907".to_owned()]));
    assert!(!folder.join("o").exists());
}

/// Padding is not among the tokens that are measured, wherever the model has a mask.
#[test]
fn padding_is_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let spec = "use std::eva\nadapter a { adapt \"q_proj\", \"down_proj\" with eva(rank = 2) }\n";
    std::fs::write(folder.join("a.peft"), spec).unwrap();
    let config = format!(
        "model: {}\nspec: a.peft\ndata: {{train: d.npz, order: as_read}}\nbatch_size: 2\nsteps: 1\n\
         output: out\ncalibration: c.safetensors\n",
        model("llama.ts").display()
    );
    std::fs::write(folder.join("run.yaml"), config).unwrap();
    // Four rows of six tokens; the last two of every row are padding.
    let measured = |padding: i64, masked: bool| {
        let is_padding = |at: i64| at % 6 >= 4;
        let ids: Vec<i64> = (0..24)
            .map(|at| if is_padding(at) { padding } else { at % 7 + 3 })
            .collect();
        let mask: Vec<i64> = (0..24)
            .map(|at| i64::from(!(masked && is_padding(at))))
            .collect();
        let arrays = npz(&[
            ("input_ids", &[4, 6], &ids),
            ("attention_mask", &[4, 6], &mask),
            ("labels", &[4, 6], &ids),
        ]);
        std::fs::write(folder.join("d.npz"), arrays).unwrap();
        peftc(folder, &["calibrate", "run.yaml"]).unwrap();
        let found = read_tensors(&folder.join("c.safetensors"), &mut Sink::new()).unwrap();
        let values = found.into_iter().map(|tensor| {
            let values = Tensor::from_raw(tensor.dtype, &tensor.dims, tensor.data);
            (tensor.name, values.to_f64s().unwrap())
        });
        values.collect::<Vec<_>>()
    };
    let (first, second) = (measured(1, true), measured(2, true));
    let (seen, other) = (measured(1, false), measured(2, false));
    assert_eq!(first.len(), 4);
    for (at, (name, values)) in first.iter().enumerate() {
        let apart = error(&second[at].1, values);
        assert!(apart < STATISTICS, "{name}: {apart:e}");
        let apart = error(&other[at].1, &seen[at].1);
        assert!(apart > 1e-3, "{name}: tokens that count do: {apart:e}");
    }
}

/// dYᵀX is what differentiating by the weight gives, through every layer above.
#[test]
fn gradients_of_weights_are_those_of_training_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let spec = "use std::lora_ga
adapter a { adapt all linear with lora_ga(rank = 2) }
adapter t { train all linear }
";
    std::fs::write(folder.join("a.peft"), spec).unwrap();
    let net = model("llama.ts").display().to_string();
    let config = format!(
        "model: {net}\nspec: a.peft\nadapter: a\ndata: {{train: d.npz, order: as_read}}\n\
         batch_size: 2\nsteps: 1\noutput: out\ncalibration: c.safetensors\n"
    );
    std::fs::write(folder.join("run.yaml"), config).unwrap();
    let ids: Vec<i64> = (0..12).map(|at| at * 5 % 11 + 3).collect();
    let mask: Vec<i64> = (0..12).map(|at| i64::from(at < 10)).collect();
    let arrays: [(&str, &[i64], &[i64]); 3] = [
        ("input_ids", &[2, 6], &ids),
        ("attention_mask", &[2, 6], &mask),
        ("labels", &[2, 6], &ids),
    ];
    std::fs::write(folder.join("d.npz"), npz(&arrays)).unwrap();
    peftc(folder, &["calibrate", "run.yaml"]).unwrap();
    let train = [
        "compile",
        "a.peft",
        &net,
        "--adapter",
        "t",
        "--train",
        "-o",
        "t",
    ];
    peftc(folder, &train).unwrap();
    let full = folder.join("t");
    let manifest = std::fs::read_to_string(full.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let mut grad = stateful(&full, &manifest, "grad", Optimization::All);
    let inputs = arrays
        .iter()
        .map(|(name, dims, values)| ((*name).to_owned(), HostTensor::from_i64(dims, values)));
    let gradients = run(&mut grad, &NamedTensors(inputs.collect()));
    let found = read_tensors(&folder.join("c.safetensors"), &mut Sink::new()).unwrap();
    let ports = manifest["graphs"]["grad"]["outputs"].as_array().unwrap();
    let mut compared = 0;
    for port in ports.iter().filter(|port| port["role"] == "gradient") {
        let name = format!("{}.weight_gradient", port["module"].as_str().unwrap());
        let tensor = found.iter().find(|tensor| tensor.name == name).unwrap();
        let theirs = gradients.get(port["name"].as_str().unwrap()).unwrap();
        assert_eq!(tensor.dims, theirs.dims());
        let values = Tensor::from_raw(tensor.dtype, &tensor.dims, tensor.data.clone());
        let error = error(&values.to_f64s().unwrap(), &theirs.to_f64s().unwrap());
        assert!(error < STATISTICS, "{name} is off by {error:e}");
        compared += 1;
    }
    assert_eq!((compared, found.len()), (14, 14));
}
