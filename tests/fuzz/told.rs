//! What an input's diagnostics say, drawn as a user would see them and as a word to compare.

use peftc::diag::{Code, Diagnostic, Reported, Sink, SourceMap, json, render};
use peftc::driver::Spec;
use peftc::hir;
use peftc::syntax::ast::StringLit;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Letters of a message that tell it from others.
const ENOUGH: usize = 40;

/// Draws everything that would be told, and answers a word for it: the same for inputs of which
/// the same is said, whatever they call things.
pub fn told(sources: &SourceMap, sink: &Sink) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for diagnostic in sink.diagnostics() {
        let drawn = render::render(diagnostic, sources, render::Style::PLAIN);
        assert!(drawn.contains(diagnostic.code.name()));
        assert!(json::to_json(diagnostic, sources).is_object());
        let kind = format!("{} {}", diagnostic.code.name(), kind(&diagnostic.message));
        *counts.entry(kind).or_insert(0) += 1;
    }
    let words = counts
        .iter()
        .map(|(kind, n)| format!("{kind}×{}", n.min(&2)));
    words.collect::<Vec<_>>().join("; ")
}

/// A message without what stands between backticks and without numbers.
fn kind(message: &str) -> String {
    let outside = message.split('`').step_by(2);
    let letters = outside
        .flat_map(str::chars)
        .filter(char::is_ascii_lowercase);
    letters.take(ENOUGH).collect()
}

/// A spec that imports no file.
pub fn resolved(
    name: &str,
    text: &str,
    sources: &mut SourceMap,
    sink: &mut Sink,
) -> Result<Spec, Reported> {
    let file = sources.add(name, text.to_owned());
    let mut load = |_: &mut SourceMap, _, wanted: &StringLit, sink: &mut Sink| {
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
