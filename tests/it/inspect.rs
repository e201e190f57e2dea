//! `peftc inspect` against the ground truth that the fixtures' generator records.

use crate::adapters::{fixtures, model};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

/// What `peftc inspect MODEL --format json` prints.
pub(crate) fn inspect(model: &Path, more: &[&str]) -> Value {
    let Output { status, stdout, .. } = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("inspect")
        .arg(model)
        .args(["--format", "json"])
        .args(more)
        .output()
        .expect("peftc starts");
    let value = serde_json::from_slice(&stdout).expect("stdout is one JSON value");
    assert!(status.success(), "{value}");
    value
}

fn rows<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().expect("an array")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().expect("a string")
}

/// Every fixture with a ground truth: its name and the modules that its file holds.
pub(crate) fn truths() -> Vec<(String, Vec<Value>)> {
    let mut truths: Vec<(String, Vec<Value>)> = std::fs::read_dir(fixtures().join("models"))
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?.strip_suffix(".modules.json")?;
            let truth: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let modules = rows(&truth, "modules").iter();
            let held = modules.filter(|m| m["present"] == true);
            Some((name.to_owned(), held.cloned().collect()))
        })
        .collect();
    truths.sort_by(|a, b| a.0.cmp(&b.0));
    truths
}

/// Whether a row is a call of the module.
pub(crate) fn is_call_of(row: &Value, module: &Value) -> bool {
    let path = &module["path"];
    row["kind"] == module["kind"]
        && (row["path"] == *path || rows(row, "aliases").iter().any(|alias| alias == path))
}

/// The layout that a row must have for what the ground truth says of the stored weight.
fn layout(module: &Value, stored: &str) -> Option<&'static str> {
    match (text(module, "kind"), text(module, "class"), stored) {
        (_, _, "quantized") => None,
        ("conv", _, _) => Some("out_in_kernel"),
        (_, "Conv1D", "torch") | (_, "Linear" | "Embedding", "transposed") => Some("in_out"),
        _ => Some("out_in"),
    }
}

fn check_row(fixture: &str, module: &Value, row: &Value) {
    let context = format!("{fixture}: {module}\nhas {row}");
    for key in ["in_features", "out_features"] {
        assert_eq!(row[key], module[key], "{key}: {context}");
    }
    let columns = module.get("columns").cloned().unwrap_or(Value::Null);
    assert_eq!(row["slice"], columns, "{context}");

    let stored = rows(module, "initializers");
    let stored = stored.iter().find(|i| i["name"] == row["weight"]);
    let stored = text(stored.expect(&context), "layout");
    match layout(module, stored) {
        Some(layout) => assert_eq!(row["layout"], layout, "{context}"),
        None => assert_eq!(row["quantization"]["bits"], 4, "{context}"),
    }
    assert_eq!(
        row["quantization"].is_null(),
        stored != "quantized",
        "{context}"
    );

    let node = rows(module, "nodes")
        .iter()
        .find(|node| node["name"] == row["node"]);
    assert_eq!(node.expect(&context)["op_type"], op_type(row), "{context}");
    // Folding a batch normalization gives a convolution a bias.
    if stored != "folded" {
        assert_eq!(row["bias"].is_null(), module["bias"] == false, "{context}");
    }
}

/// The operator's name without its domain.
fn op_type(row: &Value) -> &str {
    let op = text(row, "op_type");
    op.rsplit_once(':').map_or(op, |(_, name)| name)
}

#[test]
fn every_call_has_the_sizes_and_the_layout_of_its_module() {
    let mut checked = 0;
    for (fixture, modules) in truths() {
        if fixture == "llama.dynamo_ortbasic" {
            continue; // Without names: see the tests of name maps and of weights.
        }
        let found = inspect(&model(&fixture), &[]);
        assert_eq!(found["unnamed"], json!([]), "{fixture}");
        for module in modules.iter().filter(|module| module["kind"] != "norm") {
            let calls: Vec<&Value> = rows(&found, "modules")
                .iter()
                .filter(|row| is_call_of(row, module))
                .collect();
            for row in &calls {
                check_row(&fixture, module, row);
            }
            if module["tied_with"].is_null() {
                let nodes = rows(module, "nodes").iter();
                let expected: u64 = nodes.map(|node| node["count"].as_u64().unwrap()).sum();
                assert_eq!(calls.len() as u64, expected, "{fixture}: {module}");
            }
            assert!(!calls.is_empty(), "{fixture}: {module}");
            checked += calls.len();
        }
    }
    assert!(checked > 300, "{checked} calls");
}

#[test]
fn rows_have_the_documented_fields() {
    let found = inspect(&model("llama.genai_int4"), &[]);
    let k_proj = rows(&found, "modules")
        .iter()
        .find(|row| row["path"] == "model.layers.0.self_attn.k_proj");
    let expected = json!({
        "path": "model.layers.0.self_attn.k_proj",
        "kind": "linear",
        "node": "/model/layers.0/attn/qkv_proj/MatMul_Q4",
        "output": "/model/layers.0/attn/qkv_proj/MatMul/output_0",
        "op_type": "com.microsoft:MatMulNBits",
        "weight": "model.layers.0.attn.qkv_proj.MatMul.weight_Q4",
        "in_features": 64,
        "out_features": 32,
        "layout": "out_in",
        "bias": null,
        "slice": [128, 160],
        "quantization": {"op_type": "MatMulNBits", "bits": 4, "block_size": 32},
        "aliases": [],
        "shared_with": [],
        "source": "node_path",
        "role": null,
        "block": null,
        "disagreements": [],
    });
    assert_eq!(k_proj, Some(&expected));
}

#[test]
fn a_weight_of_an_enclosing_graph_has_its_own_name() {
    let found = inspect(&model("t5.optimum_merged"), &[]);
    let table = rows(&found, "modules")
        .iter()
        .find(|row| row["path"] == "decoder.embed_tokens")
        .expect("the table");
    assert_eq!(table["weight"], "shared.weight_merged_0");
    assert_eq!(table["shared_with"], json!(["lm_head"]));
}

#[test]
fn an_unnamed_call_is_listed_with_its_node_and_output() {
    let found = inspect(&model("llama.dynamo_ortbasic"), &[]);
    let row = rows(&found, "unnamed")
        .iter()
        .find(|row| row["node"] == "node_linear_4")
        .expect("the gate projection");
    assert_eq!(row["output"], "linear_4");
    assert_eq!((&row["path"], &row["source"]), (&json!(""), &json!("none")));
    assert!(!text(row, "because").is_empty());
}

#[test]
fn what_other_rungs_say_is_reported() {
    let found = inspect(&model("convnet.dynamo"), &[]);
    let stem = &rows(&found, "modules")[0];
    assert_eq!(
        (text(stem, "path"), text(stem, "source")),
        ("stem", "weight_name")
    );
    let told = json!([{"source": "name_scopes", "path": "norm"}]);
    assert_eq!(stem["disagreements"], told);

    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("inspect")
        .arg(model("convnet.dynamo"))
        .output()
        .expect("peftc starts");
    let drawn = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        drawn.contains("10 modules, named by name_scopes (1), weight_name (9)"),
        "{drawn}"
    );
    assert!(drawn.contains("name_scopes says norm"), "{drawn}");
}

#[test]
fn written_names_name_the_model_again_after_a_tool_has_dropped_them() {
    let folder = tempfile::tempdir().unwrap();
    let names = folder.path().join("peft.names.json");
    let names = names.to_str().expect("UTF-8");
    let before = inspect(&model("llama.dynamo"), &["--write-names", names]);
    let stripped = model("llama.dynamo_ortbasic");
    assert!(!rows(&inspect(&stripped, &[]), "unnamed").is_empty());
    let after = inspect(&stripped, &["--names", names]);
    assert_eq!(after["unnamed"], json!([]));

    let calls = |found: &Value| -> Vec<(String, String, Value)> {
        let call = |row: &Value| {
            let field = |key| text(row, key).to_owned();
            (field("path"), field("output"), row["kind"].clone())
        };
        let mut calls: Vec<_> = rows(found, "modules").iter().map(call).collect();
        calls.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        calls
    };
    assert_eq!(calls(&before), calls(&after));
    assert!(
        rows(&after, "modules")
            .iter()
            .all(|row| row["source"] == "map")
    );
}

#[test]
fn the_names_of_every_fixture_are_read_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    for (fixture, _) in truths() {
        let (first, second) = (path("first.json"), path("second.json"));
        let before = inspect(&model(&fixture), &["--write-names", &first]);
        let more = ["--names", &first, "--write-names", &second];
        let after = inspect(&model(&fixture), &more);
        for (a, b) in rows(&before, "modules").iter().zip(rows(&after, "modules")) {
            assert_eq!((&a["path"], &a["aliases"]), (&b["path"], &b["aliases"]));
        }
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&first), read(&second), "{fixture}");
    }
}

/// The modules that an `adapt` statement means, as `peftc plan` has them.
fn meant(fixture: &str, target: &str, except: &str) -> Vec<String> {
    planned(fixture, target, except, &[]).0
}

/// The modules, and what `peftc plan` prints for people.
fn planned(fixture: &str, target: &str, except: &str, more: &[&str]) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("spec.peft");
    let text =
        format!("use std::lora\nadapter a {{\n  adapt {target} with lora(rank = 4) {except}\n}}\n");
    std::fs::write(&spec, text).unwrap();
    let plan = |format: &str| -> Output {
        Command::new(env!("CARGO_BIN_EXE_peftc"))
            .arg("plan")
            .arg(&spec)
            .args(["--format", format])
            .args(more)
            .arg("--model")
            .arg(model(fixture))
            .output()
            .expect("peftc starts")
    };
    let output = plan("json");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{found}");
    let groups = rows(&found["plans"][0], "groups").iter();
    let paths = groups.flat_map(|group| rows(group, "paths"));
    let paths = paths.map(|path| path.as_str().unwrap().to_owned());
    let human = plan("human");
    assert!(human.status.success());
    (paths.collect(), String::from_utf8(human.stdout).unwrap())
}

#[test]
fn another_path_of_a_module_is_a_target_like_its_own() {
    let both = ["encoder.embed_tokens", "decoder.embed_tokens"];
    for fixture in ["t5.dynamo", "t5.ts"] {
        assert_eq!(meant(fixture, "\"shared\"", ""), both, "{fixture}");
        let own = meant(fixture, "\"encoder.embed_tokens\"", "");
        assert_eq!(own, both[..1], "{fixture}");
        let rest = meant(fixture, "all embedding", "except \"shared\"");
        assert_eq!(rest.len(), 2, "{fixture}: {rest:?}");
        assert!(rest.iter().all(|path| !both.contains(&path.as_str())));
    }
    let path = "encoder.block.0.layer.0.SelfAttention.q";
    for target in [
        "\"block.0.layer.0.SelfAttention.q\"",
        "regex \"block[.]0.*Self.*[.]q\"",
        "\"encoder.block.0.**.q\"",
    ] {
        assert_eq!(meant("t5.optimum_encoder", target, ""), [path], "{target}");
    }
}

#[test]
fn a_path_of_any_length_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let names = folder.path().join("names.json");
    let path = vec!["a"; 70_000].join(".");
    let map = json!({"schema_version": 1, "modules": {"linear_1": path}});
    std::fs::write(&names, map.to_string()).unwrap();
    let stripped = model("llama.dynamo_ortbasic");
    let more = ["--names", names.to_str().expect("UTF-8")];
    let found = inspect(&stripped, &more);
    assert_eq!(rows(&found, "modules")[2]["path"], path);
    let (paths, human) = planned("llama.dynamo_ortbasic", "\"a.a\"", "", &more);
    assert!(paths == [path.as_str()]);
    assert!(human.contains(&path));
}

#[test]
fn nothing_but_the_modules_of_the_torch_model_is_listed() {
    for (fixture, modules) in truths() {
        let found = inspect(&model(&fixture), &[]);
        for row in rows(&found, "modules") {
            let known = modules.iter().any(|module| is_call_of(row, module));
            assert!(known, "{fixture}: {row}");
        }
        for module in modules.iter().filter(|module| module["kind"] == "norm") {
            let mut found = rows(&found, "modules").iter();
            assert!(
                found.any(|row| is_call_of(row, module)),
                "{fixture}: {module}"
            );
        }
    }
}
