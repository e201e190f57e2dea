//! What methods do in training beside their forward pass, in the training graphs of the quickstart model.

use crate::adapters::fixtures;
use crate::train_command::{adapter, finished, losses};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A spec for one block's MLP.
fn spec(method: &str, folder: &Path) -> PathBuf {
    let spec = folder.join("spec.peft");
    let name = method.split('(').next().unwrap();
    let text =
        format!("use std::{name}\nadapter a {{\n  adapt \"layers.0.mlp.*\" with {method}\n}}\n");
    std::fs::write(&spec, text).unwrap();
    spec
}

/// A short run.
fn train(folder: &Path, more: &[&str]) -> Command {
    let method = "adalora(rank = 4, target_rank = 2, total = 16, warmup = 4, every = 2)";
    let spec = spec(method, folder);
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command
        .arg("train")
        .arg(fixtures().join("quickstart/math_task.yaml"))
        .args(["--format", "json", "--with", "adapter=a"])
        .args(["--with", &format!("spec={}", spec.display())])
        .args(["--with", &format!("output={}", folder.display())])
        .args(["--with", "steps=16", "--with", "threads=1"])
        .args(["--with", "batch_size=8", "--with", "data.eval=null"])
        .args(["--with", "checkpoint_every=2"])
        .args(more);
    command
}

/// What hooks keep is in checkpoints: a run that is killed and resumed gives the bytes of one that is not.
#[cfg(unix)]
#[test]
fn a_run_with_hooks_learns_and_resumes() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    finished(train(whole.path(), &[]));
    let all = losses(whole.path());
    assert_eq!(all.len(), 16);
    assert!(all[15].1 < all[0].1, "{all:?}");
    let mut child = train(parts.path(), &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while losses(parts.path()).len() < 7 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "the run was over before it was killed");
    assert_ne!(adapter(parts.path()), adapter(whole.path()));
    finished(train(parts.path(), &["--resume"]));
    assert_eq!(adapter(parts.path()), adapter(whole.path()));
}
