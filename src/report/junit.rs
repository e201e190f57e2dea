//! JUnit XML: one test case a diagnostic, and one that passes when there is none.

use super::{Subject, full_text, place};
use crate::diag::{Diagnostic, Severity};
use std::fmt::Write;

/// A `testsuites` document. Errors are failures; warnings are passed cases with their text in
/// `system-out`, since JUnit knows no warnings.
pub fn junit(subject: &Subject<'_>) -> String {
    let is_error = |diagnostic: &&Diagnostic| diagnostic.severity() == Severity::Error;
    let failures = subject.diagnostics.iter().filter(is_error).count();
    let tests = subject.diagnostics.len().max(1);
    let name = escape(&format!("peftc {}", subject.command));
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
    let text = escape(&full_text(diagnostic, subject.sources));
    let _ = writeln!(
        out,
        "    <testcase classname=\"{}\" name=\"{}\">",
        escape(class),
        escape(&name)
    );
    match diagnostic.severity() {
        Severity::Error => {
            let (code, message) = (diagnostic.code.name(), escape(&diagnostic.message));
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

/// Escapes for XML text and attributes; characters that XML 1.0 forbids become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push('\t'),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
