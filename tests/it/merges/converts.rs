//! Converted adapters against what they were converted from, both in ONNX Runtime.

use super::{check_moved, merged, trained};
use crate::adapters::{compiled, fixtures, model, outputs, recorded};
use crate::tolerances::{CONVERTED_RELATIVE, MERGED_RELATIVE};
use peftc::diag::{Code, Reported, Sink, SourceMap};
use peftc::driver::{
    Budget, ConvertArtifacts, ConvertOptions, Destination, ModelOptions, PlanOptions, Progress,
    Session, convert,
};
use peftc::linalg::{Matrix, product, svd};
use peftc::weights::read_tensors;
use std::path::Path;
use tempfile::TempDir;

/// Converts the tensors of a spec; both lie in the folder that [`trained`] has filled.
fn converted(
    model: &Path,
    values: &Path,
    budget: Budget,
    folder: &Path,
) -> Result<ConvertArtifacts, Sink> {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let options = ConvertOptions {
        to: "lora".to_owned(),
        values: values.to_owned(),
        budget,
        asked: 0.01,
        destination: Destination::Folder(folder.join("converted")),
        progress: Progress::default(),
    };
    let done: Result<ConvertArtifacts, Reported> = (|| {
        let spec = session.spec(&folder.join("values.peft"))?;
        let adapter = session.one_adapter(&spec, None)?;
        let loaded = session.model(model, &ModelOptions::default())?;
        let (loaded, planned) = session.plan(&spec, adapter, &loaded, &PlanOptions::default())?;
        convert(&mut session, &loaded, &planned, &options)
    })();
    done.map_err(|_| sink)
}

/// Converts at full rank and compares the outputs of the result with those of a merge.
fn check(fixture: &str, spec: &str) -> (ConvertArtifacts, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let base = model(fixture);
    let values = trained(spec, &base, folder.path());
    let budget = Budget::Rank(1 << 20);
    let artifacts = converted(&base, &values, budget, folder.path())
        .unwrap_or_else(|sink| panic!("{fixture}: {:?}", sink.diagnostics()));
    let merged = merged(spec, &base, &values, folder.path()).unwrap();
    let text = std::fs::read_to_string(&artifacts.spec).unwrap();
    let again = tempfile::tempdir().unwrap();
    let adapted = compiled(&text, &base, Some(&artifacts.weights), again.path());
    let io = fixtures().join(format!("models/{fixture}.io.safetensors"));
    let inputs = recorded(&io, "input.");
    let (wanted, found) = (outputs(&merged.model, &inputs), outputs(&adapted, &inputs));
    let before = outputs(&base, &inputs);
    check_moved(fixture, &found, &wanted, &before, MERGED_RELATIVE);
    for site in &artifacts.sites {
        assert!(site.error() <= CONVERTED_RELATIVE, "{site:?}");
    }
    (artifacts, folder)
}

#[test]
fn methods_that_merge_become_lora() {
    let spec = "use std::{lora, loha, dora, pissa, bitfit}
adapter a {
  adapt \"self_attn.q_proj\" with lora(rank = 4)
  adapt \"self_attn.k_proj\" with loha(rank = 2)
  adapt \"self_attn.v_proj\" with dora(rank = 2)
  adapt \"mlp.up_proj\" with pissa(rank = 2)
  adapt \"mlp.down_proj\" with lora(rank = 2, bias = true)
}";
    let (artifacts, _folder) = check("llama.ts", spec);
    assert_eq!(artifacts.sites.len(), 10);
    let biases = artifacts.sites.iter().filter(|site| site.bias).count();
    assert_eq!(biases, 2);
}

#[test]
fn convolutions_embeddings_and_parts_of_projections_become_lora() {
    check(
        "convnet.dynamo",
        "use std::{lora, hira, bitfit}
adapter a {
  adapt \"conv1\" with lora(rank = 2) + bitfit()
  adapt \"stem\" with hira(rank = 2)
}",
    );
    check(
        "bert.dynamo",
        "use std::{lora, hira, bitfit}
adapter a {
  adapt all embedding with hira(rank = 2)
  adapt \"attention.self.{query,key}\" with lora(rank = 2) + bitfit()
}",
    );
    check(
        "gpt2.dynamo",
        "use std::{lora, ia3}
adapter a {
  adapt \"attn.c_attn\"[0..out / 3] with lora(rank = 2)
  adapt \"mlp.c_fc\" with ia3(feedforward = true)
}",
    );
}

#[test]
fn branches_that_share_their_weights_become_one() {
    let spec = "use std::lora\nadapter a { adapt \"SelfAttention.{q,v}\" with lora(rank = 2) }";
    let (artifacts, _folder) = check("t5.optimum_merged", spec);
    let mut names: Vec<&str> = artifacts.sites.iter().map(|s| &*s.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), artifacts.sites.len());
}

#[test]
fn a_convolution_with_groups_is_no_lora() {
    let spec = "use std::hira\nadapter a { adapt \"conv2\" with hira(rank = 2) }";
    let folder = tempfile::tempdir().unwrap();
    let base = model("convnet.dynamo");
    let values = trained(spec, &base, folder.path());
    let sink = converted(&base, &values, Budget::Rank(4), folder.path()).unwrap_err();
    let said = sink.diagnostics();
    assert!(!said.is_empty() && said.iter().all(|d| d.code == Code::E0908));
    assert!(!folder.path().join("converted").exists());
}

/// The change of a module under `lora(rank = 4, alpha = 4)`, and its singular values.
fn change(values: &Path, module: &str) -> (Matrix, Vec<f64>) {
    let tensors = read_tensors(values, &mut Sink::new()).unwrap();
    let factor = |name: &str| {
        let wanted = format!("{module}.{name}");
        let tensor = tensors.iter().find(|tensor| tensor.name == wanted).unwrap();
        let of = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
        let data = tensor.data.chunks(4).map(of).collect();
        let (rows, columns) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
        Matrix::new(rows, columns, data).unwrap()
    };
    let change = product(&factor("B"), &factor("A")).unwrap();
    let values = svd(&change).unwrap().s;
    (change, values)
}

const RANK_4: &str = "use std::lora
adapter a { adapt \"mlp.down_proj\" with lora(rank = 4, alpha = 4.0) }";

#[test]
fn a_lora_of_the_same_rank_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let base = model("llama.ts");
    let values = trained(RANK_4, &base, folder.path());
    let found = converted(&base, &values, Budget::Rank(4), folder.path()).unwrap();
    for site in &found.sites {
        assert_eq!(site.rank, 4);
        let (before, _) = change(&values, &site.name);
        let (after, _) = change(&found.weights, &site.name);
        let size = before.data.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        for (a, b) in before.data.iter().zip(&after.data) {
            assert!((a - b).abs() <= CONVERTED_RELATIVE * size, "{a} and {b}");
        }
    }
    assert!(found.error() <= CONVERTED_RELATIVE);
}

#[test]
fn what_a_smaller_rank_loses_are_the_singular_values_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let base = model("llama.ts");
    let values = trained(RANK_4, &base, folder.path());
    let length = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    for rank in 1..4 {
        let found = converted(&base, &values, Budget::Rank(rank), folder.path()).unwrap();
        let (mut lost, mut all) = (0.0, 0.0);
        for site in &found.sites {
            let (_, singular) = change(&values, &site.name);
            let wanted = length(&singular[rank..]) / length(&singular);
            assert!(
                (site.error() - wanted).abs() <= CONVERTED_RELATIVE,
                "{site:?}"
            );
            lost += length(&singular[rank..]).powi(2);
            all += length(&singular).powi(2);
            assert_eq!(site.rank_for, 4);
        }
        let wanted = f64::sqrt(lost / all);
        assert!((found.error() - wanted).abs() <= CONVERTED_RELATIVE);
        // The error of this rank is enough for it, a little less is not.
        let of = &found.sites[0];
        for (error, rank) in [(of.error() * 1.001, rank), (of.error() * 0.999, rank + 1)] {
            let again = converted(&base, &values, Budget::Error(error), folder.path()).unwrap();
            assert_eq!(again.sites[0].rank, rank);
            assert!(
                again
                    .sites
                    .iter()
                    .all(|site| site.error() <= error + CONVERTED_RELATIVE)
            );
        }
    }
}

#[test]
fn what_is_written_is_in_the_style_of_the_library_and_twice_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let base = model("llama.ts");
    let values = trained(RANK_4, &base, folder.path());
    let read = || {
        let found = converted(&base, &values, Budget::Rank(2), folder.path()).unwrap();
        (
            std::fs::read_to_string(found.spec).unwrap(),
            std::fs::read(found.weights).unwrap(),
        )
    };
    let (text, tensors) = read();
    assert_eq!(read(), (text.clone(), tensors));
    assert_eq!(
        text,
        "//! `a` as changes of low rank.

use std::lora

adapter a {
  adapt \"model.layers.0.mlp.down_proj\",
    \"model.layers.1.mlp.down_proj\"
    with lora(rank = 2, alpha = 2.0)
}
"
    );
}
