//! JUnit XML: one test case a diagnostic, and one that passes when there is none.

use super::xml::escaped;
use super::{Subject, full_text, place};
use crate::diag::{Diagnostic, Severity};
use std::fmt::Write;

/// A `testsuites` document. Errors are failures; warnings are passed cases with their text in
/// `system-out`, since JUnit knows no warnings.
pub fn junit(subject: &Subject<'_>) -> String {
    let is_error = |diagnostic: &&Diagnostic| diagnostic.severity() == Severity::Error;
    let failures = subject.diagnostics.iter().filter(is_error).count();
    let tests = subject.diagnostics.len().max(1);
    let name = escaped(&format!("peftc {}", subject.command));
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\"");
    let _ = writeln!(out, "<testsuites name=\"peftc\" {counts}>");
    let _ = writeln!(out, "  <testsuite name=\"{name}\" {counts} skipped=\"0\">");
    for diagnostic in subject.diagnostics {
        case(&mut out, diagnostic, subject);
    }
    if subject.diagnostics.is_empty() {
        let _ = writeln!(out, "    <testcase classname=\"peftc\" name=\"{name}\"/>");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn case(out: &mut String, diagnostic: &Diagnostic, subject: &Subject<'_>) {
    let place = place(diagnostic, subject.sources);
    let class = place.as_ref().map_or("peftc", |place| place.file);
    let at = place
        .as_ref()
        .map(|place| format!(":{}:{}", place.start.line, place.start.column))
        .unwrap_or_default();
    let name = format!("{}{at} {}", diagnostic.code.name(), diagnostic.message);
    let text = escaped(&full_text(diagnostic, subject.sources));
    let _ = writeln!(
        out,
        "    <testcase classname=\"{}\" name=\"{}\">",
        escaped(class),
        escaped(&name)
    );
    match diagnostic.severity() {
        Severity::Error => {
            let (code, message) = (diagnostic.code.name(), escaped(&diagnostic.message));
            let _ = writeln!(
                out,
                "      <failure type=\"{code}\" message=\"{message}\">{text}</failure>"
            );
        }
        Severity::Warning => {
            let _ = writeln!(out, "      <system-out>{text}</system-out>");
        }
    }
    out.push_str("    </testcase>\n");
}

/// One proof as a test case.
#[derive(Clone, Debug)]
pub struct ProofCase {
    pub class: String,
    pub name: String,
    pub outcome: ProofOutcome,
}

/// How a proof ended, in words.
#[derive(Clone, Debug)]
pub enum ProofOutcome {
    Holds(String),
    Fails(String),
    Skipped(String),
}

/// A `testsuites` document with a test case for every proof.
pub fn junit_of_proofs(suite: &str, cases: &[ProofCase]) -> String {
    let count = |test: fn(&ProofOutcome) -> bool| cases.iter().filter(|c| test(&c.outcome)).count();
    let failures = count(|outcome| matches!(outcome, ProofOutcome::Fails(_)));
    let skipped = count(|outcome| matches!(outcome, ProofOutcome::Skipped(_)));
    let name = escaped(suite);
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\"",
        cases.len()
    );
    let _ = writeln!(out, "<testsuites name=\"peftc\" {counts}>");
    let _ = writeln!(
        out,
        "  <testsuite name=\"{name}\" {counts} skipped=\"{skipped}\">"
    );
    for case in cases {
        let (class, name) = (escaped(&case.class), escaped(&case.name));
        let _ = writeln!(out, "    <testcase classname=\"{class}\" name=\"{name}\">");
        let line = match &case.outcome {
            ProofOutcome::Holds(text) => format!("<system-out>{}</system-out>", escaped(text)),
            ProofOutcome::Fails(why) => format!("<failure message=\"{}\"/>", escaped(why)),
            ProofOutcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escaped(why)),
        };
        let _ = writeln!(out, "      {line}\n    </testcase>");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}
