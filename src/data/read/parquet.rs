//! Parquet: tables stored by columns.

use super::Rows;
use crate::data::errors;
use crate::data::row::{Fault, RawRow, Row};
use crate::data::shield::shield;
use crate::data::value::Value;
use crate::diag::Diagnostic;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use parquet::record::Field;
use parquet::record::reader::RowIter;

/// The rows of a file, by their numbers from 1.
pub(super) fn table<'a>(content: &Bytes, name: &'a str) -> Rows<'a> {
    let open = || {
        let file = SerializedFileReader::new(content.clone())?;
        Ok(RowIter::from_file_into(Box::new(file)))
    };
    match shielded(open) {
        Ok(rows) => Box::new(Table { rows, name, row: 0 }),
        Err(why) => Box::new(std::iter::once(Err(errors::damaged(name, &why)))),
    }
}

/// What the library gives, or what it says.
fn shielded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    shield(work)?.map_err(|error| {
        let words = error.to_string();
        words
            .strip_prefix("Parquet error: ")
            .unwrap_or(&words)
            .to_owned()
    })
}

struct Table<'a> {
    rows: RowIter<'static>,
    name: &'a str,
    row: u64,
}

impl<'a> Iterator for Table<'a> {
    type Item = Result<RawRow<'a>, Diagnostic>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = &mut self.rows;
        // Cells are taken inside, too: some are turned into text, which may fail.
        let next = shielded(|| {
            let row = rows.next().transpose()?;
            let columns = row.map(parquet::record::Row::into_columns);
            Ok(columns.map(|columns| columns.into_iter().map(cell).collect::<Result<_, Fault>>()))
        });
        self.row += 1;
        match next {
            Ok(None) => None,
            Ok(Some(cells)) => Some(Ok(RawRow {
                line: self.row,
                text: None,
                row: cells.map(Row),
            })),
            Err(why) => Some(Err(errors::damaged(self.name, &why))),
        }
    }
}

fn cell((name, field): (String, Field)) -> Result<(String, Value), Fault> {
    Ok((name, value(field)?))
}

fn value(field: Field) -> Result<Value, Fault> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(value),
        Field::Byte(value) => Value::Int(value.into()),
        Field::Short(value) => Value::Int(value.into()),
        Field::Int(value) => Value::Int(value.into()),
        Field::Long(value) => Value::Int(value),
        Field::UByte(value) => Value::Int(value.into()),
        Field::UShort(value) => Value::Int(value.into()),
        Field::UInt(value) => Value::Int(value.into()),
        Field::ULong(value) => i64::try_from(value).map_or(Value::Float(value as f64), Value::Int),
        Field::Float16(value) => Value::Float(value.to_f64()),
        Field::Float(value) => Value::Float(value.into()),
        Field::Double(value) => Value::Float(value),
        Field::Str(text) => Value::Text(text),
        Field::Bytes(bytes) => {
            let text = str::from_utf8(bytes.data()).map_err(errors::not_utf8)?;
            Value::Text(text.to_owned())
        }
        Field::Group(row) => {
            let fields = row.into_columns().into_iter().map(cell);
            Value::Record(fields.collect::<Result<_, Fault>>()?)
        }
        Field::ListInternal(list) => {
            let items = list.elements().iter().cloned().map(value);
            Value::List(items.collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter().cloned();
            let entry = |(key, field)| {
                let name = match value(key)? {
                    Value::Text(name) => name,
                    other => format!("{other:?}"),
                };
                Ok((name, value(field)?))
            };
            Value::Record(entries.map(entry).collect::<Result<_, Fault>>()?)
        }
        // Dates, times and decimals: as they are written.
        other => Value::Text(other.to_string()),
    })
}
