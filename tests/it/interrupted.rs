//! A compile that is told to stop: it ends with the status of the signal and leaves nothing
//! half-written, whenever the signal comes.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// What a compile with `-o` writes.
const WRITTEN: [&str; 4] = [
    "adapter.safetensors",
    "llama.dynamo_external.onnx.data",
    "manifest.json",
    "model.onnx",
];

/// A model with enough external data that copying it takes a while, and a spec.
fn slow_to_compile() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models");
    let name = "llama.dynamo_external.onnx";
    fs::copy(models.join(name), folder.path().join(name)).unwrap();
    let data = folder.path().join(format!("{name}.data"));
    fs::copy(models.join(format!("{name}.data")), &data).unwrap();
    let data = fs::OpenOptions::new().write(true).open(data).unwrap();
    data.set_len(600 << 20).unwrap();
    let spec = "use std::lora\nadapter a { adapt \"q_proj\" with lora(rank = 1) }\n";
    fs::write(folder.path().join("a.peft"), spec).unwrap();
    folder
}

fn compile(folder: &Path, output: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_peftc"))
        .current_dir(folder)
        .args(["compile", "a.peft", "llama.dynamo_external.onnx", "--quiet"])
        .args(["-o", output])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

fn send(signal: &str, child: &Child) {
    // The shell's own `kill`; the process may have ended.
    let kill = format!("kill {signal} {}", child.id());
    let _ = Command::new("sh").args(["-c", &kill]).output();
}

/// Every file and folder below a folder; none if it is not there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut all: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    let inside: Vec<PathBuf> = all.iter().flat_map(|path| entries(path)).collect();
    all.extend(inside);
    all.sort();
    all
}

/// Sends the signal some time after the first thing is written; answers how it ended.
fn interrupted(folder: &Path, output: &str, signal: &str, after: Duration) -> ExitStatus {
    let mut child = compile(folder, output);
    let begun = Instant::now();
    while entries(&folder.join(output)).is_empty() && child.try_wait().unwrap().is_none() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing is written"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(after);
    send(signal, &child);
    child.wait().unwrap()
}

#[test]
fn an_interrupted_compile_leaves_nothing_half_written() {
    let folder = slow_to_compile();
    let all = WRITTEN.map(|name| folder.path().join("deep/out").join(name));
    let mut stopped = 0;
    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        for after in [0, 5, 40, 150, 400] {
            let after = Duration::from_millis(after);
            let ended = interrupted(folder.path(), "deep/out", signal, after);
            let found = entries(&folder.path().join("deep/out"));
            match ended.code() {
                // The signal came too late.
                Some(0) => assert_eq!(found, all),
                code => {
                    assert_eq!(code, Some(status), "{signal} after {after:?}");
                    // Stopped while the finished files were moved to their places.
                    let is_complete = found == all;
                    assert!(is_complete || found.is_empty(), "{found:?}");
                    let deep = folder.path().join("deep");
                    assert_eq!(deep.exists(), is_complete, "folders made for it are gone");
                    stopped += 1;
                }
            }
            let _ = fs::remove_dir_all(folder.path().join("deep"));
        }
    }
    assert!(stopped >= 3, "{stopped} compiles were stopped");
}

#[test]
fn an_interrupted_compile_keeps_what_was_there() {
    let folder = slow_to_compile();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("model.onnx"), "old").unwrap();
    let mut child = compile(folder.path(), "out");
    while entries(&out).len() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it takes a while");
    }
    send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(entries(&out), [out.join("model.onnx")]);
    assert_eq!(fs::read(out.join("model.onnx")).unwrap(), b"old");
}
