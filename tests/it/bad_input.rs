//! Whatever is given in place of a file: a coded diagnostic, valid JSON, the right status, and
//! nothing written.

use crate::{models, runtime};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SPEC: &str = "use std::dora\nadapter a { adapt \"fc\" with dora(rank = 1) }\n";

/// A folder with a good file of every kind.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    put("spec.peft", SPEC.as_bytes());
    put("model.onnx", &models::linear());
    put(
        "names.json",
        br#"{"schema_version": 1, "modules": {"y": "fc"}}"#,
    );
    let tensor = |name: &str, dims: &[i64]| {
        let elements = dims.iter().product::<i64>() as usize;
        let values = peftc::runtime::HostTensor::from_f32(dims, &vec![0.5; elements]);
        (name.to_owned(), values)
    };
    let file = |tensors| {
        peftc::runtime::NamedTensors(tensors)
            .to_safetensors()
            .unwrap()
    };
    put("x.safetensors", &file(vec![tensor("x", &[1, 2])]));
    let (a, b, m) = ("fc.A", "fc.B", "fc.m");
    let trained = vec![tensor(a, &[1, 2]), tensor(b, &[3, 1]), tensor(m, &[3])];
    put("trained.safetensors", &file(trained));
    put("rows.jsonl", br#"{"prompt": "1+1=", "completion": "2"}"#);
    put("rows.txt", b"1+1=2\n");
    let tokenizer = "fixtures/quickstart/tokenizer.json";
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join(tokenizer);
    put("tokenizer.json", &fs::read(tokenizer).unwrap());
    folder
}

/// Every command that reads files; the file in brackets is the one that is bad.
const COMMANDS: &[&str] = &[
    "check [spec.peft]",
    "check spec.peft --model [model.onnx]",
    "check spec.peft --model model.onnx --names [names.json]",
    "fmt [spec.peft]",
    "fmt --check [spec.peft]",
    "fmt --diff [spec.peft]",
    "plan [spec.peft] --model model.onnx",
    "plan spec.peft --model [model.onnx]",
    "plan spec.peft --model model.onnx --names [names.json]",
    "compile [spec.peft] model.onnx",
    "compile spec.peft [model.onnx]",
    "compile spec.peft [model.onnx] -o out",
    "compile spec.peft model.onnx --names [names.json]",
    "compile spec.peft model.onnx --values [trained.safetensors]",
    "compile spec.peft model.onnx -o out --values [trained.safetensors]",
    "compile spec.peft model.onnx --verify [x.safetensors]",
    "inspect [model.onnx]",
    "inspect model.onnx --names [names.json]",
    "run [model.onnx] --input x.safetensors",
    "run model.onnx --input [x.safetensors]",
    "run model.onnx --input x.safetensors --expect [x.safetensors]",
    "data [rows.jsonl] --rows jsonl --tokenizer tokenizer.json --end-token id:10",
    "data [rows.txt] --rows lines --tokenizer tokenizer.json --end-token id:10",
    "data [rows.txt] --rows text --tokenizer tokenizer.json --end-token id:10",
    "data rows.jsonl --tokenizer [tokenizer.json] --end-token id:10",
    "runtime check --path [libonnxruntime.so]",
];

/// What is wrong with a file.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Missing,
    Folder,
    Bytes(&'static [u8]),
    /// The first half of the good file.
    Half,
    /// Many bytes without a meaning, the same ones every time.
    Noise,
}

const BAD: &[Bad] = &[
    Bad::Missing,
    Bad::Folder,
    Bad::Bytes(b""),
    Bad::Bytes(b"some text\n"),
    Bad::Bytes(b"{\"a\": [1, 2"),
    Bad::Bytes(b"\x08\x0a\x3a\xff\xff\xff\xff\x07"),
    Bad::Bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f{\"w\":{\"dtype\":\"F32\"}}"),
    Bad::Half,
    Bad::Noise,
];

impl Bad {
    fn put(self, path: &Path) {
        let good = fs::read(path).unwrap_or_default();
        let _ = fs::remove_file(path);
        match self {
            Bad::Missing => {}
            Bad::Folder => fs::create_dir(path).unwrap(),
            Bad::Bytes(bytes) => fs::write(path, bytes).unwrap(),
            Bad::Half => fs::write(path, &good[..good.len() / 2]).unwrap(),
            Bad::Noise => fs::write(path, noise(20_000)).unwrap(),
        }
    }
}

fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Every file below a folder with its bytes; folders end in `/`.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let inner = content(&path).into_iter();
            found.extend(inner.map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
            found.insert(format!("{name}/"), Vec::new());
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// Runs peftc with at most 1 GiB of address space, but for `run`, which loads ONNX Runtime.
fn peftc(folder: &Path, line: &str) -> Output {
    let exe = env!("CARGO_BIN_EXE_peftc");
    let mut command = if cfg!(target_os = "linux") && !line.starts_with("run") {
        let mut shell = Command::new("/bin/sh");
        let limited = "ulimit -v 1048576 && exec \"$0\" \"$@\"";
        shell.args(["-c", limited, exe]);
        shell
    } else {
        Command::new(exe)
    };
    command.current_dir(folder).args(line.split_whitespace());
    command.output().unwrap()
}

/// Runs a command that fails: JSON on stdout, diagnostics on stderr, and the folder as before.
fn check_fails(folder: &Path, line: &str, status: Option<i32>) -> Vec<String> {
    let before = content(folder);
    let human = peftc(folder, line);
    let json = peftc(folder, &format!("{line} --format json"));
    assert!(
        content(folder) == before,
        "`{line}` leaves something behind"
    );
    let value: Value = serde_json::from_slice(&json.stdout)
        .unwrap_or_else(|error| panic!("`{line}`: stdout is not one JSON value: {error}"));
    let stderr = String::from_utf8(human.stderr).expect("stderr is text");
    assert!(!stderr.contains('\u{1b}'), "`{line}`: colour in a file");
    assert_eq!(human.status.code(), json.status.code(), "`{line}`");
    assert_eq!(
        value["exit_status"],
        json.status.code().unwrap(),
        "`{line}`"
    );
    if let Some(status) = status {
        assert_eq!(human.status.code(), Some(status), "`{line}`: {stderr}");
    }
    assert!(
        matches!(human.status.code(), Some(1 | 2)),
        "`{line}`: {stderr}"
    );
    let diagnostics = value["diagnostics"].as_array().unwrap();
    let codes: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| diagnostic["code"].as_str().unwrap().to_owned())
        .collect();
    assert!(codes.iter().any(|code| code.starts_with('E')), "`{line}`");
    for code in &codes {
        assert_ne!(code, "E9901", "`{line}`: {stderr}");
        assert!(
            stderr.contains(code.as_str()),
            "`{line}`: no {code} in {stderr}"
        );
    }
    codes
}

#[test]
fn whatever_a_file_holds_a_code_says_so_and_nothing_is_written() {
    runtime::library();
    for command in COMMANDS {
        let (start, rest) = command.split_once('[').unwrap();
        let (bad_file, end) = rest.split_once(']').unwrap();
        let line = format!("{start}bad.file{end}");
        for bad in BAD {
            let folder = folder();
            let good = folder.path().join(bad_file);
            let path = folder.path().join("bad.file");
            if good.exists() {
                fs::copy(&good, &path).unwrap();
            }
            bad.put(&path);
            if is_harmless(&line, *bad) {
                continue;
            }
            let status = match bad {
                Bad::Missing | Bad::Folder => 2,
                _ if line.starts_with("runtime") => 2,
                // What is not text cannot be read as a text.
                Bad::Noise | Bad::Bytes([0x08 | 0xff, ..]) if reads_text(bad_file) => 2,
                _ => 1,
            };
            let codes = check_fails(folder.path(), &line, Some(status));
            let missing = matches!(bad, Bad::Missing) && !line.starts_with("runtime");
            assert!(!missing || codes == ["E0001"], "`{line}`: {codes:?}");
        }
    }
}

fn reads_text(file: &str) -> bool {
    file.ends_with(".peft") || file.ends_with(".json")
}

/// An empty spec is a spec for `check` and `fmt`, and every text that is not empty is data as plain text.
fn is_harmless(line: &str, bad: Bad) -> bool {
    let plain = line.contains("--rows lines") || line.contains("--rows text");
    match bad {
        Bad::Half => plain,
        Bad::Bytes(b"") => line == "check bad.file" || line.starts_with("fmt"),
        Bad::Bytes(bytes) => plain && str::from_utf8(bytes).is_ok(),
        _ => false,
    }
}

#[test]
fn good_files_give_every_command_success() {
    runtime::library();
    for command in COMMANDS.iter().filter(|line| !line.starts_with("runtime")) {
        let folder = folder();
        let line = command.replace(['[', ']'], "");
        // The expectation of the example is no output of the model.
        let line = line.replace(" --expect x.safetensors", "");
        let output = peftc(folder.path(), &line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "`{line}`: {stderr}");
    }
}

#[test]
fn what_the_output_hits_leaves_nothing_half_written() {
    let blocked = |name: &str, line: &str| {
        let folder = folder();
        fs::create_dir_all(folder.path().join(name)).unwrap();
        let codes = check_fails(folder.path(), line, Some(2));
        assert_eq!(codes, ["E0002"], "`{line}` with `{name}` taken");
    };
    let beside = "compile spec.peft model.onnx";
    blocked("model.a.onnx", beside);
    blocked("model.a.safetensors", beside);
    blocked("model.a.manifest.json", beside);
    let folder = "compile spec.peft model.onnx -o out";
    blocked("out/model.onnx", folder);
    blocked("out/adapter.safetensors", folder);
    blocked("out/manifest.json", folder);
    runtime::library();
    let run = "run model.onnx --input x.safetensors --output taken";
    blocked("taken", run);
}

#[test]
fn an_adapter_that_does_not_fit_holds_the_others_back() {
    let folder = folder();
    let more = "adapter b { adapt \"nothing\" with dora(rank = 1) }\n";
    fs::write(folder.path().join("spec.peft"), format!("{SPEC}{more}")).unwrap();
    for line in [
        "compile spec.peft model.onnx",
        "compile spec.peft model.onnx -o out",
    ] {
        assert_eq!(check_fails(folder.path(), line, Some(1)), ["E0401"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn stdout_that_is_full_is_an_error_and_one_that_is_closed_is_none() {
    let exe = env!("CARGO_BIN_EXE_peftc");
    let shell = |script: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, exe]).output().unwrap()
    };
    let full = shell("\"$0\" explain E0001 > /dev/full");
    assert_eq!(full.status.code(), Some(2));
    let stderr = String::from_utf8(full.stderr).unwrap();
    assert!(stderr.contains("no space left"), "{stderr}");
    let closed = shell("{ \"$0\" explain E0001; echo $? >&2; } | true");
    assert_eq!(String::from_utf8(closed.stderr).unwrap(), "0\n");
}

#[test]
fn the_base_is_never_replaced_by_its_adapted_model() {
    let folder = folder();
    let absolute = folder.path().to_string_lossy().into_owned();
    for output in [".", &absolute] {
        let line = format!("compile spec.peft model.onnx -o {output}");
        assert_eq!(check_fails(folder.path(), &line, Some(2)), ["E0002"]);
    }
}

#[test]
fn a_folder_that_is_a_file_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("out"), b"").unwrap();
    let line = "compile spec.peft model.onnx -o out";
    assert_eq!(check_fails(folder.path(), line, Some(2)), ["E0002"]);
    let line = "compile spec.peft model.onnx -o out/deep/er";
    assert_eq!(check_fails(folder.path(), line, Some(2)), ["E0002"]);
}

/// A declared size costs nothing: the limit on memory of every command here is far below it.
#[test]
fn declared_sizes_take_no_memory() {
    let folder = folder();
    let huge = models::huge_tensor();
    assert!(huge.len() < 1024);
    fs::write(folder.path().join("model.onnx"), huge).unwrap();
    for line in ["inspect model.onnx", "compile spec.peft model.onnx"] {
        assert_eq!(check_fails(folder.path(), line, Some(1)), ["E0605"]);
    }
    let header =
        br#"{"fc.A":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    fs::write(folder.path().join("huge.safetensors"), file).unwrap();
    fs::write(folder.path().join("model.onnx"), models::linear()).unwrap();
    let line = "compile spec.peft model.onnx --values huge.safetensors";
    assert_eq!(check_fails(folder.path(), line, Some(1)), ["E0901"]);
}

#[test]
fn devices_are_no_files() {
    let folder = folder();
    for (line, code) in [
        ("inspect /dev/null", "E0001"),
        ("inspect /dev/zero", "E0001"),
        ("check /dev/zero", "E0003"),
        ("inspect model.onnx --names /dev/zero", "E0003"),
        ("compile spec.peft model.onnx --values /dev/zero", "E0001"),
        ("compile spec.peft /dev/null", "E0001"),
    ] {
        assert_eq!(check_fails(folder.path(), line, Some(2)), [code], "{line}");
    }
}
