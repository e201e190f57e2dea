//! Adapters on real exports: what they change at the start (nothing), and which modules they find.

use crate::runtime::library;
use crate::tolerances::{START_ABSOLUTE, START_ABSOLUTE_F16};
use peftc::diag::{Sink, SourceMap, render};
use peftc::driver::{
    CompileOptions, Depth, Destination, Head, ModelOptions, PlanOptions, Progress, Recipe, Session,
    compile,
};
use peftc::runtime::{HostTensor, ModelSource, NamedTensors, Options, Session as Running};
use peftc::ty::DType;
use std::path::{Path, PathBuf};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

pub(crate) fn model(name: &str) -> PathBuf {
    fixtures().join("models").join(format!("{name}.onnx"))
}

/// Compiles a spec for a fixture into a folder and returns the adapted model's path.
pub(crate) fn compiled(spec: &str, model: &Path, values: Option<&Path>, folder: &Path) -> PathBuf {
    compiled_to_train(spec, model, values, None, folder)
}

/// [`compiled`], with the training graphs of a recipe.
pub(crate) fn compiled_to_train(
    spec: &str,
    model: &Path,
    values: Option<&Path>,
    training: Option<Recipe>,
    folder: &Path,
) -> PathBuf {
    compiled_with_head(spec, model, values, None, training, folder)
}

/// [`compiled_to_train`], with a head.
pub(crate) fn compiled_with_head(
    spec: &str,
    model: &Path,
    values: Option<&Path>,
    head: Option<Head>,
    training: Option<Recipe>,
    folder: &Path,
) -> PathBuf {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let path = folder.join("spec.peft");
    std::fs::write(&path, spec).unwrap();
    let result = (|| {
        let spec = session.spec(&path)?;
        let adapter = session.adapters(&spec, &[])?[0];
        let loaded = session.model(model, &ModelOptions::default())?;
        let (loaded, planned) = session.plan(&spec, adapter, loaded, &PlanOptions::default())?;
        let mut loaded = loaded.into_owned();
        let options = CompileOptions {
            head,
            classes: Vec::new(),
            training,
            destination: Destination::Folder(folder.join("out")),
            seed: 0,
            depth: Depth::Sampled,
            settings: Vec::new(),
            values: values.map(Path::to_owned),
            start: None,
            calibration: None,
            flags: Vec::new(),
            progress: Progress::default(),
        };
        compile(&mut session, &spec, &mut loaded, &planned, &options)
    })();
    match result {
        Ok(artifacts) => artifacts.model,
        Err(_) => {
            let all = sink.diagnostics().iter();
            let text: String = all
                .map(|d| render::render(d, &sources, render::Style::PLAIN))
                .collect();
            panic!("{}: {text}", model.display())
        }
    }
}

pub(crate) fn outputs(model: &Path, inputs: &NamedTensors) -> NamedTensors {
    let mut sink = Sink::new();
    let source = ModelSource::Path(model);
    let mut session = Running::open(library(), source, &Options::default(), &mut sink)
        .unwrap_or_else(|_| panic!("{}: {:?}", model.display(), sink.diagnostics()));
    session
        .run(inputs, &mut sink)
        .unwrap_or_else(|_| panic!("{}: {:?}", model.display(), sink.diagnostics()))
}

/// The tensors of a recording under a prefix, without it.
pub(crate) fn recorded(path: &Path, prefix: &str) -> NamedTensors {
    let all = NamedTensors::read_safetensors(path).unwrap();
    let mut found = NamedTensors::default();
    for (name, tensor) in all.0 {
        if let Some(short) = name.strip_prefix(prefix) {
            found.push(short, tensor);
        }
    }
    found
}

/// The largest absolute difference, and the largest magnitude of what is expected.
pub(crate) fn distance(found: &HostTensor, expected: &HostTensor) -> (f64, f64) {
    assert_eq!(found.dims(), expected.dims());
    let (a, b) = (found.to_f64s().unwrap(), expected.to_f64s().unwrap());
    let difference = a
        .iter()
        .zip(&b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(a.iter().all(|value| value.is_finite()));
    (difference, b.iter().map(|b| b.abs()).fold(0.0, f64::max))
}

/// Fixtures with linear modules beside their head.
const MODELS: &[&str] = &[
    "bert.dynamo",
    "bert.ts",
    "gpt2.dynamo",
    "gpt2.ts",
    "llama.dynamo",
    "llama.dynamo_external",
    "llama.dynamo_noopt",
    "llama.fp16.dynamo",
    "llama.genai_fp32",
    "llama.genai_int4",
    "llama.genai_int4_qdq",
    "llama.optimum_past",
    "llama.ts",
    "llama.ts_nofold",
    "qwen2.dynamo",
    "qwen2.ts",
    "t5.dynamo",
    "t5.optimum_encoder",
    "t5.optimum_merged",
    "t5.ts",
    "vit.dynamo",
    "vit.ts",
];

#[test]
fn lora_on_all_linear_layers_of_every_fixture_starts_as_the_base() {
    let spec = "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 4)\n  expect identity at start\n}\n";
    for name in MODELS {
        let folder = tempfile::tempdir().unwrap();
        let adapted = compiled(spec, &model(name), None, folder.path());
        let recording = fixtures()
            .join("models")
            .join(format!("{name}.io.safetensors"));
        let inputs = recorded(&recording, "input.");
        let base = outputs(&model(name), &inputs);
        let found = outputs(&adapted, &inputs);
        for (output, expected) in base.iter() {
            let (difference, _) = distance(found.get(output).unwrap(), expected);
            let bound = if expected.dtype() == DType::F16 {
                START_ABSOLUTE_F16
            } else {
                START_ABSOLUTE
            };
            assert!(
                difference <= bound,
                "{name}: `{output}` differs by {difference:e}"
            );
        }
    }
}

/// Half precision has no 4999: it is 5000 there, behind the end of the table.
#[test]
fn positions_at_a_site_of_half_precision_are_exact() {
    let spec = "\
        method picked() on linear {\n\
          param table : [5000] = 0 * iota(5000)\n\
          const at    : [1] = constant(4999)\n\
          forward(x, y) { y + gather(table, at) + gather(table, iota(5000)[4999..]) }\n\
        }\n\
        adapter a { adapt \"q_proj\" with picked() }\n";
    let name = "llama.fp16.dynamo";
    let folder = tempfile::tempdir().unwrap();
    let adapted = compiled(spec, &model(name), None, folder.path());
    let inputs = recorded(&model(name).with_extension("io.safetensors"), "input.");
    let base = outputs(&model(name), &inputs);
    let found = outputs(&adapted, &inputs);
    for (output, expected) in base.iter() {
        let (difference, _) = distance(found.get(output).unwrap(), expected);
        assert!(
            difference <= START_ABSOLUTE_F16,
            "`{output}` differs by {difference:e}"
        );
    }
}

#[test]
fn a_module_trained_in_full_starts_as_the_base() {
    for (name, target) in [
        ("convnet.dynamo_bn", "all conv"),
        ("bert.dynamo", "all embedding"),
        ("bert.ts", "all linear"),
        ("gpt2.ts", "all norm"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let spec = format!("adapter a {{\n  train {target}\n}}\n");
        let adapted = compiled(&spec, &model(name), None, folder.path());
        let recording = fixtures()
            .join("models")
            .join(format!("{name}.io.safetensors"));
        let inputs = recorded(&recording, "input.");
        let base = outputs(&model(name), &inputs);
        let found = outputs(&adapted, &inputs);
        for (output, expected) in base.iter() {
            let (difference, _) = distance(found.get(output).unwrap(), expected);
            assert!(
                difference <= START_ABSOLUTE,
                "{name}: `{output}` differs by {difference:e}"
            );
        }
    }
}

#[test]
fn compiling_twice_gives_the_same_bytes() {
    let spec = "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 4)\n}\n";
    let read = |folder: &Path| -> Vec<Vec<u8>> {
        compiled(spec, &model("llama.dynamo_external"), None, folder);
        let files = ["model.onnx", "adapter.safetensors", "manifest.json"];
        files
            .iter()
            .map(|file| std::fs::read(folder.join("out").join(file)).unwrap())
            .collect()
    };
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(read(a.path()) == read(b.path()));
}

#[test]
fn every_module_of_every_fixture_is_found_under_its_torch_path() {
    let mut missing = Vec::new();
    let mut checked = 0;
    for entry in std::fs::read_dir(fixtures().join("models")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".modules.json") else {
            continue;
        };
        let truth: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let mut session = Session {
            sources: &mut sources,
            sink: &mut sink,
        };
        let options = ModelOptions {
            weights: match name {
                // An optimizer has dropped every name.
                "llama.dynamo_ortbasic" => vec![crate::values::checkpoint()],
                _ => Vec::new(),
            },
            ..ModelOptions::default()
        };
        let loaded = session.model(&model(name), &options).unwrap();
        for module in truth["modules"].as_array().unwrap() {
            let kind = module["kind"].as_str().unwrap();
            if module["present"] == false || kind == "norm" {
                continue;
            }
            checked += 1;
            let path = module["path"].as_str().unwrap();
            let sites = &loaded.modules.sites;
            let mut of_kind = sites.iter().filter(|site| site.kind.name() == kind);
            if !of_kind.any(|site| site.paths().any(|found| found == path)) {
                missing.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(checked > 300, "{checked} modules");
    assert!(
        missing.is_empty(),
        "{} of {checked} not found: {missing:#?}",
        missing.len()
    );
}
