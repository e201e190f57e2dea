//! A graph's fields, split but not decoded.

use super::Cx;
use crate::diag::Reported;
use crate::graph::Origin;
use crate::onnx::errors;
use crate::onnx::wire::{Payload, Records};
use bytes::Bytes;

/// The fields of `GraphProto`.
pub(in crate::onnx) mod field {
    pub const NODE: u32 = 1;
    pub const NAME: u32 = 2;
    pub const INITIALIZER: u32 = 5;
    pub const DOC: u32 = 10;
    pub const INPUT: u32 = 11;
    pub const OUTPUT: u32 = 12;
    pub const VALUE_INFO: u32 = 13;
    pub const SPARSE_INITIALIZER: u32 = 15;
    pub const METADATA: u32 = 16;
}

/// A graph's fields, each as a slice of the file.
#[derive(Default)]
pub(super) struct Sections {
    pub nodes: Vec<Bytes>,
    pub name: String,
    pub initializers: Vec<Bytes>,
    pub sparse_initializers: Vec<Bytes>,
    pub doc: String,
    pub inputs: Vec<Bytes>,
    pub outputs: Vec<Bytes>,
    pub value_infos: Vec<Bytes>,
    pub metadata: Vec<Bytes>,
    /// Every record but nodes and initializers, sparse ones included, as it was, in the order of the field numbers.
    pub carried: Vec<Origin>,
}

/// Splits a serialized graph.
pub(super) fn sections(cx: &mut Cx<'_>, bytes: &Bytes) -> Result<Sections, Reported> {
    let mut sections = Sections::default();
    let mut carried: Vec<(u32, Origin)> = Vec::new();
    for record in Records::new(bytes) {
        let record = record.map_err(|fault| cx.malformed("the graph", fault))?;
        let payload = match (record.field, &record.value) {
            (_, Payload::Bytes(range)) => bytes.slice(range.clone()),
            (1..=16, _) => {
                let why = format!("its field {} has another type", record.field);
                return Err(cx.error(errors::damaged("the graph", &why)));
            }
            _ => Bytes::new(),
        };
        match record.field {
            field::NODE => sections.nodes.push(payload),
            field::INITIALIZER => sections.initializers.push(payload),
            field::SPARSE_INITIALIZER => sections.sparse_initializers.push(payload),
            other => {
                carried.push((other, Origin(bytes.slice(record.place))));
                match other {
                    field::NAME => sections.name = text(cx, "the graph's name", &payload)?,
                    field::DOC => sections.doc = text(cx, "the graph's description", &payload)?,
                    field::INPUT => sections.inputs.push(payload),
                    field::OUTPUT => sections.outputs.push(payload),
                    field::VALUE_INFO => sections.value_infos.push(payload),
                    field::METADATA => sections.metadata.push(payload),
                    _ => {}
                }
            }
        }
    }
    carried.sort_by_key(|(field, _)| *field);
    sections.carried = carried.into_iter().map(|(_, origin)| origin).collect();
    Ok(sections)
}

fn text(cx: &mut Cx<'_>, what: &str, bytes: &Bytes) -> Result<String, Reported> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| cx.error(errors::damaged(what, "it is not UTF-8")))
}
