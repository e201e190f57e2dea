//! Checkpoints of runs that start anew, and runs that go on from one of several.

use super::finite::{data, run, train};
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
