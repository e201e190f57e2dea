//! Gradients against those that PyTorch and PEFT computed (`fixtures/gradients`).
//!
//! ONNX Runtime in single precision may be three times as far from PyTorch in double precision as
//! PyTorch in single precision is; the reference, which computes the same graph in double
//! precision, has to come down to what is rounded in the weights and tables of the file.

use crate::adapters::{fixtures, recorded};
use crate::checker::models;
use crate::differentiated::{
    Trained, exact_products, execute, fixture, floats, length, project, reads, trained, with_exact,
};
use crate::reference::{array, inputs_of};
use crate::tolerances::{GRADIENT_HALF, GRADIENT_RECORDED, GRADIENT_TIMES_TORCH};
use peftc::diag::Sink;
use peftc::graph::{Model, ValueId};
use peftc::passes;
use peftc::reference::Array;
use peftc::runtime::{NamedTensors, Optimization};
use std::collections::BTreeMap;

/// What was recorded of a model.
pub(crate) struct Recording {
    name: &'static str,
    loss: f64,
    /// How far the loss is off in single precision.
    loss_error: f64,
    /// The sum of the magnitudes of what the loss is the sum of.
    loss_size: f64,
    rank: i64,
    /// Gradients by parameter, with how far each is off in single precision.
    gradients: BTreeMap<String, (Vec<f64>, f64)>,
}

impl Recording {
    pub(crate) fn read(name: &'static str) -> Recording {
        let path = fixtures()
            .join("gradients")
            .join(format!("{name}.safetensors"));
        let tensors = NamedTensors::read_safetensors(&path).unwrap();
        let numbers = |name: &str| tensors.get(name).unwrap().to_f64s().unwrap();
        let names = tensors.iter().map(|(name, _)| name);
        let mut names: Vec<&str> = names
            .filter_map(|name| name.strip_prefix("gradient."))
            .collect();
        names.sort_unstable();
        let errors = numbers("errors");
        assert_eq!(errors.len(), names.len());
        let gradients = names.iter().zip(errors).map(|(name, error)| {
            let gradient = numbers(&format!("gradient.{name}"));
            ((*name).to_owned(), (gradient, error))
        });
        let first = tensors.get(&format!("gradient.{}", names[0])).unwrap();
        assert!(names[0].ends_with(".A"));
        let loss = numbers("loss");
        Recording {
            name,
            loss: loss[0],
            loss_error: loss[1],
            loss_size: loss[2],
            rank: first.dims()[0],
            gradients: gradients.collect(),
        }
    }

    /// The same adapter as a spec.
    pub(crate) fn spec(&self) -> String {
        let paths = self.gradients.keys();
        let paths = paths.filter_map(|name| name.strip_suffix(".A"));
        let quoted: Vec<String> = paths.map(|path| format!("{path:?}")).collect();
        format!(
            "use std::lora\nadapter a {{\n  adapt {} with lora(rank = {}, alpha = {})\n}}\n",
            quoted.join(", "),
            self.rank,
            2 * self.rank
        )
    }
}

/// What has been computed for the loss and the gradients, by the recorded names.
struct Found {
    loss: f64,
    gradients: Vec<(String, Vec<f64>)>,
}

/// How far from the recording something may be.
struct Bound {
    /// Relative to the length of all gradients together, and to the size of the loss.
    relative: f64,
    /// Relative to PyTorch's own error in single precision.
    times_torch: f64,
}

const EXACT: Bound = Bound {
    relative: GRADIENT_RECORDED,
    times_torch: 0.0,
};

/// What ONNX Runtime is held to.
fn bound(model: &str) -> Bound {
    Bound {
        relative: match model.contains("fp16") {
            true => GRADIENT_HALF,
            false => GRADIENT_RECORDED,
        },
        times_torch: GRADIENT_TIMES_TORCH,
    }
}

/// A change to a model before it is differentiated.
type Change = fn(&mut Model);

fn as_it_is(_: &mut Model) {}

fn without_a_cache(model: &mut Model) {
    let flags = [("use_cache_branch".to_owned(), false)];
    passes::specialize(model, &flags, &mut Sink::new()).unwrap();
}

fn check(recording: &'static str, models: &[&str], change: Change) {
    let recording = Recording::read(recording);
    for name in models {
        let values = |parameter: &str, dims: &[i64]| {
            let size = if parameter.ends_with(".A") { 0.5 } else { 0.35 };
            floats(&format!("{}/{parameter}", recording.name), dims, size)
        };
        let loss = |model: &mut Model| -> ValueId {
            change(model);
            project(model)
        };
        let trained = trained(name, &recording.spec(), loss, values);
        let found = trained.gradients.keys();
        assert!(found.eq(recording.gradients.keys()), "{name}");
        let inputs = inputs(name, &recording, &trained);
        compare(name, &recording, &trained, &inputs);
    }
}

fn inputs(name: &str, recording: &Recording, trained: &Trained) -> NamedTensors {
    let path = fixture(name);
    let mut inputs = inputs_of(name, &path);
    // A model that has been specialized may read less.
    inputs.0.retain(|(name, _)| reads(&trained.path(), name));
    let all = match name {
        "quickstart" => recorded(&path.with_file_name("io.safetensors"), ""),
        _ => recorded(&path.with_extension("io.safetensors"), "output."),
    };
    let mut first = ["logits", "last_hidden_state"].into_iter();
    let output = first.find_map(|name| all.get(name)).unwrap();
    let name = format!("{}/projection", recording.name);
    inputs.push("projection", floats(&name, output.dims(), 1.0));
    inputs
}

fn compare(name: &str, recording: &Recording, trained: &Trained, inputs: &NamedTensors) {
    let mut names = vec![trained.loss.as_str()];
    names.extend(trained.gradients.values().map(String::as_str));
    for optimization in [Optimization::Disabled, Optimization::All] {
        let outputs = execute(&trained.path(), inputs, optimization);
        let get = |name: &&str| outputs.get(name).unwrap().to_f64s().unwrap();
        let found = found(trained, names.iter().map(get));
        let what = format!("{name}, {optimization:?}");
        close(&what, recording, &found, &bound(name));
    }
    with_exact(&trained.path(), |exact| {
        let given: Vec<(&str, Array)> = inputs.iter().map(|(name, t)| (name, array(t))).collect();
        let found = found(trained, exact.run(&given, &names));
        let what = format!("{name}, in double precision");
        close(&what, recording, &found, &EXACT);
    });
}

/// The loss and the gradients, of which these are the values in order.
fn found(trained: &Trained, values: impl IntoIterator<Item = Vec<f64>>) -> Found {
    let mut values = values.into_iter();
    Found {
        loss: values.next().unwrap()[0],
        gradients: trained.gradients.keys().cloned().zip(values).collect(),
    }
}

fn close(what: &str, recording: &Recording, found: &Found, bound: &Bound) {
    let allowed = |error: f64, scale: f64| (bound.times_torch * error).max(bound.relative * scale);
    let difference = (found.loss - recording.loss).abs();
    assert!(
        difference <= allowed(recording.loss_error, recording.loss_size),
        "{what}: the loss is {}, not {}, a sum of {}",
        found.loss,
        recording.loss,
        recording.loss_size
    );
    let all = recording.gradients.values();
    let scale = all.map(|(g, _)| length(g).powi(2)).sum::<f64>().sqrt();
    for (name, gradient) in &found.gradients {
        let (expected, error) = &recording.gradients[name];
        let difference: Vec<f64> = gradient.iter().zip(expected).map(|(a, b)| a - b).collect();
        let difference = length(&difference);
        assert!(
            difference <= allowed(*error, scale),
            "{what}: the gradient of {name} is off by {difference:e}, PyTorch's in single precision \
             by {error:e}, of {:e}, all together {scale:e}",
            length(expected)
        );
    }
}

/// A test for each recording, with the models that have its gradients.
macro_rules! recordings {
    ($($test:ident: $models:expr, $change:expr;)*) => {
        const COMPARED: &[(&str, &[&str])] = &[$((stringify!($test), &$models)),*];
        $(
            #[test]
            fn $test() {
                check(stringify!($test), &$models, $change);
            }
        )*
    };
}

recordings! {
    llama: [
        "llama.dynamo",
        "llama.dynamo_external",
        "llama.dynamo_noopt",
        "llama.dynamo_ortbasic",
        "llama.ts",
        "llama.ts_nofold",
    ], as_it_is;
    llama_fp16: ["llama.fp16.dynamo"], as_it_is;
    llama_past: ["llama.optimum_past"], as_it_is;
    llama_unpadded: ["llama.genai_fp32"], as_it_is;
    llama_int4: ["llama.genai_int4", "llama.genai_int4_qdq"], exact_products;
    quickstart: ["quickstart"], as_it_is;
    qwen2: ["qwen2.dynamo", "qwen2.ts"], as_it_is;
    gpt2: ["gpt2.dynamo", "gpt2.ts"], as_it_is;
    bert: ["bert.dynamo", "bert.ts"], as_it_is;
    t5: ["t5.dynamo", "t5.ts"], as_it_is;
    t5_encoder: ["t5.optimum_encoder"], as_it_is;
    t5_decoder: ["t5.optimum_merged"], without_a_cache;
    vit: ["vit.dynamo", "vit.ts"], as_it_is;
    convnet: ["convnet.dynamo_bn", "convnet.ts_bn"], as_it_is;
    convnet_folded: ["convnet.dynamo", "convnet.ts"], as_it_is;
}

/// All but those that were made by hand, of which there is no torch model.
#[test]
fn every_fixture_is_compared_and_every_recording_is_used() {
    let compared: Vec<&str> = COMPARED
        .iter()
        .flat_map(|(_, models)| *models)
        .copied()
        .collect();
    for (name, _) in models() {
        let known = name.starts_with("synthetic.") || compared.contains(&name.as_str());
        assert!(known, "{name}");
    }
    for entry in std::fs::read_dir(fixtures().join("gradients")).unwrap() {
        let path = entry.unwrap().path();
        // Of steps (`steps_recorded.rs`).
        if path.file_name().unwrap() == "steps.json" {
            continue;
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(COMPARED.iter().any(|(name, _)| *name == stem), "{stem}");
    }
}
