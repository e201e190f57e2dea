//! Graphs: what was found is written as it was, around what is new.

use super::encode;
use super::leftovers::Writing;
use super::rope::Rope;
use crate::graph::{Graph, Origin, Value, ValueId, ValueKind};
use crate::onnx::import::field;
use crate::onnx::wire::{Payload, Records, find_bytes};
use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};
use std::io;

/// Appends a graph. Fails only on a cycle.
pub(super) fn graph(out: &mut Rope, graph: &Graph, cx: &mut Writing) -> io::Result<()> {
    let carried = Carried::read(&graph.carried);
    nodes(out, graph, cx)?;
    text(out, field::NAME, &graph.name, &carried);
    carried.push_between(out, field::NAME, field::INITIALIZER);
    for id in graph.initializers() {
        initializer(out, graph, *id, cx);
    }
    carried.push_between(out, field::INITIALIZER, field::DOC);
    text(out, field::DOC, &graph.doc, &carried);
    inputs(out, graph, &carried, cx);
    outputs(out, graph, &carried, cx);
    value_infos(out, graph, &carried, cx);
    carried.push_between(out, field::VALUE_INFO, u32::MAX);
    Ok(())
}

/// The carried records of a graph by field.
struct Carried<'a> {
    records: Vec<(u32, &'a Bytes, Bytes)>,
}

impl<'a> Carried<'a> {
    fn read(origins: &'a [Origin]) -> Self {
        let records = origins
            .iter()
            .filter_map(|Origin(raw)| {
                let record = Records::new(raw).next()?.ok()?;
                let payload = match record.value {
                    Payload::Bytes(range) => raw.slice(range),
                    _ => Bytes::new(),
                };
                Some((record.field, raw, payload))
            })
            .collect();
        Carried { records }
    }

    /// The raw records of one field with their payloads.
    fn of(&self, field: u32) -> impl Iterator<Item = (&'a Bytes, &Bytes)> {
        let start = self.records.partition_point(|(other, ..)| *other < field);
        self.records[start..]
            .iter()
            .take_while(move |(other, ..)| *other == field)
            .map(|(_, raw, payload)| (*raw, payload))
    }

    /// Writes the records whose field lies strictly between the two.
    fn push_between(&self, out: &mut Rope, low: u32, high: u32) {
        for (field, raw, _) in &self.records {
            if *field > low && *field < high {
                out.push(raw);
            }
        }
    }
}

/// The name in a serialized `ValueInfoProto`.
fn info_name(payload: &[u8]) -> &str {
    name_in(payload, 1)
}

pub(super) fn name_in(payload: &[u8], field: u32) -> &str {
    find_bytes(payload, field)
        .and_then(|name| std::str::from_utf8(name).ok())
        .unwrap_or_default()
}

fn nodes(out: &mut Rope, graph: &Graph, cx: &mut Writing) -> io::Result<()> {
    let order = graph.order().map_err(|stuck| {
        let name = stuck.first().map(|id| graph.display_name(*id));
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the graph has a cycle through {name:?}"),
        )
    })?;
    for id in order {
        let node = graph.node(id);
        match &node.origin {
            Some(Origin(bytes)) if !node.is_changed => out.field(field::NODE, bytes),
            _ => out.nest(field::NODE, |out| encode::node(out, graph, id, cx))?,
        }
    }
    Ok(())
}

/// A text field: the record of the file if it still says the same.
fn text(out: &mut Rope, field: u32, wanted: &str, carried: &Carried<'_>) {
    match carried.of(field).last() {
        Some((raw, payload)) if payload[..] == *wanted.as_bytes() => out.push(raw),
        None if wanted.is_empty() => {}
        _ => out.text(field, wanted),
    }
}

/// A renamed initializer is encoded anew; its data is shared either way.
fn initializer(out: &mut Rope, graph: &Graph, id: ValueId, cx: &mut Writing) {
    let value = graph.value(id);
    match found_initializer(value) {
        Some(bytes) => out.field(field::INITIALIZER, bytes),
        None => {
            if let Some(tensor) = value.tensor() {
                let found = value.initializer_origin.as_ref().map(|origin| &origin.0);
                out.nest(field::INITIALIZER, |out| {
                    encode::tensor(out, tensor, &value.name, &value.metadata, found, cx);
                });
            }
        }
    }
}

/// The serialized initializer of a value that has not been renamed.
fn found_initializer(value: &Value) -> Option<&Bytes> {
    const TENSOR_NAME: u32 = 8;
    let Origin(bytes) = value.initializer_origin.as_ref()?;
    (name_in(bytes, TENSOR_NAME) == &*value.name).then_some(bytes)
}

/// Inputs in the order of the graph. Before IR version 4, initializers must be listed as inputs,
/// too: those of the file keep their places, new ones follow.
fn inputs(out: &mut Rope, graph: &Graph, carried: &Carried<'_>, cx: &mut Writing) {
    let ir_version = cx.ir_version;
    let records: Vec<(&str, &Bytes, &Bytes)> = carried
        .of(field::INPUT)
        .map(|(raw, payload)| (info_name(payload), raw, payload))
        .collect();
    let places: FxHashMap<&str, usize> = records
        .iter()
        .enumerate()
        .map(|(place, (name, ..))| (*name, place))
        .collect();
    let is_constant = |name: &str| {
        ir_version < 4
            && graph
                .find_value(name)
                .is_some_and(|id| graph.value(id).constant().is_some())
    };
    let mut next = 0;
    let mut flush = |out: &mut Rope, until: usize| {
        while next < until {
            let (name, raw, _) = records[next];
            if is_constant(name) {
                out.push(raw);
            }
            next += 1;
        }
    };
    for id in graph.inputs() {
        let value = graph.value(*id);
        match places.get(&*value.name) {
            Some(place) if value.origin.is_some() => {
                flush(out, *place);
                out.push(records[*place].1);
            }
            place => {
                let found = place.map(|place| records[*place].2);
                out.nest(field::INPUT, |out| {
                    encode::value_info(out, value, found, cx)
                });
            }
        }
    }
    flush(out, records.len());
    if ir_version < 4 {
        for id in graph.initializers() {
            let value = graph.value(*id);
            let is_input = matches!(value.kind, ValueKind::Input { .. });
            if !is_input && found_initializer(value).is_none() {
                out.nest(field::INPUT, |out| encode::value_info(out, value, None, cx));
            }
        }
    }
}

/// Outputs in the order of the graph; one that is listed more than once may be described
/// differently each time, so the records of a name are used up in turn.
fn outputs(out: &mut Rope, graph: &Graph, carried: &Carried<'_>, cx: &mut Writing) {
    let mut records: FxHashMap<&str, Vec<(&Bytes, &Bytes)>> = FxHashMap::default();
    for (raw, payload) in carried.of(field::OUTPUT) {
        let list = records.entry(info_name(payload)).or_default();
        list.push((raw, payload));
    }
    records.values_mut().for_each(|list| list.reverse());
    for id in graph.outputs() {
        let value = graph.value(*id);
        let found = records.get_mut(&*value.name).and_then(Vec::pop);
        match found {
            Some((raw, _)) if value.origin.is_some() => out.push(raw),
            found => {
                let found = found.map(|(_, payload)| payload);
                out.nest(field::OUTPUT, |out| {
                    encode::value_info(out, value, found, cx)
                });
            }
        }
    }
}

/// Infos of intermediate values. One whose value has been changed since is written anew; one of a
/// name that the graph does not have was so in the file and stays.
fn value_infos(out: &mut Rope, graph: &Graph, carried: &Carried<'_>, cx: &mut Writing) {
    let mut rewritten = FxHashSet::default();
    for (raw, payload) in carried.of(field::VALUE_INFO) {
        match graph.find_value(info_name(payload)) {
            Some(id) if graph.value(id).origin.is_none() => {
                let value = graph.value(id);
                if value.ty.is_some() && rewritten.insert(id) {
                    out.nest(field::VALUE_INFO, |out| {
                        encode::value_info(out, value, Some(payload), cx);
                    });
                }
            }
            found => {
                rewritten.extend(found);
                out.push(raw);
            }
        }
    }
    for id in graph.value_ids() {
        let value = graph.value(id);
        let is_open = value.is_stated && value.ty.is_some() && !graph.is_output(id);
        if is_open && rewritten.insert(id) {
            out.nest(field::VALUE_INFO, |out| {
                encode::value_info(out, value, None, cx);
            });
        }
    }
}
