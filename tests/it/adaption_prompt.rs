//! LLaMA-Adapter against PEFT's (`fixtures/peft/make_adaption_prompt.py`): outputs and gradients.

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::differentiated::{execute, length, project, reads, trained, with_exact};
use crate::recorded::{exports, push_empty_caches};
use crate::reference::array;
use crate::tolerances::{
    GRADIENT_RECORDED, GRADIENT_SINGLE, RECORDED_RELATIVE, START_ABSOLUTE, START_ABSOLUTE_F16,
};
use peftc::reference::Array;
use peftc::runtime::{HostTensor, NamedTensors, Optimization};
use peftc::ty::DType;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const CASES: &[&str] = &[
    "llama.adaption_prompt",
    "llama.adaption_prompt_top",
    "gpt2.adaption_prompt",
];

fn file(case: &str) -> PathBuf {
    fixtures().join(format!("peft/{case}.safetensors"))
}

/// The same adapter as a spec. PEFT counts layers from the top.
fn spec(case: &str) -> String {
    let text = std::fs::read_to_string(file(case).with_extension("json")).unwrap();
    let about: Value = serde_json::from_str(&text).unwrap();
    let number = |name: &str| about["config"][name].as_i64().unwrap();
    let (tokens, first) = (number("adapter_len"), 2 - number("adapter_layers"));
    let (path, more) = match case.starts_with("gpt2") {
        true => (
            format!("h.{{{first}..1}}.attn.c_proj"),
            ", keys = \".c_attn\", values = \".c_attn\", project = false",
        ),
        false => (format!("layers.{{{first}..1}}.self_attn.o_proj"), ""),
    };
    format!(
        "use std::adaption_prompt\nadapter a {{\n  adapt \"{path}\" with adaption_prompt(tokens = {tokens}{more})\n}}\n"
    )
}

/// PEFT's tensors under the names of the adapter: those of the attention are those of its last layer.
fn ours(theirs: &NamedTensors) -> NamedTensors {
    let mut found = NamedTensors::default();
    for (name, tensor) in theirs.iter() {
        let last = match name.contains(".self_attn.") {
            true => "o_proj",
            false => "c_proj",
        };
        if let Some(path) = name.strip_suffix(".adaption_prompt") {
            let values: Vec<f32> = tensor
                .to_f64s()
                .unwrap()
                .iter()
                .map(|v| *v as f32)
                .collect();
            let prompt = HostTensor::from_f32(&tensor.dims()[1..], &values);
            found.push(format!("{path}.{last}.P"), prompt);
        }
        if let Some(path) = name.strip_suffix(".adaption_gate") {
            found.push(format!("{path}.{last}.gate"), tensor.clone());
        }
    }
    found
}

/// What PEFT has trained, in a file.
fn values(case: &str, folder: &Path) -> PathBuf {
    let all = recorded(&file(case), "");
    let own = all
        .0
        .into_iter()
        .filter(|(name, _)| !name.contains("gradient."));
    let path = folder.join("values.safetensors");
    let values = ours(&NamedTensors(own.collect()));
    std::fs::write(&path, values.to_safetensors().unwrap()).unwrap();
    path
}

fn check(case: &str, export: &str, found: &HostTensor, wanted: &HostTensor) {
    let (difference, size) = distance(found, wanted);
    eprintln!("{case} on {export}: {:.1e}", difference / size);
    assert!(
        difference <= RECORDED_RELATIVE * size,
        "{case} on {export}: {difference:e} of {size:e}"
    );
}

#[test]
fn outputs_are_those_of_peft() {
    for case in CASES {
        let expected = recorded(&file(case), "output.");
        let family = case.split('.').next().unwrap();
        let past: &[&str] = match family {
            "llama" => &["llama.optimum_past"],
            _ => &[],
        };
        for export in exports(family).iter().chain(past) {
            let folder = tempfile::tempdir().unwrap();
            let values = values(case, folder.path());
            let adapted = compiled(&spec(case), &model(export), Some(&values), folder.path());
            let mut inputs = recorded(&file(case), "input.");
            if export.ends_with("_past") {
                push_empty_caches(&mut inputs);
                let positions: Vec<i64> = (0..2).flat_map(|_| 0..5).collect();
                inputs.push("position_ids", HostTensor::from_i64(&[2, 5], &positions));
            }
            let found = outputs(&adapted, &inputs);
            check(
                case,
                export,
                found.get("logits").unwrap(),
                expected.get("logits").unwrap(),
            );
        }
    }
}

/// Tokens `from..to` of the first row, with empty caches.
fn row(case: &str, from: usize, to: usize) -> NamedTensors {
    let all = recorded(&file(case), "input.");
    let mut inputs = NamedTensors::default();
    // The mask has earlier tokens, too.
    for (name, from) in [("input_ids", from), ("attention_mask", 0)] {
        let values = all.get(name).unwrap().to_f64s().unwrap();
        let row: Vec<i64> = values[from..to].iter().map(|value| *value as i64).collect();
        inputs.push(name, HostTensor::from_i64(&[1, row.len() as i64], &row));
    }
    for cache in ["0.key", "0.value", "1.key", "1.value"] {
        let empty = HostTensor::from_f32(&[1, 2, 0, 16], &[]);
        inputs.push(format!("past_key_values.{cache}"), empty);
    }
    inputs
}

/// Tokens `from..to` of what PEFT gives for the first row.
fn row_of_peft(case: &str, from: usize, to: usize) -> HostTensor {
    let expected = recorded(&file(case), "output.");
    let expected = expected.get("logits").unwrap().to_f64s().unwrap();
    let part = expected[from * 200..to * 200].iter();
    let part: Vec<f32> = part.map(|value| *value as f32).collect();
    HostTensor::from_f32(&[1, (to - from) as i64, 200], &part)
}

/// The operator of a whole attention turns its query inside, by positions that go on behind a cache.
#[test]
fn a_query_inside_of_an_operator_is_turned_as_there() {
    let (case, export) = ("llama.adaption_prompt", "llama.genai_fp32");
    let folder = tempfile::tempdir().unwrap();
    let values = values(case, folder.path());
    let adapted = compiled(&spec(case), &model(export), Some(&values), folder.path());
    let found = outputs(&adapted, &row(case, 0, 5));
    let all = row_of_peft(case, 0, 5);
    check(case, export, found.get("logits").unwrap(), &all);
    // A row that ends in padding begins at the first position, too.
    let mut inputs = recorded(&file(case), "input.");
    push_empty_caches(&mut inputs);
    let found = outputs(&adapted, &inputs);
    let found = found.get("logits").unwrap().to_f64s().unwrap();
    let tokens = |all: &[f64]| {
        let second: Vec<f32> = all[5 * 200..8 * 200].iter().map(|v| *v as f32).collect();
        HostTensor::from_f32(&[1, 3, 200], &second)
    };
    let expected = recorded(&file(case), "output.");
    let expected = expected.get("logits").unwrap().to_f64s().unwrap();
    check(case, export, &tokens(&found), &tokens(&expected));
    // In three calls.
    let mut earlier: Option<NamedTensors> = None;
    for (from, to) in [(0, 3), (3, 4), (4, 5)] {
        let mut inputs = row(case, from, to);
        if let Some(earlier) = &earlier {
            inputs.0.retain(|(name, _)| !name.starts_with("past"));
            for (name, tensor) in earlier.iter() {
                if let Some(place) = name.strip_prefix("present.") {
                    inputs.push(format!("past_key_values.{place}"), tensor.clone());
                }
            }
        }
        let found = outputs(&adapted, &inputs);
        let wanted = row_of_peft(case, from, to);
        check(case, export, found.get("logits").unwrap(), &wanted);
        earlier = Some(found);
    }
}

/// How far gradients are from those that are expected, relative to the length of one or of all.
fn compare(case: &str, found: &[Vec<f64>], wanted: &NamedTensors, bound: f64, of_all: bool) {
    let lengths: Vec<f64> = wanted
        .iter()
        .map(|(_, tensor)| length(&tensor.to_f64s().unwrap()))
        .collect();
    let all = length(&lengths);
    for (((name, wanted), found), own) in wanted.iter().zip(found).zip(&lengths) {
        let wanted = wanted.to_f64s().unwrap();
        assert_eq!(found.len(), wanted.len());
        let apart: Vec<f64> = found.iter().zip(&wanted).map(|(a, b)| a - b).collect();
        let (error, scale) = (length(&apart), if of_all { all } else { *own });
        eprintln!("{case}: {name} {:.1e}", error / scale);
        assert!(
            error <= bound * scale,
            "{case}: {name} is off by {error:e} of {scale:e}"
        );
    }
}

#[test]
fn gradients_are_those_of_peft() {
    for case in CASES {
        let own = recorded(&file(case), "");
        let own = own
            .0
            .into_iter()
            .filter(|(name, _)| !name.contains("gradient."));
        let values = ours(&NamedTensors(own.collect()));
        let expected = ours(&recorded(&file(case), "gradient."));
        assert!(expected.0.len() >= 2 && expected.0.len() == values.0.len());
        let mut inputs = recorded(&file(case), "input.");
        let weights = recorded(&file(case), "");
        inputs.push("projection", weights.get("projection").unwrap().clone());
        let models = match case.starts_with("gpt2") {
            true => ["gpt2.dynamo", "gpt2.ts"],
            false => ["llama.dynamo", "llama.ts"],
        };
        for name in models {
            let given = |parameter: &str, _: &[i64]| values.get(parameter).unwrap().clone();
            let trained = trained(name, &spec(case), project, given);
            let results: Vec<&str> = expected
                .iter()
                .map(|(parameter, _)| trained.gradients[parameter].as_str())
                .collect();
            let label = format!("{case} on {name}");
            let single = execute(&trained.path(), &inputs, Optimization::All);
            let single: Vec<Vec<f64>> = results
                .iter()
                .map(|output| single.get(output).unwrap().to_f64s().unwrap())
                .collect();
            compare(&label, &single, &expected, GRADIENT_SINGLE, false);
            with_exact(&trained.path(), |exact| {
                let given: Vec<(&str, Array)> =
                    inputs.iter().map(|(name, t)| (name, array(t))).collect();
                let found = exact.run(&given, &results);
                compare(&label, &found, &expected, GRADIENT_RECORDED, true);
            });
        }
    }
}

/// What flows back through the query of an operator is what flows through operators.
#[test]
fn gradients_flow_through_a_query_that_is_turned_inside() {
    let case = "llama.adaption_prompt";
    let own = recorded(&file(case), "");
    let own = own
        .0
        .into_iter()
        .filter(|(name, _)| !name.contains("gradient."));
    let values = ours(&NamedTensors(own.collect()));
    let mut inputs = row(case, 0, 5);
    let weights = recorded(&file(case), "");
    let weights = weights.get("projection").unwrap().to_f64s().unwrap();
    let weights: Vec<f32> = weights[..5 * 200].iter().map(|v| *v as f32).collect();
    inputs.push("projection", HostTensor::from_f32(&[1, 5, 200], &weights));
    let gradients = |name: &str| {
        let given = |parameter: &str, _: &[i64]| values.get(parameter).unwrap().clone();
        let trained = trained(name, &spec(case), project, given);
        let names: Vec<&str> = trained.gradients.values().map(String::as_str).collect();
        with_exact(&trained.path(), |exact| {
            let given: Vec<(&str, Array)> = inputs
                .iter()
                .filter(|(input, _)| reads(&trained.path(), input))
                .map(|(name, tensor)| (name, array(tensor)))
                .collect();
            exact.run(&given, &names)
        })
    };
    let (fused, plain) = (gradients("llama.genai_fp32"), gradients("llama.ts"));
    assert!(fused.len() == 4 && plain.len() == 4);
    for (fused, plain) in fused.iter().zip(&plain) {
        let apart: Vec<f64> = fused.iter().zip(plain).map(|(a, b)| a - b).collect();
        let (error, size) = (length(&apart), length(plain));
        eprintln!("{:.1e}", error / size);
        assert!(error <= GRADIENT_RECORDED * size, "{error:e} of {size:e}");
    }
}

/// Exports with the layers behind their attentions, and what makes keys and values.
const EXPORTS: &[(&str, &str, &str, &str)] = &[
    (
        "bert.dynamo",
        "attention.output.dense",
        "..self.key",
        "..self.value",
    ),
    (
        "bert.ts",
        "attention.output.dense",
        "..self.key",
        "..self.value",
    ),
    ("llama.dynamo_external", "o_proj", ".k_proj", ".v_proj"),
    ("llama.fp16.dynamo", "o_proj", ".k_proj", ".v_proj"),
    ("llama.genai_int4", "o_proj", ".k_proj", ".v_proj"),
    ("qwen2.dynamo", "o_proj", ".k_proj", ".v_proj"),
    ("qwen2.ts", "o_proj", ".k_proj", ".v_proj"),
    ("t5.dynamo", "EncDecAttention.o", ".k", ".v"),
    ("t5.optimum_encoder", "SelfAttention.o", ".k", ".v"),
    // In two branches.
    ("t5.optimum_merged", "SelfAttention.o", ".k", ".v"),
    ("t5.ts", "EncDecAttention.o", ".k", ".v"),
    (
        "vit.dynamo",
        "attention.output.dense",
        "..attention.key",
        "..attention.value",
    ),
    (
        "vit.ts",
        "attention.output.dense",
        "..attention.key",
        "..attention.value",
    ),
];

#[test]
fn attentions_of_all_exports_start_as_the_base_and_open_with_their_gates() {
    for (name, target, keys, values) in EXPORTS {
        let spec = format!(
            "use std::adaption_prompt\nadapter a {{\n  adapt \"{target}\" with adaption_prompt(tokens = 3, keys = \"{keys}\", values = \"{values}\")\n  expect identity at start\n}}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let adapted = compiled(&spec, &model(name), None, folder.path());
        let inputs = recorded(&model(name).with_extension("io.safetensors"), "input.");
        let base = outputs(&model(name), &inputs);
        let found = outputs(&adapted, &inputs);
        for (output, expected) in base.iter() {
            let (difference, _) = distance(found.get(output).unwrap(), expected);
            let bound = match expected.dtype() {
                DType::F16 => START_ABSOLUTE_F16,
                _ => START_ABSOLUTE,
            };
            assert!(
                difference <= bound,
                "{name}: `{output}` is off by {difference:e}"
            );
        }
        let open = recorded(&adapted.with_file_name("adapter.safetensors"), "");
        let open = open.0.into_iter().map(|(name, tensor)| {
            let gate = || HostTensor::from_f32(&[1], &[0.8]);
            let is_gate = name.ends_with(".gate");
            (name, if is_gate { gate() } else { tensor })
        });
        let file = folder.path().join("open.safetensors");
        let open = NamedTensors(open.collect()).to_safetensors().unwrap();
        std::fs::write(&file, open).unwrap();
        let adapted = compiled(&spec, &model(name), Some(&file), folder.path());
        let found = outputs(&adapted, &inputs);
        let (first, expected) = base.iter().next().unwrap();
        let (effect, _) = distance(found.get(first).unwrap(), expected);
        assert!(effect > 1e-2, "{name}: `{first}` changes by {effect:e}");
    }
}

/// Proofs by the sizes of a model, where one layer makes queries, keys and values.
#[test]
fn it_is_proved_with_one_layer_for_keys_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spec.peft");
    std::fs::write(&path, spec("gpt2.adaption_prompt")).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_peftc"))
        .arg("test")
        .arg(&path)
        .arg("--model")
        .arg(model("gpt2.ts"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success() && said.contains("11 proofs held, 0 proofs failed"),
        "{said}"
    );
}
