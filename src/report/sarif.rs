//! SARIF 2.1.0, as code scanning services read it.

use super::{Place, Subject, full_text, place};
use crate::diag::{Code, Diagnostic, Severity};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One run with its rules and results.
pub fn sarif(subject: &Subject<'_>) -> String {
    let mut rules: Vec<Code> = subject.diagnostics.iter().map(|d| d.code).collect();
    rules.sort();
    rules.dedup();
    let mut seen = BTreeMap::new();
    let results: Vec<Value> = subject
        .diagnostics
        .iter()
        .map(|diagnostic| result(diagnostic, &rules, subject, &mut seen))
        .collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "peftc",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().copied().map(rule).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    let mut text = serde_json::to_string_pretty(&log).expect("values are JSON");
    text.push('\n');
    text
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.name(),
        "name": code.name(),
        "shortDescription": {"text": code.title()},
        "fullDescription": {"text": code.title()},
        "help": {
            "text": format!("{}\n\nShown by `peftc explain {}`.", code.title(), code.name()),
            "markdown": code.page(),
        },
        "defaultConfiguration": {"level": level(code.severity())},
    })
}

fn result(
    diagnostic: &Diagnostic,
    rules: &[Code],
    subject: &Subject<'_>,
    seen: &mut BTreeMap<String, u32>,
) -> Value {
    let rule_index = rules
        .binary_search(&diagnostic.code)
        .expect("every code is a rule");
    let place = place(diagnostic, subject.sources);
    let fingerprint = fingerprint(diagnostic, place.as_ref(), seen);
    json!({
        "ruleId": diagnostic.code.name(),
        "ruleIndex": rule_index,
        "level": level(diagnostic.severity()),
        "message": {"text": full_text(diagnostic, subject.sources)},
        "locations": place.iter().map(location).collect::<Vec<_>>(),
        "partialFingerprints": {"peftcFinding/v1": fingerprint},
    })
}

fn location(place: &Place<'_>) -> Value {
    json!({"physicalLocation": {
        "artifactLocation": {"uri": uri(place.file)},
        "region": {
            "startLine": place.start.line,
            "startColumn": place.start.column,
            "endLine": place.end.line,
            "endColumn": place.end.column,
        },
    }})
}

/// The same finding has the same fingerprint when lines move: code, file, message, and its number
/// among equal ones.
fn fingerprint(
    diagnostic: &Diagnostic,
    place: Option<&Place<'_>>,
    seen: &mut BTreeMap<String, u32>,
) -> String {
    let file = place.map_or("", |place| place.file);
    let text = format!("{}\0{file}\0{}", diagnostic.code.name(), diagnostic.message);
    let hash = blake3::hash(text.as_bytes()).to_hex();
    let number = seen.entry(text).or_default();
    *number += 1;
    format!("{}:{number}", &hash[..32])
}

/// A path as a relative reference: `/` as separator, other characters percent-encoded.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.replace('\\', "/").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}
