//! Rows out of files, one reader a format.

mod csv;
mod json;
mod npz;
mod parquet;
mod text;

pub(super) use npz::arrays_of;

use super::errors;
use super::row::RawRow;
use super::source::Format;
use crate::diag::Diagnostic;
use bytes::Bytes;

/// The rows of a file in order. An `Err` is the last item: what follows it cannot be read.
pub(super) type Rows<'a> = Box<dyn Iterator<Item = Result<RawRow<'a>, Diagnostic>> + 'a>;

/// Starts reading the content of a file called `name`. Blank lines are no rows.
pub(super) fn rows<'a>(format: Format, content: &'a Bytes, name: &'a str) -> Rows<'a> {
    match format {
        Format::Jsonl => json::lines(content),
        Format::Json => json::array(content, name),
        Format::Csv => csv::records(content, b',', name),
        Format::Tsv => csv::records(content, b'\t', name),
        Format::Parquet => parquet::table(content, name),
        Format::Lines => text::lines(content),
        Format::Text => text::document(content),
        Format::Npz => Box::new(std::iter::once(Err(errors::arrays_not_rows(name)))),
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

/// Line ends in a piece of a file.
fn lines_in(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}
