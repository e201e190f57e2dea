//! Separated columns, named in the first line.

use super::{Rows, lines_in, without_mark};
use crate::data::errors;
use crate::data::row::{Fault, RawRow, Row};
use crate::data::value::Value;
use crate::diag::Diagnostic;
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::collections::BTreeSet;

/// The records below the first one, which names the columns.
pub(super) fn records<'a>(content: &'a [u8], separator: u8, name: &'a str) -> Rows<'a> {
    let content = without_mark(content);
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        // Records of another length are faults of their rows.
        .flexible(true)
        .from_reader(content);
    let mut first = ByteRecord::new();
    match reader.read_byte_record(&mut first) {
        Ok(true) => {}
        Ok(false) => return Box::new(std::iter::empty()),
        Err(error) => return failed(name, &error.to_string()),
    }
    let columns = match columns(&first) {
        Ok(columns) => columns,
        Err(why) => return failed(name, &why),
    };
    let at = (reader.position().byte() as usize).min(content.len());
    Box::new(Records {
        content,
        name,
        at,
        line: 1 + lines_in(&content[..at]),
        reader,
        columns,
        separator,
    })
}

fn failed<'a>(name: &str, why: &str) -> Rows<'a> {
    Box::new(std::iter::once(Err(errors::damaged(name, why))))
}

fn columns(first: &ByteRecord) -> Result<Vec<String>, String> {
    let mut columns = Vec::new();
    let mut seen = BTreeSet::new();
    for name in first {
        let name = str::from_utf8(name).map_err(|_| "its first line is not UTF-8")?;
        if !seen.insert(name) {
            return Err(format!("its first line names the column `{name}` twice"));
        }
        columns.push(name.to_owned());
    }
    Ok(columns)
}

struct Records<'a> {
    content: &'a [u8],
    name: &'a str,
    /// What has been read, and the line there.
    at: usize,
    line: u64,
    reader: Reader<&'a [u8]>,
    columns: Vec<String>,
    separator: u8,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RawRow<'a>, Diagnostic>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut record = ByteRecord::new();
        match self.reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(errors::damaged(self.name, &error.to_string()))),
        }
        let end = (self.reader.position().byte() as usize).min(self.content.len());
        // The reader takes line ends of the record before, and blank lines, with a record.
        let ends = self.content[self.at..end].iter();
        let ends = ends
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        let line = self.line + lines_in(&self.content[self.at..self.at + ends]);
        let text = &self.content[self.at + ends..end];
        (self.at, self.line) = (end, line + lines_in(text));
        let text = text.trim_ascii_end();
        let is_last = self.content[end..].trim_ascii().is_empty();
        let row = match is_last && self.ends_quoted(text) {
            true => Err(errors::quote_open()),
            false => self.row(&record),
        };
        Some(Ok(RawRow {
            line,
            text: Some(text),
            row,
        }))
    }
}

impl Records<'_> {
    fn row(&self, record: &ByteRecord) -> Result<Row, Fault> {
        if record.len() != self.columns.len() {
            return Err(errors::other_columns(record.len(), self.columns.len()));
        }
        let cell = |(name, cell): (&String, &[u8])| {
            let text = str::from_utf8(cell).map_err(errors::not_utf8)?;
            Ok((name.clone(), Value::Bare(text.to_owned())))
        };
        let cells = self.columns.iter().zip(record).map(cell);
        cells.collect::<Result<_, _>>().map(Row)
    }

    /// Whether a quote that opens a cell is not closed: the cell has then taken everything up to the
    /// end of the file.
    fn ends_quoted(&self, text: &[u8]) -> bool {
        let (mut quoted, mut starts) = (false, true);
        for byte in text {
            match byte {
                b'"' if quoted || starts => {
                    // Two in a row inside a cell close and open it, and are one.
                    quoted = !quoted;
                    starts = quoted || starts;
                }
                _ if quoted => {}
                byte => starts = *byte == self.separator || *byte == b'\n',
            }
        }
        quoted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<(u64, Result<Vec<String>, ()>)> {
        let rows = records(text.as_bytes(), b',', "a.csv");
        let cells = |row: Row| {
            let cells = row.0.into_iter().map(|(_, cell)| match cell {
                Value::Bare(text) => text,
                other => panic!("{other:?}"),
            });
            cells.collect()
        };
        let row = |row: Result<RawRow<'_>, Diagnostic>| {
            let row = row.unwrap();
            (row.line, row.row.map(cells).map_err(|_| ()))
        };
        rows.map(row).collect()
    }

    #[test]
    fn cells_may_hold_line_breaks_and_rows_keep_their_lines() {
        let text = "\u{feff}a,b\r\n1,\"x\ny\"\r\n\n2,\"say \"\"no\"\"\"\n3,5\" wide\n";
        let cells = |a: &str, b: &str| Ok(vec![a.to_owned(), b.to_owned()]);
        let wanted = [
            (2, cells("1", "x\ny")),
            (5, cells("2", "say \"no\"")),
            (6, cells("3", "5\" wide")),
        ];
        assert_eq!(rows(text), wanted);
    }

    #[test]
    fn a_quote_that_is_not_closed_takes_no_rows_with_it() {
        for open in [
            "a,b\n1,\"2\n3,4\n5,6\n",
            "a,b\n1,\"2",
            "a,b\n\"1,2\n3,\"\"4\n",
        ] {
            let rows = rows(open);
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].1, Err(()), "{open}");
        }
        assert_eq!(rows("a,b\n1,\"\"\n").len(), 1);
        assert!(rows("a,b\n1,\"\"\n")[0].1.is_ok());
    }

    #[test]
    fn rows_of_another_length_are_broken() {
        let rows = rows("a,b\n1\n1,2,3\n1,2\n");
        assert!(rows[0].1.is_err() && rows[1].1.is_err() && rows[2].1.is_ok());
    }
}
