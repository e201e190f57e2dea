//! Specs: parsed, checked, planned on three models, and compiled in memory on the smallest.

use crate::corpus::{below, root};
use crate::model::compiled;
use crate::told::{resolved, told};
use peftc::adapt;
use peftc::diag::{Code, Reported, Sink, SourceMap};
use peftc::driver::{Loaded, ModelOptions, PlanOptions, Planned, Session, Spec, Summary};
use peftc::{files, syntax};
use std::path::Path;
use std::sync::OnceLock;

/// Start values of a larger adapter take longer than they say.
const MOST_BYTES: u64 = 1 << 20;
/// Adapters of a spec that are planned.
const MOST_ADAPTERS: usize = 8;

pub fn seeds() -> Vec<Vec<u8>> {
    let specs = ["src/stdlib", "fixtures", "tests/ui"];
    let files = specs.into_iter().flat_map(|folder| below(folder, ".peft"));
    let documents = ["grammar", "src/diag/codes"];
    let blocks = documents
        .into_iter()
        .flat_map(|folder| below(folder, ".md"));
    files
        .chain(blocks.flat_map(|text| examples(&text)))
        .collect()
}

/// The specs in a document.
fn examples(document: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(document);
    let blocks = text.split("\n```peft").skip(1);
    let blocks = blocks.filter_map(|block| {
        let (_, body) = block.split_once('\n')?;
        Some(body.split_once("\n```")?.0.as_bytes().to_vec())
    });
    blocks.collect()
}

pub fn run(input: &[u8]) -> String {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let planned = files::text(Path::new("fuzz.peft"), input.to_vec(), &mut sink)
        .inspect(|text| formatted_twice(text))
        .and_then(|text| resolved("fuzz.peft", &text, &mut sources, &mut sink))
        .map(|spec| plan_all(&spec, &mut sources, &mut sink));
    format!("{} {}", told(&sources, &sink), planned.unwrap_or_default())
}

/// What can be formatted means the same afterwards (a text that does not is E9901), and is then
/// formatted.
fn formatted_twice(text: &str) {
    let format = |text: &str| {
        let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
        let file = sources.add("fuzz.peft", text);
        let formatted = syntax::format(&sources, file, &mut sink);
        let mut found = sink.diagnostics().iter();
        assert!(found.all(|diagnostic| diagnostic.code != Code::E9901));
        formatted
    };
    if let Ok(once) = format(text) {
        assert!(format(&once).as_ref() == Ok(&once), "it goes on changing");
    }
}

/// How far the adapters came, on a model of linear layers, embeddings and norms, on one of
/// convolutions and on one with subgraphs.
pub fn plan_all(spec: &Spec, sources: &mut SourceMap, sink: &mut Sink) -> String {
    static LOADED: OnceLock<Vec<Loaded>> = OnceLock::new();
    let models = LOADED.get_or_init(|| {
        ["bert.dynamo", "convnet.ts", "synthetic.if"]
            .map(loaded)
            .into()
    });
    let mut reached = String::new();
    for adapter in spec.program.adapters.iter().take(MOST_ADAPTERS) {
        for loaded in models {
            let Ok(planned) = planned(spec, adapter, loaded, sources, sink) else {
                reached.push('-');
                continue;
            };
            reached.push(match planned.plan.bytes() {
                0..MOST_BYTES => compiled(&planned.plan, loaded, sink),
                _ => 'l',
            });
        }
    }
    reached
}

pub fn loaded(name: &str) -> Loaded {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let path = root().join(format!("fixtures/models/{name}.onnx"));
    session.model(&path, &ModelOptions::default()).unwrap()
}

pub fn planned(
    spec: &Spec,
    adapter: &peftc::hir::Adapter,
    loaded: &Loaded,
    sources: &SourceMap,
    sink: &mut Sink,
) -> Result<Planned, Reported> {
    let Loaded { model, modules, .. } = loaded;
    let options = PlanOptions::default();
    let plan = adapt::plan(&spec.program, adapter, model, modules, &options, sink)?;
    let expectations = adapt::check_expectations(adapter, &plan, model, modules, sources, sink);
    let planned = Planned { plan, expectations };
    let summary = Summary::new(&planned, loaded);
    assert!(summary.to_json().is_object() && !summary.to_text(model).is_empty());
    Ok(planned)
}
