//! Diagnostics for programs: the `diagnostics` array of every `--format json` output.

use super::{Diagnostic, Severity, SourceMap};
use serde_json::{Value, json};

/// One diagnostic as
/// `{code, severity, title, message, labels: [{file, start: {line, column}, end, text}], help, notes}`;
/// lines and columns count from 1, the first label is the primary one.
pub fn to_json(diagnostic: &Diagnostic, sources: &SourceMap) -> Value {
    let labels: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|label| {
            let start = sources.line_column(label.span.file, label.span.start);
            let end = sources.line_column(label.span.file, label.span.end);
            json!({
                "file": sources.name(label.span.file),
                "start": {"line": start.line, "column": start.column},
                "end": {"line": end.line, "column": end.column},
                "text": label.text,
            })
        })
        .collect();
    json!({
        "code": diagnostic.code.name(),
        "severity": severity_name(diagnostic.severity()),
        "title": diagnostic.code.title(),
        "message": diagnostic.message,
        "labels": labels,
        "excerpts": diagnostic.excerpts.iter().map(|e| json!({"title": e.title, "text": e.text})).collect::<Vec<_>>(),
        "help": diagnostic.help,
        "notes": diagnostic.notes,
    })
}

/// `error` or `warning`.
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}
