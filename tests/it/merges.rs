//! Merged models against adapted ones, both in ONNX Runtime.

mod converts;

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::differentiated::floats;
use crate::tolerances::{MERGED_RELATIVE, MERGED_RELATIVE_F16};
use peftc::diag::{Sink, SourceMap, render};
use peftc::driver::{Destination, MergeArtifacts, ModelOptions, PlanOptions, Session, merge};
use peftc::onnx;
use peftc::runtime::NamedTensors;
use std::path::{Path, PathBuf};

/// Numbers for every tensor of the only adapter of a spec, far from its start.
pub(crate) fn trained(spec: &str, model: &Path, folder: &Path) -> PathBuf {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let path = folder.join("values.peft");
    std::fs::write(&path, spec).unwrap();
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let spec = session.spec(&path).unwrap();
    let adapter = session.adapters(&spec, &[]).unwrap()[0];
    let loaded = session.model(model, &ModelOptions::default()).unwrap();
    let options = PlanOptions::default();
    let planned = session.plan(&spec, adapter, &loaded, &options);
    let (_, planned) = planned.unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()));
    let mut values = NamedTensors::default();
    for parameter in &planned.plan.parameters {
        values.push(
            parameter.name.clone(),
            floats(&parameter.name, &parameter.dims, 0.3),
        );
    }
    let file = folder.join("values.safetensors");
    std::fs::write(&file, values.to_safetensors().unwrap()).unwrap();
    file
}

pub(crate) fn merged(
    spec: &str,
    model: &Path,
    values: &Path,
    folder: &Path,
) -> Result<MergeArtifacts, String> {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let path = folder.join("merge.peft");
    std::fs::write(&path, spec).unwrap();
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let result = (|| {
        let spec = session.spec(&path)?;
        let adapter = session.one_adapter(&spec, None)?;
        let loaded = session.model(model, &ModelOptions::default())?;
        let (loaded, planned) = session.plan(&spec, adapter, loaded, &PlanOptions::default())?;
        let mut loaded = loaded.into_owned();
        session.sink.failed()?;
        let destination = Destination::Folder(folder.join("merged"));
        merge(&mut session, &mut loaded, &planned, values, &destination)
    })();
    let all = sink.diagnostics().iter();
    let text: String = all
        .map(|d| render::render(d, &sources, render::Style::PLAIN))
        .collect();
    result.map_err(|_| text)
}

/// Merges and compiles the same values, and compares what the two give.
fn check(fixture: &str, spec: &str, tolerance: f64) -> (MergeArtifacts, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let model = model(fixture);
    let values = trained(spec, &model, folder.path());
    let adapted = compiled(spec, &model, Some(&values), folder.path());
    let artifacts = merged(spec, &model, &values, folder.path())
        .unwrap_or_else(|text| panic!("{fixture}: {text}"));
    let io = fixtures().join(format!("models/{fixture}.io.safetensors"));
    let inputs = recorded(&io, "input.");
    let found = outputs(&artifacts.model, &inputs);
    let (wanted, base) = (outputs(&adapted, &inputs), outputs(&model, &inputs));
    check_moved(fixture, &found, &wanted, &base, tolerance);
    (artifacts, folder)
}

/// Outputs are those that are wanted, and far from those of the base.
#[track_caller]
fn check_moved(
    fixture: &str,
    found: &NamedTensors,
    wanted: &NamedTensors,
    base: &NamedTensors,
    tolerance: f64,
) {
    let mut moved = 0.0_f64;
    for (name, tensor) in found.iter() {
        let (difference, scale) = distance(tensor, wanted.get(name).unwrap());
        assert!(
            difference <= tolerance * scale,
            "{fixture}: `{name}` differs by {difference:.1e} of {scale:.1e}"
        );
        moved = moved.max(distance(tensor, base.get(name).unwrap()).0 / scale);
    }
    assert!(
        moved > 5.0 * tolerance,
        "{fixture}: the outputs moved by {moved:.1e}"
    );
}

/// Operators of a model, in order.
fn operators(path: &Path) -> Vec<String> {
    let model = onnx::import(path, &mut Sink::new()).unwrap().model;
    let order = model.graph.order().unwrap();
    let nodes = order.iter().map(|id| model.graph.node(*id).op.to_string());
    nodes.collect()
}

#[test]
fn merged_models_have_the_nodes_of_the_base_and_the_numbers_of_the_adapter() {
    let spec = "use std::{lora, dora}
adapter a {
  adapt \"self_attn.{q,v}_proj\" with lora(rank = 4)
  adapt \"mlp.down_proj\" with dora(rank = 2)
}";
    for fixture in ["llama.ts", "llama.dynamo", "llama.dynamo_external"] {
        let (artifacts, _folder) = check(fixture, spec, MERGED_RELATIVE);
        assert_eq!(operators(&artifacts.model), operators(&model(fixture)));
        assert!(artifacts.sites.iter().all(|site| site.change > 0.01));
    }
}

#[test]
fn convolutions_embeddings_and_norms_merge() {
    check(
        "convnet.dynamo",
        "use std::{lora, hira, bitfit}
adapter a {
  adapt \"conv1\", \"stem\" with lora(rank = 2) + bitfit()
  adapt \"conv2\" with hira(rank = 2)
}",
        MERGED_RELATIVE,
    );
    check(
        "bert.dynamo",
        "use std::{lora, norm_tuning, bitfit}
adapter a {
  adapt all norm with norm_tuning()
  adapt all embedding with lora(rank = 2)
  adapt \"attention.self.{query,key}\" with bitfit()
}",
        MERGED_RELATIVE,
    );
}

#[test]
fn members_of_a_fused_projection_merge_into_their_rows() {
    check(
        "gpt2.dynamo",
        "use std::{lora, ia3}
adapter a {
  adapt \"attn.c_attn\"[0..out / 3] with lora(rank = 2)
  adapt \"mlp.c_fc\" with ia3(feedforward = true)
}",
        MERGED_RELATIVE,
    );
}

#[test]
fn weights_in_half_precision_are_rounded_and_it_is_said() {
    let spec = "use std::lora\nadapter a { adapt \"q_proj\" with lora(rank = 2) }";
    let (artifacts, _folder) = check("llama.fp16.dynamo", spec, MERGED_RELATIVE_F16);
    assert!(artifacts.sites.iter().all(|site| site.rounded.is_some()));
}

#[test]
fn branches_that_share_their_weights_merge_together() {
    check(
        "t5.optimum_merged",
        "use std::lora\nadapter a { adapt \"SelfAttention.{q,v}\" with lora(rank = 2) }",
        MERGED_RELATIVE,
    );
}

#[test]
fn two_adapters_merge_one_after_the_other() {
    let first = "use std::ia3\nadapter a { adapt \"v_proj\" with ia3() }";
    let second = "use std::lora\nadapter a { adapt \"v_proj\" with lora(rank = 2) }";
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = model("llama.ts");
    let values = trained(first, &base, a.path());
    let once = merged(first, &base, &values, a.path()).unwrap();
    // Trained on the merged model, so it belongs behind it.
    let values = trained(second, &once.model, b.path());
    let twice = merged(second, &once.model, &values, b.path()).unwrap();
    let adapted = compiled(second, &once.model, Some(&values), b.path());
    let inputs = recorded(&fixtures().join("models/llama.ts.io.safetensors"), "input.");
    let (wanted, found) = (outputs(&adapted, &inputs), outputs(&twice.model, &inputs));
    let (difference, scale) = distance(&found.0[0].1, &wanted.0[0].1);
    assert!(
        difference <= MERGED_RELATIVE * scale,
        "{difference:.1e} of {scale:.1e}"
    );
}

#[test]
fn what_does_not_merge_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let spec = "use std::dynamic_lora\nadapter a { adapt \"q_proj\" with dynamic_lora(rank = 2, pool = \"per_token\") }";
    let model = model("llama.genai_int4");
    let values = trained(spec, &model, folder.path());
    let text = merged(spec, &model, &values, folder.path()).unwrap_err();
    assert!(text.contains("E0905") && text.contains("E0906"), "{text}");
    assert!(!folder.path().join("merged").exists());
}
