//! What `peftc train` is given on the command line and in arrays, and what it says while it runs.

use crate::adapters::{fixtures, model};
use crate::runtime::library;
use crate::train_tasks::{npz, said};
use peftc::diag::{Code, Sink, SourceMap};
use peftc::driver::Session;
use peftc::driver::train::{Event, RunOptions, read_config, train};
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
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let step: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(step["tokens"], 8, "{step}");
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

/// The figures of a line follow from each other, and TensorBoard's file has them, too.
#[test]
fn every_step_says_how_fast_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tokens(folder, 4, |_, _| {});
    let quickstart = fixtures().join("quickstart/model.onnx");
    let more = "data: {train: d.npz}\ntensorboard: true";
    let mut run = config(folder, &quickstart, more);
    run.args(["--with", "steps=5"]);
    said(run).unwrap();
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let steps = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let steps: Vec<Value> = steps.collect();
    assert_eq!(steps.len(), 5);
    for (step, done) in steps.iter().zip(1..) {
        let of = |key: &str| {
            step[key]
                .as_f64()
                .unwrap_or_else(|| panic!("{key}: {step}"))
        };
        let is = |found: f64, wanted: f64| (found - wanted).abs() <= 1e-9 * wanted;
        assert!(
            is(of("steps_per_second") * of("seconds"), f64::from(done)),
            "{step}"
        );
        assert!(
            is(of("tokens_per_second") * of("seconds"), f64::from(8 * done)),
            "{step}"
        );
        let left = of("seconds") / f64::from(done) * f64::from(5 - done);
        assert!(is(of("eta_seconds"), left), "{step}");
        if cfg!(target_os = "linux") {
            assert!(of("memory_bytes") > 1e7, "{step}");
        }
    }
    let events = std::fs::read(folder.join("out/events.out.tfevents.peftc")).unwrap();
    let count = |text: &str| {
        let windows = events.windows(text.len());
        windows.filter(|window| *window == text.as_bytes()).count()
    };
    assert_eq!(count("brain.Event:2"), 1);
    for tag in ["train/loss", "train/steps_per_second", "train/eta_seconds"] {
        assert_eq!(count(tag), 5, "{tag}");
    }
}

/// A terminal shows a bar; a file gets lines.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_a_bar_and_a_file_gets_lines() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tokens(folder, 4, |_, _| {});
    let quickstart = fixtures().join("quickstart/model.onnx");
    let mut plain = config(folder, &quickstart, "data: {train: d.npz}");
    let arguments: Vec<_> = plain.get_args().map(ToOwned::to_owned).collect();
    let output = plain.output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stderr).unwrap();
    assert!(
        lines.contains("  step     2  loss ") && lines.contains(" steps/s  "),
        "{lines}"
    );
    assert!(
        !lines.contains('\u{1b}') && !lines.contains('\r'),
        "{lines:?}"
    );
    let mut terminal = Command::new("python3");
    terminal.args([
        "-c",
        "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)",
    ]);
    terminal.arg(env!("CARGO_BIN_EXE_peftc")).args(arguments);
    let output = terminal
        .env("TERM", "xterm")
        .output()
        .expect("python3 is there");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    // The bar is drawn over itself; the last step stays.
    assert!(
        shown.contains(" of 2  ") && shown.contains('\u{1b}'),
        "{shown:?}"
    );
    assert!(shown.contains("  step     2  loss "), "{shown:?}");
    // No bar before it is known how many steps there are.
    assert!(!shown.contains(" of 0 "), "{shown:?}");
}

/// A step that the machine has no memory for is said before it runs.
#[test]
fn a_step_larger_than_the_machine_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tokens(folder, 4, |_, _| {});
    let quickstart = fixtures().join("quickstart/model.onnx");
    config(folder, &quickstart, "data: {train: d.npz}");
    for (available, warns) in [
        (None, false),
        (Some(u64::MAX), false),
        (Some(1 << 20), true),
    ] {
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let path = folder.join("run.yaml");
        let config = read_config(&path, &[], &mut sources, &mut sink).unwrap();
        let options = RunOptions {
            available,
            ..RunOptions::default()
        };
        let mut session = Session {
            sources: &mut sources,
            sink: &mut sink,
        };
        let mut events = Vec::new();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let mut on = |event: &Event| events.push(event.clone());
        train(&config, options, library(), &stop, &mut session, &mut on).unwrap();
        let first_is_warning = matches!(
            &events[0],
            Event::Warned(warning) if warning.message.contains("this machine has 1.0 MiB left")
        );
        assert_eq!(first_is_warning, warns, "{events:?}");
        let mut codes = sink.diagnostics().iter().map(|diagnostic| diagnostic.code);
        assert_eq!(codes.any(|code| code == Code::W1102), warns);
    }
}

/// The command asks the machine, and says it once.
#[cfg(target_os = "linux")]
#[test]
fn what_the_machine_has_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tokens(folder, 4, |_, _| {});
    let quickstart = fixtures().join("quickstart/model.onnx");
    for (rows, warnings) in [(4, 0), (1_000_000_000, 1)] {
        let more = "data: {train: d.npz}\nloss_pieces: 1";
        let mut run = config(folder, &quickstart, more);
        run.args(["--with", &format!("batch_size={rows}"), "--format", "json"]);
        let output = run.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["warning_count"], warnings, "{said}");
        assert_eq!(text.matches("W1102").count(), warnings, "{text}");
        let place = |what: &str| text.find(what);
        assert!(
            warnings == 0 || place("W1102") < place("step     2"),
            "{text}"
        );
    }
}
