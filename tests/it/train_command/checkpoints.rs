//! Checkpoints of runs that start anew, and runs that go on from one of several.

use super::finite::{data, run, train};
use crate::train_tasks::npz_of;
use serde_json::Value;
use std::path::Path;

/// Names of the checkpoints in a folder.
fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_one = |name: &String| name.starts_with("checkpoint") || name.starts_with("best");
    let mut names: Vec<String> = names.filter(is_one).collect();
    names.sort();
    names
}

fn finished(folder: &Path, more: &[&str]) -> Value {
    let (code, said) = train(folder, more);
    assert_eq!(code, Some(0), "{said}");
    said
}

fn adapter(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("out/adapter.safetensors")).unwrap()
}

/// Twelve steps, of which every fourth is saved.
const TWELVE: [&str; 6] = [
    "--with",
    "steps=12",
    "--with",
    "checkpoint_every=4",
    "--with",
    "keep_checkpoints=2",
];

/// What an earlier run has kept is not counted with what this one keeps, and is not lost.
#[test]
fn a_run_that_starts_anew_sets_earlier_checkpoints_aside() {
    let folder = run(&[]);
    let folder = folder.path();
    let out = folder.join("out");
    finished(folder, &TWELVE);
    let first = adapter(folder);
    let six = ["--with", "steps=6", "--with", "checkpoint_every=2"];
    finished(
        folder,
        &[&six[..], &["--with", "keep_checkpoints=2"]].concat(),
    );
    let kept = |steps: [u64; 2]| {
        let [a, b] = steps.map(|step| format!("checkpoint-{step}.safetensors"));
        [a, b, "checkpoint.safetensors".to_owned()]
    };
    assert_eq!(checkpoints(&out), kept([4, 6]));
    assert_eq!(checkpoints(&out.join("earlier")), kept([12, 8]));
    // The run before can still go on.
    let resume = "--resume=out/earlier/checkpoint-8.safetensors";
    assert_eq!(
        finished(folder, &[&TWELVE[..], &[resume]].concat())["steps"],
        12
    );
    assert_eq!(adapter(folder), first);
    // A third one takes the place of the first.
    finished(folder, &["--with", "steps=2"]);
    finished(folder, &["--with", "steps=1"]);
    assert_eq!(checkpoints(&out), ["checkpoint.safetensors"]);
    assert_eq!(
        checkpoints(&out.join("earlier")),
        ["checkpoint.safetensors"]
    );
    std::fs::remove_file(out.join("checkpoint.safetensors")).unwrap();
    let (_, said) = train(folder, &["--resume"]);
    let help = said["diagnostics"][0]["help"].to_string();
    assert!(
        help.contains("`--resume=out/earlier/checkpoint.safetensors`"),
        "{said}"
    );
}

/// From a kept checkpoint and from the best one a run comes to the same end, and what it did behind them
/// before is written down once.
#[test]
fn a_run_goes_on_from_any_of_its_checkpoints() {
    let folder = run(&[]);
    let folder = folder.path();
    data(folder, "e.npz", &[], &[]);
    let more = ["--with", "data.eval=e.npz", "--with", "eval_every=4"];
    let more = [&TWELVE[..], &more, &["--with", "keep_best=true"]].concat();
    finished(folder, &more);
    let first = adapter(folder);
    let metrics = folder.join("out/metrics.jsonl");
    let figures = || {
        let text = std::fs::read_to_string(&metrics).unwrap();
        let lines = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            (
                line["event"].to_string(),
                line["step"].as_u64().unwrap(),
                line["loss"].clone(),
            )
        });
        lines.collect::<Vec<_>>()
    };
    let all = figures();
    assert_eq!(all.len(), 12 + 4);
    for checkpoint in ["checkpoint-8", "best", "checkpoint"] {
        // A run that is killed may leave half a line, and half a file.
        let half = std::fs::read_to_string(&metrics).unwrap() + "{\"event\":\"step\",\"st";
        std::fs::write(&metrics, half).unwrap();
        let part = folder.join("out/.peftc-aB12cD.part");
        std::fs::write(&part, "half").unwrap();
        let resume = format!("--resume=out/{checkpoint}.safetensors");
        let said = finished(folder, &[&more[..], &[&resume]].concat());
        assert_eq!(said["steps"], 12, "{checkpoint}");
        assert_eq!(adapter(folder), first, "{checkpoint}");
        assert_eq!(
            (figures(), part.exists()),
            (all.clone(), false),
            "{checkpoint}"
        );
    }
    let (_, said) = train(folder, &[&more[..], &["--resume=out/none"]].concat());
    assert_eq!(said["diagnostics"][0]["code"], "E1104", "{said}");
    // Known before anything is written.
    assert_eq!(adapter(folder), first);
}

/// A configuration that learns what makes the held-out loss worse, step by step.
fn spoiling(folder: &Path) -> Vec<&'static str> {
    let bytes = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect();
    let x: Vec<u8> = bytes(
        (0..32)
            .map(|at| (at * 11 % 13) as f32 * 0.2 - 1.0)
            .collect(),
    );
    let labels: Vec<u8> = bytes(vec![10.0; 24]);
    let arrays: [(&str, &[i64], &str, Vec<u8>); 2] =
        [("x", &[8, 4], "<f4", x), ("labels", &[8, 3], "<f4", labels)];
    std::fs::write(folder.join("e.npz"), npz_of(&arrays)).unwrap();
    let more = [
        "data.eval=e.npz",
        "eval_every=4",
        "keep_best=true",
        "optimizer.schedule=constant",
        "optimizer.learning_rate=0.02",
    ];
    let more = more.into_iter().flat_map(|change| ["--with", change]);
    TWELVE.into_iter().chain(more).collect()
}

/// A run comes back from `earlier` as a whole, with its best adapter and its figures, and the one that
/// took its place goes there.
#[test]
fn a_run_that_was_set_aside_comes_back_as_a_whole() {
    let folder = run(&[]);
    let folder = folder.path();
    let more = spoiling(folder);
    assert_eq!(finished(folder, &more)["best"], 4);
    let first = adapter(folder);
    let out = folder.join("out");
    let read = |name: &str| std::fs::read(out.join(name)).unwrap();
    let names = [
        "best.safetensors",
        "checkpoint.safetensors",
        "metrics.jsonl",
    ];
    let of_first = names.map(read);
    finished(folder, &[&more[..], &["--with", "seed=7"]].concat());
    assert_ne!(adapter(folder), first);
    let of_second = names.map(read);
    let resume = ["--resume=out/earlier/checkpoint.safetensors"];
    let said = finished(folder, &[&more[..], &resume].concat());
    assert_eq!((&said["best"], adapter(folder)), (&4.into(), first));
    assert!(read("best.safetensors") == of_first[0]);
    let figures = String::from_utf8(read("metrics.jsonl")).unwrap();
    let steps = figures
        .lines()
        .filter(|line| line.contains("\"learning_rate\""));
    assert_eq!(steps.count(), 12, "{figures}");
    assert!(names.map(|name| read(&format!("earlier/{name}"))) == of_second);
}

/// What lies behind the checkpoint that a run goes on from stays, and is not taken for what it has done.
#[test]
fn a_run_that_goes_back_loses_nothing_and_knows_no_future() {
    let folder = run(&[]);
    let folder = folder.path();
    let more = [&spoiling(folder)[..], &["--with", "keep_checkpoints=3"]].concat();
    finished(folder, &more);
    let out = folder.join("out");
    let twelve = std::fs::read(out.join("checkpoint.safetensors")).unwrap();
    std::fs::remove_file(out.join("checkpoint-12.safetensors")).unwrap();
    // As if a later step had been the best.
    std::fs::copy(
        out.join("checkpoint-8.safetensors"),
        out.join("best.safetensors"),
    )
    .unwrap();
    let back = ["--with", "steps=6", "--resume=out/checkpoint-4.safetensors"];
    let said = finished(folder, &[&more[..], &back].concat());
    assert_eq!(
        (&said["steps"], &said["best"]),
        (&6.into(), &4.into()),
        "{said}"
    );
    assert!(std::fs::read(out.join("checkpoint-12.safetensors")).unwrap() == twelve);
}

/// Figures that cannot be written are an error, told when the run has ended and kept what it learned.
#[test]
fn figures_that_cannot_be_written_are_an_error() {
    let folder = run(&[]);
    let folder = folder.path();
    std::fs::create_dir_all(folder.join("out/metrics.jsonl")).unwrap();
    let (code, said) = train(folder, &[]);
    assert_eq!(code, Some(2), "{said}");
    let diagnostic = &said["diagnostics"][0];
    assert_eq!(diagnostic["code"], "E0002", "{said}");
    assert!(diagnostic["message"].to_string().contains("metrics.jsonl"));
    assert!(!adapter(folder).is_empty());
}
