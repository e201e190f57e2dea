//! `peftc train` for every task, on BERT's encoder with and without a head.

use crate::adapters::{fixtures, model, outputs};
use crate::tasks::encoder;
use peftc::diag::Sink;
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::weights::read_tensors;
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a configuration in a folder; answers with what it says, or with the codes of its errors.
fn train(folder: &Path, config: &str) -> Result<Value, Vec<String>> {
    let tokenizer = fixtures().join("data/words/tokenizer.json");
    std::fs::copy(tokenizer, folder.join("tokenizer.json")).unwrap();
    let spec = "use std::lora\nadapter a { adapt \"query\", \"value\" with lora(rank = 4) }\n";
    std::fs::write(folder.join("a.peft"), spec).unwrap();
    let common = "spec: a.peft\nbatch_size: 8\nsteps: 30\nthreads: 1\noutput: out\n\
                  optimizer: {learning_rate: 0.01}\n";
    std::fs::write(folder.join("run.yaml"), format!("{common}{config}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.arg("train").arg(folder.join("run.yaml"));
    said(command)
}

/// What a command says as JSON, or the codes of its errors.
pub(crate) fn said(mut command: Command) -> Result<Value, Vec<String>> {
    let Output { status, stdout, .. } = command.args(["--format", "json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&stdout).unwrap();
    if status.success() {
        return Ok(said);
    }
    let found = said["diagnostics"].as_array().unwrap().iter();
    Err(found
        .map(|d| d["code"].as_str().unwrap().to_owned())
        .collect())
}

/// Texts about a cat or a dog, with what is to be learned of each.
fn rows(row: impl Fn(usize, &str, bool) -> String) -> String {
    let animals = ["cat", "dog"];
    let text = |at: usize| match at / 2 % 4 {
        0 => format!("a {} sat on the mat", animals[at % 2]),
        1 => format!("the {}s sat again", animals[at % 2]),
        2 => format!("on the mat sat a {}", animals[at % 2]),
        _ => format!("a {}", animals[at % 2]),
    };
    (0..16).fold(String::new(), |mut all, at| {
        writeln!(all, "{}", row(at, &text(at), at % 2 == 0)).unwrap();
        all
    })
}

/// Trains on rows, measured on the same; answers with loss and accuracy before and after.
fn learned(folder: &Path, config: &str, rows: &str) -> ([f64; 2], Option<[f64; 2]>) {
    std::fs::write(folder.join("d.jsonl"), rows).unwrap();
    encoder("bert.dynamo", folder);
    let config = format!(
        "model: encoder.onnx\ndata: {{train: d.jsonl, eval: d.jsonl, tokenizer: tokenizer.json}}\n{config}"
    );
    let said = train(folder, &config).unwrap_or_else(|codes| panic!("{config}: {codes:?}"));
    let of = |name: &str| [&said["before"][name], &said["after"][name]].map(Value::as_f64);
    let accuracy = match of("accuracy") {
        [Some(before), Some(after)] => Some([before, after]),
        _ => None,
    };
    (of("loss").map(Option::unwrap), accuracy)
}

fn names(file: &Path) -> Vec<String> {
    let tensors = read_tensors(file, &mut Sink::new()).unwrap();
    tensors.into_iter().map(|tensor| tensor.name).collect()
}

/// The head is in the adapter's file, and the model that is written gives what it learned.
#[test]
fn an_encoder_becomes_a_classifier() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows = rows(|_, text, cat| {
        let label = if cat { "cat" } else { "dog" };
        format!("{{\"text\": \"{text}\", \"label\": \"{label}\"}}")
    });
    let config = "task: classification\nhead: {pool: mean}";
    let ([before, after], accuracy) = learned(folder, config, &rows);
    assert!(after < before / 4.0, "{before} {after}");
    assert_eq!(accuracy.unwrap()[1], 1.0);
    let out = folder.join("out");
    let tensors = names(&out.join("adapter.safetensors"));
    assert!(
        tensors.contains(&"head.weight".to_owned()) && tensors.contains(&"head.bias".to_owned())
    );
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(
        manifest["training"]["classes"],
        serde_json::json!(["cat", "dog"])
    );
    assert_eq!(
        manifest["head"],
        serde_json::json!({"output": "logits", "pool": "mean", "size": 2})
    );
    // [CLS] a dog [SEP], and the same with padding.
    let mut inputs = NamedTensors::default();
    let dims = [2, 6];
    let ids = [2, 4, 6, 3, 0, 0, 2, 4, 5, 3, 0, 0];
    let mask = [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0];
    inputs.push("input_ids", HostTensor::from_i64(&dims, &ids));
    inputs.push("attention_mask", HostTensor::from_i64(&dims, &mask));
    inputs.push("token_type_ids", HostTensor::from_i64(&dims, &[0; 12]));
    let found = outputs(&out.join("model.onnx"), &inputs);
    let logits = found.get("logits").unwrap().to_f64s().unwrap();
    assert!(logits[1] > logits[0] && logits[2] > logits[3], "{logits:?}");
    assert!(found.get("last_hidden_state").is_some());
}

/// A head that is trained alone leaves the adapter as it starts.
#[test]
fn a_head_is_trained_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows =
        rows(|_, text, cat| format!("{{\"text\": \"{text}\", \"label\": {}}}", i32::from(cat)));
    let config = "task: classification\nhead: {pool: first, alone: true}";
    let ([before, after], _) = learned(folder, config, &rows);
    assert!(after < before, "{before} {after}");
    for tensor in read_tensors(&folder.join("out/adapter.safetensors"), &mut Sink::new()).unwrap() {
        let zero = tensor.data.iter().all(|byte| *byte == 0);
        let starts_at_zero = tensor.name.ends_with(".B");
        assert_eq!(zero, starts_at_zero, "{}", tensor.name);
    }
}

#[test]
fn tokens_numbers_and_several_classes_are_learned() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let tagged = rows(|_, text, _| {
        let words: Vec<&str> = text.split(' ').collect();
        let tag = |word: &&str| {
            if matches!(*word, "a" | "the") {
                "article"
            } else {
                "other"
            }
        };
        let tags: Vec<&str> = words.iter().map(tag).collect();
        format!("{{\"tokens\": {words:?}, \"tags\": {tags:?}}}")
    });
    let ([before, after], accuracy) =
        learned(folder, "task: token_classification\nhead: {}", &tagged);
    assert!(
        after < before / 4.0 && accuracy.unwrap()[1] > 0.95,
        "{before} {after}"
    );

    let several = rows(|_, text, cat| {
        let mut holds = vec![if cat { "cat" } else { "dog" }];
        holds.extend(text.contains("mat").then_some("mat"));
        format!("{{\"text\": \"{text}\", \"labels\": {holds:?}}}")
    });
    let ([before, after], accuracy) = learned(folder, "task: multi_label\nhead: {}", &several);
    assert!(
        after < before / 2.0 && accuracy.unwrap()[1] > 0.9,
        "{before} {after}"
    );

    let numbers = rows(|_, text, cat| {
        format!(
            "{{\"text\": \"{text}\", \"label\": {}}}",
            if cat { 1.5 } else { -0.5 }
        )
    });
    let ([before, after], accuracy) =
        learned(folder, "task: regression\nhead: {pool: last}", &numbers);
    assert!(
        after < before / 4.0 && accuracy.is_none(),
        "{before} {after}"
    );
}

#[test]
fn embeddings_and_a_teacher_are_learned() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pairs = rows(|at, text, cat| {
        let what = if cat { "the cat" } else { "the dog" };
        format!(
            "{{\"anchor\": \"{text}\", \"positive\": \"{what} {}\"}}",
            "again ".repeat(at / 4 + 1)
        )
    });
    let config = "task: contrastive\ntemperature: 0.2\nhead: {pool: mean}";
    let ([before, after], accuracy) = learned(folder, config, &pairs);
    assert!(
        after < before && accuracy.unwrap()[1] > accuracy.unwrap()[0],
        "{before} {after}"
    );
    assert!(!names(&folder.join("out/adapter.safetensors")).contains(&"head.weight".to_owned()));

    let scored = rows(|_, text, cat| {
        let score = if cat { 0.9 } else { -0.5 };
        format!("{{\"anchor\": \"{text}\", \"positive\": \"the cat sat\", \"score\": {score}}}")
    });
    let ([before, after], _) = learned(folder, "task: cosine\nhead: {pool: mean}", &scored);
    assert!(after < before / 2.0, "{before} {after}");

    let teacher = rows(|_, text, cat| {
        let logits = if cat {
            [3.0, 0.0, -1.0]
        } else {
            [-1.0, 0.0, 2.0]
        };
        format!("{{\"text\": \"{text}\", \"label\": {logits:?}}}")
    });
    let ([before, after], accuracy) = learned(folder, "task: distillation\nhead: {}", &teacher);
    assert!(
        after < before / 4.0 && accuracy.unwrap()[1] == 1.0,
        "{before} {after}"
    );
}

/// Arrays under the names of the model's inputs, with labels that the model has or has not.
#[test]
fn arrays_train_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = format!(
        "model: {}\ntask: classification\ndata: {{train: d.npz}}\n",
        model("bert.dynamo").display()
    );
    let rows = 16;
    let ids: Vec<i64> = (0..rows * 4).map(|at| at % 50 + 1).collect();
    let arrays = |labels: &[i64]| {
        npz(&[
            ("input_ids", &[rows, 4], &ids),
            ("attention_mask", &[rows, 4], &[1; 64]),
            ("token_type_ids", &[rows, 4], &[0; 64]),
            ("labels", &[rows], labels),
        ])
    };
    let labels: Vec<i64> = (0..rows).map(|row| row % 3).collect();
    std::fs::write(folder.join("d.npz"), arrays(&labels)).unwrap();
    assert_eq!(train(folder, &config).unwrap()["steps"], 30);
    std::fs::write(folder.join("d.npz"), arrays(&[3; 16])).unwrap();
    assert_eq!(train(folder, &config), Err(vec!["E1004".to_owned()]));
    std::fs::write(folder.join("d.npz"), npz(&[("labels", &[rows], &labels)])).unwrap();
    assert_eq!(train(folder, &config), Err(vec!["E1102".to_owned()]));
}

/// Integers as NumPy stores them.
pub(crate) fn npz(arrays: &[(&str, &[i64], &[i64])]) -> Vec<u8> {
    let bytes = |values: &[i64]| {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    };
    let arrays = arrays.iter();
    let arrays = arrays.map(|(name, dims, values)| (*name, *dims, "<i8", bytes(values)));
    npz_of(&arrays.collect::<Vec<_>>())
}

/// Arrays as NumPy stores them: each in a file of an archive without compression. An array is a name,
/// sizes, NumPy's word for the type, and bytes.
pub(crate) fn npz_of(arrays: &[(&str, &[i64], &str, Vec<u8>)]) -> Vec<u8> {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, dims, descr, bytes) in arrays {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        let sizes: Vec<String> = dims.iter().map(|dim| format!("{dim},")).collect();
        let header = format!(
            "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}",
            sizes.join(" ")
        );
        let padded = format!("{header:<117}\n");
        archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
        archive
            .write_all(&(padded.len() as u16).to_le_bytes())
            .unwrap();
        archive.write_all(padded.as_bytes()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
