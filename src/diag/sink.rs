//! Collects the diagnostics of a run.

use super::{Code, Diagnostic, Severity};
use std::collections::BTreeMap;

/// After so many of one code the rest says nothing new, and a file can be made to have millions.
const MOST_OF_A_CODE: usize = 100;

/// Proof that an error has been emitted; only [`Sink::emit`] and [`Sink::failed`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported(());

/// Collects diagnostics in the order in which they were found: the first ones of every code, and
/// how many there are of all.
#[derive(Debug, Default)]
pub struct Sink {
    diagnostics: Vec<Diagnostic>,
    kept: BTreeMap<Code, usize>,
    errors: usize,
    warnings: usize,
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
        match diagnostic.severity() {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        let kept = self.kept.entry(diagnostic.code).or_default();
        if *kept < MOST_OF_A_CODE {
            *kept += 1;
            self.diagnostics.push(diagnostic);
        }
    }

    /// Adds what another sink has collected, behind what is here.
    pub fn append(&mut self, other: Sink) {
        let kept = |severity: Severity| {
            let all = other.diagnostics.iter();
            all.filter(|diagnostic| diagnostic.severity() == severity)
                .count()
        };
        let left_out = [
            other.errors - kept(Severity::Error),
            other.warnings - kept(Severity::Warning),
        ];
        for diagnostic in other.diagnostics {
            self.push(diagnostic);
        }
        let [errors, warnings] = left_out;
        self.errors += errors;
        self.warnings += warnings;
    }

    /// `Err` if any error has been emitted so far: the end of a phase that goes on after an error.
    pub fn failed(&self) -> Result<(), Reported> {
        if self.errors > 0 {
            Err(Reported(()))
        } else {
            Ok(())
        }
    }

    /// Errors found, also those that are not kept.
    pub fn error_count(&self) -> usize {
        self.errors
    }

    /// Warnings found, also those that are not kept.
    pub fn warning_count(&self) -> usize {
        self.warnings
    }

    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many were found and not kept.
    pub fn left_out(&self) -> usize {
        self.errors + self.warnings - self.diagnostics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_every_code_are_kept_and_all_are_counted() {
        let mut sink = Sink::new();
        for number in 0..300 {
            sink.emit(Diagnostic::new(Code::E0101, number.to_string()));
        }
        sink.emit(Diagnostic::new(Code::E0001, "another code"));
        assert_eq!(sink.error_count(), 301);
        assert_eq!(sink.diagnostics().len(), 101);
        assert_eq!(sink.diagnostics()[100].code, Code::E0001);
        assert_eq!(sink.left_out(), 200);
        let mut first = Sink::new();
        first.warn(Diagnostic::new(Code::W0401, "before"));
        first.emit(Diagnostic::new(Code::E0101, "7"));
        first.append(sink);
        // One of them was there already.
        assert_eq!((first.error_count(), first.warning_count()), (301, 1));
        assert_eq!(first.diagnostics().len(), 102);
        assert_eq!(first.diagnostics()[0].code, Code::W0401);
        assert_eq!(first.left_out(), 200);
    }
}
