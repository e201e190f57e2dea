//! Nodes, tensors and value infos that have no serialized form to fall back on.

use super::graph::{graph, name_in};
use super::leftovers::{Writing, inner, keep};
use super::model::entry;
use super::rope::Rope;
use crate::graph::{Attribute, AttributeValue, Graph, NodeId, Slots, Tensor, TensorData, Value};
use crate::onnx::fields;
use crate::onnx::proto::{
    AttributeProto, Dimension, DimensionValue, EXTERNAL, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_type as kind, type_proto,
};
use crate::onnx::schema;
use crate::ty::{Dim, TensorType};
use bytes::Bytes;
use std::io;

/// Appends a node from the IR, with what it keeps of what was found.
pub(super) fn node(out: &mut Rope, owner: &Graph, id: NodeId, cx: &mut Writing) -> io::Result<()> {
    let node = owner.node(id);
    let found = node.origin.as_ref().map(|origin| &origin.0);
    let names = |out: &mut Rope, field: u32, values: Slots| {
        for value in values {
            out.text(field, value.map_or("", |id| &*owner.value(id).name));
        }
    };
    names(out, fields::node::INPUT, owner.operands(id));
    names(out, fields::node::OUTPUT, owner.results(id));
    let text = |out: &mut Rope, field: u32, text: &str| {
        if !text.is_empty() {
            out.text(field, text);
        }
    };
    text(out, fields::node::NAME, &node.name);
    text(out, fields::node::OP_TYPE, &node.op.op_type);
    for attribute in &node.attributes {
        let of_name = |bytes: &Bytes| name_in(bytes, fields::attribute::NAME) == attribute.name;
        let found = found.and_then(|found| inner(found, fields::node::ATTRIBUTE).find(of_name));
        attribute_field(out, attribute, found.as_ref(), cx)?;
    }
    text(out, fields::node::DOC, &node.doc);
    text(out, fields::node::DOMAIN, &node.op.domain);
    text(out, fields::node::OVERLOAD, &node.overload);
    for (key, value) in &node.metadata {
        out.message(fields::node::METADATA, &entry(key, value));
    }
    if let Some(found) = found {
        keep(out, &schema::NODE, &[fields::node::DEVICES], found);
        cx.lose(&schema::ENTRY, found, fields::node::METADATA);
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
        out.field(fields::node::ATTRIBUTE, found.unwrap_or(bytes));
        return Ok(());
    }
    out.nest(fields::node::ATTRIBUTE, |out| {
        if !nested(out, &attribute.name, &attribute.value, found, cx)? {
            out.append(&plain_attribute(attribute));
        }
        if let Some(found) = found {
            keep(out, &schema::ATTRIBUTE, &[fields::attribute::DOC], found);
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
            fields::attribute::TENSOR,
            kind::TENSOR,
        ),
        AttributeValue::Tensors(values) => (
            &[][..],
            0,
            &values[..],
            fields::attribute::TENSORS,
            kind::TENSORS,
        ),
        AttributeValue::Graph(body) => (
            std::slice::from_ref(&**body),
            fields::attribute::GRAPH,
            &[][..],
            0,
            kind::GRAPH,
        ),
        AttributeValue::Graphs(bodies) => (
            &bodies[..],
            fields::attribute::GRAPHS,
            &[][..],
            0,
            kind::GRAPHS,
        ),
        _ => return Ok(false),
    };
    out.text(fields::attribute::NAME, name);
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
    prost::encoding::int32::encode(fields::attribute::TYPE, &kind, out.own());
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
        out.field(fields::tensor::RAW_DATA, raw);
    }
    out.append(&tail);
    if let Some(found) = found {
        keep(out, &schema::TENSOR, &[fields::tensor::DOC], found);
        cx.lose(&schema::ENTRY, found, fields::tensor::EXTERNAL_DATA);
        cx.lose(&schema::ENTRY, found, fields::tensor::METADATA);
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
        keep(out, &schema::VALUE_INFO, &[fields::value_info::DOC], found);
        cx.lose(&schema::TYPE, found, fields::value_info::TYPE);
        cx.lose(&schema::ENTRY, found, fields::value_info::METADATA);
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
