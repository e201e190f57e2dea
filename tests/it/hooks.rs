//! What methods do in training beside their forward pass, in the training graphs of the quickstart model.

use crate::adapters::fixtures;
use crate::tolerances::HOOK_PROJECTED;
use crate::train_command::{adapter, finished, losses};
use crate::training::{SMOOTH, batch, check_halves, compiled_spec, number, rows, run, stateful};
use peftc::runtime::{HostTensor, NamedTensors, Optimization};
use serde_json::Value;
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

/// Compiles it with its training graphs.
fn compiled(method: &str, folder: &Path) -> Value {
    compiled_spec(&spec(method, folder), "a", SMOOTH, folder)
}

/// aᵀ b of matrices with as many rows.
fn product(a: &[f64], b: &[f64], rows: usize) -> Vec<f64> {
    let (m, n) = (a.len() / rows, b.len() / rows);
    let entry =
        |i: usize, j: usize| -> f64 { (0..rows).map(|r| a[r * m + i] * b[r * n + j]).sum() };
    (0..m * n).map(|at| entry(at / n, at % n)).collect()
}

/// A step is gradients and update where a hook changes gradients, too; and what is learned stays off the
/// directions that the hook keeps free.
#[test]
fn projected_gradients_leave_the_directions_alone_in_steps_and_in_halves() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let manifest = compiled("osf", folder);
    let trained = check_halves(folder, &manifest);
    let start = NamedTensors::read_safetensors(&folder.join("adapter.safetensors")).unwrap();
    let mut checked = 0;
    for (name, high) in start.iter().filter(|(name, _)| name.ends_with(".U_high")) {
        let own = name.replace(".U_high", ".U");
        let (before, after) = (start.get(&own).unwrap(), trained.get(&own).unwrap());
        let rows = high.dims()[0] as usize;
        let values = |tensor: &peftc::runtime::HostTensor| tensor.to_f64s().unwrap();
        let change: Vec<f64> = values(&after)
            .iter()
            .zip(values(before))
            .map(|(a, b)| a - b)
            .collect();
        let largest = |all: &[f64]| all.iter().map(|v| v.abs()).fold(0.0, f64::max);
        let along = largest(&product(&values(high), &change, rows));
        let moved = largest(&change);
        assert!(moved > 0.0, "{own} is not trained");
        assert!(
            along <= HOOK_PROJECTED * moved,
            "{own}: {along:e} of {moved:e}"
        );
        checked += 1;
    }
    assert!(checked > 0, "no layer has more outputs than inputs");
}

/// What hooks keep is fed back as an optimizer's state is, and a choice over all modules is made once, in
/// a step as in its halves: behind the last one the budget is used up, no more and no less.
#[test]
fn a_budget_over_all_modules_is_kept_in_steps_and_in_halves() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let method = "adalora(rank = 4, target_rank = 1, total = 4, final = 1)";
    let manifest = compiled(method, folder);
    let trained = check_halves(folder, &manifest);
    let sites = manifest["sites"].as_array().unwrap().len();
    assert_eq!(sites, 3);
    let all = |end: &str| -> Vec<f64> {
        let names = trained.fed().filter(|name| name.ends_with(end));
        let tensors = names.map(|name| trained.get(name).unwrap().to_f64s().unwrap());
        tensors.flatten().collect()
    };
    let gone = all(".gone");
    assert_eq!(gone.len(), 4 * sites);
    assert_eq!(gone.iter().sum::<f64>(), 3.0 * sites as f64, "{gone:?}");
    let kept = all(".E").iter().filter(|value| **value != 0.0).count();
    assert_eq!(kept, sites);
}

/// `forward` and `loss` have the same draws: b's gradient is that of the task times the draw, c's the draw.
#[test]
fn a_loss_reads_what_forward_draws() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let spec = folder.join("spec.peft");
    let text = "
method noisy() on linear {
  param b : [1] = zeros
  param c : [1] = zeros

  fn drawn() { noise([1]) }

  forward(x, y) { y + b * drawn() + 0 * c }

  loss { sum(c * drawn(), over = 0) }
}

adapter a { adapt \"layers.0.mlp.*\" with noisy() }
";
    std::fs::write(&spec, text).unwrap();
    let manifest = compiled_spec(&spec, "a", SMOOTH, folder);
    let mut grad = stateful(folder, &manifest, "grad", Optimization::All);
    let batch = batch(&rows("math_task.train.jsonl")[..8]);
    let runs = [3, 4].map(|seed| {
        let mut inputs = batch.clone();
        inputs.push("seed", HostTensor::from_i64(&[], &[seed]));
        run(&mut grad, &inputs)
    });
    let drawn = runs[0].iter().filter(|(name, _)| name.ends_with(".c.grad"));
    let names: Vec<String> = drawn.map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names.len(), 3);
    let mut all = Vec::new();
    for name in names {
        let of_task = runs.each_ref().map(|run| {
            let (c, b) = (number(run, &name), number(run, &name.replace(".c.", ".b.")));
            all.push(c);
            b / c
        });
        let apart = (of_task[0] - of_task[1]).abs();
        assert!(apart <= 1e-4 * of_task[0].abs(), "{name}: {of_task:?}");
    }
    // Every module draws for itself, and anew with another seed.
    all.sort_unstable_by(f64::total_cmp);
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
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
