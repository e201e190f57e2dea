//! Attributes of nodes.

use super::{Graph, Tensor};

/// A named attribute.
#[derive(Clone, Debug)]
pub struct Attribute {
    pub name: String,
    pub value: AttributeValue,
}

/// What an attribute can hold. Kinds that peftc never looks into (type protos, sparse tensors)
/// are carried in serialized form.
#[derive(Clone, Debug)]
pub enum AttributeValue {
    Float(f32),
    Int(i64),
    /// Bytes, because ONNX does not promise UTF-8 here.
    String(Vec<u8>),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Vec<u8>>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
    /// An attribute of the enclosing function, by name; gone after inlining.
    Reference(String),
    /// A kind that is carried but not interpreted: the whole attribute, serialized.
    Opaque(bytes::Bytes),
}

impl Attribute {
    pub fn new(name: &str, value: AttributeValue) -> Self {
        Attribute {
            name: name.to_owned(),
            value,
        }
    }

    pub fn int(name: &str, value: i64) -> Self {
        Self::new(name, AttributeValue::Int(value))
    }

    pub fn ints(name: &str, value: impl Into<Vec<i64>>) -> Self {
        Self::new(name, AttributeValue::Ints(value.into()))
    }

    pub fn float(name: &str, value: f32) -> Self {
        Self::new(name, AttributeValue::Float(value))
    }

    pub fn string(name: &str, value: &str) -> Self {
        Self::new(name, AttributeValue::String(value.as_bytes().to_vec()))
    }

    pub fn tensor(name: &str, value: Tensor) -> Self {
        Self::new(name, AttributeValue::Tensor(value))
    }
}

impl AttributeValue {
    /// The subgraphs held by the attribute.
    pub fn graphs(&self) -> &[Graph] {
        match self {
            AttributeValue::Graph(graph) => std::slice::from_ref(graph),
            AttributeValue::Graphs(graphs) => graphs,
            _ => &[],
        }
    }

    pub(super) fn graphs_mut(&mut self) -> &mut [Graph] {
        match self {
            AttributeValue::Graph(graph) => std::slice::from_mut(graph),
            AttributeValue::Graphs(graphs) => graphs,
            _ => &mut [],
        }
    }
}
