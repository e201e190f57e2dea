//! JSON: one object a line, or an array of objects.

use super::{Rows, is_blank, numbered_lines};
use crate::data::errors;
use crate::data::row::{Fault, RawRow, Row};
use crate::data::value::Value;

/// One object a line.
pub(super) fn lines(content: &[u8]) -> Rows<'_> {
    let lines = numbered_lines(content).filter(|(_, line)| !is_blank(line));
    Box::new(lines.map(|(line, text)| {
        Ok(RawRow {
            line,
            text: Some(text),
            row: object(text),
        })
    }))
}

/// The row that a text of JSON holds.
fn object(text: &[u8]) -> Result<Row, Fault> {
    match serde_json::from_slice(text) {
        Ok(Value::Record(fields)) => Ok(Row(fields)),
        Ok(other) => Err(errors::no_object(other.kind())),
        Err(error) => {
            // A parser error names the byte behind what it has read.
            let at = offset(text, error.line(), error.column().saturating_sub(1));
            Err(errors::no_json(
                &words(&error),
                at..(at + 1).min(text.len()),
            ))
        }
    }
}

/// What the parser says, without the place, which is drawn.
fn words(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or(&words);
    match words.strip_prefix("EOF while parsing ") {
        Some(what) => format!("it ends inside {what}"),
        None if words == "expected ident" => "unexpected word".to_owned(),
        None => words.to_owned(),
    }
}

/// The byte of a line (from 1) and a column (from 0, in bytes) of a text.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let start = match line.checked_sub(2) {
        None => 0,
        Some(before) => ends.map(|(at, _)| at + 1).nth(before).unwrap_or(0),
    };
    (start + column).min(text.len())
}
