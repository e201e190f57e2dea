//! The ONNX project's own checker over adapted models: it accepts what it accepted before.
//!
//! The checker is the PyPI package `onnx`, see [`python`].

use crate::adapters::{compiled, fixtures};
use crate::python;
use peftc::diag::Sink;
use peftc::onnx;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGE: &str = "onnx==1.23.2";

/// Fixtures whose exporter's own output the checker or strict inference refuses, with the words
/// that it uses.
const REFUSED: &[(&str, &str, &str)] = &[
    ("llama.genai_fp32", "checker", CONTRIB),
    ("llama.genai_fp32", "inference", STALE),
    ("llama.genai_int4", "checker", CONTRIB),
    ("llama.genai_int4", "inference", STALE),
    ("llama.genai_int4_qdq", "checker", CONTRIB),
    ("llama.genai_int4_qdq", "inference", STALE),
];
/// ONNX Runtime registers it in the default domain; ONNX does not.
const CONTRIB: &str = "No Op registered for SimplifiedLayerNormalization";
/// The GenAI builder states scalars for constants with one axis.
const STALE: &str = "Inferred shape and existing shape differ in rank: (1) vs (0)";

/// Objections by path and kind of check.
fn objections(paths: &[&Path]) -> BTreeMap<String, Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/checker.py");
    let mut python = python::with(&[PACKAGE])
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let list = serde_json::to_vec(paths).unwrap();
    python.stdin.take().unwrap().write_all(&list).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the script ends well");
    serde_json::from_slice(&output.stdout).expect("the script writes JSON")
}

/// Every model of the fixtures with its short name.
pub(crate) fn models() -> Vec<(String, PathBuf)> {
    let folder = fixtures().join("models");
    let mut found = vec![(
        "quickstart".to_owned(),
        fixtures().join("quickstart/model.onnx"),
    )];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(name) = file.strip_suffix(".onnx") {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    found
}

/// The model with LoRA wherever it has a site for it; a model without named sites as written again.
pub(crate) fn adapted(name: &str, path: &Path, folder: &Path) -> PathBuf {
    let target = match name {
        // Convolutions with groups have no matrix product with a parameter.
        _ if name.starts_with("convnet.") => "\"{stem,layer1.*.conv1}\"",
        "synthetic.if" => return adapted_in_branches(path, folder),
        "llama.dynamo_ortbasic" | "synthetic.function_attributes" => {
            let mut sink = Sink::new();
            let imported = onnx::import(path, &mut sink).unwrap();
            let written = folder.join("model.onnx");
            onnx::save(&imported.model, &written, &mut sink).unwrap();
            return written;
        }
        _ => "all linear",
    };
    let spec = format!("use std::lora\nadapter a {{\n  adapt {target} with lora(rank = 4)\n}}\n");
    compiled(&spec, path, None, folder)
}

/// LoRA inside the branches of an `If`, whose layers get their names from a map.
fn adapted_in_branches(path: &Path, folder: &Path) -> PathBuf {
    let (spec, names) = (folder.join("a.peft"), folder.join("names.json"));
    let text = "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 4)\n}\n";
    std::fs::write(&spec, text).unwrap();
    let modules = serde_json::json!({"else_y": "proj", "else_s": "side", "then_out": "proj"});
    let map = serde_json::json!({"schema_version": 1, "modules": modules});
    std::fs::write(&names, map.to_string()).unwrap();
    let mut compile = Command::new(env!("CARGO_BIN_EXE_peftc"));
    compile.arg("compile").args([&spec, path]);
    let status = compile.arg("--names").arg(names).arg("-o").arg(folder);
    assert!(status.stdout(Stdio::null()).status().unwrap().success());
    folder.join("model.onnx")
}

#[test]
fn the_checker_accepts_every_adapted_model_that_it_accepts_as_a_base() {
    let folder = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for (name, base) in models() {
        let place = folder.path().join(&name);
        std::fs::create_dir(&place).unwrap();
        let adapted = adapted(&name, &base, &place);
        pairs.push((name, base, adapted));
    }
    let paths: Vec<&Path> = pairs
        .iter()
        .flat_map(|(_, base, adapted)| [base.as_path(), adapted.as_path()])
        .collect();
    let found = objections(&paths);
    let objection = |path: &Path, check: &str| found[&*path.to_string_lossy()][check].clone();
    let mut faults = Vec::new();
    let mut refused = Vec::new();
    let mut accepted = BTreeMap::from([("checker", 0), ("inference", 0)]);
    for (name, base, adapted) in &pairs {
        for check in ["checker", "inference"] {
            let (before, after) = (objection(base, check), objection(adapted, check));
            if let Some(words) = before.as_str() {
                refused.push((name.as_str(), check, words.to_owned()));
            } else if let Some(words) = after.as_str() {
                faults.push(format!("{name}: {check}: {words}"));
            } else {
                *accepted.get_mut(check).unwrap() += 1;
            }
        }
    }
    eprintln!("accepted: {accepted:?} of {}", pairs.len());
    assert!(faults.is_empty(), "{faults:#?}");
    let known = |(name, check, words): &(&str, &str, String)| {
        let entry = REFUSED.iter().find(|(n, c, _)| n == name && c == check);
        entry.is_some_and(|(_, _, start)| words.contains(start))
    };
    let new: Vec<_> = refused.iter().filter(|one| !known(one)).collect();
    assert!(new.is_empty(), "refused as exported: {new:#?}");
    assert_eq!(
        refused.len(),
        REFUSED.len(),
        "accepted now: shorten the list"
    );
}
