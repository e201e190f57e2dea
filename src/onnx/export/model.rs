//! The model around the graph.

use super::graph::graph;
use super::leftovers::Writing;
use super::rope::Rope;
use crate::diag::{Reported, Sink};
use crate::files;
use crate::graph::Model;
use crate::onnx::errors;
use crate::onnx::import::{normalized, pair};
use crate::onnx::proto::{OperatorSetIdProto, StringStringEntryProto};
use crate::onnx::schema::{self, Unknown};
use crate::onnx::wire::{Payload, split};
use bytes::Bytes;
use prost::Message;
use std::io::{self, Write};
use std::path::Path;

/// Protobuf's readers take no message of more bytes.
const LARGEST: u64 = i32::MAX as u64;

/// Writes a model to a file, completely or not at all.
pub fn save(model: &Model, path: &Path, sink: &mut Sink) -> Result<(), Reported> {
    let (rope, lost) =
        encode(model).map_err(|error| sink.emit(files::cannot_write(path, &error)))?;
    if rope.len() > LARGEST {
        return Err(sink.emit(errors::too_large(&model.name, rope.len())));
    }
    if !lost.is_empty() {
        sink.warn(errors::lost_fields(&lost));
    }
    files::write(path, sink, |out| rope.write(out))
}

/// Writes a model. Refuses a model with a cycle and one that is too large for protobuf before the
/// first byte is written.
pub fn write_model(model: &Model, out: &mut dyn Write) -> io::Result<()> {
    let (rope, _) = encode(model)?;
    if rope.len() > LARGEST {
        let message = errors::too_large(&model.name, rope.len()).message;
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    rope.write(out)
}

/// The number of the field behind which the graph stands, and of the one that holds it.
const BEFORE_GRAPH: u32 = 6;
const GRAPH: u32 = 7;
const OPSETS: u32 = 8;
const METADATA: u32 = 14;

/// The serialized model, and the unknown fields that are not in it.
fn encode(model: &Model) -> io::Result<(Rope, Unknown)> {
    let mut cx = Writing {
        ir_version: model.ir_version,
        lost: Unknown::default(),
    };
    let header = Header::read(model);
    let source = model.source.as_ref().map(|origin| origin.0.clone());
    let mut out = Rope::over(source.unwrap_or_default());
    match header.ir_version {
        Some((version, raw)) if version == model.ir_version => out.push(&raw),
        _ => prost::encoding::int64::encode(1, &model.ir_version, out.own()),
    }
    let (before, behind) = header.others.split_at(
        header
            .others
            .partition_point(|(field, _)| *field <= BEFORE_GRAPH),
    );
    before.iter().for_each(|(_, raw)| out.push(raw));
    out.nest(GRAPH, |out| graph(out, &model.graph, &mut cx))?;
    if header
        .opsets
        .iter()
        .map(|(entry, _)| entry)
        .eq(&model.opsets)
    {
        header.opsets.iter().for_each(|(_, raw)| out.push(raw));
    } else {
        for (_, raw) in &header.opsets {
            cx.lost.count(&schema::MODEL, raw);
        }
        for (domain, version) in &model.opsets {
            let entry = OperatorSetIdProto {
                domain: Some(domain.clone()),
                version: Some(*version),
            };
            out.message(OPSETS, &entry);
        }
    }
    let between = behind.partition_point(|(field, _)| *field < METADATA);
    behind[..between].iter().for_each(|(_, raw)| out.push(raw));
    metadata(&mut out, &header.metadata, &model.metadata);
    behind[between..].iter().for_each(|(_, raw)| out.push(raw));
    Ok((out, cx.lost))
}

/// Entries that the file had are written as they were, as long as they come in the same order.
fn metadata(out: &mut Rope, found: &[((String, String), Bytes)], wanted: &[(String, String)]) {
    let mut found = found.iter();
    for (key, value) in wanted {
        match found.find(|((k, v), _)| k == key && v == value) {
            Some((_, raw)) => out.push(raw),
            None => out.message(METADATA, &entry(key, value)),
        }
    }
}

pub(super) fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}

/// The carried fields of the model; empty for a model that was not imported.
#[derive(Default)]
struct Header {
    ir_version: Option<(i64, Bytes)>,
    opsets: Vec<((String, i64), Bytes)>,
    metadata: Vec<((String, String), Bytes)>,
    others: Vec<(u32, Bytes)>,
}

impl Header {
    fn read(model: &Model) -> Header {
        let mut header = Header::default();
        let Some(origin) = &model.header else {
            return header;
        };
        for (record, raw) in split(&origin.0).unwrap_or_default() {
            match (record.field, &record.value) {
                (1, Payload::Varint(version)) => {
                    header.ir_version = Some((*version as i64, raw));
                }
                (OPSETS, Payload::Bytes(range)) => {
                    let entry = OperatorSetIdProto::decode(origin.0.slice(range.clone()));
                    header
                        .opsets
                        .push((normalized(&entry.unwrap_or_default()), raw));
                }
                (METADATA, Payload::Bytes(range)) => {
                    let entry = StringStringEntryProto::decode(origin.0.slice(range.clone()));
                    header.metadata.push((pair(entry.unwrap_or_default()), raw));
                }
                (field, _) => header.others.push((field, raw)),
            }
        }
        header
    }
}
