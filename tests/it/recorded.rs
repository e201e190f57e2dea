//! Adapters with weights that Hugging Face PEFT and PyTorch have computed with, too: the adapted
//! model of every exporter gives the recorded outputs (`fixtures/peft`).

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::tolerances::RECORDED_RELATIVE;
use peftc::diag::Sink;
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::weights::{NamedTensor, read_tensors, write_tensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What PEFT calls a tensor, and what the library does.
const RENAMES: &[(&str, &str)] = &[
    (".lora_A.weight", ".A"),
    (".lora_B.weight", ".B"),
    (".lora_B.bias", ".b"),
    (".lora_embedding_A", ".A"),
    (".lora_embedding_B", ".B"),
    (".lora_magnitude_vector", ".m"),
    (".ia3_l", ".l"),
    (".vera_lambda_d", ".lambda_d"),
    (".vera_lambda_b", ".lambda_b"),
    // Of the encoder of a prompt; what it reads and a prompt without one have one name in PEFT.
    (".mlp_head.0.weight", ".W1"),
    (".mlp_head.0.bias", ".b1"),
    (".mlp_head.2.weight", ".W2"),
    (".mlp_head.2.bias", ".b2"),
    (".mlp_head.4.weight", ".W3"),
    (".mlp_head.4.bias", ".b3"),
];

/// The adapter's tensors under peftc's names, in a file of the folder.
pub(crate) fn renamed(recording: &Path, folder: &Path) -> PathBuf {
    let mut sink = Sink::new();
    let mut tensors: BTreeMap<String, NamedTensor> = BTreeMap::new();
    let recorded = read_tensors(recording, &mut sink).unwrap();
    let is_encoded = recorded
        .iter()
        .any(|tensor| tensor.name.contains(".mlp_head."));
    for mut tensor in recorded {
        const OTHERS: &[&str] = &[
            "input.",
            "output.",
            "merged.",
            "base.",
            "gradient.",
            "weights",
            "loss",
        ];
        if OTHERS.iter().any(|p| tensor.name.starts_with(p)) {
            continue;
        }
        for (theirs, ours) in RENAMES {
            if let Some(path) = tensor.name.strip_suffix(theirs) {
                tensor.name = format!("{path}{ours}");
            }
        }
        if let Some(path) = tensor.name.strip_suffix(".embedding.weight") {
            let name = if is_encoded { "E" } else { "P" };
            tensor.name = format!("{path}.{name}");
        }
        match tensor.name.rsplit('.').next().unwrap() {
            "vera_A" => tensor.name = "shared.0.A".to_owned(),
            "vera_B" => tensor.name = "shared.0.B".to_owned(),
            "l" | "m" => tensor.dims = vec![tensor.dims.iter().product()],
            // A kernel is a matrix over patches.
            "A" | "B" => tensor.dims = vec![tensor.dims[0], tensor.dims[1..].iter().product()],
            _ => {}
        }
        tensors.insert(tensor.name.clone(), tensor);
    }
    let path = folder.join("values.safetensors");
    let tensors: Vec<NamedTensor> = tensors.into_values().collect();
    write_tensors(&path, &tensors, ("from", "recording".to_owned()), &mut sink).unwrap();
    path
}

/// The adapted model gives what was recorded with the same weights.
#[track_caller]
fn check_recorded(recording: &str, model_name: &str, statements: &str) {
    let path = fixtures()
        .join("peft")
        .join(format!("{recording}.safetensors"));
    let spec = format!("{}\nadapter a {{\n{statements}\n}}\n", library(recording));
    let folder = tempfile::tempdir().unwrap();
    let values = renamed(&path, folder.path());
    let adapted = compiled(&spec, &model(model_name), Some(&values), folder.path());
    let mut inputs = recorded(&path, "input.");
    if model_name == "llama.optimum_past" {
        push_empty_caches(&mut inputs);
    }
    let found = outputs(&adapted, &inputs);
    let expected = recorded(&path, "output.");
    assert!(expected.iter().count() > 0);
    for (output, expected) in expected.iter() {
        let (difference, scale) = distance(found.get(output).unwrap(), expected);
        assert!(
            difference <= RECORDED_RELATIVE * scale,
            "{recording} on {model_name}: `{output}` differs by {difference:e} at a scale of {scale}"
        );
    }
}

/// Caches of no token, of two rows.
pub(crate) fn push_empty_caches(inputs: &mut NamedTensors) {
    for layer in 0..2 {
        for kind in ["key", "value"] {
            let empty = HostTensor::from_f32(&[2, 2, 0, 16], &[]);
            inputs.push(format!("past_key_values.{layer}.{kind}"), empty);
        }
    }
}

/// What the statements call. PEFT gives BERT's classifier, 64 to 3, a rank of 4 in the recordings of
/// all linear layers, which the library refuses: there its methods go without that requirement.
pub(crate) fn library(recording: &str) -> String {
    if !["bert.lora_all", "bert.dora_all"].contains(&recording) {
        let names = "lora, dora, ia3, vera, dynamic_lora, prompt_tuning, p_tuning, prefix_tuning";
        return format!("use std::{{{names}}}");
    }
    let stdlib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stdlib");
    let text = ["lora.peft", "dora.peft"].map(|file| {
        let text = std::fs::read_to_string(stdlib.join(file)).unwrap();
        let (bound, rest): (Vec<&str>, Vec<&str>) = text
            .lines()
            .filter(|line| !line.starts_with("//!"))
            .partition(|line| line.contains("rank <= min(in, out)"));
        assert_eq!(bound.len(), 1, "{file}");
        rest.join("\n")
    });
    text.join("\n") + "\nuse std::vera"
}

/// Exports of the models that the recordings were made with. A convolution with a folded batch
/// normalization is another function, and so is an adapter on it.
pub(crate) fn exports(family: &str) -> &'static [&'static str] {
    match family {
        "llama" => &[
            "llama.dynamo",
            "llama.ts",
            "llama.dynamo_noopt",
            "llama.ts_nofold",
        ],
        "gpt2" => &["gpt2.dynamo", "gpt2.ts"],
        "bert" | "bert_embeddings" => &["bert.dynamo", "bert.ts"],
        "convnet" => &["convnet.dynamo_bn", "convnet.ts_bn"],
        "t5" => &["t5.dynamo", "t5.ts"],
        other => panic!("no exports of {other}"),
    }
}

/// Exports for a recording: a prefix stands in caches.
pub(crate) fn exports_for(recording: &str) -> &'static [&'static str] {
    let (family, method) = recording.split_once('.').unwrap();
    match method.starts_with("prefix_") {
        true => &["llama.optimum_past"],
        false => exports(family),
    }
}

/// PEFT's configuration as `adapt` statements on the paths that PEFT adapted.
pub(crate) fn statements(about: &Value) -> String {
    let config = &about["config"];
    let targets: Vec<&str> = about["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    let adapt = |targets: &[&str], call: &str| {
        let quoted: Vec<String> = targets.iter().map(|t| format!("\"{t}\"")).collect();
        match quoted.as_slice() {
            [] => String::new(),
            quoted => format!("  adapt {} with {call}\n", quoted.join(", ")),
        }
    };
    match config["peft_type"].as_str().unwrap() {
        "LORA" => adapt(&targets, &lora_call(config)) + &overrides(config),
        "VERA" => adapt(&targets, &format!("vera(rank = {})", config["r"])),
        "IA3" => {
            let feedforward: Vec<&str> = config["feedforward_modules"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m.as_str().unwrap())
                .collect();
            let (inner, outer): (Vec<&str>, Vec<&str>) = targets
                .into_iter()
                .partition(|target| feedforward.iter().any(|end| target.ends_with(end)));
            adapt(&inner, "ia3(feedforward = true)") + &adapt(&outer, "ia3()")
        }
        "PROMPT_TUNING" => {
            let tokens = &config["num_virtual_tokens"];
            adapt(&targets, &format!("prompt_tuning(tokens = {tokens})"))
        }
        "P_TUNING" => {
            let (tokens, hidden) = (
                &config["num_virtual_tokens"],
                &config["encoder_hidden_size"],
            );
            adapt(
                &targets,
                &format!("p_tuning(tokens = {tokens}, hidden = {hidden})"),
            )
        }
        "PREFIX_TUNING" => format!("  adapt all cache with {}\n", prefix_call(config)),
        other => panic!("no method for {other}"),
    }
}

fn prefix_call(config: &Value) -> String {
    let (tokens, hidden) = (
        &config["num_virtual_tokens"],
        &config["encoder_hidden_size"],
    );
    match config["prefix_projection"] == true {
        true => {
            let width = &config["token_dim"];
            format!("prefix_tuning(tokens = {tokens}, projection = {hidden}, width = {width})")
        }
        false => format!("prefix_tuning(tokens = {tokens})"),
    }
}

fn lora_call(config: &Value) -> String {
    let (rank, alpha) = (&config["r"], &config["lora_alpha"]);
    let is = |key: &str| config[key] == true;
    match (is("use_dora"), is("use_rslora"), is("lora_bias")) {
        (true, ..) => format!("dora(rank = {rank}, alpha = {alpha})"),
        (_, rslora, bias) => {
            format!("lora(rank = {rank}, alpha = {alpha}, rslora = {rslora}, bias = {bias})")
        }
    }
}

/// PEFT's patterns of ranks, each with an alpha.
fn overrides(config: &Value) -> String {
    config["rank_pattern"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(end, rank)| {
            let alpha = &config["alpha_pattern"][end];
            format!("    override \"{end}\" (rank = {rank}, alpha = {alpha})\n")
        })
        .collect()
}

#[test]
fn every_recording_of_peft_is_met_on_every_export() {
    let mut recordings = 0;
    for entry in std::fs::read_dir(fixtures().join("peft")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".json") else {
            continue;
        };
        let about: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        if about["config"]["peft_type"].is_null() {
            // The dynamic LoRA, below, which is not PEFT's; X-LoRA and Arrow, in
            // files of their own.
            continue;
        }
        if !about["layers"].is_null() {
            // In `relayered`.
            continue;
        }
        recordings += 1;
        for export in exports_for(name) {
            check_recorded(name, export, &statements(&about));
        }
    }
    assert!(recordings >= 44, "{recordings} recordings");
}

#[test]
fn dynamic_lora_gives_the_numbers_of_torch() {
    for (recording, pool) in [
        ("dynamic_lora", "mean"),
        ("dynamic_lora_masked_mean", "masked_mean"),
        ("dynamic_lora_causal_mean", "causal_mean"),
        ("dynamic_lora_last_valid_token", "last_token"),
        ("dynamic_lora_per_token", "per_token"),
    ] {
        for export in exports("llama") {
            check_recorded(
                &format!("llama.{recording}"),
                export,
                &format!(
                    "  adapt \"self_attn.{{q,v}}_proj\" with dynamic_lora(rank = 4, alpha = 8, pool = \"{pool}\")"
                ),
            );
        }
    }
}
