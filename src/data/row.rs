//! Rows of named columns, their places, and what can be wrong with one of them.

use super::value::Value;
use crate::diag::Diagnostic;
use std::ops::Range;

/// A row: its columns by name, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub Vec<(String, Value)>);

impl Row {
    /// The cell of a column. One that holds nothing (`null`) counts as one that is not there.
    pub fn get(&self, column: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(name, _)| name == column);
        found
            .map(|(_, value)| value)
            .filter(|value| **value != Value::Null)
    }

    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// Where a row lies: the line that it starts at, or in a file without lines its number; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the source in the order given, from 0.
    pub source: usize,
    pub line: u64,
}

/// A row as it lies in its file.
pub(super) struct RawRow<'a> {
    pub line: u64,
    /// The row's bytes where the file is text, for diagnostics.
    pub text: Option<&'a [u8]>,
    pub row: Result<Row, Fault>,
}

/// What is wrong with a row; the loader knows where the row is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    /// Boxed, because a result with it is returned for every row.
    diagnostic: Box<Diagnostic>,
    /// The bytes of the row that are meant; the whole row without it.
    mark: Option<Range<usize>>,
    label: String,
}

impl Fault {
    /// `label` says what the marked row is, such as `this row`.
    pub fn new(diagnostic: Diagnostic, label: impl Into<String>) -> Fault {
        Fault {
            diagnostic: Box::new(diagnostic),
            mark: None,
            label: label.into(),
        }
    }

    #[must_use]
    pub fn at(mut self, mark: Range<usize>) -> Fault {
        self.mark = Some(mark);
        self
    }

    pub fn parts(self) -> (Diagnostic, Option<Range<usize>>, String) {
        (*self.diagnostic, self.mark, self.label)
    }
}
