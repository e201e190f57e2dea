//! Adapters that PEFT has saved (`fixtures/peft/saved`): imported, they give PEFT's outputs; exported
//! again, they are what PEFT has written. That PEFT reads what is exported, `make_saved.py --check` shows.

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::recorded::push_empty_caches;
use crate::tolerances::RECORDED_RELATIVE;
use peftc::diag::{Sink, SourceMap, render};
use peftc::driver::{
    Destination, ExportOptions, ImportArtifacts, ImportOptions, ModelOptions, PlanOptions, Session,
    export, import,
};
use peftc::weights::read_tensors;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn saved(entry: &str) -> PathBuf {
    fixtures().join("peft/saved").join(entry)
}

fn imported(entry: &str, model_name: &str, folder: &Path) -> ImportArtifacts {
    imported_from(&saved(entry), model_name, folder)
}

fn imported_from(from: &Path, model_name: &str, folder: &Path) -> ImportArtifacts {
    let entry = from.display();
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let options = ImportOptions {
        folder: from.to_owned(),
        name: "theirs".to_owned(),
        destination: Destination::Folder(folder.to_owned()),
    };
    let loaded = session.model(&model(model_name), &ModelOptions::default());
    let result = loaded.and_then(|loaded| import(&mut session, &loaded, &options));
    result.unwrap_or_else(|_| panic!("{entry} on {model_name}: {}", told(&sources, &sink)))
}

fn told(sources: &SourceMap, sink: &Sink) -> String {
    let all = sink.diagnostics().iter();
    all.map(|d| render::render(d, sources, render::Style::PLAIN))
        .collect()
}

fn exported(spec: &Path, values: &Path, model_name: &str, folder: &Path) {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let result = (|| {
        let spec = session.spec(spec)?;
        let adapter = session.one_adapter(&spec, None)?;
        let loaded = session.model(&model(model_name), &ModelOptions::default())?;
        let (loaded, planned) = session.plan(&spec, adapter, &loaded, &PlanOptions::default())?;
        let options = ExportOptions {
            values: values.to_owned(),
            folder: folder.to_owned(),
            base: None,
            task: None,
        };
        export(&mut session, &spec, &loaded, &planned, &options)
    })();
    if result.is_err() {
        panic!("{}: {}", spec.display(), told(&sources, &sink));
    }
}

fn config(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Whether two settings are the same: modules may be named by their paths or the ends of these, and
/// exceptions, too.
fn same(key: &str, ours: &Value, theirs: &Value) -> bool {
    let end = |long: &str, short: &str| long == short || long.ends_with(&format!(".{short}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (key, ours, theirs) {
        ("inference_mode", ..) => true,
        // How its tensors started is nothing that an adapter keeps.
        ("init_lora_weights", ..) => true,
        ("target_modules", Value::Array(ours), Value::String(pattern)) => {
            let pattern = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
            ours.iter().all(|path| pattern.is_match(&text(path)))
        }
        (_, Value::Array(ours), Value::Array(theirs)) => {
            let has = |theirs: &Value| ours.iter().any(|path| end(&text(path), &text(theirs)));
            let known = |ours: &Value| theirs.iter().any(|short| end(&text(ours), &text(short)));
            // A list of modules to save may have names that the model does not.
            ours.iter().all(known) && (key == "modules_to_save" || theirs.iter().all(has))
        }
        (_, Value::Object(ours), Value::Object(theirs)) => {
            let other = |(path, value): (&String, &Value)| {
                let mut theirs = theirs.iter();
                theirs.any(|(short, theirs)| end(path, short) && same("", value, theirs))
            };
            ours.is_empty() == theirs.is_empty() && ours.iter().all(other)
        }
        (_, Value::Number(ours), Value::Number(theirs)) => ours.as_f64() == theirs.as_f64(),
        (_, Value::Null, Value::Array(list)) => list.is_empty(),
        (_, Value::Array(list), Value::Null) => list.is_empty(),
        (_, ours, theirs) => ours == theirs,
    }
}

/// Imports and compares the outputs with those recorded.
#[track_caller]
fn agreed(entry: &str, model_name: &str, folder: &Path) -> ImportArtifacts {
    let found = imported(entry, model_name, folder);
    let spec = std::fs::read_to_string(&found.spec).unwrap();
    let adapted = compiled(&spec, &model(model_name), Some(&found.weights), folder);
    let beside = saved(&format!("{entry}.safetensors"));
    let recording = match beside.exists() {
        true => beside,
        false => fixtures().join(format!("peft/{entry}.safetensors")),
    };
    let expected = recorded(&recording, "output.");
    let mut inputs = recorded(&recording, "input.");
    if model_name.ends_with("genai_fp32") {
        push_empty_caches(&mut inputs);
    }
    let given = outputs(&adapted, &inputs);
    assert!(expected.iter().count() > 0);
    for (output, expected) in expected.iter() {
        let (difference, scale) = distance(given.get(output).unwrap(), expected);
        assert!(
            difference <= RECORDED_RELATIVE * scale,
            "{entry} on {model_name}: `{output}` differs by {difference:e} at a scale of {scale}"
        );
    }
    found
}

/// Imports, compares the outputs with those recorded, exports and compares with what PEFT has saved.
#[track_caller]
fn check(entry: &str, model_name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let found = agreed(entry, model_name, folder.path());
    let back = folder.path().join("back");
    exported(&found.spec, &found.weights, model_name, &back);
    let mut sink = Sink::new();
    let mut read = |folder: &Path| {
        let tensors = read_tensors(&folder.join("adapter_model.safetensors"), &mut sink).unwrap();
        let all = tensors
            .into_iter()
            .map(|t| (t.name, t.dtype, t.dims, t.data));
        all.collect::<Vec<_>>()
    };
    let (ours, theirs) = (read(&back), read(&saved(entry)));
    let names = |list: &[(String, _, Vec<i64>, _)]| {
        let all = list
            .iter()
            .map(|(name, _, dims, _)| (name.clone(), dims.clone()));
        all.collect::<Vec<_>>()
    };
    assert_eq!(names(&ours), names(&theirs), "{entry}");
    assert_eq!(ours, theirs, "{entry}");
    let (ours, theirs) = (config(&back), config(&saved(entry)));
    for (key, ours) in ours.as_object().unwrap() {
        // What PEFT does not save in this version is what it has not.
        let theirs = theirs.get(key).unwrap_or(&Value::Null);
        let is_own = key == "modules_to_save" && theirs.is_null() && ours.is_null();
        let task = key == "task_type";
        assert!(
            is_own || task || same(key, ours, theirs),
            "{entry}: `{key}` is {ours}, PEFT's {theirs}"
        );
    }
}

#[test]
fn lora_with_ranks_of_its_own_and_with_a_bias() {
    check("llama.lora_patterns", "llama.dynamo");
    check("llama.lora_patterns", "llama.genai_fp32");
    check("llama.lora_bias", "llama.ts");
    check("llama.rslora", "llama.dynamo_noopt");
    check("gpt2.lora", "gpt2.dynamo");
}

#[test]
fn convolutions_and_embeddings() {
    check("convnet.lora", "convnet.dynamo_bn");
    check("convnet.dora", "convnet.ts_bn");
    check("convnet.ia3", "convnet.dynamo_bn");
    check("bert_embeddings.lora", "bert.dynamo");
}

#[test]
fn other_methods() {
    check("llama.dora", "llama.dynamo");
    check("llama.ia3", "llama.ts");
    check("llama.vera", "llama.dynamo");
}

/// One of every method, with what it has in PEFT in other words.
#[test]
fn other_methods_of_peft() {
    for method in [
        "adalora",
        "alora",
        "bdlora",
        "beft",
        "boft",
        "c3a",
        "deft",
        "deft_para",
        "delora",
        "eva",
        "gralora",
        "hira",
        "hra",
        "kasa",
        "lily",
        "ln_tuning",
        "loha",
        "lokr",
        "lokr_both",
        "miss",
        "miss_bat",
        "miss_mini",
        "oft",
        "oft_cayley",
        "oft_coft",
        "olora",
        "osf",
        "peanut",
        "pissa",
        "pvera",
        "randlora",
        "road",
        "road_4",
        "shira",
        "supertuning",
        "tinylora",
        "trainable_tokens",
        "unilora",
        "vblora",
        "velora",
    ] {
        check(&format!("llama.{method}"), "llama.dynamo");
    }
}

/// PEFT has its tensors at attentions, and says how many of the last ones have them.
#[test]
fn tensors_of_what_holds_the_module() {
    for name in ["llama.dynamo", "llama.ts_nofold"] {
        check("llama.adaption_prompt", name);
    }
    for name in ["gpt2.dynamo", "gpt2.ts"] {
        check("gpt2.adaption_prompt", name);
    }
}

/// PEFT cuts off the ranks that a module has not kept; here they are 0, and come back as that.
#[test]
fn ranks_that_were_cut_off_are_zero() {
    let folder = tempfile::tempdir().unwrap();
    let found = agreed("llama.adalora_done", "llama.dynamo", folder.path());
    let mut sink = Sink::new();
    let tensors = read_tensors(&found.weights, &mut sink).unwrap();
    let scales = tensors.iter().filter(|tensor| tensor.name.ends_with(".E"));
    let scales: Vec<_> = scales.collect();
    assert!(scales.len() > 1 && scales.iter().all(|scales| scales.dims == [4]));
    assert!(scales.iter().any(|scales| scales.data.ends_with(&[0; 4])));
    let back = folder.path().join("back");
    exported(&found.spec, &found.weights, "llama.dynamo", &back);
    assert_eq!(config(&back).get("rank_pattern"), None);
}

/// What was drawn last says nothing of a trained adapter: it is neither read nor written.
#[test]
fn tensors_that_do_not_matter_are_left_out() {
    let (entry, folder) = ("llama.monteclora", tempfile::tempdir().unwrap());
    let found = agreed(entry, "llama.dynamo", folder.path());
    let back = folder.path().join("back");
    exported(&found.spec, &found.weights, "llama.dynamo", &back);
    let mut sink = Sink::new();
    let mut read = |folder: &Path| {
        let all = read_tensors(&folder.join("adapter_model.safetensors"), &mut sink).unwrap();
        let all = all.into_iter().map(|t| (t.name, (t.dims, t.data)));
        all.collect::<std::collections::BTreeMap<_, _>>()
    };
    let (ours, mut theirs) = (read(&back), read(&saved(entry)));
    let all = theirs.len();
    theirs.retain(|name, _| ours.contains_key(name));
    assert_eq!(ours, theirs);
    assert_eq!((theirs.len(), all), (8, 12));
    let sub = &config(&back)["monteclora_config"];
    assert_eq!(
        (&sub["num_samples"], &sub["use_entropy"]),
        (&3.into(), &true.into())
    );
}

/// A tensor may matter with one value of a setting, and not with another.
#[test]
fn a_tensor_matters_where_the_rule_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (from, back) = (folder.path().join("from"), folder.path().join("back"));
    std::fs::create_dir(&from).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(saved("llama.velora").join(file), from.join(file)).unwrap();
    }
    let mut other = config(&from);
    assert_eq!(other["velora_config"]["init_type"], "random");
    other["velora_config"]["init_type"] = "batch_average".into();
    std::fs::write(from.join("adapter_config.json"), other.to_string()).unwrap();
    let found = imported_from(&from, "llama.dynamo", folder.path());
    exported(&found.spec, &found.weights, "llama.dynamo", &back);
    assert_eq!(config(&back)["velora_config"], other["velora_config"]);
    let mut sink = Sink::new();
    let tensors = read_tensors(&back.join("adapter_model.safetensors"), &mut sink).unwrap();
    let is_known = |name: &str| name.ends_with("lora_A.weight") || name.ends_with("lora_B.weight");
    assert!(tensors.len() == 4 && tensors.iter().all(|tensor| is_known(&tensor.name)));
}

#[test]
fn layers_in_a_sequence_of_their_own() {
    check("llama.lora_layers", "llama.dynamo");
    check("llama.lora_layers", "llama.ts");
}

#[test]
fn modules_that_are_saved_whole() {
    check("bert.lora_classifier", "bert.dynamo");
}

/// The rules of the library, and what each setting and tensor is there.
#[test]
fn an_export_twice_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let found = imported("llama.lora_patterns", "llama.dynamo", folder.path());
    let folders = ["a", "b"].map(|name| folder.path().join(name));
    for folder in &folders {
        exported(&found.spec, &found.weights, "llama.dynamo", folder);
    }
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let [a, b] = folders
            .each_ref()
            .map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert_eq!(a, b, "{file}");
    }
}

/// Methods that are LoRA once they are trained go over as LoRA, and come back as that.
#[test]
fn what_is_lora_once_it_is_trained_goes_as_lora() {
    for method in ["eva", "mica", "lora_fa"] {
        let folder = tempfile::tempdir().unwrap();
        let found = imported("llama.eva", "llama.dynamo", folder.path());
        let text = std::fs::read_to_string(&found.spec).unwrap();
        let spec = folder.path().join("own.peft");
        std::fs::write(&spec, text.replace("lora", method)).unwrap();
        let back = folder.path().join("back");
        exported(&spec, &found.weights, "llama.dynamo", &back);
        let config = config(&back);
        assert_eq!(config["peft_type"], "LORA", "{method}");
        // What is read does not start anew.
        assert_eq!(config["init_lora_weights"], true, "{method}");
        let file = "adapter_model.safetensors";
        let mut sink = Sink::new();
        let mut tensors = |folder: &Path| {
            let all = read_tensors(&folder.join(file), &mut sink).unwrap();
            all.into_iter()
                .map(|t| (t.name, t.data))
                .collect::<Vec<_>>()
        };
        assert_eq!(tensors(&back), tensors(&saved("llama.eva")), "{method}");
    }
}
