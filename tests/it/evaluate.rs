//! `peftc eval` as a user runs it.

use crate::adapters::fixtures;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn peftc(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    let output = command.args(arguments).args(["--format", "json"]).output();
    let output = output.expect("peftc starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("stdout is one JSON value")
}

/// A configuration of a quickstart task, a few steps long, whose run goes into a folder of its own.
fn config(task: &str, folder: &Path) -> PathBuf {
    let quickstart = fixtures().join("quickstart");
    let text = std::fs::read_to_string(quickstart.join(format!("{task}.yaml"))).unwrap();
    let lines = text.lines().map(|line| {
        let absolute = |value: &str| quickstart.join(value.trim()).display().to_string();
        match line.split_once(':') {
            Some((key @ ("model" | "spec" | "  train" | "  eval" | "  tokenizer"), value)) => {
                format!("{key}: {}\n", absolute(value))
            }
            Some(("steps", _)) => "steps: 6\nthreads: 1\n".to_owned(),
            Some(("output", _)) => format!("output: {}\n", folder.join(task).display()),
            _ => format!("{line}\n"),
        }
    });
    let path = folder.join(format!("{task}.yaml"));
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"))
}

/// Two adapters and the model without one, on the examples of both: what training said of an adapter
/// behind its last step, and before its first, when a LoRA changes nothing.
#[test]
fn adapters_are_measured_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let configs = ["math_task", "code_task"].map(|task| config(task, folder));
    let configs = configs.each_ref().map(|path| path.to_str().unwrap());
    let trained = configs.map(|config| peftc(&["train", config]));
    let found = peftc(&["eval", configs[0], configs[1]]);
    let rows = found["results"].as_array().unwrap();
    let names: Vec<Option<&str>> = rows.iter().map(|row| row["adapter"].as_str()).collect();
    let each = [None, Some("math_task"), Some("code_task")];
    assert_eq!(names, [each, each].concat());
    for (at, trained) in trained.iter().enumerate() {
        let rows = &rows[3 * at..3 * at + 3];
        let file = rows[0]["data"].as_str().unwrap();
        assert!(file.ends_with(&format!("{}.test.jsonl", each[at + 1].unwrap())));
        for key in ["loss", "accuracy", "exact", "perplexity"] {
            // The trained one is the graph of the training run with the values that it ended with.
            assert_eq!(rows[at + 1][key], trained["after"][key], "{key}");
            // The other adapter is not the one that was trained here.
            assert_ne!(rows[2 - at]["loss"], trained["after"]["loss"]);
        }
        let (base, before) = (number(&rows[0], "loss"), number(&trained["before"], "loss"));
        assert!((base - before).abs() <= 1e-5 * before, "{base} {before}");
    }
    // Nothing is left of the graph that was written for the model without adapter.
    let mut files = std::fs::read_dir(folder.join("math_task")).unwrap();
    assert!(files.all(|file| !file.unwrap().file_name().to_string_lossy().starts_with('.')));
}

/// Packing and smoothing are means of learning: with them a run measures what one without them does.
#[test]
fn means_of_learning_do_not_change_what_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let config = config("math_task", folder.path());
    let config = config.to_str().unwrap();
    let means = ["--with", "data.pack=32", "--with", "label_smoothing=0.2"];
    let trained = peftc(&[&["train", config][..], &means].concat());
    let with = peftc(&[&["eval", config][..], &means].concat());
    let without = peftc(&["eval", config]);
    assert_eq!(with, without);
    let [base, adapted] = without["results"].as_array().unwrap().as_slice() else {
        panic!("{without}");
    };
    for key in ["loss", "accuracy", "exact", "perplexity"] {
        assert_eq!(adapted[key], trained["after"][key], "{key}");
    }
    let (base, before) = (number(base, "loss"), number(&trained["before"], "loss"));
    assert!((base - before).abs() <= 1e-5 * before, "{base} {before}");
}

/// Runs of one adapter are told apart by their folders.
#[test]
fn adapters_of_one_name_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let configs = ["first", "second"].map(|run| {
        let folder = folder.path().join(run);
        std::fs::create_dir(&folder).unwrap();
        let config = config("math_task", &folder);
        peftc(&["train", config.to_str().unwrap(), "--with", "steps=1"]);
        config
    });
    let eval = |format: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
        command.arg("eval").args(&configs).args(format);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let text = eval(&[]);
    for run in ["first", "second"] {
        let named = format!(
            "math_task ({})",
            folder.path().join(run).join("math_task").display()
        );
        assert_eq!(text.matches(&named).count(), 2, "{text}");
    }
    let found: Value = serde_json::from_str(&eval(&["--format", "json"])).unwrap();
    let folders = found["results"].as_array().unwrap().iter();
    let folders: Vec<&Value> = folders.map(|row| &row["output"]).collect();
    assert!(
        folders[0].is_null() && folders[1] != folders[2],
        "{folders:?}"
    );
}
