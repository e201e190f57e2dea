//! JSON: one object a line, or an array of objects.

use super::{Rows, is_blank, lines_in, numbered_lines, without_mark};
use crate::data::errors;
use crate::data::row::{Fault, RawRow, Row};
use crate::data::value::Value;
use crate::diag::Diagnostic;
use std::ops::Range;

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

/// An array of objects; a file that does not start with `[` has one object a line.
pub(super) fn array<'a>(content: &'a [u8], name: &'a str) -> Rows<'a> {
    let content = without_mark(content);
    let blank = content.iter().take_while(|byte| byte.is_ascii_whitespace());
    let start = blank.count();
    if content.get(start) != Some(&b'[') {
        return lines(content);
    }
    Box::new(Elements {
        content,
        name,
        at: start + 1,
        line: 1 + lines_in(&content[..start]),
        state: State::Start,
    })
}

/// The elements of an array as they lie in a file, found without reading what is in them.
struct Elements<'a> {
    content: &'a [u8],
    name: &'a str,
    at: usize,
    line: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The array may end here.
    Start,
    /// A row must follow.
    Between,
    End,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<RawRow<'a>, Diagnostic>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::End {
            return None;
        }
        self.skip_blank();
        if self.state == State::Start && self.content.get(self.at) == Some(&b']') {
            return self.end();
        }
        self.state = State::Between;
        let range = element(self.content, self.at);
        let line = self.line;
        self.line += lines_in(&self.content[range.clone()]);
        self.at = range.end;
        let text = self.content[range].trim_ascii_end();
        let row = RawRow {
            line,
            text: Some(text),
            row: object(text),
        };
        match self.content.get(self.at) {
            Some(b',') => self.at += 1,
            // What follows is the end of the array.
            Some(_) => self.state = State::Start,
            None => {
                self.state = State::End;
                let whole = row.row.is_ok();
                let what = if whole {
                    "the array has no end"
                } else {
                    "it ends inside a row"
                };
                return Some(Err(errors::damaged(self.name, what)));
            }
        }
        Some(Ok(row))
    }
}

impl<'a> Elements<'a> {
    fn skip_blank(&mut self) {
        let rest = &self.content[self.at..];
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        let end = self.at + blank.count();
        self.line += lines_in(&self.content[self.at..end]);
        self.at = end;
    }

    /// Behind the array there may be nothing.
    fn end(&mut self) -> Option<Result<RawRow<'a>, Diagnostic>> {
        self.state = State::End;
        match is_blank(&self.content[self.at + 1..]) {
            true => None,
            false => Some(Err(errors::damaged(
                self.name,
                "something follows the array",
            ))),
        }
    }
}

/// From `start` to the comma or bracket that ends an element, or to the end.
fn element(content: &[u8], start: usize) -> Range<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in content.iter().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b',' | b']' if depth == 0 => return start..at,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    start..content.len()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &str) -> Vec<Result<(u64, bool), ()>> {
        let rows = array(text.as_bytes(), "a.json");
        let place = |row: Result<RawRow<'_>, Diagnostic>| {
            let row = row.map_err(|_| ())?;
            Ok((row.line, row.row.is_ok()))
        };
        rows.map(place).collect()
    }

    #[test]
    fn rows_of_an_array_have_their_lines() {
        let text = " \n[{\"a\": \"],{\\\"\"},\n\n {\"b\":\n [1, 2]} , {}\n] \n";
        assert_eq!(
            lines_of(text),
            [Ok((2, true)), Ok((4, true)), Ok((5, true))]
        );
        assert_eq!(lines_of("[]"), []);
        assert_eq!(lines_of("{}\n{}"), [Ok((1, true)), Ok((2, true))]);
    }

    #[test]
    fn a_broken_row_leaves_the_others_and_a_broken_array_does_not_end_quietly() {
        let one = Ok((1, true));
        assert_eq!(lines_of("[{}, {\"a\" 1}, {}]"), [one, Ok((1, false)), one]);
        assert_eq!(
            lines_of("[{}, 1, , {}]"),
            [one, Ok((1, false)), Ok((1, false)), one]
        );
        assert_eq!(lines_of("[{},]"), [one, Ok((1, false))]);
        assert_eq!(lines_of("[{} {}]"), [Ok((1, false))]);
        assert_eq!(lines_of("[{}, {"), [one, Err(())]);
        assert_eq!(lines_of("[{}"), [Err(())]);
        assert_eq!(lines_of("["), [Err(())]);
        assert_eq!(lines_of("[{}] x"), [one, Err(())]);
        assert_eq!(lines_of("[{}\n] ]"), [one, Err(())]);
    }
}
