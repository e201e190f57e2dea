//! GitHub workflow commands: annotations on the changed lines of a pull request.

use super::{Subject, full_text, place};
use crate::diag::Severity;
use std::fmt::Write;

/// One `::error …::` or `::warning …::` line a diagnostic. GitHub shows the first ten of a step;
/// the others stay in its log, and SARIF has all of them.
pub fn github(subject: &Subject<'_>) -> String {
    let mut out = String::new();
    for diagnostic in subject.diagnostics {
        let command = match diagnostic.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut properties = Vec::new();
        if let Some(place) = place(diagnostic, subject.sources) {
            properties.push(format!("file={}", property(place.file)));
            properties.push(format!("line={}", place.start.line));
            properties.push(format!("endLine={}", place.end.line));
            // Columns are only understood within one line.
            if place.start.line == place.end.line {
                properties.push(format!("col={}", place.start.column));
                properties.push(format!("endColumn={}", place.end.column));
            }
        }
        let title = format!("{}: {}", diagnostic.code.name(), diagnostic.code.title());
        properties.push(format!("title={}", property(&title)));
        let text = data(&full_text(diagnostic, subject.sources));
        let _ = writeln!(out, "::{command} {}::{text}", properties.join(","));
    }
    out
}

/// Escapes the text behind the second `::`.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes the value of a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
