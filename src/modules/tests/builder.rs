//! A few words to write a graph with.

use crate::graph::{
    Attribute, AttributeValue, Graph, Model, NodeId, OpName, Tensor, Value, ValueId, ValueKind,
};
use crate::ty::{DType, Dim, Shape, TensorType};

fn named_axes(axes: &[&str]) -> TensorType {
    let dims = axes.iter().map(|axis| Dim::symbol(axis));
    TensorType::new(DType::F32, Shape::new(dims))
}

/// A graph in the making. Values are named; a name that is not known yet becomes a value.
#[derive(Default)]
pub struct Build {
    graph: Graph,
    last: Option<NodeId>,
}

impl Build {
    pub fn new() -> Self {
        Self::default()
    }

    /// A float input; a negative size is unknown.
    pub fn input(self, name: &str, dims: &[i64]) -> Self {
        self.typed_input(name, DType::F32, dims)
    }

    /// A float input with named axes.
    pub fn axes(mut self, name: &str, axes: &[&str]) -> Self {
        let kind = ValueKind::Input { default: None };
        self.add(Value::with_kind(name, Some(named_axes(axes)), kind));
        self
    }

    /// Names the axes of a value that is not known yet.
    pub fn typed(mut self, name: &str, axes: &[&str]) -> Self {
        self.add(Value::computed(name, Some(named_axes(axes))));
        self
    }

    pub fn ids(self, name: &str, dims: &[i64]) -> Self {
        self.typed_input(name, DType::I64, dims)
    }

    fn typed_input(mut self, name: &str, dtype: DType, dims: &[i64]) -> Self {
        let dims = dims.iter().map(|dim| match dim {
            known @ 0.. => Dim::from(*known),
            _ => Dim::symbol("n"),
        });
        let ty = TensorType::new(dtype, Shape::new(dims));
        let kind = ValueKind::Input { default: None };
        self.add(Value::with_kind(name, Some(ty), kind));
        self
    }

    /// A float initializer of zeros.
    pub fn weight(self, name: &str, dims: &[i64]) -> Self {
        self.constant(name, DType::F32, dims)
    }

    pub fn constant(self, name: &str, dtype: DType, dims: &[i64]) -> Self {
        self.described(name, dtype, dims, &[])
    }

    /// An initializer with metadata.
    pub fn described(
        mut self,
        name: &str,
        dtype: DType,
        dims: &[i64],
        metadata: &[(&str, &str)],
    ) -> Self {
        let elements = dims.iter().product::<i64>() as u64;
        let bytes = dtype.byte_len(elements).expect("a sized type");
        let tensor = Tensor::from_raw(dtype, dims, vec![0u8; bytes as usize]);
        let mut value = Value::initializer(name, tensor);
        value.metadata = metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        self.add(value);
        self
    }

    pub fn floats(mut self, name: &str, values: &[f32]) -> Self {
        let tensor = Tensor::from_f32(&[values.len() as i64], values);
        self.add(Value::initializer(name, tensor));
        self
    }

    pub fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let tensor = Tensor::from_i64(&[values.len() as i64], values);
        self.add(Value::initializer(name, tensor));
        self
    }

    /// A node without a name: `"MatMul(x, w) -> y"`; `_` is an absent operand.
    pub fn node(self, text: &str) -> Self {
        self.named("", text)
    }

    pub fn named(mut self, name: &str, text: &str) -> Self {
        let (op, rest) = text.split_once('(').expect("operator and operands");
        let (operands, results) = rest.split_once(") -> ").expect("operands and results");
        let op = match op.split_once(':') {
            Some((domain, op_type)) => OpName::new(domain, op_type),
            None => OpName::new("", op),
        };
        let mut list = |text: &str| -> Vec<Option<ValueId>> {
            let names = text.split(", ").filter(|name| !name.is_empty());
            names
                .map(|name| (name != "_").then(|| self.value(name)))
                .collect()
        };
        let (inputs, outputs) = (list(operands), list(results));
        self.last = Some(self.graph.add_node(op, name, Vec::new(), &inputs, &outputs));
        self
    }

    /// An attribute of the last node.
    pub fn with(mut self, attribute: Attribute) -> Self {
        let node = self.last.expect("a node");
        self.graph.node_mut(node).attributes.push(attribute);
        self
    }

    pub fn int(self, name: &str, value: i64) -> Self {
        self.with(Attribute::int(name, value))
    }

    pub fn perm(self, perm: &[i64]) -> Self {
        self.with(Attribute::ints("perm", perm))
    }

    /// `name_scopes` of the last node: the module's path.
    pub fn scope(mut self, path: &str) -> Self {
        let node = self.last.expect("a node");
        let scopes = format!("['', '{path}', 'operation']");
        self.graph
            .node_mut(node)
            .metadata
            .push(("pkg.torch.onnx.name_scopes".to_owned(), scopes));
        self
    }

    /// A node whose subgraph is `body`; what the body does not define is captured.
    pub fn body(mut self, body: Build) -> Self {
        let node = self.last.expect("a node");
        for value in body.graph.value_ids().collect::<Vec<_>>() {
            let value = body.graph.value(value);
            if matches!(value.kind, ValueKind::Captured) {
                let outer = self.value(&value.name.clone());
                self.graph.add_capture(node, outer);
            }
        }
        let attribute = AttributeValue::Graph(Box::new(body.graph));
        self.with(Attribute::new("body", attribute))
    }

    /// A value of the enclosing graph.
    pub fn captured(mut self, name: &str) -> Self {
        self.add(Value::with_kind(name, None, ValueKind::Captured));
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        let value = self.value(name);
        self.graph.add_output(value);
        self
    }

    pub fn model(self) -> Model {
        Model::new("test.onnx", self.graph, 10, 20)
    }

    fn add(&mut self, value: Value) {
        self.graph.add_value(value).expect("a new name");
    }

    fn value(&mut self, name: &str) -> ValueId {
        match self.graph.find_value(name) {
            Some(value) => value,
            None => self
                .graph
                .add_value(Value::computed(name, None))
                .expect("a new name"),
        }
    }
}
