//! What is run on every input, up to everything that a user's file goes through.

use crate::random::Random;
use crate::{patterns, tensors, text, wire};
use peftc::adapt;
use peftc::diag::{Code, Diagnostic, Reported, Sink, SourceMap, render};
use peftc::driver::{Loaded, ModelOptions, PlanOptions, Session, Spec, modules_json, modules_text};
use peftc::graph::Model;
use peftc::modules::{self, Modules, NameMap};
use peftc::{files, hir, onnx, passes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub struct Target {
    pub name: &'static str,
    pub seeds: Seeds,
    pub mutate: fn(&[Vec<u8>], &mut Random) -> Vec<u8>,
    /// Answers in a word what happened; panics are faults.
    pub run: fn(&[u8]) -> String,
}

/// What mutations start from.
#[derive(Clone, Copy)]
pub enum Seeds {
    /// Folders of the repository and the ends of the names of files in them.
    Files(&'static [(&'static str, &'static str)]),
    Made(fn() -> Vec<Vec<u8>>),
}

pub static TARGETS: &[Target] = &[
    Target {
        name: "spec",
        seeds: Seeds::Files(&[
            ("src/stdlib", ".peft"),
            ("fixtures", ".peft"),
            ("tests/ui", ".peft"),
        ]),
        mutate: text::mutate,
        run: spec,
    },
    Target {
        name: "model",
        seeds: Seeds::Files(&[("fixtures", ".onnx")]),
        mutate: wire::mutate,
        run: model,
    },
    Target {
        name: "names",
        seeds: Seeds::Files(&[("tests/fuzz/seeds", ".json")]),
        mutate: text::mutate,
        run: names,
    },
    Target {
        name: "safetensors",
        seeds: Seeds::Made(tensors::seeds),
        mutate: tensors::mutate,
        run: tensors::run,
    },
    Target {
        name: "pattern",
        seeds: Seeds::Made(patterns::seeds),
        mutate: patterns::mutate,
        run: patterns::run,
    },
];

/// Everything that would be told, drawn; and a word for it.
pub fn told(sources: &SourceMap, sink: &Sink) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for diagnostic in sink.diagnostics() {
        let drawn = render::render(diagnostic, sources, render::Style::PLAIN);
        assert!(drawn.contains(diagnostic.code.name()));
        *counts.entry(diagnostic.code.name()).or_insert(0) += 1;
    }
    let words = counts
        .iter()
        .map(|(code, n)| format!("{code}×{}", n.min(&3)));
    words.collect::<Vec<_>>().join(" ")
}

pub fn resolved(
    name: &str,
    text: &str,
    sources: &mut SourceMap,
    sink: &mut Sink,
) -> Result<Spec, Reported> {
    let file = sources.add(name, text.to_owned());
    let mut load =
        |_: &mut SourceMap, _, wanted: &peftc::syntax::ast::StringLit, sink: &mut Sink| {
            let message = "there are no other files here";
            Err(sink.emit(Diagnostic::new(Code::E0205, message).label(wanted.span, "")))
        };
    let program = hir::resolve(sources, file, &mut load, sink)?;
    Ok(Spec {
        path: PathBuf::from(name),
        file,
        program,
    })
}

fn spec(input: &[u8]) -> String {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let planned = files::text(Path::new("fuzz.peft"), input.to_vec(), &mut sink)
        .and_then(|text| resolved("fuzz.peft", &text, &mut sources, &mut sink))
        .and_then(|spec| plan_all(&spec, &mut sources, &mut sink));
    format!("{} {}", told(&sources, &sink), planned.is_ok())
}

/// Plans every adapter on a model that has all kinds of modules.
pub fn plan_all(spec: &Spec, sources: &mut SourceMap, sink: &mut Sink) -> Result<(), Reported> {
    static LOADED: OnceLock<(Model, Modules)> = OnceLock::new();
    let (model, modules) = LOADED.get_or_init(|| {
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let mut session = Session {
            sources: &mut sources,
            sink: &mut sink,
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/bert.dynamo.onnx");
        let loaded = session.model(&path, &ModelOptions::default()).unwrap();
        (loaded.model, loaded.modules)
    });
    for adapter in &spec.program.adapters {
        let options = PlanOptions::default();
        let plan = adapt::plan(&spec.program, adapter, model, modules, &options, sink)?;
        let plan = adapt::check_expectations(adapter, &plan, model, modules, sources, sink);
        assert!(plan.len() <= adapter.expects.len());
    }
    Ok(())
}

/// Every model has modules for some of these adapters.
pub const ADAPTERS: &str = "use std::{lora, bitfit, dora, dynamic_lora, ia3}
adapter linear { adapt all linear with lora(rank = 1) + bitfit() }
adapter weight { adapt all linear with dora(rank = 1) }
adapter tokens { adapt all linear with dynamic_lora(rank = 1, hidden = 2, pool = \"masked_mean\") }
adapter norm { train all norm }
adapter conv { adapt all conv with ia3() }
adapter embedding { adapt all embedding with lora(rank = 1) }
";

fn model(input: &[u8]) -> String {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let reached = through(input.to_vec(), &mut sources, &mut sink);
    format!("{} {reached}", told(&sources, &sink))
}

/// How far the model came: read, typed, recovered; and how far with every adapter.
fn through(input: Vec<u8>, sources: &mut SourceMap, sink: &mut Sink) -> String {
    let Ok(imported) = onnx::import_bytes("fuzz.onnx", input.into(), sink) else {
        return "0".to_owned();
    };
    let mut unchanged = Vec::new();
    let same = onnx::write_model(&imported.model, &mut unchanged);
    assert!(same.is_ok(), "a model that was read can be written");
    let mut model = imported.model;
    if passes::infer(&mut model, sink).is_err() {
        return "1".to_owned();
    }
    let Ok(modules) = modules::recover(&model, &modules::Options::default(), sink) else {
        return "2".to_owned();
    };
    let loaded = Loaded {
        path: PathBuf::from("fuzz.onnx"),
        model,
        modules,
        weights: imported.weights,
        fingerprint: None,
    };
    assert!(modules_json(&loaded).is_object() && !modules_text(&loaded).is_empty());
    let spec = resolved("all.peft", ADAPTERS, sources, sink).expect("it is well formed");
    let reached = spec.program.adapters.iter().map(|adapter| {
        let reached = adapted(&spec, adapter, &loaded, sink);
        (b'3' + reached) as char
    });
    reached.collect()
}

/// How far an adapter came: planned, applied, written and read again.
fn adapted(spec: &Spec, adapter: &hir::Adapter, loaded: &Loaded, sink: &mut Sink) -> u8 {
    let Loaded { model, modules, .. } = loaded;
    let options = PlanOptions::default();
    let Ok(plan) = adapt::plan(&spec.program, adapter, model, modules, &options, sink) else {
        return 0;
    };
    let reader = |tensor: &peftc::graph::Tensor, sink: &mut Sink| {
        let bytes = loaded.weights.bytes(tensor);
        bytes.map_err(|found| sink.emit(*found))
    };
    let mut model = model.clone();
    let none = BTreeMap::new();
    if adapt::apply(&plan, &mut model, modules, 0, &reader, &none, sink).is_err() {
        return 1;
    }
    let mut written = Vec::new();
    if onnx::write_model(&model, &mut written).is_err() {
        return 2;
    }
    let mut again = Sink::new();
    let read = onnx::import_bytes("written.onnx", written.into(), &mut again);
    assert!(
        read.is_ok(),
        "what was written is read: {:?}",
        again.diagnostics()
    );
    3
}

fn names(input: &[u8]) -> String {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let found = named(input, &mut sources, &mut sink).is_ok();
    format!("{} {found}", told(&sources, &sink))
}

fn named(input: &[u8], sources: &mut SourceMap, sink: &mut Sink) -> Result<(), Reported> {
    static MODEL: OnceLock<Model> = OnceLock::new();
    let model = MODEL.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/synthetic.if.onnx");
        let bytes = std::fs::read(path).unwrap();
        let imported = onnx::import_bytes("names.onnx", bytes.into(), &mut Sink::new());
        imported.unwrap().model
    });
    let text = files::text(Path::new("names.json"), input.to_vec(), sink)?;
    let file = sources.add("names.json", text.clone());
    let map = NameMap::parse(&text, file, sources, sink)?;
    let options = modules::Options {
        names: Some(&map),
        ..modules::Options::default()
    };
    modules::recover(model, &options, sink).map(drop)
}
