//! `peftc fmt` on files: what it writes, what it leaves alone, and what it says.

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const UGLY: &str = "use std::lora\nadapter a {\nadapt  \"q\" with lora( rank=4 ) // why\n\n\n}\n";
const FORMATTED: &str = "use std::lora\nadapter a {\n  adapt \"q\" with lora(rank = 4) // why\n}\n";

struct Answer {
    status: i32,
    stdout: String,
    stderr: String,
}

fn fmt(folder: &Path, line: &str, stdin: &[u8]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.current_dir(folder).arg("fmt");
    command.args(line.split_whitespace());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // It may be done before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Answer {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// The codes that a run with `--format json` reports, and its rows.
fn json(folder: &Path, line: &str, stdin: &[u8]) -> (i32, Vec<String>, Vec<Value>) {
    let answer = fmt(folder, &format!("{line} --format json"), stdin);
    let value: Value = serde_json::from_str(&answer.stdout).expect("one JSON value");
    assert_eq!(value["command"], "fmt");
    assert_eq!(value["exit_status"], answer.status);
    let codes = value["diagnostics"].as_array().unwrap().iter();
    let codes = codes.map(|found| found["code"].as_str().unwrap().to_owned());
    let rows = value["files"].as_array().cloned().unwrap_or_default();
    (answer.status, codes.collect(), rows)
}

#[test]
fn specs_are_written_where_something_changes() {
    let folder = folder(&[
        ("a.peft", UGLY),
        ("specs/b.peft", FORMATTED),
        ("specs/deep/c.peft", UGLY),
        ("specs/deep/d.txt", UGLY),
        ("specs/faulty.peft", "adapter {"),
        ("specs/empty.peft", ""),
    ]);
    let at = |name: &str| folder.path().join(name);
    let read = |name: &str| fs::read_to_string(at(name)).unwrap();
    let touched = |name: &str| fs::metadata(at(name)).unwrap().modified().unwrap();
    let (before, others) = (touched("specs/b.peft"), touched("specs/empty.peft"));
    // A file that is named twice is one file, and a fault of one does not hide the others.
    let answer = fmt(folder.path(), "a.peft specs specs/../a.peft", b"");
    assert_eq!(answer.status, 1);
    assert_eq!(
        answer.stdout,
        "a.peft: formatted\nspecs/b.peft: ok\nspecs/deep/c.peft: formatted\nspecs/empty.peft: ok\n"
    );
    assert!(answer.stderr.contains("E0103"), "{}", answer.stderr);
    for (name, text) in [
        ("a.peft", FORMATTED),
        ("specs/deep/c.peft", FORMATTED),
        ("specs/deep/d.txt", UGLY),
        ("specs/faulty.peft", "adapter {"),
        ("specs/empty.peft", ""),
    ] {
        assert_eq!(read(name), text, "{name}");
    }
    assert_eq!(touched("specs/b.peft"), before);
    assert_eq!(touched("specs/empty.peft"), others);
    fs::remove_file(at("specs/faulty.peft")).unwrap();
    let answer = fmt(folder.path(), ".", b"");
    assert_eq!((answer.status, &*answer.stderr), (0, ""));
    assert!(
        answer.stdout.starts_with("a.peft: ok\n"),
        "{}",
        answer.stdout
    );
}

#[test]
fn check_and_diff_write_nothing() {
    let folder = folder(&[("a.peft", UGLY), ("b.peft", FORMATTED)]);
    let (status, codes, rows) = json(folder.path(), "--check a.peft b.peft", b"");
    assert_eq!((status, codes), (1, vec!["E0117".to_owned()]));
    let row = |at: usize, key: &str| rows[at][key].clone();
    assert_eq!(
        (row(0, "path"), row(0, "formatted")),
        ("a.peft".into(), false.into())
    );
    assert_eq!(
        (row(1, "path"), row(1, "formatted")),
        ("b.peft".into(), true.into())
    );
    let diff = fmt(folder.path(), "--diff a.peft b.peft", b"");
    assert_eq!((diff.status, &*diff.stderr), (0, ""));
    assert!(
        diff.stdout
            .starts_with("--- a.peft\n+++ a.peft\n@@ -1,6 +1,4 @@\n use std::lora\n")
    );
    let both = fmt(folder.path(), "--check --diff a.peft b.peft", b"");
    assert_eq!((both.status, &both.stdout), (1, &diff.stdout));
    assert!(both.stderr.contains("E0117"), "{}", both.stderr);
    let (_, _, rows) = json(folder.path(), "--diff a.peft", b"");
    assert_eq!(rows[0]["diff"], *diff.stdout);
    assert_eq!(
        fs::read_to_string(folder.path().join("a.peft")).unwrap(),
        UGLY
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn stdin_goes_to_stdout() {
    let folder = folder(&[]);
    let at = folder.path();
    let answer = fmt(at, "-", UGLY.as_bytes());
    assert_eq!(
        (answer.status, &*answer.stdout, &*answer.stderr),
        (0, FORMATTED, "")
    );
    let answer = fmt(at, "-", FORMATTED.as_bytes());
    assert_eq!((answer.status, &*answer.stdout), (0, FORMATTED));
    let (_, _, rows) = json(at, "-", UGLY.as_bytes());
    assert_eq!(rows[0]["text"], FORMATTED);
    let answer = fmt(at, "- --check", UGLY.as_bytes());
    assert_eq!((answer.status, &*answer.stdout), (1, ""));
    let answer = fmt(at, "- --diff", UGLY.as_bytes());
    assert!(answer.stdout.contains("+  adapt"), "{}", answer.stdout);
    for (input, code, status) in [
        (&b"adapter {"[..], "E0103", 1),
        (b"\xff", "E0001", 2),
        (&vec![b' '; 5_000_000], "E0003", 2),
    ] {
        let answer = fmt(at, "-", input);
        assert_eq!((answer.status, &*answer.stdout), (status, ""));
        assert!(answer.stderr.contains(code), "{}", answer.stderr);
    }
    assert_eq!(fs::read_dir(at).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn the_file_behind_a_link_is_formatted_where_the_link_is_named() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = folder(&[("real/a.peft", UGLY), ("specs/b.peft", FORMATTED)]);
    let real = folder.path().join("real/a.peft");
    let link = folder.path().join("specs/link.peft");
    symlink(&real, &link).unwrap();
    symlink("..", folder.path().join("specs/circle")).unwrap();
    symlink("nowhere", folder.path().join("specs/dangling.peft")).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o444)).unwrap();
    let answer = fmt(folder.path(), "specs", b"");
    assert_eq!((answer.status, &*answer.stdout), (0, "specs/b.peft: ok\n"));
    let (status, codes, rows) = json(folder.path(), "specs/link.peft specs/dangling.peft", b"");
    assert_eq!(
        (status, codes),
        (2, vec!["E0002".to_owned(), "E0001".to_owned()])
    );
    assert!(rows.is_empty());
    assert_eq!(fs::read_to_string(&real).unwrap(), UGLY);
    fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fmt(folder.path(), "specs/link.peft real", b"").status, 0);
    assert_eq!(fs::read_to_string(&real).unwrap(), FORMATTED);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = fs::metadata(&real).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_cannot_be_formatted_has_its_code_and_keeps_its_bytes() {
    let folder = folder(&[("nothing/a.txt", ""), ("b.peft", UGLY)]);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("bytes.peft"), b"// \xff\n").unwrap();
    for (line, status, code) in [
        ("", 2, "E0010"),
        ("nothing", 2, "E0010"),
        ("- b.peft", 2, "E0010"),
        ("absent.peft", 2, "E0001"),
        ("bytes.peft", 2, "E0001"),
        ("--check bytes.peft", 2, "E0001"),
    ] {
        let (found, codes, _) = json(folder.path(), line, b"");
        assert_eq!((found, codes), (status, vec![code.to_owned()]), "{line}");
    }
    assert_eq!(fs::read(at("bytes.peft")).unwrap(), b"// \xff\n");
    assert_eq!(fs::read_to_string(at("b.peft")).unwrap(), UGLY);
}

#[test]
fn the_specs_of_the_repository_are_formatted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let answer = fmt(root, "--check src fixtures", b"");
    assert_eq!((answer.status, &*answer.stderr), (0, ""));
    assert!(
        answer
            .stdout
            .contains("fixtures/quickstart/tasks.peft: ok\n")
    );
}
