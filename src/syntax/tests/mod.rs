//! Tests of this room; the ones of messages are UI tests (`tests/ui`).

mod faults;
pub(super) mod show;
mod trees;

use super::ast;
use crate::diag::{Sink, SourceMap, render};

/// The tree of a text without faults.
fn check_parses(text: &str) -> ast::File {
    let mut sources = SourceMap::new();
    let file = sources.add("test.peft", text);
    let mut sink = Sink::new();
    let tree = super::parse(&sources, file, &mut sink);
    let said: String = sink
        .diagnostics()
        .iter()
        .map(|diagnostic| render::render(diagnostic, &sources, render::Style::PLAIN))
        .collect();
    tree.unwrap_or_else(|_| panic!("does not parse:\n{text}\n{said}"))
}

/// The codes reported for a text, in order, with the text under the primary label.
fn codes(text: &str) -> Vec<(String, String)> {
    let mut sources = SourceMap::new();
    let file = sources.add("test.peft", text);
    let mut sink = Sink::new();
    let tree = super::parse(&sources, file, &mut sink);
    assert_eq!(tree.is_err(), sink.error_count() > 0);
    let found = sink.diagnostics().iter().map(|diagnostic| {
        let under = sources.slice(diagnostic.labels[0].span);
        (diagnostic.code.name().to_owned(), under.to_owned())
    });
    found.collect()
}

/// Asserts the codes and the texts under their primary labels.
fn check_reports(text: &str, expected: &[(&str, &str)]) {
    let found = codes(text);
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (&a[..], &b[..])).collect();
    assert_eq!(found, expected, "in:\n{text}");
}
