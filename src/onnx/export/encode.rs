//! Nodes, tensors and value infos that have no serialized form to fall back on.

use super::graph::{graph, name_in};
use super::leftovers::{Writing, inner, keep};
use super::model::entry;
use super::rope::Rope;
use crate::graph::{Attribute, AttributeValue, Graph, NodeId, Slots, Tensor, TensorData, Value};
use crate::onnx::proto::{
    AttributeProto, Dimension, DimensionValue, EXTERNAL, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_type as kind, type_proto,
};
use crate::onnx::schema;
use crate::ty::{Dim, TensorType};
use bytes::Bytes;
use std::io;

/// Field numbers of `NodeProto`, `AttributeProto`, `TensorProto` and `ValueInfoProto`.
mod field {
    pub const INPUT: u32 = 1;
    pub const OUTPUT: u32 = 2;
    pub const NAME: u32 = 3;
    pub const OP_TYPE: u32 = 4;
    pub const ATTRIBUTE: u32 = 5;
    pub const DOC: u32 = 6;
    pub const DOMAIN: u32 = 7;
    pub const OVERLOAD: u32 = 8;
    pub const METADATA: u32 = 9;
    pub const ATTRIBUTE_NAME: u32 = 1;
    pub const TENSOR: u32 = 5;
    pub const GRAPH: u32 = 6;
    pub const TENSORS: u32 = 10;
    pub const GRAPHS: u32 = 11;
    pub const ATTRIBUTE_TYPE: u32 = 20;
    pub const ATTRIBUTE_DOC: u32 = 13;
    pub const DEVICES: u32 = 10;
    pub const RAW_DATA: u32 = 9;
    pub const TENSOR_DOC: u32 = 12;
    pub const EXTERNAL_DATA: u32 = 13;
    pub const TENSOR_METADATA: u32 = 16;
    pub const INFO_TYPE: u32 = 2;
    pub const INFO_DOC: u32 = 3;
    pub const INFO_METADATA: u32 = 4;
}

/// Appends a node from the IR, with what it keeps of what was found.
pub(super) fn node(out: &mut Rope, owner: &Graph, id: NodeId, cx: &mut Writing) -> io::Result<()> {
    let node = owner.node(id);
    let found = node.origin.as_ref().map(|origin| &origin.0);
    let names = |out: &mut Rope, field: u32, values: Slots| {
        for value in values {
            out.text(field, value.map_or("", |id| &*owner.value(id).name));
        }
    };
    names(out, field::INPUT, owner.operands(id));
    names(out, field::OUTPUT, owner.results(id));
    let text = |out: &mut Rope, field: u32, text: &str| {
        if !text.is_empty() {
            out.text(field, text);
        }
    };
    text(out, field::NAME, &node.name);
    text(out, field::OP_TYPE, &node.op.op_type);
    for attribute in &node.attributes {
        let of_name = |bytes: &Bytes| name_in(bytes, field::ATTRIBUTE_NAME) == attribute.name;
        let found = found.and_then(|found| inner(found, field::ATTRIBUTE).find(of_name));
        attribute_field(out, attribute, found.as_ref(), cx)?;
    }
    text(out, field::DOC, &node.doc);
    text(out, field::DOMAIN, &node.op.domain);
    text(out, field::OVERLOAD, &node.overload);
    for (key, value) in &node.metadata {
        out.message(field::METADATA, &entry(key, value));
    }
    if let Some(found) = found {
        keep(out, &schema::NODE, &[field::DEVICES], found);
        cx.lose(&schema::ENTRY, found, field::METADATA);
    }
    Ok(())
}

fn attribute_field(
    out: &mut Rope,
    attribute: &Attribute,
    found: Option<&Bytes>,
    cx: &mut Writing,
) -> io::Result<()> {
    if let AttributeValue::Opaque(bytes) = &attribute.value {
        out.field(field::ATTRIBUTE, found.unwrap_or(bytes));
        return Ok(());
    }
    out.nest(field::ATTRIBUTE, |out| {
        if !nested(out, &attribute.name, &attribute.value, found, cx)? {
            out.append(&plain_attribute(attribute));
        }
        if let Some(found) = found {
            keep(out, &schema::ATTRIBUTE, &[field::ATTRIBUTE_DOC], found);
        }
        Ok(())
    })
}

/// Writes an attribute with tensors or graphs; false for one that has none.
fn nested(
    out: &mut Rope,
    name: &str,
    value: &AttributeValue,
    found: Option<&Bytes>,
    cx: &mut Writing,
) -> io::Result<bool> {
    let (graphs, graph_field, tensors, tensor_field, kind) = match value {
        AttributeValue::Tensor(value) => (
            &[][..],
            0,
            std::slice::from_ref(value),
            field::TENSOR,
            kind::TENSOR,
        ),
        AttributeValue::Tensors(values) => (&[][..], 0, &values[..], field::TENSORS, kind::TENSORS),
        AttributeValue::Graph(body) => (
            std::slice::from_ref(&**body),
            field::GRAPH,
            &[][..],
            0,
            kind::GRAPH,
        ),
        AttributeValue::Graphs(bodies) => (&bodies[..], field::GRAPHS, &[][..], 0, kind::GRAPHS),
        _ => return Ok(false),
    };
    out.text(field::ATTRIBUTE_NAME, name);
    let found: Vec<Bytes> = match found {
        Some(found) if tensor_field != 0 => inner(found, tensor_field).collect(),
        _ => Vec::new(),
    };
    for (index, value) in tensors.iter().enumerate() {
        let found = found.get(index);
        out.nest(tensor_field, |out| tensor(out, value, "", &[], found, cx));
    }
    for body in graphs {
        out.nest(graph_field, |out| graph(out, body, cx))?;
    }
    prost::encoding::int32::encode(field::ATTRIBUTE_TYPE, &kind, out.own());
    Ok(true)
}

/// Attributes without tensors and graphs.
fn plain_attribute(attribute: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto {
        name: Some(attribute.name.clone()),
        ..AttributeProto::default()
    };
    let kind = match &attribute.value {
        AttributeValue::Float(value) => {
            proto.f = Some(*value);
            kind::FLOAT
        }
        AttributeValue::Int(value) => {
            proto.i = Some(*value);
            kind::INT
        }
        AttributeValue::String(value) => {
            proto.s = Some(Bytes::copy_from_slice(value));
            kind::STRING
        }
        AttributeValue::Floats(values) => {
            proto.floats = values.clone();
            kind::FLOATS
        }
        AttributeValue::Ints(values) => {
            proto.ints = values.clone();
            kind::INTS
        }
        AttributeValue::Strings(values) => {
            proto.strings = values.iter().map(|v| Bytes::copy_from_slice(v)).collect();
            kind::STRINGS
        }
        AttributeValue::Reference(name) => {
            proto.ref_attr_name = Some(name.clone());
            kind::UNDEFINED
        }
        AttributeValue::Tensor(_)
        | AttributeValue::Tensors(_)
        | AttributeValue::Graph(_)
        | AttributeValue::Graphs(_)
        | AttributeValue::Opaque(_) => unreachable!("written piece by piece"),
    };
    proto.r#type = Some(kind);
    proto
}

/// Appends a tensor; its data is shared, or referred to where it lies outside. `found` is the
/// tensor as it was.
pub(super) fn tensor(
    out: &mut Rope,
    tensor: &Tensor,
    name: &str,
    metadata: &[(String, String)],
    found: Option<&Bytes>,
    cx: &mut Writing,
) {
    let mut head = TensorProto {
        dims: tensor.dims.clone(),
        data_type: Some(tensor.dtype.number()),
        name: (!name.is_empty()).then(|| name.to_owned()),
        ..TensorProto::default()
    };
    let mut tail = TensorProto {
        metadata_props: metadata.iter().map(|(k, v)| entry(k, v)).collect(),
        ..TensorProto::default()
    };
    let mut raw = None;
    match &tensor.data {
        TensorData::Raw(bytes) => raw = Some(bytes),
        TensorData::Strings(strings) => head.string_data = strings.clone(),
        TensorData::External(place) => {
            tail.external_data = vec![
                entry("location", &place.location),
                entry("offset", &place.offset.to_string()),
                entry("length", &place.length.to_string()),
            ];
            tail.data_location = Some(EXTERNAL);
        }
    }
    out.append(&head);
    if let Some(raw) = raw {
        out.field(field::RAW_DATA, raw);
    }
    out.append(&tail);
    if let Some(found) = found {
        keep(out, &schema::TENSOR, &[field::TENSOR_DOC], found);
        cx.lose(&schema::ENTRY, found, field::EXTERNAL_DATA);
        cx.lose(&schema::ENTRY, found, field::TENSOR_METADATA);
    }
}

/// Appends what the IR knows of a value, and what it keeps of what was found.
pub(super) fn value_info(out: &mut Rope, value: &Value, found: Option<&Bytes>, cx: &mut Writing) {
    let info = ValueInfoProto {
        name: Some(value.name.to_string()),
        r#type: value.ty.as_ref().map(type_proto),
        doc_string: None,
        metadata_props: value.metadata.iter().map(|(k, v)| entry(k, v)).collect(),
    };
    out.append(&info);
    if let Some(found) = found {
        keep(out, &schema::VALUE_INFO, &[field::INFO_DOC], found);
        cx.lose(&schema::TYPE, found, field::INFO_TYPE);
        cx.lose(&schema::ENTRY, found, field::INFO_METADATA);
    }
}

fn type_proto(ty: &TensorType) -> TypeProto {
    let shape = ty.shape.as_ref().map(|shape| TensorShapeProto {
        dim: shape.0.iter().map(dimension).collect(),
    });
    TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor {
            elem_type: Some(ty.dtype.number()),
            shape,
        })),
        denotation: None,
    }
}

fn dimension(dim: &Dim) -> Dimension {
    let is_open = || dim.symbols().iter().any(|symbol| symbol.is_open());
    let value = match dim.known() {
        Some(size) => Some(DimensionValue::DimValue(size)),
        None if is_open() => None,
        None => Some(DimensionValue::DimParam(dim.to_string())),
    };
    Dimension {
        value,
        denotation: None,
    }
}
