//! A prefix in caches: a loop that feeds caches back sees nothing of it.

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::recorded::{library, push_empty_caches, renamed, statements};
use crate::tolerances::RECORDED_RELATIVE;
use peftc::runtime::{HostTensor, NamedTensors};
use std::path::{Path, PathBuf};

/// Positions `from..to` of the second axis of every tensor that has 5 of them.
fn tokens(all: &NamedTensors, from: usize, to: usize) -> NamedTensors {
    let mut part = NamedTensors::default();
    for (name, tensor) in all.iter() {
        let values = tensor.to_f64s().unwrap();
        let rows = values.chunks(5).flat_map(|row| &row[from..to]);
        let values: Vec<i64> = rows.map(|value| *value as i64).collect();
        let dims = [2, (to - from) as i64];
        part.push(name, HostTensor::from_i64(&dims, &values));
    }
    part
}

#[test]
fn tokens_that_come_one_after_the_other_see_one_prefix() {
    for method in ["prefix_tuning", "prefix_projection_tuning"] {
        let file = |ending: &str| fixtures().join(format!("peft/llama.{method}.{ending}"));
        let path = file("safetensors");
        let about = std::fs::read_to_string(file("json")).unwrap();
        let about = serde_json::from_str(&about).unwrap();
        let spec = format!(
            "{}\nadapter a {{\n{}\n}}\n",
            library(method),
            statements(&about)
        );
        let folder = tempfile::tempdir().unwrap();
        let values = renamed(&path, folder.path());
        let adapted = compiled(
            &spec,
            &model("llama.optimum_past"),
            Some(&values),
            folder.path(),
        );
        let inputs = recorded(&path, "input.");
        let expected = recorded(&path, "output.");
        let expected = expected.get("logits").unwrap().to_f64s().unwrap();

        let mut first = tokens(&inputs, 0, 3);
        push_empty_caches(&mut first);
        let before = outputs(&adapted, &first);
        let mut second = tokens(&inputs, 3, 5);
        second.0.retain(|(name, _)| name != "attention_mask");
        second.push(
            "attention_mask",
            inputs.get("attention_mask").unwrap().clone(),
        );
        for (name, tensor) in before.iter() {
            if let Some(place) = name.strip_prefix("present.") {
                assert_eq!(tensor.dims(), [2, 2, 3, 16], "{name} has no prefix");
                second.push(format!("past_key_values.{place}"), tensor.clone());
            }
        }
        let behind = outputs(&adapted, &second);
        for (found, (from, to)) in [(&before, (0, 3)), (&behind, (3, 5))] {
            let rows = expected.chunks(5 * 200);
            let wanted: Vec<f32> = rows
                .flat_map(|row| &row[from * 200..to * 200])
                .map(|value| *value as f32)
                .collect();
            let wanted = HostTensor::from_f32(&[2, (to - from) as i64, 200], &wanted);
            let (difference, scale) = distance(found.get("logits").unwrap(), &wanted);
            assert!(
                difference <= RECORDED_RELATIVE * scale,
                "{method}, tokens {from}..{to}: {difference:e} at a scale of {scale}"
            );
        }
    }
}

/// The recording of a plain prefix, and a model with that prefix.
fn prefixed(export: &Path, folder: &Path) -> (PathBuf, PathBuf) {
    let path = fixtures().join("peft/llama.prefix_tuning.safetensors");
    let spec = "use std::prefix_tuning\nadapter a {\n  adapt all cache with prefix_tuning(tokens = 5)\n}\n";
    let values = renamed(&path, folder);
    let adapted = compiled(spec, export, Some(&values), folder);
    (path, adapted)
}

#[test]
fn a_fused_attention_reads_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let (path, adapted) = prefixed(&model("llama.genai_fp32"), folder.path());
    // Of one row without padding: ONNX Runtime's attention takes no more behind earlier tokens.
    let all = recorded(&path, "input.");
    let mut inputs = NamedTensors::default();
    for name in ["input_ids", "attention_mask"] {
        let values = all.get(name).unwrap().to_f64s().unwrap();
        let row: Vec<i64> = values[..5].iter().map(|value| *value as i64).collect();
        inputs.push(name, HostTensor::from_i64(&[1, 5], &row));
    }
    for cache in ["0.key", "0.value", "1.key", "1.value"] {
        let empty = HostTensor::from_f32(&[1, 2, 0, 16], &[]);
        inputs.push(format!("past_key_values.{cache}"), empty);
    }
    let found = outputs(&adapted, &inputs);
    let expected = recorded(&path, "output.").get("logits").unwrap().to_f64s();
    let row: Vec<f32> = expected.unwrap()[..5 * 200]
        .iter()
        .map(|value| *value as f32)
        .collect();
    let wanted = HostTensor::from_f32(&[1, 5, 200], &row);
    let (difference, scale) = distance(found.get("logits").unwrap(), &wanted);
    assert!(
        difference <= RECORDED_RELATIVE * scale,
        "{difference:e} at a scale of {scale}"
    );
}

/// The model with another name for how many tokens the caches of its second layer hold.
fn with_two_names(folder: &Path) -> PathBuf {
    let mut bytes = std::fs::read(model("llama.optimum_past")).unwrap();
    let (old, new) = (b"past_sequence_length", b"more_sequence_length");
    let mut renamed = 0;
    for place in [&b"past_key_values.1."[..], b"present.1."] {
        for at in 0..bytes.len() - 90 {
            // In the type behind the name of an input or output; nodes name it, too.
            let window = &bytes[at..at + 90];
            if window.starts_with(place)
                && let Some(found) = window.windows(old.len()).position(|part| part == old)
            {
                bytes[at + found..at + found + new.len()].copy_from_slice(new);
                renamed += 1;
            }
        }
    }
    assert_eq!(renamed, 4, "two inputs and two outputs");
    let path = folder.join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn caches_may_count_their_tokens_by_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (path, adapted) = prefixed(&with_two_names(folder.path()), folder.path());
    let mut inputs = recorded(&path, "input.");
    push_empty_caches(&mut inputs);
    let found = outputs(&adapted, &inputs);
    let expected = recorded(&path, "output.");
    let (a, b) = (
        found.get("logits").unwrap(),
        expected.get("logits").unwrap(),
    );
    let (difference, scale) = distance(a, b);
    assert!(difference <= RECORDED_RELATIVE * scale, "{difference:e}");
    for (name, tensor) in found.iter().filter(|(name, _)| name.starts_with("present")) {
        assert_eq!(tensor.dims(), [2, 2, 5, 16], "{name} has no prefix");
    }
}
