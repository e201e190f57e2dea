//! Collects the diagnostics of a run.

use super::{Diagnostic, Severity};

/// Proof that an error has been emitted; only [`Sink::emit`] and [`Sink::failed`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported(());

/// Collects diagnostics in the order in which they were found.
#[derive(Debug, Default)]
pub struct Sink {
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

impl Sink {
    pub fn new() -> Self {
        Self::default()
    }

    /// Records an error and returns the proof that it was reported. Warnings go through
    /// [`Sink::warn`], so that a failed phase can never rest on a warning alone.
    pub fn emit(&mut self, diagnostic: Diagnostic) -> Reported {
        debug_assert_eq!(diagnostic.severity(), Severity::Error);
        self.push(diagnostic);
        Reported(())
    }

    /// Records a warning.
    pub fn warn(&mut self, diagnostic: Diagnostic) {
        debug_assert_eq!(diagnostic.severity(), Severity::Warning);
        self.push(diagnostic);
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        // The same fault seen from two sides is said once.
        if self.diagnostics.contains(&diagnostic) {
            return;
        }
        if diagnostic.severity() == Severity::Error {
            self.errors += 1;
        }
        self.diagnostics.push(diagnostic);
    }

    /// `Err` if any error has been emitted so far: the end of a phase that goes on after an error.
    pub fn failed(&self) -> Result<(), Reported> {
        if self.errors > 0 {
            Err(Reported(()))
        } else {
            Ok(())
        }
    }

    pub fn error_count(&self) -> usize {
        self.errors
    }

    pub fn warning_count(&self) -> usize {
        self.diagnostics.len() - self.errors
    }

    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }
}
