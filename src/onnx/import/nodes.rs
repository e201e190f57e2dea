//! The nodes of a graph while it is read: their texts are slices of what they were read from.
//!
//! In: serialized nodes as exporters write them, or decoded ones. Out: [`Nodes`], a list without a
//! string of its own. What holds: whatever is read here, prost reads alike; everything else, faulty
//! nodes among it, is left to prost.

use crate::graph::{Attribute, AttributeValue, Origin};
use crate::onnx::fields;
use crate::onnx::proto::{AttributeProto, NodeProto, StringStringEntryProto, attribute_type};
use crate::onnx::wire::{Payload, Records};
use bytes::Bytes;
use prost::Message;
use std::ops::Range;

/// The nodes of a graph in the order of the file.
#[derive(Default)]
pub(super) struct Nodes<'a> {
    list: Vec<FoundNode<'a>>,
    // Those of all nodes, each node's one behind the other.
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    attributes: Vec<FoundAttribute>,
    metadata: Vec<(&'a str, &'a str)>,
}

/// A node; texts that it does not have are empty.
#[derive(Clone, Default)]
pub(super) struct FoundNode<'a> {
    pub name: &'a str,
    pub op_type: &'a str,
    /// As written: the default domain has two names.
    pub domain: &'a str,
    pub doc: &'a str,
    pub overload: &'a str,
    /// What it was read from, if that is what it still says.
    pub origin: Option<&'a Bytes>,
    /// How many it has.
    pub attributes: usize,
    inputs: Range<usize>,
    outputs: Range<usize>,
    metadata: Range<usize>,
}

/// An attribute.
pub(super) enum FoundAttribute {
    /// One that is what it says: a number, a text or a list of integers.
    Plain(Attribute),
    Other(Box<AttributeProto>),
}

impl FoundAttribute {
    /// `None` for what is no attribute.
    fn read(node: &Bytes, place: Range<usize>) -> Option<FoundAttribute> {
        if let Some(attribute) = plain(&node[place.clone()]) {
            return Some(FoundAttribute::Plain(attribute));
        }
        // A slice of the file, so that tensors are not copied.
        let proto = AttributeProto::decode(node.slice(place)).ok()?;
        Some(FoundAttribute::Other(Box::new(proto)))
    }

    pub fn name(&self) -> &str {
        match self {
            FoundAttribute::Plain(attribute) => &attribute.name,
            FoundAttribute::Other(proto) => proto.name.as_deref().unwrap_or_default(),
        }
    }
}

impl<'a> Nodes<'a> {
    /// Reads serialized nodes; `None` if prost must look at one of them.
    pub fn read(serialized: &'a [Bytes]) -> Option<Nodes<'a>> {
        let mut nodes = Nodes {
            list: Vec::with_capacity(serialized.len()),
            inputs: Vec::with_capacity(2 * serialized.len()),
            outputs: Vec::with_capacity(serialized.len()),
            ..Nodes::default()
        };
        for bytes in serialized {
            nodes.add(bytes)?;
        }
        Some(nodes)
    }

    fn add(&mut self, bytes: &'a Bytes) -> Option<()> {
        let mut node = self.begin(Some(bytes));
        for record in Records::new(bytes) {
            let record = record.ok()?;
            let Payload::Bytes(place) = record.value else {
                // A field of a later version, or a fault.
                (record.field > fields::node::DEVICES).then_some(())?;
                continue;
            };
            let payload = &bytes[place.clone()];
            match record.field {
                fields::node::INPUT => self.inputs.push(text(payload)?),
                fields::node::OUTPUT => self.outputs.push(text(payload)?),
                fields::node::NAME => node.name = text(payload)?,
                fields::node::OP_TYPE => node.op_type = text(payload)?,
                fields::node::ATTRIBUTE => {
                    self.attributes.push(FoundAttribute::read(bytes, place)?)
                }
                fields::node::DOC => node.doc = text(payload)?,
                fields::node::DOMAIN => node.domain = text(payload)?,
                fields::node::OVERLOAD => node.overload = text(payload)?,
                fields::node::METADATA => self.metadata.push(entry(payload)?),
                fields::node::DEVICES => return None,
                _ => {}
            }
        }
        self.end(node);
        Some(())
    }

    /// The nodes that prost has decoded.
    pub fn of(decoded: &'a mut [(NodeProto, Option<Origin>)]) -> Nodes<'a> {
        let mut nodes = Nodes::default();
        for (proto, origin) in decoded {
            let attributes = std::mem::take(&mut proto.attribute);
            let proto: &NodeProto = proto;
            let mut node = nodes.begin(origin.as_ref().map(|origin| &origin.0));
            node.name = proto.name.as_deref().unwrap_or_default();
            node.op_type = proto.op_type.as_deref().unwrap_or_default();
            node.domain = proto.domain.as_deref().unwrap_or_default();
            node.doc = proto.doc_string.as_deref().unwrap_or_default();
            node.overload = proto.overload.as_deref().unwrap_or_default();
            nodes.inputs.extend(proto.input.iter().map(String::as_str));
            nodes
                .outputs
                .extend(proto.output.iter().map(String::as_str));
            let attributes = attributes.into_iter().map(Box::new);
            nodes
                .attributes
                .extend(attributes.map(FoundAttribute::Other));
            nodes
                .metadata
                .extend(proto.metadata_props.iter().map(borrowed));
            nodes.end(node);
        }
        nodes
    }

    /// A node whose lists start where those of the one before end.
    fn begin(&self, origin: Option<&'a Bytes>) -> FoundNode<'a> {
        let start = |length: usize| length..length;
        FoundNode {
            origin,
            inputs: start(self.inputs.len()),
            outputs: start(self.outputs.len()),
            attributes: self.attributes.len(),
            metadata: start(self.metadata.len()),
            ..FoundNode::default()
        }
    }

    fn end(&mut self, mut node: FoundNode<'a>) {
        node.inputs.end = self.inputs.len();
        node.outputs.end = self.outputs.len();
        node.attributes = self.attributes.len() - node.attributes;
        node.metadata.end = self.metadata.len();
        self.list.push(node);
    }

    /// Takes the attributes out, those of each node behind those of the one before.
    pub fn take_attributes(&mut self) -> std::vec::IntoIter<FoundAttribute> {
        std::mem::take(&mut self.attributes).into_iter()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FoundNode<'a>> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// How many results all nodes list together.
    pub fn result_count(&self) -> usize {
        self.outputs.len()
    }

    pub fn inputs(&self, node: &FoundNode<'a>) -> &[&'a str] {
        &self.inputs[node.inputs.clone()]
    }

    pub fn outputs(&self, node: &FoundNode<'a>) -> &[&'a str] {
        &self.outputs[node.outputs.clone()]
    }

    /// `metadata_props`, in the order of the file.
    pub fn metadata(&self, node: &FoundNode<'a>) -> &[(&'a str, &'a str)] {
        &self.metadata[node.metadata.clone()]
    }

    /// As much of a node as messages show.
    pub fn shown(&self, node: &FoundNode<'a>) -> NodeProto {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        NodeProto {
            input: owned(self.inputs(node)),
            output: owned(self.outputs(node)),
            name: Some(node.name.to_owned()),
            op_type: Some(node.op_type.to_owned()),
            ..NodeProto::default()
        }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn entry(bytes: &[u8]) -> Option<(&str, &str)> {
    let (mut key, mut value) = ("", "");
    for record in Records::new(bytes) {
        let record = record.ok()?;
        match (record.field, record.value) {
            (fields::entry::KEY, Payload::Bytes(place)) => key = text(&bytes[place])?,
            (fields::entry::VALUE, Payload::Bytes(place)) => value = text(&bytes[place])?,
            (fields::entry::KEY | fields::entry::VALUE, _) => return None,
            _ => {}
        }
    }
    Some((key, value))
}

fn borrowed(entry: &StringStringEntryProto) -> (&str, &str) {
    (
        entry.key.as_deref().unwrap_or_default(),
        entry.value.as_deref().unwrap_or_default(),
    )
}

fn plain(bytes: &[u8]) -> Option<Attribute> {
    let (mut name, mut kind) = ("", attribute_type::UNDEFINED);
    let (mut float, mut int, mut string, mut ints) = (0.0, 0, &[][..], Vec::new());
    for record in Records::new(bytes) {
        let record = record.ok()?;
        match (record.field, record.value) {
            (fields::attribute::NAME, Payload::Bytes(place)) => name = text(&bytes[place])?,
            (fields::attribute::FLOAT, Payload::Fixed32(bits)) => float = f32::from_bits(bits),
            (fields::attribute::INT, Payload::Varint(value)) => int = value as i64,
            (fields::attribute::STRING, Payload::Bytes(place)) => string = &bytes[place],
            (fields::attribute::INTS, Payload::Varint(value)) => ints.push(value as i64),
            (fields::attribute::DOC, Payload::Bytes(place)) => text(&bytes[place]).map(drop)?,
            (fields::attribute::TYPE, Payload::Varint(value)) => kind = value as i32,
            _ => return None,
        }
    }
    let value = match kind {
        attribute_type::FLOAT => AttributeValue::Float(float),
        attribute_type::INT => AttributeValue::Int(int),
        attribute_type::STRING => AttributeValue::String(string.to_vec()),
        attribute_type::INTS => AttributeValue::Ints(ints),
        _ => return None,
    };
    Some(Attribute::new(name, value))
}
