//! The command as its users see it: streams, formats, exit statuses.

use crate::{models, runtime};
use peftc::runtime::{HostTensor, NamedTensors};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn peftc() -> Command {
    Command::new(env!("CARGO_BIN_EXE_peftc"))
}

/// A peftc that finds no ONNX Runtime anywhere but in `data`.
fn peftc_alone(data: &Path) -> Command {
    let mut command = peftc();
    command
        .env_clear()
        .env("XDG_DATA_HOME", data)
        .env("PATH", data);
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("peftc starts");
    (
        status.code().expect("no signal"),
        String::from_utf8(stdout).expect("UTF-8"),
        String::from_utf8(stderr).expect("UTF-8"),
    )
}

/// Runs with `--format json` and checks the fields of every output.
fn json(command: &mut Command) -> (i32, Value) {
    let (status, stdout, _) = run(command.args(["--format", "json"]));
    let value: Value = serde_json::from_str(&stdout).expect("stdout is one JSON value");
    assert_eq!(value["schema_version"], 1);
    assert_eq!(value["exit_status"], status);
    let diagnostics = value["diagnostics"].as_array().expect("an array");
    let of = |severity: &str| {
        diagnostics
            .iter()
            .filter(|d| d["severity"] == severity)
            .count()
    };
    assert_eq!(value["error_count"], of("error"));
    assert_eq!(value["warning_count"], of("warning"));
    assert_eq!(value["valid"], of("error") == 0);
    (status, value)
}

/// A model and a recorded file of its input and output in a folder.
fn example(sum: f32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.onnx"), models::add_bias()).unwrap();
    let mut tensors = NamedTensors::default();
    tensors.push("x", HostTensor::from_f32(&[1, 2], &[1.0, 2.0]));
    tensors.push("sum", HostTensor::from_f32(&[1, 2], &[11.0, sum]));
    let bytes = tensors.to_safetensors().unwrap();
    std::fs::write(folder.path().join("io.safetensors"), bytes).unwrap();
    folder
}

fn run_example(folder: &Path) -> Command {
    runtime::library();
    let mut command = peftc();
    command
        .current_dir(folder)
        .args(["run", "m.onnx", "--input", "io.safetensors"]);
    command
}

#[test]
fn a_model_runs_and_its_outputs_are_compared() {
    let folder = example(22.0);
    let mut command = run_example(folder.path());
    command.args(["--expect", "io.safetensors", "--output", "out.safetensors"]);
    let (status, stdout, stderr) = run(&mut command);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.contains("sum: f32[1, 2]"), "{stdout}");
    assert!(stdout.contains("largest difference 0"), "{stdout}");
    let written = NamedTensors::read_safetensors(&folder.path().join("out.safetensors")).unwrap();
    let sum = HostTensor::from_f32(&[1, 2], &[11.0, 22.0]);
    assert_eq!(written.get("sum"), Some(&sum));
}

#[test]
fn a_difference_is_a_finding_with_its_place() {
    let folder = example(22.5);
    let mut command = run_example(folder.path());
    let (status, value) = json(command.args(["--expect", "io.safetensors"]));
    assert_eq!(status, 1);
    assert_eq!(value["diagnostics"][0]["code"], "E0809");
    let message = value["diagnostics"][0]["message"].as_str().unwrap();
    assert!(message.contains("[0, 1]: 22 where 22.5"), "{message}");
    assert_eq!(value["outputs"][0]["comparison"]["outside"], 1);
    let mut command = run_example(folder.path());
    let (status, ..) = run(command.args(["--expect", "io.safetensors", "--exit-zero"]));
    assert_eq!(status, 0);
}

#[test]
fn recordings_of_real_exports_are_reproduced() {
    runtime::library();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for (model, recording) in [
        ("quickstart/model.onnx", "quickstart/io.safetensors"),
        ("models/t5.ts.onnx", "models/t5.ts.io.safetensors"),
        (
            "models/llama.dynamo_external.onnx",
            "models/llama.dynamo_external.io.safetensors",
        ),
    ] {
        let recording = fixtures.join(recording);
        let mut command = peftc();
        command
            .arg("run")
            .arg(fixtures.join(model))
            .arg("--input")
            .arg(&recording);
        let tolerance = ["--rtol", "1e-3", "--atol", "1e-3"];
        let (status, value) = json(command.arg("--expect").arg(&recording).args(tolerance));
        assert_eq!(status, 0, "{model}: {value}");
        assert_eq!(value["outputs"][0]["comparison"]["equal"], true, "{model}");
    }
}

#[test]
fn an_expectation_of_nothing_is_no_success() {
    let folder = example(22.0);
    let other = NamedTensors(vec![("z".into(), HostTensor::from_f32(&[0], &[]))]);
    let file = folder.path().join("other.safetensors");
    std::fs::write(&file, other.to_safetensors().unwrap()).unwrap();
    let mut command = run_example(folder.path());
    let (status, value) = json(command.args(["--expect", "other.safetensors"]));
    assert_eq!(status, 1);
    assert_eq!(value["diagnostics"][0]["code"], "E0809");
}

#[test]
fn without_onnx_runtime_every_place_is_named_and_the_status_is_2() {
    let data = tempfile::tempdir().unwrap();
    let (status, value) = json(peftc_alone(data.path()).args(["--offline", "runtime", "check"]));
    assert_eq!(status, 2);
    let diagnostic = &value["diagnostics"][0];
    assert_eq!(diagnostic["code"], "E0801");
    assert!(diagnostic.to_string().contains("peftc runtime install"));
    let place = data.path().join("peftc/runtime");
    assert!(
        diagnostic["notes"]
            .to_string()
            .contains(place.to_str().unwrap())
    );
}

#[test]
fn a_named_library_admits_no_other() {
    let library = runtime::library();
    let mut command = peftc();
    command.env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    let (status, value) = json(command.args(["runtime", "check"]));
    assert_eq!(status, 2);
    assert_eq!(value["diagnostics"][0]["code"], "E0802");
    let mut command = peftc();
    command.env("ORT_DYLIB_PATH", &library.path);
    let (status, value) = json(command.args(["runtime", "check"]));
    assert_eq!(status, 0);
    assert_eq!(value["runtime"]["version"], library.version);
    assert_eq!(value["runtime"]["rung"], "variable");
}

#[test]
fn a_file_that_is_no_library_is_refused_in_the_loaders_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libonnxruntime.so");
    std::fs::write(&file, b"text").unwrap();
    let (status, _, stderr) = run(peftc().args(["runtime", "check", "--path"]).arg(&file));
    assert_eq!(status, 2);
    assert!(
        stderr.contains("E0802") && stderr.contains("file too short"),
        "{stderr}"
    );
}

#[test]
fn json_is_valid_whatever_is_wrong_with_the_command_line() {
    for line in [
        "chek",
        "run",
        "run --rtol x m.onnx",
        "fmt",
        "explain E9999",
        "--deny all runtime",
        "",
    ] {
        let (status, value) = json(peftc().args(line.split_whitespace()));
        assert_eq!(status, 2, "{line}");
        assert_eq!(value["diagnostics"][0]["code"], "E0010", "{line}");
    }
    for line in ["--help", "--version", "run --help"] {
        let (status, value) = json(peftc().args(line.split_whitespace()));
        assert_eq!(status, 0, "{line}");
        assert!(value["text"].as_str().unwrap().contains("peftc"));
    }
}

#[test]
fn missing_files_have_a_code_and_status_2() {
    runtime::library();
    for line in [
        "run absent.onnx",
        "run absent.onnx --input absent.safetensors",
    ] {
        let (status, value) = json(peftc().args(line.split(' ')));
        assert_eq!(status, 2);
        assert_eq!(value["diagnostics"][0]["code"], "E0001", "{line}");
    }
}

#[test]
fn data_goes_to_stdout_and_talk_to_stderr() {
    let (status, stdout, stderr) = run(peftc().args(["explain", "e0801"]));
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("# E0801: "), "{stdout}");
    let (status, stdout, stderr) = run(peftc().args(["explain", "E08O1"]));
    assert_eq!((status, stdout.as_str()), (2, ""));
    assert!(stderr.contains("E0801"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "no colour in a file");
    let (_, _, stderr) = run(peftc().args(["explain", "x", "--color", "always"]));
    assert!(stderr.contains('\u{1b}'));
}

#[test]
fn one_format_goes_to_stdout_the_others_to_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = peftc();
    command.current_dir(folder.path());
    let formats = "github,sarif=out.sarif,junit=out.xml,json=out.json";
    let (status, stdout, _) = run(command.args(["explain", "E1", "--format", formats]));
    assert_eq!(status, 2);
    assert!(stdout.starts_with("::error title=E0010"), "{stdout}");
    for (file, word) in [
        ("out.sarif", "2.1.0"),
        ("out.xml", "<failure"),
        ("out.json", "E0010"),
    ] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text.contains(word), "{text}");
    }
    let (status, ..) = run(peftc().args(["explain", "E1", "--format", "github,sarif"]));
    assert_eq!(status, 2);
}

#[test]
fn of_many_findings_of_a_code_the_first_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("s.peft");
    let lines: String = (0..300).map(|n| format!("adopt{n} x\n")).collect();
    std::fs::write(&spec, lines).unwrap();
    let mut command = peftc();
    let (status, stdout, stderr) = run(command.arg("check").arg(&spec).args(["--format", "json"]));
    let value: Value = serde_json::from_str(&stdout).expect("stdout is one JSON value");
    assert_eq!(
        (status, &value["error_count"], &value["left_out"]),
        (1, &300.into(), &200.into())
    );
    assert_eq!(value["diagnostics"].as_array().unwrap().len(), 100);
    assert!(stderr.ends_with("\n200 more diagnostics of the same codes\n"));
}

#[test]
fn completions_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (status, stdout, _) = run(peftc().args(["completions", shell]));
        assert_eq!(status, 0);
        for subcommand in ["runtime", "fmt"] {
            assert!(stdout.contains(subcommand), "{shell}");
        }
    }
}

#[cfg(unix)]
/// Curves of several runs stand in one page, each run by the name of its folder.
#[test]
fn runs_are_drawn_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let path = |name: &str| folder.join(name);
    for (name, loss) in [("own", 2.0), ("int8", 2.1)] {
        std::fs::create_dir(path(name)).unwrap();
        let step = |at: i32| {
            let loss = loss / f64::from(at);
            format!("{{\"event\":\"step\",\"step\":{at},\"loss\":{loss},\"seconds\":{at}.5}}\n")
        };
        let figures: String = (1..=5).map(step).collect();
        std::fs::write(path(name).join("metrics.jsonl"), figures).unwrap();
    }
    let page = path("both.html");
    let mut command = peftc();
    command.args(["report", "-o"]).arg(&page);
    command.args([path("own"), path("int8")]);
    assert_eq!(json(&mut command).0, 0);
    let text = std::fs::read_to_string(&page).unwrap();
    for wanted in [
        "loss in training",
        "own",
        "int8",
        "5 steps in 5.5 s",
        "<svg",
    ] {
        assert!(text.contains(wanted), "{wanted}");
    }
    let mut command = peftc();
    command.args(["report", "-o"]).arg(&page).arg(path("none"));
    let (status, said) = json(&mut command);
    assert_eq!(
        (status, said["diagnostics"][0]["code"].as_str()),
        (2, Some("E0001"))
    );
}

#[test]
fn an_interrupt_ends_with_130_and_leaves_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    // A `python3` whose download takes long.
    let python = folder.path().join("python3");
    std::fs::write(&python, "#!/bin/sh\nexec /bin/sleep 2\n").unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = peftc_alone(folder.path())
        .args(["runtime", "install"])
        .spawn()
        .unwrap();
    let runtime = folder.path().join("peftc/runtime");
    let entries = || std::fs::read_dir(&runtime).map_or(0, Iterator::count);
    while entries() == 0 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it waits for the download"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = Command::new("/bin/kill")
        .arg("-INT")
        .arg(child.id().to_string())
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(entries(), 0);
}

/// The keys of a manifest and of the objects in it; what hyper-parameters are called is the spec's, and
/// an optimizer's constants are PyTorch's.
fn keys(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                found.insert(key.clone());
                if key != "hyper_parameters" && key != "optimizer" {
                    keys(inner, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn the_readme_describes_every_key_of_the_manifest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("s.peft");
    let text = "use std::{lora, vera}\nadapter a {\n  layers \"layers\" = [0..2]\n  adapt \"q_proj\"[0..8] with lora(rank = 2, plus = 4)\n  adapt \"v_proj\" with vera(rank = 4)\n  expect sites == 4\n}\n";
    std::fs::write(&spec, text).unwrap();
    let (status, _, stderr) = run(peftc()
        .args(["compile", spec.to_str().unwrap(), "--set", "lora.alpha=4"])
        .args(["--train", "--base", "int8", "--task", "distillation"])
        .args(["--pool", "mean", "--head", "2", "--classes", "no,yes"])
        .arg(root.join("fixtures/models/llama.dynamo_external.onnx"))
        .arg("-o")
        .arg(folder.path()));
    assert_eq!(status, 0, "{stderr}");
    let manifest = std::fs::read_to_string(folder.path().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let mut found = std::collections::BTreeSet::new();
    keys(&manifest, &mut found);
    // Of start values from data: `tests/it/calibrate.rs` has the key.
    found.insert("calibration".to_owned());
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let table: String = readme
        .lines()
        .skip_while(|line| !line.starts_with("| key of the manifest"))
        .take_while(|line| line.starts_with('|'))
        .collect();
    let described: std::collections::BTreeSet<String> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|words| !words.starts_with('-') && *words != "null")
        .flat_map(|words| {
            words
                .split('.')
                .map(|w| w.trim_end_matches("[]").to_owned())
        })
        .collect();
    assert_eq!(found, described);
}
