//! `peftc train` as a user runs it.

mod checkpoints;
mod finite;

use crate::adapters::fixtures;
use crate::python;
use crate::tolerances::ADAM_INT8_LOSS;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A short run of the quickstart's sums into a folder.
fn train(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    let output = format!("output={}", folder.display());
    command
        .arg("train")
        .arg(fixtures().join("quickstart/math_task.yaml"))
        .args(["--format", "json", "--with", &output])
        .args([
            "--with",
            "steps=24",
            "--with",
            "threads=1",
            "--with",
            "batch_size=8",
        ])
        .args(["--with", "checkpoint_every=4", "--with", "data.eval=null"])
        .args(["--with", "set={lora.dropout: 0.1}"])
        .args(more);
    command
}

pub(crate) fn finished(mut command: Command) -> Value {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("peftc starts");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).expect("stdout is one JSON value")
}

pub(crate) fn adapter(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("adapter.safetensors")).unwrap()
}

/// The losses that were written down.
pub(crate) fn losses(folder: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    // The last line may be on its way.
    let rows = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    rows.filter(|row| row["event"] == "step")
        .map(|row| (row["step"].as_u64().unwrap(), row["loss"].as_f64().unwrap()))
        .collect()
}

/// A run that is interrupted and resumed, with dropout, gives the bytes of one that is not.
#[cfg(unix)]
#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let value = finished(train(whole.path(), &[]));
    assert_eq!(
        (&value["steps"], &value["stopped"]),
        (&24.into(), &false.into())
    );
    let all = losses(whole.path());
    assert_eq!(all.len(), 24);
    assert!(all[23].1 < all[0].1 - 1.0, "{all:?}");

    let mut child = train(parts.path(), &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while losses(parts.path()).len() < 6 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let kill = Command::new("/bin/kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        value["stopped"], true,
        "the run was over before it was interrupted"
    );
    assert_ne!(adapter(parts.path()), adapter(whole.path()));

    finished(train(parts.path(), &["--resume"]));
    assert_eq!(losses(parts.path()), all);
    assert_eq!(adapter(parts.path()), adapter(whole.path()));
}

#[cfg(unix)]
fn kill_after_7_steps(folder: &Path, more: &[&str]) {
    let mut child = train(folder, more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while losses(folder).len() < 7 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success(), "the run was over before it was killed");
}

/// After a kill, the last checkpoint is there, and the run goes on from it.
#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    finished(train(whole.path(), &[]));
    kill_after_7_steps(parts.path(), &[]);
    finished(train(parts.path(), &["--resume"]));
    assert_eq!(adapter(parts.path()), adapter(whole.path()));
}

/// With Adam's means in codes of 8 bits, losses are nearly those of means in 32, and a run that is killed
/// and resumed gives the bytes of one that is not.
#[cfg(unix)]
#[test]
fn states_in_8_bits_learn_and_resume() {
    let int8 = ["--with", "optimizer.state=int8"];
    let [exact, whole, parts] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    finished(train(exact.path(), &[]));
    finished(train(whole.path(), &int8));
    let (exact, codes) = (losses(exact.path()), losses(whole.path()));
    assert_ne!(exact, codes);
    for ((step, a), (_, b)) in exact.iter().zip(&codes) {
        assert!(
            (a - b).abs() <= ADAM_INT8_LOSS * a,
            "step {step}: {b} is not {a}"
        );
    }
    kill_after_7_steps(parts.path(), &int8);
    finished(train(parts.path(), &[&int8[..], &["--resume"]].concat()));
    assert_eq!(adapter(parts.path()), adapter(whole.path()));
}

/// The codes of a run that fails.
fn codes(mut command: Command) -> Vec<String> {
    let Output { status, stdout, .. } = command.output().expect("peftc starts");
    assert_eq!(status.code(), Some(1));
    let value: Value = serde_json::from_slice(&stdout).expect("stdout is one JSON value");
    let found = value["diagnostics"].as_array().unwrap().iter();
    found
        .map(|d| d["code"].as_str().unwrap().to_owned())
        .collect()
}

/// The diagnostic of a run that fails.
fn fault(mut command: Command) -> Value {
    let output = command.output().expect("peftc starts");
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON value");
    said["diagnostics"][0].clone()
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(codes(train(folder, &["--resume"])), ["E1104"]);
    finished(train(folder, &["--with", "steps=4"]));
    let other = |change: &str| {
        let fault = fault(train(
            folder,
            &["--resume", "--with", "steps=4", "--with", change],
        ));
        assert_eq!(fault["code"], "E1104", "{change}");
        let message = fault["message"].as_str().unwrap().to_owned();
        (message, fault["notes"].to_string())
    };
    let (message, notes) = other("seed=1");
    assert!(message.ends_with(": `seed` has changed"), "{message}");
    assert!(notes.contains("`seed` was 0 and is 1"), "{notes}");
    let test = fixtures().join("quickstart/math_task.test.jsonl");
    let (message, notes) = other(&format!("data.train={}", test.display()));
    assert!(message.ends_with(": `data.train` has changed"), "{message}");
    assert_eq!(notes, "[]");
    let (message, _) =
        other("optimizer={learning_rate: 5e-3, schedule: cosine, warmup_steps: 19, beta1: 0.8}");
    assert!(
        message.ends_with(": `optimizer`, `optimizer.warmup_steps` have changed"),
        "{message}"
    );
    // The cosine goes to the last step.
    let (message, _) = other("steps=5");
    assert!(
        message.ends_with("is of a run of 4 steps, not of 5"),
        "{message}"
    );
    let path = folder.join("checkpoint.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for damaged in [&b"no tensors"[..], &whole[..whole.len() / 2]] {
        std::fs::write(&path, damaged).unwrap();
        let fault = fault(train(folder, &["--resume", "--with", "steps=4"]));
        assert_eq!(fault["code"], "E0901");
        let help = fault["help"].to_string();
        assert!(
            help.contains("an earlier checkpoint") && !help.contains("compile"),
            "{help}"
        );
    }
}

/// With a constant rate a finished run goes on to a later end, as if it had been meant from the start.
#[test]
fn a_run_with_a_constant_rate_becomes_longer() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let constant = ["--with", "optimizer.schedule=constant", "--with"];
    let run = |folder: &Path, more: &[&str]| train(folder, &[&constant[..], more].concat());
    finished(run(whole.path(), &["steps=9"]));
    finished(run(parts.path(), &["steps=5"]));
    finished(run(parts.path(), &["steps=9", "--resume"]));
    assert_eq!(adapter(parts.path()), adapter(whole.path()));
    let fault = fault(run(parts.path(), &["steps=8", "--resume"]));
    let message = fault["message"].as_str().unwrap();
    assert!(
        message.ends_with("has done 9 steps, and the run has 8"),
        "{message}"
    );
}

/// A run that leaves the numbers says at which step and with which rows; the checkpoint before stays.
#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let more = [
        "--with",
        "optimizer.learning_rate=1e30",
        "--with",
        "optimizer.warmup_steps=0",
        "--with",
        "checkpoint_every=1",
    ];
    assert_eq!(codes(train(folder, &more)), ["E1103"]);
    assert!(folder.join("checkpoint.safetensors").exists());
}

/// The first value that is no number is named, with the node that computes it.
#[test]
fn a_loss_that_is_no_number_is_traced_to_its_first_value() {
    let folder = tempfile::tempdir().unwrap();
    let rate = "optimizer.learning_rate=1e30";
    let more = [
        "--with",
        rate,
        "--with",
        "optimizer.warmup_steps=0",
        "--debug-numerics",
    ];
    let output = train(folder.path(), &more).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let diagnostic = &said["diagnostics"][0];
    assert_eq!(diagnostic["code"], "E1103");
    let notes = diagnostic["notes"].to_string();
    // Parameters of 1e30 overflow in the first product that they are in.
    assert!(
        notes.contains("the first is") && notes.contains("of `"),
        "{notes}"
    );
    assert!(notes.contains("lies between"), "{notes}");
    let mut files = std::fs::read_dir(folder.path()).unwrap();
    assert!(files.all(|file| !file.unwrap().file_name().to_string_lossy().starts_with('.')));
}

/// Two batches of 4 rows are one of 8: the gradient is the mean over all labels, however many each of
/// them has.
#[test]
fn gradients_of_several_batches_are_those_of_one() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let common = [
        "--with",
        "steps=6",
        "--with",
        "set={}",
        "--with",
        "data.order=as_read",
    ];
    let run = |folder: &Path, more: &[&str]| {
        finished(train(folder, &[&common[..], more].concat()));
        let tensors = peftc::weights::read_tensors(
            &folder.join("adapter.safetensors"),
            &mut peftc::diag::Sink::new(),
        );
        let values = tensors.unwrap().into_iter().flat_map(|tensor| {
            let chunks = tensor.data.chunks_exact(4);
            let values = chunks.map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()));
            values.collect::<Vec<f32>>()
        });
        (losses(folder), values.collect::<Vec<f32>>())
    };
    // With SGD a difference of rounding stays one; clipped, a gradient of another length would not show.
    let sgd = "optimizer={name: sgd, learning_rate: 0.1, max_grad_norm: null}";
    let sgd = ["--with", sgd];
    let (all, one) = run(whole.path(), &sgd);
    let more = ["--with", "batch_size=4", "--with", "accumulate=2"];
    let (halves, two) = run(parts.path(), &[&sgd[..], &more].concat());
    assert_eq!(halves.len(), 6);
    for ((step, a), (same, b)) in all.iter().zip(&halves) {
        assert!(
            step == same && (a - b).abs() <= 1e-4 * a,
            "{all:?} {halves:?}"
        );
    }
    let largest = one
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let off = one.iter().zip(&two).map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0_f32, f32::max);
    assert!(off <= 1e-4 * largest, "{off} {largest}");
}

/// An interrupted run of several batches an update goes on at the right batch and with the right masks.
#[cfg(unix)]
#[test]
fn a_killed_run_of_several_batches_an_update_goes_on() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let more = ["--with", "accumulate=2", "--with", "batch_size=2"];
    finished(train(whole.path(), &more));
    kill_after_7_steps(parts.path(), &more);
    finished(train(parts.path(), &[&more[..], &["--resume"]].concat()));
    assert_eq!(adapter(parts.path()), adapter(whole.path()));
}

/// A checkpoint that there is no room for is an error that says so, and the one before stays. The limit on
/// the size of files stands in for a full disk: what is compiled fits, a checkpoint does not.
#[cfg(unix)]
#[test]
fn without_room_for_a_checkpoint_the_one_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("checkpoint.safetensors"), "of an earlier run").unwrap();
    let spec = folder.join("large.peft");
    let lora = "adapter math_task { adapt all linear with lora(rank = 64) }\n";
    std::fs::write(&spec, format!("use std::lora\n{lora}")).unwrap();
    let spec = format!("spec={}", spec.display());
    let peftc = train(folder, &["--with", &spec, "--with", "set={}"]);
    let mut command = Command::new("/bin/bash");
    // A write beyond the limit is an error and no signal.
    let script = "ulimit -f 4700; trap '' XFSZ; exec \"$@\"";
    command.args(["-c", script, "peftc"]);
    command.arg(peftc.get_program()).args(peftc.get_args());
    let output = command.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let diagnostic = &said["diagnostics"][0];
    assert_eq!(diagnostic["code"], "E0002");
    let message = diagnostic["message"].as_str().unwrap();
    assert!(message.contains("checkpoint.safetensors"), "{message}");
    let earlier = folder.join("earlier/checkpoint.safetensors");
    assert_eq!(std::fs::read(earlier).unwrap(), b"of an earlier run");
    assert_eq!(losses(folder).len(), 4);
    let mut files = std::fs::read_dir(folder).unwrap();
    assert!(files.all(|file| !file.unwrap().file_name().to_string_lossy().starts_with('.')));
}

/// Checkpoints stay under their numbers, and the best one is deployed even if it is not the last.
#[test]
fn older_checkpoints_and_the_best_one_stay() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // What the model can do already, learning sums spoils more and more.
    let eval = folder.join("sentences.jsonl");
    let rows = ["red", "white", "old"].map(|which| {
        format!("{{\"prompt\": \"the {which} fox \", \"completion\": \"sees a white owl\"}}\n")
    });
    std::fs::write(&eval, rows.concat()).unwrap();
    let eval = format!("data.eval={}", eval.display());
    let more = [
        "--with",
        &eval,
        "--with",
        "keep_checkpoints=2",
        "--with",
        "keep_best=true",
        "--with",
        "eval_every=4",
        "--with",
        "steps=16",
        "--with",
        "optimizer.learning_rate=0.01",
        "--with",
        "optimizer.schedule=constant",
        "--with",
        "optimizer.warmup_steps=0",
    ];
    let said = finished(train(folder, &more));
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let measured = rows.filter(|row| row["event"] == "eval" && row["step"] != 0);
    let measured: Vec<(u64, f64)> = measured
        .map(|row| (row["step"].as_u64().unwrap(), row["loss"].as_f64().unwrap()))
        .collect();
    let best = measured.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(best.0 < 16, "{measured:?}");
    assert_eq!(said["best"], best.0, "{measured:?}");
    assert_eq!(said["after"]["loss"], best.1);
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("checkpoint-"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["checkpoint-12.safetensors", "checkpoint-16.safetensors"]
    );
    // What is deployed is what was best.
    let config = fixtures().join("quickstart/math_task.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("eval")
        .arg(config)
        .args([
            "--format",
            "json",
            "--with",
            &format!("output={}", folder.display()),
        ])
        .args([
            "--with",
            &eval,
            "--with",
            "batch_size=8",
            "--with",
            "threads=1",
        ])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["results"][1]["loss"], best.1, "{found}");
}

#[test]
fn an_input_that_data_does_not_give_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("a.peft");
    let text =
        "use std::lora\nadapter math_task { adapt \"SelfAttention.q\" with lora(rank = 2) }\n";
    std::fs::write(&spec, text).unwrap();
    let with = |key: &str, path: &Path| format!("{key}={}", path.display());
    let model = with("model", &crate::adapters::model("t5.ts"));
    let spec = with("spec", &spec);
    let more = ["--with", &model, "--with", &spec, "--with", "set={}"];
    assert_eq!(codes(train(folder.path(), &more)), ["E1102"]);
}

/// Twenty lines of Python train with the graphs alone, and the compiler takes what they give.
#[test]
fn the_graphs_train_without_peftc() {
    let folder = tempfile::tempdir().unwrap();
    let quickstart = fixtures().join("quickstart");
    let compile = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
        let files = [quickstart.join("tasks.peft"), quickstart.join("model.onnx")];
        command.arg("compile").args(files);
        command.args(["--adapter", "math_task", "--format", "json", "-o"]);
        finished({
            command.arg(folder.path()).args(more);
            command
        })
    };
    compile(&["--train"]);
    let output = python::with(&["onnxruntime==1.32.0", "safetensors==0.8.0"])
        .arg(fixtures().join("train_loop.py"))
        .arg(folder.path())
        .arg(quickstart.join("math_task.train.jsonl"))
        .arg("40")
        .output()
        .expect("python3 is there");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let losses: Vec<f64> = text
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    let [first, .., last] = losses[..] else {
        panic!("{text}");
    };
    assert!(last < first / 4.0, "{text}");
    let trained = folder.path().join("trained.safetensors");
    let manifest = compile(&["--values", trained.to_str().unwrap()]);
    assert!(manifest.is_object() || manifest.is_array());
}

/// The benchmark trains, and says what a step takes.
#[test]
fn the_benchmark_times_every_step() {
    let quickstart = fixtures().join("quickstart");
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.args(["bench", "train", "--format", "json"]);
    command.args([quickstart.join("tasks.peft"), quickstart.join("model.onnx")]);
    command.args(["--adapter", "code_task", "--set", "rank=2"]);
    command.args([
        "--batch", "2", "--length", "8", "--steps", "3", "--warmup", "1",
    ]);
    let found = finished(command);
    let times = found["milliseconds"].as_array().unwrap();
    assert_eq!(times.len(), 3);
    assert!(times.iter().all(|time| time.as_f64().unwrap() > 0.0));
    let speed = 16.0 / found["median_milliseconds"].as_f64().unwrap() * 1e3;
    // Reading a number from JSON may change its last bit.
    let stated = found["tokens_per_second"].as_f64().unwrap();
    assert!((stated / speed - 1.0).abs() < 1e-9, "{stated} {speed}");
}

/// What is said of operators is what ONNX Runtime recorded, and the record is written.
#[test]
fn the_benchmark_says_where_the_time_goes() {
    let quickstart = fixtures().join("quickstart");
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("trace.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.args(["bench", "train", "--format", "json", "--profile"]);
    command.arg(&record);
    command.args([quickstart.join("tasks.peft"), quickstart.join("model.onnx")]);
    command.args(["--adapter", "code_task", "--batch", "2", "--length", "8"]);
    command.args(["--steps", "2", "--warmup", "1"]);
    let found = finished(command);
    let rows = found["operators"].as_array().unwrap();
    let stated = |row: &Value| row["milliseconds"].as_f64().unwrap();
    assert!(
        rows.windows(2)
            .all(|pair| stated(&pair[0]) >= stated(&pair[1]))
    );
    let events: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let events = events.as_array().unwrap();
    let ran = |event: &&Value| event["name"].as_str().unwrap().ends_with("_kernel_time");
    for row in rows {
        let of_it = |event: &&Value| event["args"]["op_name"] == row["op_type"];
        let of_it: Vec<&Value> = events.iter().filter(ran).filter(of_it).collect();
        let time: u64 = of_it
            .iter()
            .map(|event| event["dur"].as_u64().unwrap())
            .sum();
        assert!((stated(row) - time as f64 / 3e3).abs() < 1e-9, "{row}");
        assert_eq!(row["nodes"], of_it.len() / 3, "{row}");
    }
    assert!(rows.iter().any(|row| row["op_type"] == "MatMul"));
}
