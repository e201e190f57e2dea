//! Nodes, values and the wiring between them.

use super::attribute::{Attribute, AttributeValue};
use super::tensor::{ExternalData, Tensor, TensorData};
use crate::ty::TensorType;
use bytes::Bytes;
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// A node of one graph; valid until the node is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) NodeIndex);

/// A value of one graph; valid until the value is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub(super) NodeIndex);

/// The serialized form from which an unchanged item can be written again byte for byte. Opaque
/// here; only `onnx` makes and reads it.
#[derive(Clone, Debug)]
pub struct Origin(pub Bytes);

/// An operator: the default domain is written "".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpName {
    pub domain: Arc<str>,
    pub op_type: Arc<str>,
}

impl OpName {
    pub fn new(domain: &str, op_type: &str) -> Self {
        OpName {
            domain: Arc::from(domain),
            op_type: Arc::from(op_type),
        }
    }

    /// Whether it is the default domain's operator of this name.
    pub fn is(&self, op_type: &str) -> bool {
        self.domain.is_empty() && &*self.op_type == op_type
    }
}

impl std::fmt::Display for OpName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.domain.is_empty() {
            f.write_str(&self.op_type)
        } else {
            write!(f, "{}:{}", self.domain, self.op_type)
        }
    }
}

/// One call of an operator.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: OpName,
    /// As found: may be empty or repeated. Reports fall back on the first output's name.
    pub name: String,
    pub attributes: Vec<Attribute>,
    /// `metadata_props`, in the order of the file.
    pub metadata: Vec<(String, String)>,
    pub doc: String,
    /// Function overload, almost always empty.
    pub overload: String,
    /// What was found; it is written as it was unless the node has been changed since.
    pub origin: Option<Origin>,
    pub is_changed: bool,
    pub(super) inputs: u32,
    pub(super) outputs: u32,
    pub(super) captures: u32,
    pub(super) position: Position,
}

impl Node {
    /// The attribute's value, if the node has it.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes
            .iter()
            .find(|a| a.name == name)
            .map(|a| &a.value)
    }

    /// An integer attribute, if present with that type.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            AttributeValue::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name)? {
            AttributeValue::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name)? {
            AttributeValue::Ints(values) => Some(values),
            _ => None,
        }
    }

    /// A string attribute that is UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attribute(name)? {
            AttributeValue::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A metadata entry.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// Whether it holds subgraphs.
    pub fn has_subgraphs(&self) -> bool {
        self.attributes.iter().any(|a| !a.value.graphs().is_empty())
    }
}

/// Sort key of a node: imported nodes count up in `anchor`; inserted ones share their anchor's
/// number and count up in `sequence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub anchor: u32,
    pub sequence: u32,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum ValueKind {
    /// Produced by a node (or by nothing yet, while a graph is being built).
    Computed,
    /// A graph input; `default` is set when an initializer of the same name exists.
    Input { default: Option<Tensor> },
    /// An initializer that is no graph input.
    Initializer(Tensor),
    /// A value of the enclosing graph, of the same name.
    Captured,
}

/// A named value.
#[derive(Clone, Debug)]
pub struct Value {
    /// Read it; only a patch renames.
    pub name: Arc<str>,
    /// Element type and shape where stated or inferred; `None` also for values that are no tensors.
    pub ty: Option<TensorType>,
    pub kind: ValueKind,
    /// `metadata_props` of the value's info or initializer.
    pub metadata: Vec<(String, String)>,
    /// The serialized `ValueInfoProto` of a graph input, output or intermediate value.
    pub origin: Option<Origin>,
    /// Whether a file says its type, though a node computes it; see [`Graph::state_type`].
    pub is_stated: bool,
    /// The serialized initializer, written again unless the tensor is replaced.
    pub initializer_origin: Option<Origin>,
}

impl Value {
    pub fn computed(name: &str, ty: Option<TensorType>) -> Self {
        Self::with_kind(name, ty, ValueKind::Computed)
    }

    pub fn initializer(name: &str, tensor: Tensor) -> Self {
        let ty = Some(tensor.ty());
        Self::with_kind(name, ty, ValueKind::Initializer(tensor))
    }

    pub fn with_kind(name: &str, ty: Option<TensorType>, kind: ValueKind) -> Self {
        Value {
            name: Arc::from(name),
            ty,
            kind,
            metadata: Vec::new(),
            origin: None,
            is_stated: false,
            initializer_origin: None,
        }
    }

    /// The constant that the value always has; a default of an input can be overridden by the
    /// caller of the model and does not count.
    pub fn constant(&self) -> Option<&Tensor> {
        match &self.kind {
            ValueKind::Initializer(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The constant, or the default of an input.
    pub fn tensor(&self) -> Option<&Tensor> {
        match &self.kind {
            ValueKind::Initializer(tensor) => Some(tensor),
            ValueKind::Input { default } => default.as_ref(),
            _ => None,
        }
    }

    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }
}

#[derive(Clone, Debug)]
pub(super) enum Vertex {
    Node(Box<Node>),
    Value(Box<Value>),
}

/// What an edge is to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    Input(u32),
    Output(u32),
    Capture(u32),
}

/// Operands or results by slot; `None` where an optional one is absent. Few nodes have more than fit
/// in place.
pub type Slots = SmallVec<[Option<ValueId>; 6]>;

/// A graph or a subgraph: nodes, values, inputs and outputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub name: String,
    pub doc: String,
    /// `metadata_props`, in the order of the file; they are carried, too.
    pub metadata: Vec<(String, String)>,
    pub(super) wires: StableDiGraph<Vertex, Slot>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
    pub(super) names: FxHashMap<Arc<str>, ValueId>,
    /// Initializers in the order of the file, then as added.
    pub(super) initializers: Vec<ValueId>,
    pub(super) next_anchor: u32,
    /// Fields that are carried unchanged, such as `value_info` entries, in serialized form.
    pub carried: Vec<Origin>,
}

impl Graph {
    pub fn new(name: &str) -> Self {
        Graph {
            name: name.to_owned(),
            ..Graph::default()
        }
    }

    /// A graph with room for so many nodes and values.
    pub fn with_capacity(nodes: usize, values: usize) -> Self {
        Graph {
            wires: StableDiGraph::with_capacity(nodes + values, 3 * nodes),
            names: FxHashMap::with_capacity_and_hasher(values, Default::default()),
            ..Graph::default()
        }
    }

    // --- building: for importers and tests -------------------------------------------------

    /// Adds a value; `Err` holds the one that already has the name.
    pub fn add_value(&mut self, value: Value) -> Result<ValueId, ValueId> {
        if let Some(existing) = self.names.get(&value.name) {
            return Err(*existing);
        }
        let name = value.name.clone();
        let is_initializer = value.tensor().is_some();
        let is_input = matches!(value.kind, ValueKind::Input { .. });
        let id = ValueId(self.wires.add_node(Vertex::Value(Box::new(value))));
        self.names.insert(name, id);
        if is_initializer {
            self.initializers.push(id);
        }
        if is_input {
            self.inputs.push(id);
        }
        Ok(id)
    }

    /// Adds a node behind all others. `None` stands for an absent optional operand or result.
    /// A result must not have a producer yet.
    pub fn add_node(
        &mut self,
        op: OpName,
        name: &str,
        attributes: Vec<Attribute>,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> NodeId {
        let position = Position {
            anchor: self.next_anchor,
            sequence: 0,
        };
        self.next_anchor += 1;
        self.add_node_at(position, op, name, attributes, inputs, outputs)
    }

    pub(super) fn add_node_at(
        &mut self,
        position: Position,
        op: OpName,
        name: &str,
        attributes: Vec<Attribute>,
        inputs: &[Option<ValueId>],
        outputs: &[Option<ValueId>],
    ) -> NodeId {
        let node = Node {
            op,
            name: name.to_owned(),
            attributes,
            metadata: Vec::new(),
            doc: String::new(),
            overload: String::new(),
            origin: None,
            is_changed: false,
            inputs: inputs.len() as u32,
            outputs: outputs.len() as u32,
            captures: 0,
            position,
        };
        let id = NodeId(self.wires.add_node(Vertex::Node(Box::new(node))));
        for (slot, value) in inputs.iter().enumerate() {
            if let Some(value) = value {
                self.wires.add_edge(value.0, id.0, Slot::Input(slot as u32));
            }
        }
        for (slot, value) in outputs.iter().enumerate() {
            if let Some(value) = value {
                debug_assert!(self.producer(*value).is_none(), "one producer a value");
                self.wires
                    .add_edge(id.0, value.0, Slot::Output(slot as u32));
            }
        }
        id
    }

    /// The value of the enclosing graph of that name, declared here if it is not yet known; for
    /// subgraphs whose own subgraphs capture it.
    pub fn capture_value(&mut self, name: &str) -> ValueId {
        let value = Value::with_kind(name, None, ValueKind::Captured);
        self.add_value(value).unwrap_or_else(|existing| existing)
    }

    /// Records that a subgraph of `node` reads `value`; once for each value.
    pub fn add_capture(&mut self, node: NodeId, value: ValueId) {
        if self.captures(node).contains(&value) {
            return;
        }
        let slot = self.node(node).captures;
        self.node_mut(node).captures += 1;
        self.wires.add_edge(value.0, node.0, Slot::Capture(slot));
    }

    /// Declares a graph output. ONNX allows a value to be listed more than once.
    pub fn add_output(&mut self, value: ValueId) {
        self.outputs.push(value);
    }

    // --- reading ------------------------------------------------------------------------------

    /// A metadata entry of the graph.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Values with a constant or a default, in the order of the file.
    pub fn initializers(&self) -> &[ValueId] {
        &self.initializers
    }

    pub fn node(&self, id: NodeId) -> &Node {
        match &self.wires[id.0] {
            Vertex::Node(node) => node,
            Vertex::Value(_) => unreachable!("a node id names a node"),
        }
    }

    pub fn value(&self, id: ValueId) -> &Value {
        match &self.wires[id.0] {
            Vertex::Value(value) => value,
            Vertex::Node(_) => unreachable!("a value id names a value"),
        }
    }

    /// For importers and passes that fill in types and origins; wiring and names are out of reach.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        match &mut self.wires[id.0] {
            Vertex::Node(node) => node,
            Vertex::Value(_) => unreachable!("a node id names a node"),
        }
    }

    pub(super) fn value_vertex(&mut self, id: ValueId) -> &mut Value {
        match &mut self.wires[id.0] {
            Vertex::Value(value) => value,
            Vertex::Node(_) => unreachable!("a value id names a value"),
        }
    }

    /// For importers: attaches serialized forms and metadata.
    pub fn set_value_origin(
        &mut self,
        id: ValueId,
        origin: Origin,
        metadata: Vec<(String, String)>,
    ) {
        let value = self.value_vertex(id);
        value.origin = Some(origin);
        value.metadata.extend(metadata);
    }

    /// For importers: the order in which the initializers are listed; each is one already.
    pub fn set_initializer_order(&mut self, order: Vec<ValueId>) {
        debug_assert_eq!(order.len(), self.initializers.len(), "every initializer");
        self.initializers = order;
    }

    /// Stores a stated or inferred type.
    pub fn set_type(&mut self, id: ValueId, ty: TensorType) {
        self.value_vertex(id).ty = Some(ty);
    }

    /// Has a file say the type of a computed value: for readers that do not know its operator.
    pub fn state_type(&mut self, id: ValueId) {
        self.value_vertex(id).is_stated = true;
    }

    /// Says where the elements of an initializer lie in a file; they are the same. Nothing for a value
    /// that is no initializer.
    pub fn refer_to_data(&mut self, id: ValueId, place: ExternalData) {
        let value = self.value_vertex(id);
        if let ValueKind::Initializer(tensor) = &mut value.kind {
            tensor.data = TensorData::External(place);
            value.initializer_origin = None;
        }
    }

    /// Gives an initializer, or the default of an input, other elements of the same type and shape.
    /// Nothing for a value that is neither, or of another type.
    pub fn replace_elements(&mut self, id: ValueId, new: Tensor) {
        let value = self.value_vertex(id);
        if let ValueKind::Initializer(old) | ValueKind::Input { default: Some(old) } =
            &mut value.kind
            && (old.dtype, &old.dims) == (new.dtype, &new.dims)
        {
            *old = new;
            value.initializer_origin = None;
        }
    }

    /// The value of that name.
    pub fn find_value(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }

    /// Every node id in no particular order; [`Graph::order`] sorts.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.wires
            .node_indices()
            .filter(|index| matches!(self.wires[*index], Vertex::Node(_)))
            .map(NodeId)
    }

    /// Every value id in the order of creation.
    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.wires
            .node_indices()
            .filter(|index| matches!(self.wires[*index], Vertex::Value(_)))
            .map(ValueId)
    }

    /// How many nodes there are, subgraphs not counted.
    pub fn node_count(&self) -> usize {
        self.node_ids().count()
    }

    /// Operands by slot; `None` where an optional one is absent.
    pub fn operands(&self, id: NodeId) -> Slots {
        let mut slots: Slots = smallvec![None; self.node(id).inputs as usize];
        for edge in self.wires.edges_directed(id.0, Incoming) {
            if let Slot::Input(slot) = edge.weight() {
                slots[*slot as usize] = Some(ValueId(edge.source()));
            }
        }
        slots
    }

    /// One operand; `None` if it is absent.
    pub fn operand(&self, id: NodeId, slot: usize) -> Option<ValueId> {
        self.wires
            .edges_directed(id.0, Incoming)
            .find(|edge| *edge.weight() == Slot::Input(slot as u32))
            .map(|edge| ValueId(edge.source()))
    }

    /// Results by slot; `None` where an optional one is absent.
    pub fn results(&self, id: NodeId) -> Slots {
        let mut slots: Slots = smallvec![None; self.node(id).outputs as usize];
        for edge in self.wires.edges_directed(id.0, Outgoing) {
            if let Slot::Output(slot) = edge.weight() {
                slots[*slot as usize] = Some(ValueId(edge.target()));
            }
        }
        slots
    }

    /// How many results the node lists, absent ones included.
    pub fn result_count(&self, id: NodeId) -> usize {
        self.node(id).outputs as usize
    }

    /// One result; `None` if it is absent.
    pub fn result(&self, id: NodeId, slot: usize) -> Option<ValueId> {
        self.wires
            .edges_directed(id.0, Outgoing)
            .find(|edge| *edge.weight() == Slot::Output(slot as u32))
            .map(|edge| ValueId(edge.target()))
    }

    /// Values that the node's subgraphs read from this graph.
    pub fn captures(&self, id: NodeId) -> Vec<ValueId> {
        let mut found: Vec<(u32, ValueId)> = self
            .wires
            .edges_directed(id.0, Incoming)
            .filter_map(|edge| match edge.weight() {
                Slot::Capture(slot) => Some((*slot, ValueId(edge.source()))),
                _ => None,
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The node that computes the value.
    pub fn producer(&self, id: ValueId) -> Option<NodeId> {
        self.wires
            .neighbors_directed(id.0, Incoming)
            .next()
            .map(NodeId)
    }

    /// Nodes that read the value with the operand slot, `None` for a capture by a subgraph; in the
    /// nodes' order. Graph outputs are not uses: see [`Graph::is_output`].
    pub fn uses(&self, id: ValueId) -> Vec<(NodeId, Option<usize>)> {
        let mut found: Vec<(Position, NodeId, Option<usize>)> = self
            .wires
            .edges_directed(id.0, Outgoing)
            .map(|edge| {
                let node = NodeId(edge.target());
                let slot = match edge.weight() {
                    Slot::Input(slot) => Some(*slot as usize),
                    _ => None,
                };
                (self.node(node).position, node, slot)
            })
            .collect();
        found.sort_by_key(|(position, _, slot)| (*position, *slot));
        found
            .into_iter()
            .map(|(_, node, slot)| (node, slot))
            .collect()
    }

    /// The one use of a value that is used once, as [`Graph::uses`] gives it.
    pub fn sole_use(&self, id: ValueId) -> Option<(NodeId, Option<usize>)> {
        let mut edges = self.wires.edges_directed(id.0, Outgoing);
        let edge = edges.next().filter(|_| edges.next().is_none())?;
        let slot = match edge.weight() {
            Slot::Input(slot) => Some(*slot as usize),
            _ => None,
        };
        Some((NodeId(edge.target()), slot))
    }

    /// How many nodes' operands and captures read the value.
    pub fn use_count(&self, id: ValueId) -> usize {
        self.wires.edges_directed(id.0, Outgoing).count()
    }

    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.contains(&id)
    }

    /// What reports call the node: its name, else its first result's name, else its operator.
    pub fn display_name(&self, id: NodeId) -> String {
        let node = self.node(id);
        if !node.name.is_empty() {
            return node.name.clone();
        }
        self.results(id).into_iter().flatten().next().map_or_else(
            || node.op.to_string(),
            |value| self.value(value).name.to_string(),
        )
    }
}
