//! Models with their layers in another sequence: `layers "model.layers" = [0..2, 1..2, 0..1]`.
//!
//! What the adapted model gives, and its gradients, are those of PEFT's `layer_replication`
//! (`fixtures/peft/make_layers.py`).

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::differentiated::{length, project, trained, with_exact};
use crate::merges::merged;
use crate::recorded::{exports, renamed};
use crate::reference::array;
use crate::tolerances::{GRADIENT_RECORDED, MERGED_RELATIVE, RECORDED_RELATIVE};
use crate::train_command::{finished, losses};
use peftc::diag::{Sink, SourceMap};
use peftc::driver::{ModelOptions, Session};
use peftc::onnx;
use peftc::reference::Array;
use peftc::runtime::{HostTensor, NamedTensors};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A family with its list of layers and what the recording adapts.
struct Family {
    name: &'static str,
    list: &'static str,
    targets: &'static str,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "llama",
        list: "model.layers",
        targets: "\"self_attn.{q,v}_proj\", \"mlp.down_proj\"",
    },
    Family {
        name: "bert",
        list: "bert.encoder.layer",
        targets: "\"attention.self.{query,value}\", \"output.dense\"",
    },
    Family {
        name: "gpt2",
        list: "h",
        targets: "\"attn.c_attn\", \"mlp.c_proj\"",
    },
];

impl Family {
    fn recording(&self) -> PathBuf {
        fixtures().join(format!("peft/{}.lora_layers.safetensors", self.name))
    }

    fn spec(&self) -> String {
        format!(
            "use std::lora
adapter deep {{
  layers \"{}\" = [0..2, 1..2, 0..1]
  adapt {} with lora(rank = 4, alpha = 8)
}}
",
            self.list, self.targets
        )
    }
}

#[track_caller]
fn check_close(what: &str, found: &NamedTensors, expected: &HostTensor) {
    let (difference, scale) = distance(found.get("logits").unwrap(), expected);
    assert!(
        difference <= RECORDED_RELATIVE * scale,
        "{what}: differs by {difference:e} at a scale of {scale}"
    );
    println!("{what}: {:.1e}", difference / scale);
}

#[test]
fn outputs_are_those_of_peft() {
    for family in FAMILIES {
        let recording = family.recording();
        let inputs = recorded(&recording, "input.");
        let (adapted, start) = (
            recorded(&recording, "output."),
            recorded(&recording, "base."),
        );
        for name in exports(family.name) {
            let folder = tempfile::tempdir().unwrap();
            let values = renamed(&recording, folder.path());
            let path = compiled(&family.spec(), &model(name), Some(&values), folder.path());
            let found = outputs(&path, &inputs);
            check_close(name, &found, adapted.get("logits").unwrap());
            let folder = tempfile::tempdir().unwrap();
            let path = compiled(&family.spec(), &model(name), None, folder.path());
            let found = outputs(&path, &inputs);
            check_close(
                &format!("{name} at the start"),
                &found,
                start.get("logits").unwrap(),
            );
        }
    }
}

#[test]
fn gradients_are_those_of_peft() {
    for family in FAMILIES {
        let recording = family.recording();
        let folder = tempfile::tempdir().unwrap();
        let values = renamed(&recording, folder.path());
        let values = NamedTensors::read_safetensors(&values).unwrap();
        let all = NamedTensors::read_safetensors(&recording).unwrap();
        let mut inputs = recorded(&recording, "input.");
        inputs.push("projection", all.get("weights").unwrap().clone());
        let recorded = |name: &str| {
            let name = name
                .replace(".A", ".lora_A.weight")
                .replace(".B", ".lora_B.weight");
            let gradient = all.get(&format!("gradient.{name}")).unwrap();
            gradient.to_f64s().unwrap()
        };
        for name in exports(family.name) {
            let value = |name: &str, _: &[i64]| values.get(name).unwrap().clone();
            let trained = trained(name, &family.spec(), project, value);
            let given: Vec<(&str, Array)> =
                inputs.iter().map(|(name, t)| (name, array(t))).collect();
            let wanted: Vec<&str> = trained.gradients.values().map(String::as_str).collect();
            let found = with_exact(&trained.path(), |exact| exact.run(&given, &wanted));
            let expected: Vec<Vec<f64>> = trained.gradients.keys().map(|k| recorded(k)).collect();
            let scale = length(&expected.concat());
            let difference: Vec<f64> = found
                .concat()
                .iter()
                .zip(expected.concat())
                .map(|(a, b)| a - b)
                .collect();
            let error = length(&difference) / scale;
            println!("{name}: {} gradients, {error:.1e}", expected.len());
            assert!(
                error <= GRADIENT_RECORDED,
                "{name}: gradients are off by {error:e}"
            );
        }
    }
}

/// An optimizer has dropped all names but those of norms: these tell the layers, and structure what is adapted.
#[test]
fn layers_that_only_norms_name_are_found() {
    let recording = FAMILIES[0].recording();
    let text = "use std::lora
adapter a {
  layers \"model.layers\" = [0..2, 1..2, 0..1]
  adapt role(q), role(v) with lora(rank = 4)
  expect sites == 8
}
";
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("a.peft");
    std::fs::write(&spec, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.args(["compile", "--format", "json"]).arg(&spec);
    command
        .arg(model("llama.dynamo_ortbasic"))
        .arg("-o")
        .arg(folder.path());
    finished(command);
    let inputs = recorded(&recording, "input.");
    let found = outputs(&folder.path().join("model.onnx"), &inputs);
    let start = recorded(&recording, "base.");
    check_close(
        "llama.dynamo_ortbasic",
        &found,
        start.get("logits").unwrap(),
    );
}

/// Names of all initializers of a model file.
fn initializers(path: &Path) -> BTreeSet<String> {
    let model = onnx::import(path, &mut Sink::new()).unwrap().model;
    let graph = &model.graph;
    let names = graph.initializers().iter();
    names.map(|id| graph.value(*id).name.to_string()).collect()
}

#[test]
fn copies_share_weights_until_they_are_merged() {
    for family in FAMILIES {
        let recording = family.recording();
        let inputs = recorded(&recording, "input.");
        for name in exports(family.name) {
            let folder = tempfile::tempdir().unwrap();
            let values = renamed(&recording, folder.path());
            let base = model(name);
            let adapted = compiled(&family.spec(), &base, Some(&values), folder.path());
            let added = initializers(&adapted).len() - initializers(&base).len();
            let sites = NamedTensors::read_safetensors(&values)
                .unwrap()
                .iter()
                .count()
                / 2;
            assert!(added <= 2 * sites + 4, "{name}: {added} initializers more");
            let merged = merged(&family.spec(), &base, &values, folder.path()).unwrap();
            assert_eq!(merged.sites.len(), sites, "{name}");
            let own = initializers(&merged.model);
            let own = own
                .iter()
                .filter(|name| name.ends_with(".weight.merged"))
                .count();
            assert_eq!(own, sites, "{name}: every copy has a weight of its own");
            let (found, wanted) = (outputs(&merged.model, &inputs), outputs(&adapted, &inputs));
            let wanted = wanted.get("logits").unwrap();
            let (difference, scale) = distance(found.get("logits").unwrap(), wanted);
            assert!(
                difference <= MERGED_RELATIVE * scale,
                "{name}: merged differs by {difference:e} at a scale of {scale}"
            );
        }
    }
}

/// The paths of the modules of a model file.
fn paths(path: &Path) -> Vec<String> {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let loaded = session.model(path, &ModelOptions::default()).unwrap();
    loaded
        .modules
        .named()
        .map(|site| site.path.clone())
        .collect()
}

#[test]
fn layers_of_the_written_model_are_found_under_their_new_numbers() {
    for name in [
        "llama.dynamo",
        "llama.ts",
        "bert.ts",
        "gpt2.dynamo",
        "vit.ts",
        "qwen2.dynamo",
    ] {
        let family = name.split('.').next().unwrap();
        let (list, module) = match family {
            "gpt2" => ("transformer.h", "attn.c_attn"),
            "bert" => ("bert.encoder.layer", "attention.self.query"),
            "vit" => ("vit.encoder.layer", "attention.attention.query"),
            _ => ("model.layers", "self_attn.q_proj"),
        };
        let spec = format!(
            "use std::lora\nadapter a {{\n  layers \"{list}\" = [1, 0..2, 1]\n  adapt \"{list}.{{0..3}}.{module}\" with lora(rank = 1)\n  expect sites == 4\n}}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let base = model(name);
        let deeper = compiled(&spec, &base, None, folder.path());
        let of = |paths: &[String], number: usize| -> BTreeSet<String> {
            let prefix = format!("{list}.{number}.");
            paths
                .iter()
                .filter_map(|p| p.strip_prefix(&prefix).map(str::to_owned))
                .collect()
        };
        let (before, after) = (paths(&base), paths(&deeper));
        for (number, from) in [1, 0, 1, 1].into_iter().enumerate() {
            let wanted = of(&before, from);
            assert!(!wanted.is_empty());
            assert_eq!(of(&after, number), wanted, "{name}: layer {number}");
        }
        assert!(of(&after, 4).is_empty());
    }
}

#[test]
fn a_model_with_its_own_layers_is_the_base_and_one_with_fewer_has_no_others() {
    for (name, list, module) in [
        ("llama.ts", "model.layers", "self_attn.q_proj"),
        ("bert.dynamo", "bert.encoder.layer", "attention.self.query"),
    ] {
        let spec = |layers: &str| {
            format!(
                "use std::lora\nadapter a {{\n  layers \"{list}\" = {layers}\n  adapt \"{list}.0.{module}\" with lora(rank = 1)\n}}\n"
            )
        };
        let [plain, same, fewer] = [None, Some("[0..]"), Some("[..1]")].map(|layers| {
            let folder = tempfile::tempdir().unwrap();
            let text = match layers {
                Some(layers) => spec(layers),
                None => spec("[0]")
                    .lines()
                    .filter(|l| !l.contains("layers \""))
                    .collect::<Vec<_>>()
                    .join("\n"),
            };
            let path = compiled(&text, &model(name), None, folder.path());
            (
                std::fs::read(&path).unwrap(),
                paths(&path),
                initializers(&path),
            )
        });
        assert!(plain.0 == same.0, "{name}: its own layers change nothing");
        let second = format!("{list}.1.");
        assert!(same.1.iter().any(|path| path.starts_with(&second)));
        assert!(
            !fewer.1.iter().any(|path| path.starts_with(&second)),
            "{name}"
        );
        assert!(
            fewer.2.len() < same.2.len(),
            "{name}: weights of no layer are gone"
        );
    }
}

#[test]
fn the_same_sequence_gives_the_same_bytes() {
    let family = &FAMILIES[0];
    let [first, second] = [(), ()].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        let path = compiled(&family.spec(), &model("llama.dynamo"), None, folder.path());
        let manifest = std::fs::read_to_string(path.with_file_name("manifest.json")).unwrap();
        (std::fs::read(path).unwrap(), manifest)
    });
    assert!(first.0 == second.0);
    assert_eq!(first.1, second.1);
    let manifest: serde_json::Value = serde_json::from_str(&first.1).unwrap();
    assert_eq!(
        manifest["layers"],
        serde_json::json!({"list": "model.layers", "sequence": [0, 1, 1, 0]})
    );
}

/// Six layers of the quickstart's three, trained by the program, and what comes of them merged.
#[test]
fn copies_are_trained_apart() {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join("deep.peft");
    let text = "use std::lora
adapter deep {
  layers \"model.layers\" = [0.., 0..]
  adapt \"self_attn.{q,v}_proj\" with lora(rank = 2)
  expect sites == 12
}
";
    std::fs::write(&spec, text).unwrap();
    let out = folder.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command
        .arg("train")
        .arg(fixtures().join("quickstart/math_task.yaml"))
        .args([
            "--format",
            "json",
            "--with",
            "steps=24",
            "--with",
            "threads=1",
        ])
        .args(["--with", "batch_size=8", "--with", "data.eval=null"])
        .args([
            "--with",
            "adapter=deep",
            "--with",
            &format!("spec={}", spec.display()),
        ])
        .args(["--with", &format!("output={}", out.display())]);
    finished(command);
    let losses = losses(&out);
    let mean = |steps: &[(u64, f64)]| steps.iter().map(|(_, loss)| loss).sum::<f64>() / 4.0;
    let (before, after) = (mean(&losses[..4]), mean(&losses[20..]));
    assert!(after < before - 0.5, "{losses:?}");
    let values = out.join("adapter.safetensors");
    let trained = NamedTensors::read_safetensors(&values).unwrap();
    let of = |layer: usize| {
        trained
            .get(&format!("model.layers.{layer}.self_attn.q_proj.B"))
            .unwrap()
    };
    for layer in 0..3 {
        let (difference, scale) = distance(of(layer), of(layer + 3));
        assert!(
            difference > 1e-2 * scale,
            "layer {layer} and its copy are trained as one"
        );
    }
    let base = fixtures().join("quickstart/model.onnx");
    let merged = merged(text, &base, &values, folder.path()).unwrap();
    let inputs = recorded(&fixtures().join("quickstart/io.safetensors"), "");
    let inputs = NamedTensors(
        inputs
            .0
            .into_iter()
            .filter(|(name, _)| name != "logits")
            .collect(),
    );
    let (found, wanted) = (
        outputs(&merged.model, &inputs),
        outputs(&out.join("model.onnx"), &inputs),
    );
    let (difference, scale) = distance(found.get("logits").unwrap(), wanted.get("logits").unwrap());
    assert!(
        difference <= MERGED_RELATIVE * scale,
        "merged differs by {difference:e} of {scale}"
    );
}
