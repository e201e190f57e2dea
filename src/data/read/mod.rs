//! Rows out of files, one reader a format.

mod json;
mod text;

use super::row::RawRow;
use super::source::Format;
use crate::diag::Diagnostic;

/// The rows of a file in order. An `Err` is the last item: what follows it cannot be read.
pub(super) type Rows<'a> = Box<dyn Iterator<Item = Result<RawRow<'a>, Diagnostic>> + 'a>;

/// Starts reading the content of a file called `name`. Blank lines are no rows.
pub(super) fn rows<'a>(format: Format, content: &'a [u8]) -> Rows<'a> {
    match format {
        Format::Jsonl => json::lines(content),
        Format::Lines => text::lines(content),
        Format::Text => text::document(content),
        _ => unreachable!("{}", format.name()),
    }
}

/// Without the mark that some editors put before UTF-8 text.
fn without_mark(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

/// A line of text as it lies in a file: its number from 1, and its bytes without the line end.
fn numbered_lines(content: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = without_mark(content).split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines)
}

/// Whether there is nothing but blanks.
fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}
