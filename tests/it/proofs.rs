//! Every method of the library has its numeric proofs, in the reference and in ONNX Runtime.

use crate::runtime::library;
use peftc::diag::{Sink, SourceMap, render};
use peftc::driver::Session;
use peftc::prove::{CHECKS, Case, Options, Row, Table, Verdict, cases_of, facts, prove};
use peftc::stdlib::LIBRARY;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// The proofs of the methods that a spec imports or declares.
fn proved(spec: &str, with_runtime: bool) -> (Table, String) {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("methods.peft");
    std::fs::write(&path, spec).unwrap();
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let spec = session.spec(&path).unwrap();
    let hidden: Vec<_> = spec.program.train.values().copied().collect();
    let mut cases = cases_of(&spec.program, |_| true);
    cases.retain(|case| !hidden.contains(&case.method));
    // Of hyper-parameters from which nothing else follows, the defaults are enough.
    let known = |case: &Case| facts(&spec.program, case);
    let plain: Vec<Case> = cases.clone();
    cases.retain(|case| {
        let same = |other: &&Case| other.method == case.method && other.layouts == case.layouts;
        let first = plain.iter().find(same).expect("it is among them");
        first.label == case.label || known(first) != known(case)
    });
    let options = Options {
        seed: 0,
        library: with_runtime.then(library),
    };
    let table = prove(&spec.program, &cases, &options, &mut sink).unwrap();
    let all = sink.diagnostics().iter();
    let text = all
        .map(|d| render::render(d, &sources, render::Style::PLAIN))
        .collect();
    (table, text)
}

/// The verdicts of every method of the library, two threads at a time.
fn library_rows() -> Vec<Row> {
    let (open, rows) = (Mutex::new(LIBRARY.iter()), Mutex::new(Vec::new()));
    library();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(file) = open.lock().unwrap().next() else {
                        return;
                    };
                    let (table, text) = proved(&format!("use std::{}\n", file.name), true);
                    assert!(text.is_empty(), "{}: {text}", file.name);
                    assert!(!table.rows.is_empty(), "{}", file.name);
                    rows.lock().unwrap().extend(table.rows);
                }
            });
        }
    });
    rows.into_inner().unwrap()
}

fn verdict<'r>(row: &'r Row, check: &str) -> &'r Verdict {
    let at = CHECKS.iter().position(|c| c.name == check).unwrap();
    &row.verdicts[at]
}

/// Whether it is of a method whose text declares nothing that is trained.
fn is_frozen(row: &Row) -> bool {
    let name = row.method.split('(').next();
    let file = LIBRARY.iter().find(|file| Some(file.name) == name);
    let is_param = |line: &str| {
        let line = line.trim_start();
        line.starts_with("param ") || line.starts_with("shared param ")
    };
    file.is_some_and(|file| !file.text.lines().any(is_param))
}

#[test]
fn every_method_of_the_library_is_proved() {
    let rows = library_rows();
    for row in &rows {
        // What must hold for each method that has a lowering at this kind of layer at all.
        if matches!(verdict(row, "batch"), Verdict::Skipped(why) if why.contains("cannot be adapted"))
        {
            continue;
        }
        for check in ["gradient", "reached", "alive", "runtime", "base", "batch"] {
            let found = verdict(row, check);
            let of_training = ["gradient", "reached", "alive"].contains(&check);
            if of_training && is_frozen(row) {
                assert!(matches!(found, Verdict::Skipped(_)), "{}", row.method);
                continue;
            }
            assert!(
                matches!(found, Verdict::Holds(_)),
                "{} at {}: {check} is {found:?}",
                row.method,
                row.kind
            );
        }
    }
    // Each check has something to say, and no method hides behind a reason.
    for check in CHECKS {
        let holds = |row: &&Row| matches!(verdict(row, check.name), Verdict::Holds(_));
        assert!(
            rows.iter().filter(holds).count() > LIBRARY.len() / 2,
            "{}",
            check.name
        );
    }
    for file in LIBRARY {
        let is_own = |row: &&Row| {
            row.method.split('(').next() == Some(file.name)
                && (is_frozen(row) || matches!(verdict(row, "gradient"), Verdict::Holds(_)))
        };
        assert!(rows.iter().any(|row| is_own(&row)), "{}", file.name);
    }
}

#[test]
fn a_method_with_faults_fails_its_proofs() {
    let (table, text) = proved(
        "method stuck(rank: int = 2) on linear {
  param A : [rank, in]  = zeros
  param B : [out, rank] = zeros

  forward(x, y) { y + x @ A.T @ B.T }
}

method deaf() on linear {
  param c : [out] = zeros
  param d : [out] = ones

  forward(x, y) { y + c + 0 * stop_gradient(d) }
}
",
        false,
    );
    assert!(matches!(
        verdict(&table.rows[0], "alive"),
        Verdict::Fails { .. }
    ));
    assert!(matches!(verdict(&table.rows[0], "merge"), Verdict::Holds(error) if *error > 0.0));
    assert!(matches!(
        verdict(&table.rows[1], "reached"),
        Verdict::Fails { .. }
    ));
    assert!(matches!(
        verdict(&table.rows[0], "runtime"),
        Verdict::Skipped(_)
    ));
    assert_eq!(
        text.matches("E0350").count(),
        table.count(|v| matches!(v, Verdict::Fails { .. }))
    );
}

#[test]
fn what_is_claimed_is_measured_and_what_is_not_is_told() {
    let (table, _) = proved(
        "use std::{lora, ia3, dynamic_lora}
method pooled(rank: int = 2) on linear {
  param A : [rank, in]  = kaiming_uniform(a = 1)
  param B : [out, rank] = normal()

  forward(x, y) { y + mean(x, over = tokens) @ A.T @ B.T }
}
",
        false,
    );
    let row = |method: &str| {
        let found = table.rows.iter().find(|row| row.method == method);
        found.unwrap_or_else(|| panic!("{method}"))
    };
    let holds =
        |method: &str, check: &str| matches!(verdict(row(method), check), Verdict::Holds(_));
    for (method, check, expected) in [
        ("lora", "sum", true),
        ("ia3", "sum", false),
        ("pooled", "start", false),
        ("pooled", "padding", false),
        ("pooled", "prefix", false),
        ("pooled", "cache", false),
        ("pooled", "merge", false),
        ("pooled", "batch", true),
        ("dynamic_lora(pool = \"causal_mean\")", "prefix", true),
        ("dynamic_lora(pool = \"causal_mean\")", "cache", false),
        ("dynamic_lora(pool = \"masked_mean\")", "padding", true),
        ("dynamic_lora", "padding", false),
    ] {
        assert_eq!(holds(method, check), expected, "{check} of {method}");
    }
}

/// The program with these arguments, in a folder; its exit status and what it wrote to stdout.
fn peftc(arguments: &[&str], folder: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

#[test]
fn a_new_method_is_proved_formatted_and_described() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["linear", "conv", "embedding", "norm"] {
        let (name, file) = (format!("my_{kind}"), format!("my_{kind}.peft"));
        let (status, _) = peftc(&["new", "method", &name, "--on", kind], folder.path());
        assert_eq!(status, Some(0), "{kind}");
        let (status, text) = peftc(&["test", &file, "--reference-only"], folder.path());
        assert_eq!(status, Some(0), "{kind}: {text}");
        let (status, _) = peftc(&["fmt", "--check", &file], folder.path());
        assert_eq!(status, Some(0), "{kind}");
        let (_, text) = peftc(&["docs", &file], folder.path());
        assert!(text.contains(&format!("## `{name}`")), "{text}");
        assert!(text.contains("| yes | yes | yes | yes |"), "{text}");
    }
    // What is there is not written over, and a name must be one.
    let (status, _) = peftc(&["new", "method", "my_linear"], folder.path());
    assert_eq!(status, Some(2));
    let (status, _) = peftc(&["new", "method", "a-b"], folder.path());
    assert_eq!(status, Some(1));
    assert!(!folder.path().join("a-b.peft").exists());
}

#[test]
fn proofs_are_test_cases_and_failures_have_an_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "use std::lora
method stuck() on linear {
  param a : [1, in]  = zeros
  param b : [out, 1] = zeros

  forward(x, y) { y + x @ a.T @ b.T }
}
";
    std::fs::write(folder.path().join("a.peft"), spec).unwrap();
    let (status, text) = peftc(
        &["test", "a.peft", "--reference-only", "--format", "junit"],
        folder.path(),
    );
    assert_eq!(status, Some(1));
    assert_eq!(text.matches("<testcase").count(), CHECKS.len());
    assert_eq!(text.matches("<failure").count(), 1);
    let (_, text) = peftc(
        &["test", "a.peft", "--reference-only", "--format", "json"],
        folder.path(),
    );
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["proofs"][0]["checks"]["alive"]["verdict"], "fails");
    assert_eq!(json["exit_status"], 1);
}

#[test]
fn methods_are_proved_at_the_sizes_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "use std::lora\nadapter a { adapt \"q_proj\", \"down_proj\" with lora(rank = 3) }\n";
    std::fs::write(folder.path().join("a.peft"), spec).unwrap();
    let model = crate::adapters::model("llama.ts");
    let model = model.display().to_string();
    let arguments = ["test", "a.peft", "--model", &model, "--format", "json"];
    let (status, text) = peftc(&arguments, folder.path());
    assert_eq!(status, Some(0), "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = json["proofs"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{text}");
    assert!(rows.iter().all(|row| row["method"] == "lora(rank = 3)"));
}

#[test]
fn the_page_of_the_library_is_what_the_library_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("grammar/LIBRARY.md");
    let (status, text) = peftc(&["docs", "std"], Path::new("."));
    assert_eq!(status, Some(0));
    if std::env::var_os("PEFTC_UI").is_some_and(|value| value == "update") {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == text,
        "`peftc docs std > grammar/LIBRARY.md` writes it anew"
    );
}
