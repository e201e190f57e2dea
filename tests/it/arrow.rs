//! Arrow against PEFT's `create_arrow_model` (`fixtures/peft/make_arrow.py`): trained LoRAs come out of a
//! file, prototypes are computed of them.

use crate::adapters::{distance, fixtures, model, outputs, recorded};
use crate::tolerances::RECORDED_RELATIVE;
use crate::xlora::stacked;
use peftc::runtime::NamedTensors;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// PEFT's tensors under the names of the adapter: those of all LoRAs of a kind together.
fn ours(theirs: &NamedTensors, about: &Value) -> NamedTensors {
    let mut found = NamedTensors::default();
    for (kind, count, end) in [("task", "experts", ""), ("gks", "general", "_general")] {
        for (name, _) in theirs.iter() {
            if let Some(path) = name.strip_prefix(&format!("{kind}_0.")) {
                let parts = (0..about[count].as_i64().unwrap())
                    .map(|k| theirs.get(&format!("{kind}_{k}.{path}")).unwrap());
                let name = format!("{}{end}", path.replace(".lora_", "."));
                found.push(name, stacked(&parts.collect::<Vec<_>>()));
            }
        }
    }
    found
}

/// Runs `peftc stack` on files of the LoRAs of a kind.
fn stack(theirs: &NamedTensors, (kind, count): (&str, i64), folder: &Path, more: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.arg("stack").current_dir(folder);
    for k in 0..count {
        let mut tensors = NamedTensors::default();
        for (name, tensor) in theirs.iter() {
            if let Some(path) = name.strip_prefix(&format!("{kind}_{k}.")) {
                tensors.push(path.replace(".lora_", "."), tensor.clone());
            }
        }
        let file = format!("{kind}{k}.safetensors");
        std::fs::write(folder.join(&file), tensors.to_safetensors().unwrap()).unwrap();
        command.arg(file);
    }
    let done = command.args(more).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

/// The same adapter as a spec, by the words of PEFT's configuration.
fn spec(about: &Value) -> String {
    let config = &about["config"];
    format!(
        "use std::arrow\nadapter a {{\n  adapt \"{{q,v}}_proj\" with arrow(experts = {}, rank = {}, alpha = {}, \
         general = {}, top_k = {}, temperature = {})\n}}\n",
        about["experts"],
        about["rank"],
        about["alpha"],
        about["general"],
        config["top_k"],
        config["router_temperature"]
    )
}

fn compiled(spec: &Path, model: &Path, start: &Path, folder: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftc"));
    command.arg("compile").arg(spec).arg(model);
    command.arg("--start").arg(start).arg("-o").arg(folder);
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

#[test]
fn outputs_are_those_of_peft() {
    for case in ["arrow", "arrow_gks"] {
        let recording = fixtures().join(format!("peft/llama.{case}.safetensors"));
        let about = std::fs::read_to_string(recording.with_extension("json")).unwrap();
        let about: Value = serde_json::from_str(&about).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (spec_path, start) = (folder.join("a.peft"), folder.join("start.safetensors"));
        std::fs::write(&spec_path, spec(&about)).unwrap();
        let theirs = recorded(&recording, "");
        let [experts, general] = ["experts", "general"].map(|name| about[name].as_i64().unwrap());
        match general {
            0 => stack(
                &theirs,
                ("task", experts),
                folder,
                &["-o", "start.safetensors"],
            ),
            _ => {
                let behind = ["--suffix", "_general", "-o", "general.safetensors"];
                stack(&theirs, ("gks", general), folder, &behind);
                let beside = ["--beside", "general.safetensors", "-o", "start.safetensors"];
                stack(&theirs, ("task", experts), folder, &beside);
            }
        }
        let mut values = ours(&theirs, &about);
        let kinds = if general == 0 { 2 } else { 4 };
        assert_eq!(values.0.len(), kinds * 4);
        let mut read = NamedTensors::read_safetensors(&start).unwrap();
        for tensors in [&mut values, &mut read] {
            tensors.0.sort_by(|a, b| a.0.cmp(&b.0));
        }
        assert_eq!(read, values);
        for name in ["llama.dynamo", "llama.ts"] {
            compiled(&spec_path, &model(name), &start, &folder.join(name));
            let adapted = folder.join(name).join("model.onnx");
            let found = outputs(&adapted, &recorded(&recording, "input."));
            let expected = recorded(&recording, "output.");
            let (difference, size) = distance(
                found.get("logits").unwrap(),
                expected.get("logits").unwrap(),
            );
            eprintln!("{case} on {name}: {:.1e}", difference / size);
            assert!(
                difference <= RECORDED_RELATIVE * size,
                "{case} on {name}: {difference:e} of {size:e}"
            );
        }
    }
}
