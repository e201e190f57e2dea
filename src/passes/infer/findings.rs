//! Contradictions found on the way, reported at the end.

use crate::diag::{Diagnostic, Reported, Severity, Sink};

/// How many of a kind are reported: one stale statement rarely comes alone.
const LIMIT: usize = 8;

/// Errors and warnings in the order in which they were found.
pub(super) struct Findings<'a> {
    /// The model's name, as messages show it.
    pub model: &'a str,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    more_errors: usize,
    more_warnings: usize,
}

impl<'a> Findings<'a> {
    pub(super) fn new(model: &'a str) -> Self {
        Findings {
            model,
            errors: Vec::new(),
            warnings: Vec::new(),
            more_errors: 0,
            more_warnings: 0,
        }
    }

    /// Keeps a finding; it is only made if it will be shown.
    pub(super) fn add(&mut self, severity: Severity, diagnostic: impl FnOnce(&str) -> Diagnostic) {
        let (list, more) = match severity {
            Severity::Error => (&mut self.errors, &mut self.more_errors),
            Severity::Warning => (&mut self.warnings, &mut self.more_warnings),
        };
        if list.len() < LIMIT {
            list.push(diagnostic(self.model));
        } else {
            *more += 1;
        }
    }

    /// Hands everything to the sink; fails if there was an error.
    pub(super) fn report(mut self, sink: &mut Sink) -> Result<(), Reported> {
        note_more(&mut self.warnings, self.more_warnings);
        note_more(&mut self.errors, self.more_errors);
        for warning in self.warnings {
            sink.warn(warning);
        }
        let mut result = Ok(());
        for error in self.errors {
            result = Err(sink.emit(error));
        }
        result
    }
}

fn note_more(list: &mut [Diagnostic], more: usize) {
    if more > 0
        && let Some(last) = list.last_mut()
    {
        last.notes.push(format!("{more} more of this kind"));
    }
}
