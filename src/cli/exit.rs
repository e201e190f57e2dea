//! Exit statuses: 0 clean, 1 findings, 2 input/output or peftc itself, 3 warnings denied.

use super::options::{Deny, Global};
use crate::diag::{Code, Severity, Sink};

pub(super) const CLEAN: u8 = 0;
pub(super) const FINDINGS: u8 = 1;
pub(super) const TOOL: u8 = 2;
pub(super) const WARNINGS: u8 = 3;

/// The status of a run with these diagnostics.
pub(super) fn status(sink: &Sink, global: &Global) -> u8 {
    let errors = || {
        let all = sink.diagnostics().iter();
        all.filter(|diagnostic| diagnostic.severity() == Severity::Error)
    };
    if errors().any(|diagnostic| is_tool_fault(diagnostic.code)) {
        TOOL
    } else if global.exit_zero {
        CLEAN
    } else if sink.error_count() > 0 {
        FINDINGS
    } else if sink.warning_count() > 0 && global.deny == Some(Deny::Warnings) {
        WARNINGS
    } else {
        CLEAN
    }
}

/// Whether the fault lies in the machine, the command line or peftc, not in spec, model or data.
fn is_tool_fault(code: Code) -> bool {
    let name = code.name();
    name.starts_with("E00")
        || name.starts_with("E99")
        || matches!(code, Code::E0801 | Code::E0802 | Code::E0803 | Code::E0807)
}
