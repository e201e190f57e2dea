//! Compares what a case says with what the compiler says.

use crate::case::{Case, Mark};
use crate::stage::{Files, run_stage};
use libtest_mimic::Failed;
use peftc::diag::{Diagnostic, FileId, Sink, SourceMap, render};
use std::path::Path;

/// Runs one case: its marks and its `.stderr` file must fit.
pub fn check_ui(folder: &Path, path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path)?;
    let case = Case::read(&text)?;
    let mut sources = SourceMap::new();
    let file = sources.add(shown_name(folder, path), text);
    let mut sink = Sink::new();
    run_stage(&case, &Files::new(), &mut sources, file, &mut sink)?;
    let drawn = draw(sink.diagnostics(), &sources);
    check_marks(&case, sink.diagnostics(), &sources, file)
        .map_err(|complaint| format!("{complaint}\n{drawn}"))?;
    compare_with_recorded(path, &drawn)
}

/// The path of a case as its diagnostics show it.
pub fn shown_name(folder: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// The diagnostics as a user reads them.
pub fn draw(diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
    let drawn = diagnostics.iter().map(|diagnostic| {
        let text = render::render(diagnostic, sources, render::Style::PLAIN);
        let lines = text.lines().map(|line| format!("{}\n", line.trim_end()));
        lines.collect::<String>()
    });
    drawn.collect::<Vec<_>>().join("\n")
}

fn check_marks(
    case: &Case,
    diagnostics: &[Diagnostic],
    sources: &SourceMap,
    file: FileId,
) -> Result<(), String> {
    let mut found: Vec<Mark> = diagnostics
        .iter()
        .map(|diagnostic| {
            let primary = diagnostic.labels.first().map(|label| label.span);
            let here = primary.filter(|span| span.file == file);
            Mark {
                line: here.map(|span| sources.line_column(file, span.start).line),
                code: diagnostic.code.name().to_owned(),
            }
        })
        .collect();
    found.sort();
    if found == case.marks {
        return Ok(());
    }
    let missing = without(&case.marks, &found);
    let surplus = without(&found, &case.marks);
    Err(format!(
        "marked but not reported: {missing:?}\nreported but not marked: {surplus:?}"
    ))
}

/// The elements of `all` that are not among `others`, each counted as often as it is there.
fn without(all: &[Mark], others: &[Mark]) -> Vec<Mark> {
    let mut others = others.to_vec();
    let mut left = Vec::new();
    for mark in all {
        match others.iter().position(|other| other == mark) {
            Some(at) => {
                others.swap_remove(at);
            }
            None => left.push(mark.clone()),
        }
    }
    left
}

/// Compares with the file `.stderr` beside a case, or writes it.
pub fn compare_with_recorded(path: &Path, drawn: &str) -> Result<(), Failed> {
    let beside = path.with_extension("stderr");
    if std::env::var_os("PEFTC_UI").is_some_and(|value| value == "update") {
        if drawn.is_empty() {
            let _ = std::fs::remove_file(&beside);
        } else {
            std::fs::write(&beside, drawn)?;
        }
        return Ok(());
    }
    let recorded = match std::fs::read_to_string(&beside) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    if recorded == drawn {
        return Ok(());
    }
    let name = beside.display();
    let how = "read the new drawing, then write it with PEFTC_UI=update";
    Err(format!("{name} differs: {how}\n--- recorded\n{recorded}\n--- now\n{drawn}").into())
}
