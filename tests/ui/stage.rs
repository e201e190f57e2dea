//! Runs a case up to the stage that its options ask for.

use crate::case::Case;
use peftc::diag::{FileId, Reported, Sink, SourceMap};
use peftc::driver::{ModelOptions, PlanOptions, Session, Spec};
use peftc::hir;
use std::path::{Path, PathBuf};

/// Collects what the user would be told. Options: `stage` (`parse`, `check` or `plan`) and, for
/// `plan`, `model` (the name of a fixture).
pub fn run_stage(
    case: &Case,
    sources: &mut SourceMap,
    file: FileId,
    sink: &mut Sink,
) -> Result<(), String> {
    // Only what the sink holds matters here.
    let _: Result<(), Reported> = match case.options.get("stage").map(String::as_str) {
        None | Some("parse") => peftc::syntax::parse(sources, file, sink).map(drop),
        Some("check") => check(sources, file, sink).map(drop),
        Some("plan") => {
            let name = case.options.get("model").ok_or("`plan` needs a `model`")?;
            check(sources, file, sink).and_then(|spec| plan(&spec, name, sources, sink))
        }
        Some(other) => return Err(format!("unknown stage `{other}`")),
    };
    Ok(())
}

fn check(sources: &mut SourceMap, file: FileId, sink: &mut Sink) -> Result<Spec, Reported> {
    let mut load = |_: &mut SourceMap, _, wanted: &peftc::syntax::ast::StringLit, _: &mut Sink| {
        panic!("cases import no files: {}", wanted.node)
    };
    let program = hir::resolve(sources, file, &mut load, sink)?;
    Ok(Spec {
        path: PathBuf::from("case.peft"),
        file,
        program,
    })
}

fn plan(
    spec: &Spec,
    model: &str,
    sources: &mut SourceMap,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/models")
        .join(format!("{model}.onnx"));
    let mut session = Session { sources, sink };
    let options = ModelOptions {
        roles: true,
        ..ModelOptions::default()
    };
    let loaded = session.model(&path, &options)?;
    for adapter in session.adapters(spec, &[])? {
        // Errors of one adapter do not hide those of the next.
        let _ = session.plan(spec, adapter, &loaded, &PlanOptions::default());
    }
    Ok(())
}
