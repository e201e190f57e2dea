//! Roles against the torch modules that the fixtures' generator records: not one may be wrong.

use crate::adapters::model;
use crate::inspect::{inspect, is_call_of, truths};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What a torch module does, by the last part of its path and the part in front.
fn role(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.rsplit('.').collect();
    let (name, owner) = (parts[0], parts.get(1).copied().unwrap_or(""));
    Some(match (name, owner) {
        ("q_proj" | "query" | "q", _) => "q",
        ("k_proj" | "key" | "k", _) => "k",
        ("v_proj" | "value" | "v", _) => "v",
        ("o_proj" | "o", _) | ("c_proj", "attn") => "o",
        // BERT's and ViT's: attention.output.dense, intermediate.dense, output.dense.
        ("dense", "output") if parts.get(2) == Some(&"attention") => "o",
        ("dense", "intermediate") | ("wi" | "c_fc", _) => "fc1",
        ("dense", "output") | ("wo", _) | ("c_proj", "mlp") => "fc2",
        ("gate_proj", _) => "gate",
        ("up_proj", _) => "up",
        ("down_proj", _) => "down",
        ("lm_head" | "classifier" | "fc", _) => "head",
        _ => return None,
    })
}

/// Modules that have a role in torch and none here, as `fixture: last part of the path`.
const WITHOUT: &[&str] = &[
    // Query, key and value are one node.
    "llama.genai_fp32: k_proj",
    "llama.genai_fp32: q_proj",
    "llama.genai_fp32: v_proj",
    "llama.genai_int4: k_proj",
    "llama.genai_int4: q_proj",
    "llama.genai_int4: v_proj",
    "llama.genai_int4_qdq: k_proj",
    "llama.genai_int4_qdq: q_proj",
    "llama.genai_int4_qdq: v_proj",
    // The decoder lies in the branches of an If.
    "t5.optimum_merged: k",
    "t5.optimum_merged: lm_head",
    "t5.optimum_merged: o",
    "t5.optimum_merged: q",
    "t5.optimum_merged: v",
    "t5.optimum_merged: wi",
    "t5.optimum_merged: wo",
];

#[test]
fn no_layer_has_a_wrong_role() {
    let mut right = 0;
    let mut without = BTreeSet::new();
    for (fixture, modules) in truths() {
        let value = inspect(&model(&fixture), &[]);
        let rows = value["modules"].as_array().unwrap();
        for row in rows {
            let module = modules.iter().find(|module| is_call_of(row, module));
            let path = module.map_or("", |module| module["path"].as_str().unwrap());
            match (role(path), row["role"].as_str()) {
                (None, None) => {}
                (wanted, found) if wanted == found => right += 1,
                (Some(_), None) => {
                    let name = path.rsplit('.').next().unwrap();
                    without.insert(format!("{fixture}: {name}"));
                }
                (_, found) => panic!("{fixture}: {path} is called {found:?}"),
            }
        }
    }
    assert!(right > 250, "{right}");
    let without: Vec<&str> = without.iter().map(String::as_str).collect();
    assert_eq!(without, WITHOUT);
}

/// In a model without names, a layer's role is that of the module whose weight it reads.
#[test]
fn roles_of_nameless_layers_agree_with_their_values() {
    let path = model("llama.dynamo_ortbasic");
    let checkpoint = crate::values::checkpoint();
    let by_role = inspect(&path, &[]);
    let by_value = inspect(&path, &["--weights", checkpoint.to_str().unwrap()]);
    let modules = by_value["modules"].as_array().unwrap();
    let named: BTreeMap<&str, &str> = modules
        .iter()
        .map(|row| {
            (
                row["output"].as_str().unwrap(),
                row["path"].as_str().unwrap(),
            )
        })
        .collect();
    let mut blocks = 0;
    for row in by_role["unnamed"].as_array().unwrap() {
        let Some(found) = row["role"].as_str() else {
            continue;
        };
        let module = named[row["output"].as_str().unwrap()];
        assert_eq!(role(module), Some(found), "{module}");
        let block: String = module.chars().filter(char::is_ascii_digit).collect();
        if found != "head" {
            assert_eq!(row["block"].to_string(), block, "{module}");
        }
        blocks += 1;
    }
    assert_eq!(blocks, 15);
}

/// The plan of a spec for a fixture, and whether it succeeded.
fn plan(fixture: &str, target: &str) -> (bool, Value) {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("a.peft");
    let (target, except) = target.split_once(" except ").unwrap_or((target, ""));
    let except = match except {
        "" => String::new(),
        _ => format!(" except {except}"),
    };
    let text =
        format!("use std::lora\nadapter a {{ adapt {target} with lora(rank = 2){except} }}\n");
    std::fs::write(&spec, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("plan")
        .arg(&spec)
        .arg("--model")
        .arg(model(fixture))
        .args(["--format", "json"])
        .output()
        .expect("peftc starts");
    let value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON value");
    (output.status.success(), value)
}

fn trainable(fixture: &str, target: &str) -> i64 {
    let (success, value) = plan(fixture, target);
    assert!(success, "{target}: {value}");
    value["plans"][0]["trainable"].as_i64().expect("a count")
}

#[test]
fn a_role_selects_what_its_pattern_selects() {
    let pairs = [
        ("role(q), role(v)", "\"self_attn.{q,v}_proj\""),
        ("role(head)", "\"lm_head\""),
        (
            "all linear except role(down)",
            "all linear except \"**.down_proj\"",
        ),
        ("role(gate) except role(up)", "\"**.gate_proj\""),
    ];
    for (role, pattern) in &pairs[..3] {
        assert_eq!(
            trainable("llama.dynamo", role),
            trainable("llama.dynamo", pattern),
            "{role}"
        );
    }
    assert_eq!(
        trainable("llama.dynamo_ortbasic", pairs[0].0),
        trainable("llama.dynamo", pairs[0].1)
    );
    // An exclusion that excludes nothing is an error for roles, too.
    assert!(!plan("llama.dynamo", pairs[3].0).0);
}

/// What has its path by its role is selected by roles alone.
#[test]
fn patterns_and_all_do_not_see_paths_by_role() {
    for target in ["\"attention.0.q\"", "\"**\"", "all linear"] {
        let (success, value) = plan("llama.dynamo_ortbasic", target);
        // Embeddings and norms of the model have names, so `**` matches; lora refuses norms.
        assert!(!success, "{target}: {value}");
    }
}

#[test]
fn the_language_knows_every_role() {
    let roles: Vec<&str> = peftc::modules::Role::ALL
        .iter()
        .map(|role| role.name())
        .collect();
    assert_eq!(roles, peftc::hir::ROLES);
}
