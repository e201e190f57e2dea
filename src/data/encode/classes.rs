//! Classes by number and by name.

use super::Encoder;
use super::cells::as_list;
use crate::data::errors;
use crate::data::row::{Fault, Row};
use crate::data::value::Value;
use crate::diag::{Reported, Sink};
use std::collections::{BTreeMap, BTreeSet};

/// No model tells more apart, and a row of several classes takes a number for each.
const MOST: usize = 1 << 20;

/// The classes of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::data) struct Classes {
    /// Names by number; empty where classes are numbers only.
    names: Vec<String>,
    numbers: BTreeMap<String, usize>,
    /// Classes are below it.
    count: usize,
    /// The names come from the data, so that a number among them means something else.
    from_data: bool,
}

impl Classes {
    pub fn named(names: Vec<String>) -> Classes {
        let numbers = names.iter().cloned().zip(0..).collect();
        Classes {
            numbers,
            count: names.len(),
            names,
            from_data: false,
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Names by number; numbers themselves where there are no names.
    pub fn names(&self) -> Vec<String> {
        match self.names.is_empty() {
            true => (0..self.count).map(|number| number.to_string()).collect(),
            false => self.names.clone(),
        }
    }

    /// The number of the class that a cell names.
    pub fn number(&self, value: &Value, column: &str) -> Result<usize, Fault> {
        let number = match (value, number_of(value)) {
            (Value::Text(name) | Value::Bare(name), _) if self.numbers.contains_key(name) => {
                return Ok(self.numbers[name]);
            }
            (_, Some(number)) if self.from_data && !self.names.is_empty() => {
                return Err(errors::number_among_names(number, column, &self.names));
            }
            (_, Some(number)) => number,
            (Value::Text(name) | Value::Bare(name), None) => {
                return Err(errors::unknown_class(name, column, &self.names, self.count));
            }
            (other, None) => return Err(errors::wrong_kind(column, other, "a class")),
        };
        match usize::try_from(number) {
            Ok(number) if number < self.count => Ok(number),
            _ => Err(errors::class_outside(number, column, self.count)),
        }
    }
}

/// The number that a cell is, as a class.
fn number_of(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Bool(holds) => Some(i64::from(*holds)),
        Value::Bare(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Finds out which classes the data has.
#[derive(Debug, Default)]
pub(in crate::data) struct ClassReader {
    names: BTreeSet<String>,
    /// Cells of files without types that may be numbers, and are unless another is none.
    bare: BTreeSet<String>,
    greatest: Option<usize>,
}

impl ClassReader {
    pub fn add(&mut self, cell: &Value) {
        if let Some(items) = as_list(cell) {
            // Whether each class holds.
            let holds = |item: &Value| matches!(item, Value::Bool(_) | Value::Float(_));
            if items.iter().all(holds) {
                self.greatest = self.greatest.max(items.len().checked_sub(1));
            } else {
                items.iter().for_each(|item| self.add(item));
            }
            return;
        }
        match cell {
            Value::Text(name) => {
                self.names.insert(name.clone());
            }
            Value::Bare(name) if number_of(cell).is_none() => {
                self.names.insert(name.clone());
            }
            Value::Bare(name) => {
                self.bare.insert(name.clone());
                self.greatest = self.greatest.max(place(cell));
            }
            other => self.greatest = self.greatest.max(place(other)),
        }
    }

    /// The classes; `limit` is how many the model tells apart.
    pub fn finish(mut self, limit: Option<usize>, sink: &mut Sink) -> Result<Classes, Reported> {
        if self.names.is_empty() {
            let count = self.greatest.map_or(0, |greatest| greatest + 1);
            return Ok(Classes {
                count: limit.unwrap_or(count),
                ..Classes::default()
            });
        }
        self.names.append(&mut self.bare);
        let names: Vec<String> = self.names.into_iter().collect();
        if let Some(limit) = limit.filter(|limit| names.len() > *limit) {
            return Err(sink.emit(errors::too_many_classes(&names, limit)));
        }
        Ok(Classes {
            from_data: true,
            ..Classes::named(names)
        })
    }
}

/// A number that can be one of a class; others are faults of their rows.
fn place(value: &Value) -> Option<usize> {
    let number = usize::try_from(number_of(value)?).ok()?;
    Some(number).filter(|number| *number < MOST)
}

impl Encoder {
    /// The classes as far as they are known before the data is.
    pub(in crate::data) fn known_classes(&self) -> Option<Classes> {
        let options = &self.options;
        match options.task.class_column() {
            None => Some(Classes::default()),
            Some(_) if options.classes.is_empty() => None,
            Some(_) => Some(Classes::named(options.classes.clone())),
        }
    }

    /// Shows the classes of a row to a reader.
    pub(in crate::data) fn read_classes(&self, row: &Row, reader: &mut ClassReader) {
        let role = self.options.task.class_column();
        let cell = role.and_then(|role| row.get(self.column(role)));
        if let Some(cell) = cell {
            reader.add(cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cells: &[Value]) -> Classes {
        let mut reader = ClassReader::default();
        cells.iter().for_each(|cell| reader.add(cell));
        reader.finish(None, &mut Sink::new()).unwrap()
    }

    #[test]
    fn names_are_sorted_and_numbers_stay_numbers() {
        let text = |name: &str| Value::Text(name.to_owned());
        let bare = |name: &str| Value::Bare(name.to_owned());
        let named = read(&[text("no"), text("maybe"), text("no")]);
        assert_eq!(named.names(), ["maybe", "no"]);
        assert_eq!(named.number(&text("no"), "label"), Ok(1));
        assert!(named.number(&text("yes"), "label").is_err());
        assert!(named.number(&Value::Int(0), "label").is_err());
        let numbered = read(&[Value::Int(2), Value::Int(0)]);
        assert_eq!(numbered.names(), ["0", "1", "2"]);
        assert!(numbered.number(&Value::Int(3), "label").is_err());
        assert!(numbered.number(&Value::Int(-1), "label").is_err());
        assert_eq!(read(&[bare("10"), bare("2")]).count(), 11);
        assert_eq!(
            read(&[bare("10"), bare("2"), bare("x")]).names(),
            ["10", "2", "x"]
        );
        assert_eq!(read(&[text("10"), text("2")]).names(), ["10", "2"]);
    }

    #[test]
    fn a_huge_number_is_not_believed() {
        let huge = Value::Int(1 << 40);
        let classes = read(&[Value::Int(1), huge.clone()]);
        assert_eq!(classes.count(), 2);
        assert!(classes.number(&huge, "label").is_err());
    }
}
