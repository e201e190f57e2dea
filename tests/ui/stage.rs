//! Runs a case up to the stage that its options ask for.

use crate::case::Case;
use peftc::diag::{FileId, Reported, Sink, SourceMap};
use peftc::driver::{ModelOptions, PlanOptions, Session, Spec};
use peftc::hir;
use peftc::syntax::ast::StringLit;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The texts that a case may import, by the path as the import writes it.
pub type Files = BTreeMap<String, String>;

/// Collects what the user would be told. Options: `stage` (`parse`, `check` or `plan`) and, for
/// `plan`, `model` (the name of a fixture).
pub fn run_stage(
    case: &Case,
    files: &Files,
    sources: &mut SourceMap,
    file: FileId,
    sink: &mut Sink,
) -> Result<(), String> {
    // Only what the sink holds matters here.
    let _: Result<(), Reported> = match case.options.get("stage").map(String::as_str) {
        None | Some("parse") => peftc::syntax::parse(sources, file, sink).map(drop),
        Some("check") => check(files, sources, file, sink).map(drop),
        Some("plan") => {
            let name = case.options.get("model").ok_or("`plan` needs a `model`")?;
            check(files, sources, file, sink).and_then(|spec| plan(&spec, name, sources, sink))
        }
        Some(other) => return Err(format!("unknown stage `{other}`")),
    };
    Ok(())
}

fn check(
    files: &Files,
    sources: &mut SourceMap,
    file: FileId,
    sink: &mut Sink,
) -> Result<Spec, Reported> {
    let mut load = |sources: &mut SourceMap, _, wanted: &StringLit, _: &mut Sink| {
        let text = files.get(&wanted.node);
        let text = text.unwrap_or_else(|| panic!("the case has no file `{}`", wanted.node));
        Ok(sources.add(wanted.node.clone(), text.clone()))
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
