//! The cells of a row, as the task needs them.

use super::Encoder;
use crate::data::errors;
use crate::data::row::{Fault, Row};
use crate::data::task::Role;
use crate::data::value::Value;
use std::borrow::Cow;

impl Encoder {
    /// The name of the column with this role.
    pub(super) fn column(&self, role: Role) -> &str {
        self.options.columns.name(role)
    }

    /// Whether the row has the column, or the user says that it should.
    pub(super) fn has(&self, row: &Row, role: Role) -> bool {
        self.options.columns.given(role).is_some() || row.get(self.column(role)).is_some()
    }

    pub(super) fn cell<'r>(&self, row: &'r Row, role: Role) -> Result<&'r Value, Fault> {
        let name = self.column(role);
        row.get(name).ok_or_else(|| errors::no_column(row, name))
    }

    pub(super) fn text<'r>(&self, row: &'r Row, role: Role) -> Result<&'r str, Fault> {
        match self.cell(row, role)? {
            Value::Text(text) | Value::Bare(text) => Ok(text),
            other => Err(self.wrong_kind(role, other, "text")),
        }
    }

    /// A text that is not empty.
    pub(super) fn filled<'r>(&self, row: &'r Row, role: Role) -> Result<&'r str, Fault> {
        match self.text(row, role)? {
            "" => Err(errors::empty(self.column(role))),
            text => Ok(text),
        }
    }

    /// A list. In a file without types it is written as JSON.
    pub(super) fn list<'r>(
        &self,
        row: &'r Row,
        role: Role,
        wanted: &str,
    ) -> Result<Cow<'r, [Value]>, Fault> {
        let cell = self.cell(row, role)?;
        as_list(cell).ok_or_else(|| self.wrong_kind(role, cell, wanted))
    }

    /// A list of token ids, or of labels where -100 is allowed.
    pub(super) fn ids(&self, row: &Row, role: Role, least: i64) -> Result<Vec<i64>, Fault> {
        let wanted = "a list of token ids";
        let number = |item: &Value| match item {
            Value::Int(number) if (least..=i64::from(i32::MAX)).contains(number) => Ok(*number),
            other => Err(self.wrong_kind(role, other, wanted)),
        };
        self.list(row, role, wanted)?.iter().map(number).collect()
    }

    /// A finite number.
    pub(super) fn number(&self, role: Role, value: &Value) -> Result<f32, Fault> {
        let number = match value {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Bare(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.map(|number| number as f32);
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.wrong_kind(role, value, "a number"))
    }

    pub(super) fn wrong_kind(&self, role: Role, found: &Value, wanted: &str) -> Fault {
        errors::wrong_kind(self.column(role), found, wanted)
    }
}

/// The items of a list. In a file without types it is written as JSON.
pub(super) fn as_list(cell: &Value) -> Option<Cow<'_, [Value]>> {
    match cell {
        Value::List(items) => Some(Cow::Borrowed(items)),
        Value::Bare(text) => match serde_json::from_str(text) {
            Ok(Value::List(items)) => Some(Cow::Owned(items)),
            _ => None,
        },
        _ => None,
    }
}
