//! What is run on every input, up to everything that a user's file goes through.

use crate::random::Random;
use crate::{text, wire};
use peftc::adapt;
use peftc::diag::{Code, Diagnostic, Reported, Sink, SourceMap, render};
use peftc::driver::{ModelOptions, PlanOptions, Session, Spec, modules_json, modules_text};
use peftc::graph::Model;
use peftc::modules::{self, Modules, NameMap};
use peftc::{hir, onnx, passes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub struct Target {
    pub name: &'static str,
    /// Folders of the repository and the ends of the names of files in them.
    pub corpus: &'static [(&'static str, &'static str)],
    pub mutate: fn(&[Vec<u8>], &mut Random) -> Vec<u8>,
    /// Answers in a word what happened; panics are faults.
    pub run: fn(&[u8]) -> String,
}

pub static TARGETS: &[Target] = &[
    Target {
        name: "spec",
        corpus: &[
            ("src/stdlib", ".peft"),
            ("fixtures", ".peft"),
            ("tests/ui", ".peft"),
        ],
        mutate: text::mutate,
        run: spec,
    },
    Target {
        name: "model",
        corpus: &[("fixtures/models", ".onnx")],
        mutate: wire::mutate,
        run: model,
    },
    Target {
        name: "names",
        corpus: &[("tests/fuzz/seeds", ".json")],
        mutate: text::mutate,
        run: names,
    },
];

/// Everything that would be told, drawn; and a word for it.
fn told(sources: &SourceMap, sink: &Sink) -> String {
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

fn resolved(
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
    let text = String::from_utf8_lossy(input);
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let planned = resolved("fuzz.peft", &text, &mut sources, &mut sink)
        .and_then(|spec| plan_all(&spec, &mut sources, &mut sink));
    format!("{} {}", told(&sources, &sink), planned.is_ok())
}

/// Plans every adapter on a model that has all kinds of modules.
fn plan_all(spec: &Spec, sources: &mut SourceMap, sink: &mut Sink) -> Result<(), Reported> {
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

const EVERYTHING: &str = "use std::lora
adapter a {
  adapt all linear with lora(rank = 1)
  train all norm
}
";

fn model(input: &[u8]) -> String {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let reached = through(input.to_vec(), &mut sources, &mut sink);
    format!("{} {reached}", told(&sources, &sink))
}

/// How far the model came: read, typed, planned, changed, written and read again.
fn through(input: Vec<u8>, sources: &mut SourceMap, sink: &mut Sink) -> u8 {
    let Ok(imported) = onnx::import_bytes("fuzz.onnx", input.into(), sink) else {
        return 0;
    };
    let mut unchanged = Vec::new();
    let same = onnx::write_model(&imported.model, &mut unchanged);
    assert!(same.is_ok(), "a model that was read can be written");
    let mut model = imported.model;
    if passes::infer(&mut model, sink).is_err() {
        return 1;
    }
    let Ok(modules) = modules::recover(&model, &modules::Options::default(), sink) else {
        return 2;
    };
    let loaded = peftc::driver::Loaded {
        path: PathBuf::from("fuzz.onnx"),
        model,
        modules,
        weights: imported.weights,
        fingerprint: None,
    };
    assert!(modules_json(&loaded).is_object() && !modules_text(&loaded).is_empty());
    let spec = resolved("all.peft", EVERYTHING, sources, sink).expect("it is well formed");
    let adapter = &spec.program.adapters[0];
    let options = PlanOptions::default();
    let mut model = loaded.model;
    let Ok(plan) = adapt::plan(
        &spec.program,
        adapter,
        &model,
        &loaded.modules,
        &options,
        sink,
    ) else {
        return 3;
    };
    let weights = loaded.weights;
    let reader = |tensor: &peftc::graph::Tensor, sink: &mut Sink| {
        weights.bytes(tensor).map_err(|found| sink.emit(*found))
    };
    let none = BTreeMap::new();
    let applied = adapt::apply(&plan, &mut model, &loaded.modules, 0, &reader, &none, sink);
    if applied.is_err() {
        return 4;
    }
    let mut written = Vec::new();
    if onnx::write_model(&model, &mut written).is_err() {
        return 5;
    }
    let mut again = Sink::new();
    let read = onnx::import_bytes("written.onnx", written.into(), &mut again);
    assert!(
        read.is_ok(),
        "what was written is read: {:?}",
        again.diagnostics()
    );
    6
}

fn names(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input).into_owned();
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let file = sources.add("names.json", text.clone());
    let found = NameMap::parse(&text, file, &sources, &mut sink).is_ok_and(|map| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/synthetic.if.onnx");
        let bytes = std::fs::read(path).unwrap();
        let imported = onnx::import_bytes("names.onnx", bytes.into(), &mut sink).unwrap();
        let options = modules::Options {
            names: Some(&map),
            ..modules::Options::default()
        };
        modules::recover(&imported.model, &options, &mut sink).is_ok()
    });
    format!("{} {found}", told(&sources, &sink))
}
