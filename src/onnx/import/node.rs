//! Attributes of nodes.

use super::Cx;
use super::graph::{Body, Scope, graph};
use super::nodes::{FoundAttribute, FoundNode, Nodes};
use super::tensor::tensor;
use crate::diag::Reported;
use crate::graph::{Attribute, AttributeValue};
use crate::onnx::errors;
use crate::onnx::proto::{AttributeProto, NodeProto, attribute_type as kind};
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

/// A node's attributes, with what their subgraphs read of the enclosing graphs.
#[derive(Default)]
pub(super) struct Attributes {
    pub list: Vec<Attribute>,
    pub captured: Vec<Arc<str>>,
}

/// The node that has the attributes.
#[derive(Clone, Copy)]
pub(super) struct Owner<'n, 'a> {
    pub nodes: &'n Nodes<'a>,
    pub node: &'n FoundNode<'a>,
}

impl Owner<'_, '_> {
    fn shown(self) -> NodeProto {
        self.nodes.shown(self.node)
    }
}

/// Converts the attributes of a node; faulty ones are reported and left out.
pub(super) fn attributes(
    cx: &mut Cx<'_>,
    owner: Owner<'_, '_>,
    attributes: impl Iterator<Item = FoundAttribute>,
    scope: &Scope<'_>,
) -> Attributes {
    let mut found = Attributes {
        list: Vec::with_capacity(owner.node.attributes),
        captured: Vec::new(),
    };
    for attribute in attributes {
        let name = attribute.name();
        if found.list.iter().any(|other| other.name == name) {
            let why = format!("has attribute `{name}` twice");
            cx.error(errors::node(cx.file, &owner.shown(), &why));
            continue;
        }
        let proto = match attribute {
            FoundAttribute::Plain(attribute) => {
                found.list.push(attribute);
                continue;
            }
            FoundAttribute::Other(proto) => *proto,
        };
        let name = proto.name.clone().unwrap_or_default();
        match value(cx, owner, proto, scope, &mut found.captured) {
            Ok(value) => found.list.push(Attribute { name, value }),
            Err(Fault::Reported) => {}
            Err(Fault::Said(why)) => {
                let why = format!("has an attribute `{name}` that {why}");
                cx.error(errors::node(cx.file, &owner.shown(), &why));
            }
        }
    }
    found
}

/// Why an attribute cannot be read.
enum Fault {
    /// What is wrong with it, as the rest of a sentence.
    Said(String),
    Reported,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Fault::Said(why)
    }
}

impl From<Reported> for Fault {
    fn from(_: Reported) -> Self {
        Fault::Reported
    }
}

fn value(
    cx: &mut Cx<'_>,
    owner: Owner<'_, '_>,
    proto: AttributeProto,
    scope: &Scope<'_>,
    captured: &mut Vec<Arc<str>>,
) -> Result<AttributeValue, Fault> {
    if let Some(reference) = proto.ref_attr_name.as_ref().filter(|name| !name.is_empty()) {
        return Err(Fault::Said(format!(
            "refers to attribute `{reference}` of a function, outside of any function"
        )));
    }
    let kind = stated_or_only_kind(&proto)?;
    let missing = || Fault::Said("has no value of its type".to_owned());
    let name = proto.name.as_deref().unwrap_or_default();
    let what = || {
        format!(
            "the tensor in attribute `{name}` of {}",
            errors::describe(&owner.shown())
        )
    };
    let subgraph = |cx: &mut Cx<'_>, bytes: &Bytes, captured: &mut Vec<Arc<str>>| {
        let Body {
            graph,
            captured: more,
        } = graph(cx, bytes, Some(scope));
        captured.extend(more);
        graph
    };
    Ok(match kind {
        kind::FLOAT => AttributeValue::Float(proto.f.unwrap_or_default()),
        kind::INT => AttributeValue::Int(proto.i.unwrap_or_default()),
        kind::STRING => AttributeValue::String(proto.s.unwrap_or_default().to_vec()),
        kind::TENSOR => AttributeValue::Tensor(tensor(cx, &what(), proto.t.ok_or_else(missing)?)?),
        kind::GRAPH => {
            let bytes = proto.g.ok_or_else(missing)?;
            AttributeValue::Graph(Box::new(subgraph(cx, &bytes, captured)))
        }
        kind::FLOATS => AttributeValue::Floats(proto.floats),
        kind::INTS => AttributeValue::Ints(proto.ints),
        kind::STRINGS => {
            AttributeValue::Strings(proto.strings.iter().map(|s| s.to_vec()).collect())
        }
        kind::TENSORS => AttributeValue::Tensors(
            proto
                .tensors
                .into_iter()
                .map(|proto| tensor(cx, &what(), proto))
                .collect::<Result<_, _>>()?,
        ),
        kind::GRAPHS => AttributeValue::Graphs(
            proto
                .graphs
                .iter()
                .map(|bytes| subgraph(cx, bytes, captured))
                .collect(),
        ),
        kind::SPARSE_TENSOR | kind::SPARSE_TENSORS | kind::TYPE_PROTO | kind::TYPE_PROTOS => {
            AttributeValue::Opaque(Bytes::from(proto.encode_to_vec()))
        }
        other => return Err(Fault::Said(format!("has the unknown type {other}"))),
    })
}

/// The attribute's type; early files do not state it, there the only field that is set decides.
fn stated_or_only_kind(proto: &AttributeProto) -> Result<i32, String> {
    match proto.r#type {
        Some(stated) if stated != kind::UNDEFINED => return Ok(stated),
        _ => {}
    }
    let set = [
        (proto.f.is_some(), kind::FLOAT),
        (proto.i.is_some(), kind::INT),
        (proto.s.is_some(), kind::STRING),
        (proto.t.is_some(), kind::TENSOR),
        (proto.g.is_some(), kind::GRAPH),
        (!proto.floats.is_empty(), kind::FLOATS),
        (!proto.ints.is_empty(), kind::INTS),
        (!proto.strings.is_empty(), kind::STRINGS),
        (!proto.tensors.is_empty(), kind::TENSORS),
        (!proto.graphs.is_empty(), kind::GRAPHS),
        (proto.sparse_tensor.is_some(), kind::SPARSE_TENSOR),
        (!proto.sparse_tensors.is_empty(), kind::SPARSE_TENSORS),
        (proto.tp.is_some(), kind::TYPE_PROTO),
        (!proto.type_protos.is_empty(), kind::TYPE_PROTOS),
    ];
    let mut found = set.iter().filter(|(is_set, _)| *is_set);
    match (found.next(), found.next()) {
        (Some((_, only)), None) => Ok(*only),
        (None, _) => Err("has neither type nor value".to_owned()),
        (Some(_), Some(_)) => Err("has several values and no type".to_owned()),
    }
}
