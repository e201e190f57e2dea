//! What an item that is written anew keeps of what was found: descriptions, and fields that ONNX
//! does not define.

use super::rope::Rope;
use crate::onnx::schema::{Schema, Unknown};
use crate::onnx::wire::{Payload, Records};
use bytes::Bytes;

/// What a write carries from item to item.
pub(super) struct Writing {
    pub ir_version: i64,
    /// Unknown fields of what is written anew and could not keep them.
    pub lost: Unknown,
}

/// Appends the records of a found message that ONNX does not define, and those of some fields that
/// the IR does not hold.
pub(super) fn keep(out: &mut Rope, schema: &Schema, fields: &[u32], found: &Bytes) {
    for record in Records::new(found).map_while(Result::ok) {
        if !schema.knows(record.field) || fields.contains(&record.field) {
            out.push(&found.slice(record.place));
        }
    }
}

/// The messages in one field of a found message.
pub(super) fn inner(found: &Bytes, field: u32) -> impl Iterator<Item = Bytes> {
    Records::new(found)
        .map_while(Result::ok)
        .filter_map(move |record| match record.value {
            Payload::Bytes(range) if record.field == field => Some(found.slice(range)),
            _ => None,
        })
}

impl Writing {
    /// Counts the unknown fields of the messages in one field, which are written anew.
    pub fn lose(&mut self, schema: &'static Schema, found: &Bytes, field: u32) {
        for message in inner(found, field) {
            self.lost.count(schema, &message);
        }
    }
}
