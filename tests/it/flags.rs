//! Flags of a model that training graphs have fixed.

use crate::adapters::model;
use onnx_protobuf::{ModelProto, TensorProto};
use protobuf::Message;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const SPEC: &str = "use std::lora\nadapter a { adapt \"*.q\" with lora(rank = 1) }\n";

/// Compiles training graphs of a merged decoder, and reads the manifest if that succeeds.
fn compiled(more: &[&str]) -> (Output, Option<Value>) {
    compiled_from(&model("t5.optimum_merged"), SPEC, more)
}

fn compiled_from(model: &Path, spec_text: &str, more: &[&str]) -> (Output, Option<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("a.peft");
    std::fs::write(&spec, spec_text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("compile")
        .arg(&spec)
        .arg(model)
        .arg("--train")
        .args(more)
        .arg("-o")
        .arg(folder.path().join("out"))
        .output()
        .expect("peftc starts");
    let text = std::fs::read_to_string(folder.path().join("out/manifest.json"));
    let manifest = text.map(|text| serde_json::from_str(&text).unwrap());
    (output, manifest.ok())
}

/// The names of a graph's inputs that are no parameters.
fn inputs(manifest: &Value, graph: &str) -> Vec<String> {
    let all = manifest["graphs"][graph]["inputs"].as_array().unwrap();
    let names = all.iter().filter(|port| port["role"] == "input");
    let mut names: Vec<String> = names
        .map(|port| port["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a_branch_is_trained_only_when_its_flag_is_fixed() {
    let (output, manifest) = compiled(&[]);
    assert!(!output.status.success() && manifest.is_none());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("`--specialize"), "{words}");
}

#[test]
fn a_fixed_flag_is_no_input_and_neither_is_what_only_the_other_branch_reads() {
    let (_, manifest) = compiled(&["--specialize", "use_cache_branch=false"]);
    let manifest = manifest.unwrap();
    for graph in ["step", "grad", "eval"] {
        let own = [
            "encoder_attention_mask",
            "encoder_hidden_states",
            "input_ids",
        ];
        assert_eq!(inputs(&manifest, graph), own, "{graph}");
    }
    let (_, manifest) = compiled(&["--specialize", "use_cache_branch=true"]);
    let with_cache = inputs(&manifest.unwrap(), "grad");
    let is_cache = |name: &&String| name.starts_with("past_key_values.");
    // Those of the decoder are empty, those of the encoder are its output.
    assert_eq!(with_cache.iter().filter(is_cache).count(), 4);
    assert!(!with_cache.contains(&"use_cache_branch".to_owned()));
}

#[test]
fn a_branch_that_a_constant_decides_needs_no_flag() {
    let spec = "use std::lora\nadapter a { adapt \"proj\" with lora(rank = 1) }\n";
    let task = ["--task", "token-classification"];
    let plain = model("synthetic.if");
    let (output, _) = compiled_from(&plain, spec, &task);
    assert!(!output.status.success());

    let mut proto = ModelProto::parse_from_bytes(&std::fs::read(plain).unwrap()).unwrap();
    let graph = proto.graph.as_mut().unwrap();
    graph.input.retain(|input| input.name != "flag");
    graph.initializer.push(TensorProto {
        name: "flag".to_owned(),
        data_type: 9,
        raw_data: vec![1],
        ..TensorProto::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let decided = folder.path().join("decided.onnx");
    std::fs::write(&decided, proto.write_to_bytes().unwrap()).unwrap();
    let (_, manifest) = compiled_from(&decided, spec, &task);
    assert_eq!(inputs(&manifest.unwrap(), "grad"), ["x"]);
}
