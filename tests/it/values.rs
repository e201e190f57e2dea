//! Names from the values of a checkpoint, in models that say nothing else.

use crate::adapters::{fixtures, model};
use onnx_protobuf::{GraphProto, ModelProto};
use peftc::diag::{Code, Sink, SourceMap};
use peftc::driver::{Loaded, ModelOptions, Session};
use peftc::modules::NameSource;
use protobuf::Message;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The checkpoint of every `llama.*` fixture.
pub(crate) fn checkpoint() -> PathBuf {
    fixtures().join("models/llama.safetensors")
}

fn loaded(model: &Path, weights: &Path) -> (Loaded, Vec<Code>) {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let options = ModelOptions {
        weights: vec![weights.to_owned()],
        ..ModelOptions::default()
    };
    let loaded = session.model(model, &options);
    let codes = sink.diagnostics().iter().map(|d| d.code).collect();
    match loaded {
        Ok(loaded) => (loaded, codes),
        Err(_) => panic!("{:?}", sink.diagnostics()),
    }
}

/// A copy of a fixture in which nodes, weights and intermediate values have numbers for names and
/// nothing has metadata.
fn without_names(name: &str, folder: &Path) -> PathBuf {
    let bytes = std::fs::read(model(name)).unwrap();
    let mut proto = ModelProto::parse_from_bytes(&bytes).unwrap();
    proto.metadata_props.clear();
    let graph = proto.graph.as_mut().unwrap();
    let ports = graph.input.iter().chain(&graph.output);
    let ports = ports.map(|port| (port.name.clone(), port.name.clone()));
    let mut names: BTreeMap<String, String> = ports.collect();
    blank(graph, &mut names);
    let path = folder.join("model.onnx");
    std::fs::write(&path, proto.write_to_bytes().unwrap()).unwrap();
    path
}

fn blank(graph: &mut GraphProto, names: &mut BTreeMap<String, String>) {
    let mut rename = |name: &mut String| {
        if !name.is_empty() {
            let number = format!("v{}", names.len());
            name.clone_from(names.entry(name.clone()).or_insert(number));
        }
    };
    graph.value_info.clear();
    graph.metadata_props.clear();
    for tensor in &mut graph.initializer {
        rename(&mut tensor.name);
    }
    for node in &mut graph.node {
        node.name.clear();
        node.metadata_props.clear();
        node.input.iter_mut().for_each(&mut rename);
        node.output.iter_mut().for_each(&mut rename);
    }
}

/// The linear, convolution and embedding modules of a fixture that are not among the sites with a
/// name from values, and those sites' paths that are no module's.
fn check(name: &str, found: &Loaded) -> (Vec<String>, Vec<String>) {
    let path = fixtures()
        .join("models")
        .join(format!("{name}.modules.json"));
    let text = std::fs::read_to_string(path).unwrap();
    let truth: serde_json::Value = serde_json::from_str(&text).unwrap();
    let wanted: Vec<(&str, &str)> = truth["modules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|module| module["present"] != false)
        .map(|module| {
            let text = |key: &str| module[key].as_str().unwrap();
            (text("path"), text("kind"))
        })
        .collect();
    assert!(wanted.len() > 15);
    let by_values = found.modules.sites.iter();
    let by_values: Vec<(&str, &str)> = by_values
        .filter(|site| site.source == NameSource::WeightValues)
        .map(|site| (site.path.as_str(), site.kind.name()))
        .collect();
    let text = |module: &&(&str, &str)| format!("{name}: {} ({})", module.0, module.1);
    let missing = wanted.iter().filter(|m| !by_values.contains(m));
    let wrong = by_values.iter().filter(|m| !wanted.contains(m));
    (
        missing.map(|m| text(&m)).collect(),
        wrong.map(|m| text(&m)).collect(),
    )
}

#[test]
fn values_alone_name_every_module() {
    for name in [
        "llama.dynamo_ortbasic",
        "llama.dynamo_noopt",
        "llama.fp16.dynamo",
        "llama.ts",
        "llama.genai_fp32",
        "llama.genai_int4",
        "llama.genai_int4_qdq",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let model = without_names(name, folder.path());
        let (found, codes) = loaded(&model, &checkpoint());
        assert_eq!(check(name, &found), (Vec::new(), Vec::new()), "{name}");
        assert!(codes.is_empty(), "{name}: {codes:?}");
    }
}

#[test]
fn the_members_of_a_fused_projection_have_their_slices() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llama.genai_fp32", "llama.genai_int4"] {
        let model = without_names(name, folder.path());
        let (found, _) = loaded(&model, &checkpoint());
        let fused = found
            .modules
            .sites
            .iter()
            .filter(|site| site.slice.is_some());
        let fused: Vec<String> = fused
            .map(|site| format!("{} {:?}", site.path, site.slice.clone().unwrap()))
            .collect();
        let wanted: Vec<String> = (0..2)
            .flat_map(|layer| {
                [("q", "0..128"), ("k", "128..160"), ("v", "160..192")]
                    .map(|(m, slice)| format!("model.layers.{layer}.self_attn.{m}_proj {slice}"))
            })
            .collect();
        assert_eq!(fused, wanted, "{name}");
    }
}

/// Writes the checkpoint with other names: every tensor under those that `names` gives for its own.
fn renamed(path: &Path, names: impl Fn(&str) -> Vec<String>) {
    rewritten(path, names, |number| number);
}

fn rewritten(path: &Path, names: impl Fn(&str) -> Vec<String>, change: impl Fn(f32) -> f32) {
    let bytes = std::fs::read(checkpoint()).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut views = Vec::new();
    for (name, view) in read.tensors() {
        for name in names(&name) {
            let dims = view.shape().to_vec();
            assert_eq!(view.dtype(), Dtype::F32);
            let numbers = view.data().chunks_exact(4);
            let numbers = numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            let data: Vec<u8> = numbers.flat_map(|n| change(n).to_le_bytes()).collect();
            views.push((name, dims, data));
        }
    }
    let views = views.iter().map(|(name, dims, data)| {
        let view = TensorView::new(Dtype::F32, dims.clone(), data).unwrap();
        (name.clone(), view)
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_weight_with_the_values_of_two_modules_stays_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("twice.safetensors");
    renamed(&weights, |name| match name {
        "model.layers.0.mlp.up_proj.weight" => vec![name.to_owned(), "copy.weight".to_owned()],
        _ => vec![name.to_owned()],
    });
    let (found, codes) = loaded(&model("llama.dynamo_ortbasic"), &weights);
    assert_eq!(codes, [Code::W0405]);
    let unnamed: Vec<&str> = found
        .modules
        .unnamed
        .iter()
        .map(|site| site.unnamed_because.as_str())
        .collect();
    let why = "its values are those of `copy` and `model.layers.0.mlp.up_proj` alike";
    assert_eq!(unnamed, [why]);
}

#[test]
fn values_that_contradict_a_name_are_told_and_the_name_stays() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("swapped.safetensors");
    let (k, v) = (
        "layers.1.self_attn.k_proj.weight",
        "layers.1.self_attn.v_proj.weight",
    );
    renamed(&weights, |name| {
        let swapped = match name {
            _ if name.ends_with(k) => name.replace(k, v),
            _ if name.ends_with(v) => name.replace(v, k),
            _ => name.to_owned(),
        };
        vec![swapped]
    });
    let (found, codes) = loaded(&model("llama.dynamo"), &weights);
    assert_eq!(codes, [Code::W0404]);
    let path = "model.layers.1.self_attn.k_proj";
    let site = found
        .modules
        .sites
        .iter()
        .find(|site| site.path == path)
        .unwrap();
    assert_eq!(site.source, NameSource::NameScopes);
    let said = (
        NameSource::WeightValues,
        "model.layers.1.self_attn.v_proj".to_owned(),
    );
    assert_eq!(site.disagreements, [said]);
}

#[test]
fn a_checkpoint_without_its_prefix_or_of_a_tuned_model_contradicts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("short.safetensors");
    renamed(&weights, |name| {
        vec![name.trim_start_matches("model.").to_owned()]
    });
    let (found, codes) = loaded(&model("llama.dynamo"), &weights);
    assert!(codes.is_empty() && found.modules.unnamed.is_empty());
    rewritten(&weights, |name| vec![name.to_owned()], |n| n * 1.01);
    let (_, codes) = loaded(&model("llama.dynamo"), &weights);
    assert!(codes.is_empty(), "{codes:?}");
}

#[test]
fn a_tied_weight_that_is_saved_once_names_the_layer_of_its_kind_only() {
    // GPT-2's head reads the table of its embedding; both lie in one initializer.
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("one.safetensors");
    let bytes = std::fs::read(model("qwen2.dynamo")).unwrap();
    let proto = ModelProto::parse_from_bytes(&bytes).unwrap();
    let table = proto.graph.initializer.iter();
    let table = table.filter(|t| t.dims == [200, 64]).collect::<Vec<_>>();
    let [table] = table[..] else {
        panic!("{} tables", table.len())
    };
    let view = TensorView::new(Dtype::F32, vec![200, 64], &table.raw_data).unwrap();
    let tensors = [("model.embed_tokens.weight", view)];
    std::fs::write(&weights, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let model = without_names("qwen2.dynamo", folder.path());
    let (found, _) = loaded(&model, &weights);
    let of_table = found.modules.unnamed.iter().filter(|site| {
        let because = "layers of different kinds have the values of `model.embed_tokens`";
        site.unnamed_because == because
    });
    assert_eq!(of_table.count(), 2, "the table and the head");
    assert!(found.modules.sites.is_empty());
}
