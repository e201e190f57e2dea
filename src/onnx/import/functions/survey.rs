//! What graphs and functions hold, subgraphs included, without expanding anything.

use crate::onnx::import::{DEEPEST, field};
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::onnx::wire::{Payload, Records, find_bytes};
use bytes::Bytes;
use prost::Message;

/// Something that a graph holds.
pub(super) enum Item<'a> {
    Node(&'a NodeProto),
    /// A name of a value. One that is defined elsewhere may come, too.
    Value(&'a str),
}

/// Visits a serialized graph. What cannot be decoded is passed over: reading it will say so.
pub(super) fn graph(bytes: &Bytes, visit: &mut dyn FnMut(Item<'_>)) {
    nested_graph(bytes, 0, visit);
}

/// Visits nodes and the subgraphs in their attributes.
pub(super) fn nodes(nodes: &[NodeProto], visit: &mut dyn FnMut(Item<'_>)) {
    for node in nodes {
        nested_node(node, 0, visit);
    }
}

fn nested_graph(bytes: &Bytes, depth: usize, visit: &mut dyn FnMut(Item<'_>)) {
    // Deeper ones are refused when they are read.
    if depth >= DEEPEST {
        return;
    }
    for record in Records::new(bytes).map_while(Result::ok) {
        let Payload::Bytes(range) = record.value else {
            continue;
        };
        let payload = bytes.slice(range);
        match record.field {
            field::NODE => {
                if let Ok(node) = NodeProto::decode(payload) {
                    nested_node(&node, depth, visit);
                }
            }
            field::INITIALIZER => name(&payload, 8, visit),
            field::INPUT | field::OUTPUT | field::VALUE_INFO => name(&payload, 1, visit),
            // A sparse initializer has the name of its values.
            15 => {
                if let Some(values) = find_bytes(&payload, 1) {
                    name(values, 8, visit);
                }
            }
            _ => {}
        }
    }
}

fn name(item: &[u8], field: u32, visit: &mut dyn FnMut(Item<'_>)) {
    let name = find_bytes(item, field).and_then(|name| std::str::from_utf8(name).ok());
    if let Some(name) = name {
        visit(Item::Value(name));
    }
}

fn nested_node(node: &NodeProto, depth: usize, visit: &mut dyn FnMut(Item<'_>)) {
    visit(Item::Node(node));
    node.output.iter().for_each(|name| visit(Item::Value(name)));
    node.attribute
        .iter()
        .flat_map(subgraphs)
        .for_each(|bytes| nested_graph(bytes, depth + 1, visit));
}

fn subgraphs(attribute: &AttributeProto) -> impl Iterator<Item = &Bytes> {
    attribute.g.iter().chain(&attribute.graphs)
}
