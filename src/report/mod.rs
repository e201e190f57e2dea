//! What other programs and people read: diagnostics as SARIF, GitHub annotations and JUnit; drawings
//! of graphs as DOT, SVG and text; curves of a run as HTML and as TensorBoard's events; what differs between
//! two texts.
//!
//! In: a run's diagnostics with their sources, or a [`Drawing`] or a [`Page`] as plain data. Out: one
//! whole document a format, the same for the same input. Not here: drawing of diagnostics for people
//! (`diag::render`), peftc's own JSON (`diag::json`), and any file.

mod curves;
mod diff;
mod drawing;
mod events;
mod github;
mod junit;
mod sarif;
mod xml;

pub use curves::{Chart, Curve, Page, html};
pub use diff::{ChangedLine, first_change, unified_diff};
pub use drawing::{Block, Drawing, Line, Role, Side, dot, svg, text};
pub use events::{event, event_file};
pub use github::github;
pub use junit::{ProofCase, ProofOutcome, junit, junit_of_proofs};
pub use sarif::sarif;

use crate::diag::{Diagnostic, LineColumn, SourceMap};

/// What a report is about.
pub struct Subject<'a> {
    /// The subcommand that ran, such as `check`.
    pub command: &'a str,
    pub diagnostics: &'a [Diagnostic],
    pub sources: &'a SourceMap,
}

/// The primary place of a diagnostic.
struct Place<'a> {
    file: &'a str,
    start: LineColumn,
    end: LineColumn,
    /// What the label says there.
    text: &'a str,
}

/// `None` when the diagnostic points at no source file.
fn place<'a>(diagnostic: &'a Diagnostic, sources: &'a SourceMap) -> Option<Place<'a>> {
    let label = diagnostic.labels.first()?;
    let file = label.span.file;
    Some(Place {
        file: sources.name(file),
        start: sources.line_column(file, label.span.start),
        end: sources.line_column(file, label.span.end),
        text: &label.text,
    })
}

/// Message, label, notes and helps as lines of plain text.
fn full_text(diagnostic: &Diagnostic, sources: &SourceMap) -> String {
    let mut lines = vec![diagnostic.message.clone()];
    let label = place(diagnostic, sources).map(|place| place.text.to_owned());
    lines.extend(label.filter(|text| !text.is_empty()));
    lines.extend(diagnostic.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(diagnostic.help.iter().map(|help| format!("help: {help}")));
    lines.join("\n")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
