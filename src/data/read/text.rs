//! Plain text: a row a line, or one row in all.

use super::{Rows, is_blank, numbered_lines, without_mark};
use crate::data::errors;
use crate::data::row::{Fault, RawRow, Row};
use crate::data::value::Value;

/// Every line that is not blank is a row.
pub(super) fn lines(content: &[u8]) -> Rows<'_> {
    let lines = numbered_lines(content).filter(|(_, line)| !is_blank(line));
    Box::new(lines.map(|(line, text)| {
        Ok(RawRow {
            line,
            text: Some(text),
            row: row(text),
        })
    }))
}

/// The whole file is a row, unless it is blank.
pub(super) fn document(content: &[u8]) -> Rows<'_> {
    let content = Some(without_mark(content)).filter(|content| !is_blank(content));
    Box::new(content.into_iter().map(|text| {
        Ok(RawRow {
            line: 1,
            text: Some(text),
            row: row(text),
        })
    }))
}

fn row(text: &[u8]) -> Result<Row, Fault> {
    let text = str::from_utf8(text).map_err(errors::not_utf8)?;
    let cell = Value::Text(text.to_owned());
    Ok(Row(vec![("text".to_owned(), cell)]))
}
