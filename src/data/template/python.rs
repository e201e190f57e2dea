//! What templates expect of Python: how values are written, and a few functions.

use crate::data::value::Value;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};
use std::borrow::Cow;
use std::fmt::Write;

/// How the error of [`raise_exception`] starts; the rest is the template's own message.
const RAISED: &str = "raised: ";

pub(super) fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("{RAISED}{message}"),
    ))
}

/// The message with which a template refused a row.
pub(super) fn raised(error: &Error) -> Option<&str> {
    error.detail()?.strip_prefix(RAISED)
}

/// A cell as a template sees it.
pub(super) fn value(cell: &Value) -> minijinja::Value {
    match cell {
        Value::Null => ().into(),
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(text) | Value::Bare(text) => text.into(),
        Value::List(items) => items.iter().map(value).collect(),
        Value::Record(fields) => {
            let fields = fields
                .iter()
                .map(|(name, cell)| (name.as_str(), value(cell)));
            minijinja::Value::from_pairs(fields)
        }
    }
}

/// Writes a value where a template prints it: text as it is, other values as Python's `str`.
pub(super) fn format(
    out: &mut Output<'_>,
    _: &mut State<'_, '_>,
    value: &minijinja::Value,
) -> Result<(), Error> {
    let written = match value.kind() {
        ValueKind::Undefined => return Ok(()),
        ValueKind::Bool | ValueKind::None | ValueKind::Seq | ValueKind::Map => {
            let mut text = String::new();
            REPR.write(value, 0, &mut text)?;
            out.write_str(&text)
        }
        _ => write!(out, "{value}"),
    };
    written.map_err(|_| ErrorKind::WriteFailure.into())
}

/// `json.dumps`, with `ensure_ascii` off unless asked for, as Hugging Face's filter has it.
pub(super) fn to_json(value: &minijinja::Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let given = |at: usize| separators.as_ref()?.get(at).cloned().map(Cow::Owned);
    let style = Style {
        json: true,
        ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item: match (given(0), indent) {
            (Some(item), _) => item,
            (None, Some(_)) => ",".into(),
            (None, None) => REPR.item,
        },
        key: given(1).unwrap_or(REPR.key),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out)
}

/// How Python writes a value.
struct Style {
    /// As JSON; else as `repr`.
    json: bool,
    ascii: bool,
    sorted: bool,
    indent: Option<usize>,
    /// Behind an item, and behind a key.
    item: Cow<'static, str>,
    key: Cow<'static, str>,
}

const REPR: Style = Style {
    json: false,
    ascii: false,
    sorted: false,
    indent: None,
    item: Cow::Borrowed(", "),
    key: Cow::Borrowed(": "),
};

/// Values are not nested deeper, unless a template does it on purpose.
const DEPTH: usize = 200;

impl Style {
    fn write(&self, value: &minijinja::Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "nested too deep"));
        }
        match value.kind() {
            ValueKind::None if self.json => out.push_str("null"),
            ValueKind::None => out.push_str("None"),
            ValueKind::Bool => out.push_str(match (value.is_true(), self.json) {
                (true, true) => "true",
                (false, true) => "false",
                (true, false) => "True",
                (false, false) => "False",
            }),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<minijinja::Value> = value.try_iter()?.collect();
                self.items(['[', ']'], items.len(), depth, out, |at, out| {
                    self.write(&items[at], depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<minijinja::Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.items(['{', '}'], keys.len(), depth, out, |at, out| {
                    let key = &keys[at];
                    match key.as_str() {
                        None if self.json => self.text(&key.to_string(), out),
                        _ => self.write(key, depth + 1, out)?,
                    }
                    out.push_str(&self.key);
                    self.write(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            ValueKind::Number => {
                let _ = write!(out, "{value}");
            }
            other => {
                let why = format!("{other} cannot be written");
                return Err(Error::new(ErrorKind::BadSerialization, why));
            }
        }
        Ok(())
    }

    fn items(
        &self,
        [open, close]: [char; 2],
        count: usize,
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent.filter(|_| count > 0) {
                out.push('\n');
                out.push_str(&" ".repeat(indent * depth));
            }
        };
        out.push(open);
        for at in 0..count {
            if at > 0 {
                out.push_str(&self.item);
            }
            line(depth + 1, out);
            write(at, out)?;
        }
        line(depth, out);
        out.push(close);
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) {
        // `repr` takes single quotes unless there are some inside and no double ones.
        let single = !self.json && (!text.contains('\'') || text.contains('"'));
        let quote = if single { '\'' } else { '"' };
        out.push(quote);
        for c in text.chars() {
            let _ = match c {
                '\\' => write!(out, "\\\\"),
                c if c == quote => write!(out, "\\{c}"),
                '\n' => write!(out, "\\n"),
                '\r' => write!(out, "\\r"),
                '\t' => write!(out, "\\t"),
                '\u{8}' if self.json => write!(out, "\\b"),
                '\u{c}' if self.json => write!(out, "\\f"),
                c if u32::from(c) < 32 && self.json => write!(out, "\\u{:04x}", u32::from(c)),
                c if c.is_control() && !self.json => write!(out, "\\x{:02x}", u32::from(c)),
                c if self.ascii && !c.is_ascii() => {
                    let units = c.encode_utf16(&mut [0; 2]).to_vec();
                    units
                        .iter()
                        .try_for_each(|unit| write!(out, "\\u{unit:04x}"))
                }
                c => write!(out, "{c}"),
            };
        }
        out.push(quote);
    }
}
