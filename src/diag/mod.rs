//! Diagnostics: what every phase says to the user, as plain data.
//!
//! In: spans and facts, through one constructor function per code in the room that emits it.
//! Out: [`Diagnostic`] values collected by a [`Sink`], rendered by [`render`] for people and by
//! [`json`] for programs. After a phase either the value is there or a [`Reported`] proves that at
//! least one error has been emitted. Not here: any decision of what is an error; the only user of
//! miette is `render`.

pub mod codes;
pub mod json;
pub mod render;
mod sink;
mod source;

pub use codes::{Code, Severity};
pub use sink::{Reported, Sink};
pub use source::{FileId, LineColumn, SourceMap, Span, Spanned};

use std::ops::Range;

/// One finding with its code, its places and the way forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The catalogue entry; decides the severity.
    pub code: Code,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// Where it is wrong, in source files; the first label is the primary one.
    pub labels: Vec<Label>,
    /// The same fault drawn on text that is not a file, such as a model's text form.
    pub excerpts: Vec<Excerpt>,
    /// What to do about it; each entry is one sentence.
    pub help: Vec<String>,
    /// Further facts, such as the nearest misses of a pattern.
    pub notes: Vec<String>,
}

/// A span of a source file with a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// A piece of generated text (a model's text form) with marked byte ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Where the text comes from, such as the model's file name.
    pub title: String,
    pub text: String,
    pub labels: Vec<(Range<usize>, String)>,
}

impl Diagnostic {
    /// Starts a diagnostic; the severity follows from the code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Diagnostic {
            code,
            message: message.into(),
            labels: Vec::new(),
            excerpts: Vec::new(),
            help: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a place; the first one added is the primary one.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    /// Adds a way forward.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Adds a fact that supports the message.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Adds marked text that is not a source file.
    #[must_use]
    pub fn excerpt(mut self, excerpt: Excerpt) -> Self {
        self.excerpts.push(excerpt);
        self
    }

    /// The severity of its code.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

/// `1 tensor`, `2 tensors`.
pub fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Nobody means a name by a longer text.
const LONGEST_NAME: usize = 500;

/// So many pairs of letters are looked at, some hundredths of a second: among names beyond that, the first
/// that come are as good a hint.
const MOST_COMPARED: usize = 1 << 23;

/// The candidates nearest to `wanted`, best first, for "did you mean" helps; at most `limit`.
pub fn nearest<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    limit: usize,
) -> Vec<&'a str> {
    let mut work = 0;
    let mut scored: Vec<(f64, &str)> = candidates
        .into_iter()
        .filter(|candidate| candidate.len().max(wanted.len()) <= LONGEST_NAME)
        .take_while(|candidate| {
            work += candidate.len() * wanted.len();
            work <= MOST_COMPARED
        })
        .map(|candidate| (strsim::jaro_winkler(wanted, candidate), candidate))
        .filter(|(score, _)| *score > 0.7)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.truncate(limit);
    scored.into_iter().map(|(_, candidate)| candidate).collect()
}
