//! What `peftc train` is given on the command line and in arrays.

use crate::adapters::{fixtures, model};
use crate::train_tasks::{npz, said};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A configuration of two steps in a folder.
pub(crate) fn config(folder: &Path, model: &Path, more: &str) -> Command {
    let spec = "use std::lora\nadapter a { adapt all linear with lora(rank = 2) }\n";
    std::fs::write(folder.join("a.peft"), spec).unwrap();
    let text = format!(
        "model: {}\nspec: a.peft\nbatch_size: 2\nsteps: 2\nthreads: 1\noutput: out\n{more}\n",
        model.display()
    );
    std::fs::write(folder.join("run.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.arg("train").arg(folder.join("run.yaml"));
    command
}

/// The code and the message of the only error of a run.
fn fault(mut command: Command) -> (String, String) {
    let output = command.args(["--format", "json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [only] = said["diagnostics"].as_array().unwrap().as_slice() else {
        panic!("{said}");
    };
    let text = |key: &str| only[key].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

/// Four rows of tokens for a model of language; `change` is done to ids and labels.
fn tokens(folder: &Path, width: i64, change: impl Fn(&mut [i64], &mut [i64])) {
    let mut ids: Vec<i64> = (0..4 * width).map(|at| at % 50 + 1).collect();
    let mut labels = ids.clone();
    change(&mut ids, &mut labels);
    let dims: &[i64] = &[4, width];
    let mask = vec![1; ids.len()];
    let arrays = npz(&[
        ("input_ids", dims, &ids),
        ("attention_mask", dims, &mask),
        ("labels", dims, &labels),
    ]);
    std::fs::write(folder.join("d.npz"), arrays).unwrap();
}

/// Labels, tokens and lengths that the model does not have are errors at their file and row, before
/// anything runs.
#[test]
fn arrays_of_tokens_are_what_the_model_has() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let quickstart = fixtures().join("quickstart/model.onnx");
    let run = || config(folder, &quickstart, "data: {train: d.npz}");
    tokens(folder, 4, |_, labels| labels[5] = -100);
    assert_eq!(said(run()).unwrap()["steps"], 2);
    let place = |row: usize| format!("{}:{row}", folder.join("d.npz").display());
    for (label, at, row) in [(700, 9, 3), (-7, 4, 2), (256, 0, 1)] {
        tokens(folder, 4, |_, labels| labels[at] = label);
        let message = format!("`labels` of {} has the label {label}", place(row));
        assert_eq!(fault(run()), ("E1004".to_owned(), message));
    }
    for (id, at, row) in [(256, 15, 4), (-1, 7, 2)] {
        tokens(folder, 4, |ids, _| ids[at] = id);
        let (code, message) = fault(run());
        let wanted = format!("`input_ids` of {} has the token {id}", place(row));
        assert!(code == "E1008" && message.starts_with(&wanted), "{message}");
    }
    // GPT-2's fixture has 32 positions.
    let gpt2 = model("gpt2.dynamo");
    let run = || config(folder, &gpt2, "data: {train: d.npz}");
    tokens(folder, 32, |_, _| {});
    assert_eq!(said(run()).unwrap()["steps"], 2);
    tokens(folder, 33, |_, _| {});
    let (code, message) = fault(run());
    assert!(
        code == "E1007" && message.ends_with("have 33 tokens, the model takes 32"),
        "{message}"
    );
}

/// Rows come from standard input, however it is written.
#[test]
fn standard_input_is_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows = std::fs::read(fixtures().join("quickstart/math_task.train.jsonl")).unwrap();
    let tokenizer = fixtures().join("quickstart/tokenizer.json");
    let data = |train: &str| {
        let tokenizer = tokenizer.display();
        format!("data: {{train: {train}, tokenizer: {tokenizer}, end_token: \"id:10\"}}")
    };
    for (train, more) in [("\"-\"", None), ("absent.jsonl", Some("data.train=-"))] {
        let model = fixtures().join("quickstart/model.onnx");
        let mut command = config(folder, &model, &data(train));
        if let Some(more) = more {
            command.args(["--with", more]);
        }
        let mut child = command
            .args(["--format", "json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&rows).unwrap();
        let output = child.wait_with_output().unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["steps"], 2, "{said}");
    }
}
