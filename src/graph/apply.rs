//! What a [`Patch`] does to a graph.

use super::ir::{Graph, NodeId, Position, Slot, Value, ValueId, ValueKind};
use super::names::{node_names, value_name};
use super::patch::{Anchor, Applied, Insertion, NewValue, Operand, Patch};
use crate::ty::Proof;
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::visit::EdgeRef;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

fn resolved(operand: &Operand, values: &[ValueId]) -> ValueId {
    match operand {
        Operand::Existing(id) | Operand::Original(id) => *id,
        Operand::New(index) => values[*index as usize],
    }
}

impl Graph {
    /// Applies a patch, or says why it is refused and leaves the graph as it was.
    pub fn apply(&mut self, patch: Patch) -> Result<Applied, String> {
        self.check(&patch)?;
        let wishes = patch.insertions.iter().map(|new| &*new.node.name);
        let names = node_names(self, wishes);
        let mut values: Vec<ValueId> = patch
            .values
            .into_iter()
            .map(|value| self.add_new_value(value))
            .collect();
        let (nodes, originals) = self.insert(patch.insertions, names, &values);
        for (node, slot, value) in patch.further {
            self.add_result(node, slot, values[value as usize]);
        }
        // Before anything moves: a value may be replaced by one that is replaced, too.
        let uses: Vec<_> = patch
            .replacements
            .iter()
            .map(|(old, _)| self.use_edges(*old, &originals))
            .collect();
        for ((old, new), edges) in patch.replacements.iter().zip(uses) {
            self.move_uses(*old, resolved(new, &values), edges);
        }
        self.drop_attributes(&patch.dropped_attributes);
        for (input, tensor) in patch.fixed {
            self.fix_input(input, tensor);
        }
        let mut abandoned = Vec::new();
        for (old, index) in patch.takeovers {
            let new = std::mem::replace(&mut values[index as usize], old);
            abandoned.extend(self.take_over(old, new));
        }
        let resolve = |operand: &Operand| resolved(operand, &values);
        let mut left: Vec<ValueId> = patch.replacements.iter().map(|(old, _)| *old).collect();
        if patch.drops_outputs {
            left.append(&mut self.outputs);
        }
        for (node, slot, to) in &patch.redirected {
            left.extend(self.redirect(*node, *slot, resolve(to)));
        }
        for output in &patch.outputs {
            let id = resolve(output);
            self.outputs.push(id);
        }
        for (value, name) in &patch.names {
            self.give_name(resolve(value), name);
        }
        // Last, because ids of what is removed may be given out again.
        left.extend(self.remove_abandoned(abandoned));
        self.prune(left);
        for input in patch.dropped_inputs {
            self.drop_input(input);
        }
        debug_assert!(self.verify().is_empty(), "{:?}", self.verify());
        Ok(Applied { values, nodes })
    }

    /// Adds the nodes under these names; which of their operands ask for the original of a replaced value.
    fn insert(
        &mut self,
        insertions: Vec<Insertion>,
        names: Vec<String>,
        values: &[ValueId],
    ) -> (Vec<NodeId>, FxHashSet<(NodeId, u32)>) {
        let mut sequences: FxHashMap<u32, u32> = self.last_sequences();
        let mut nodes = Vec::new();
        let mut originals: FxHashSet<(NodeId, u32)> = FxHashSet::default();
        for (insertion, name) in insertions.into_iter().zip(names) {
            let anchor = match insertion.anchor {
                Anchor::Behind(node) => self.node(node).position.anchor,
                Anchor::Front => 0,
            };
            let sequence = sequences.entry(anchor).or_insert(0);
            *sequence += 1;
            let position = Position {
                anchor,
                sequence: *sequence,
            };
            let new = insertion.node;
            let inputs = new.inputs.iter();
            let inputs: Vec<Option<ValueId>> = inputs
                .map(|o| o.as_ref().map(|operand| resolved(operand, values)))
                .collect();
            let outputs = insertion.outputs.iter();
            let outputs: Vec<Option<ValueId>> = outputs
                .map(|o| o.map(|index| values[index as usize]))
                .collect();
            let node = self.add_node_at(position, new.op, &name, new.attributes, &inputs, &outputs);
            self.node_mut(node).metadata = new.metadata;
            for capture in &insertion.captures {
                self.add_capture(node, resolved(capture, values));
            }
            for (slot, operand) in new.inputs.iter().enumerate() {
                if matches!(operand, Some(Operand::Original(_))) {
                    originals.insert((node, slot as u32));
                }
            }
            nodes.push(node);
        }
        (nodes, originals)
    }

    fn drop_attributes(&mut self, dropped: &[(NodeId, String)]) {
        for (id, name) in dropped {
            let node = self.node_mut(*id);
            let count = node.attributes.len();
            node.attributes.retain(|attribute| attribute.name != *name);
            node.is_changed |= node.attributes.len() < count;
        }
    }

    fn check(&self, patch: &Patch) -> Result<(), String> {
        for (index, (old, new)) in patch.replacements.iter().enumerate() {
            if patch.replacements[..index]
                .iter()
                .any(|(other, _)| other == old)
            {
                return Err(format!("`{}` is replaced twice", self.value(*old).name));
            }
            let new_type = match new {
                Operand::Existing(id) | Operand::Original(id) => self.value(*id).ty.clone(),
                Operand::New(_) => patch.type_of_new(*new),
            };
            if let (Some(old_type), Some(new_type)) = (&self.value(*old).ty, &new_type)
                && old_type.compare(new_type) == Proof::Different
            {
                return Err(format!(
                    "`{}` has type {old_type}, its replacement has type {new_type}",
                    self.value(*old).name
                ));
            }
        }
        for (old, index) in &patch.takeovers {
            let new_type = patch.type_of_new(Operand::New(*index));
            if let (Some(old_type), Some(new_type)) = (&self.value(*old).ty, &new_type)
                && old_type.compare(new_type) == Proof::Different
            {
                return Err(format!(
                    "`{}` has type {old_type}, what computes it has type {new_type}",
                    self.value(*old).name
                ));
            }
        }
        for (node, slot, _) in &patch.further {
            if self.result(*node, *slot as usize).is_some() {
                return Err(format!(
                    "`{}` has a result {slot} already",
                    self.display_name(*node)
                ));
            }
        }
        let inputs = patch.values.iter().filter_map(|value| match value {
            NewValue::Input { name, .. } => Some(name),
            _ => None,
        });
        let outputs = patch.names.iter().map(|(_, name)| name);
        for name in inputs.chain(outputs) {
            if self.find_value(name).is_some() {
                return Err(format!("the graph already has a value named `{name}`"));
            }
        }
        Ok(())
    }

    /// The edges to the readers of a value, less those that ask for the original.
    fn use_edges(
        &self,
        id: ValueId,
        originals: &FxHashSet<(NodeId, u32)>,
    ) -> Vec<petgraph::stable_graph::EdgeIndex> {
        self.wires
            .edges_directed(id.0, Outgoing)
            .filter(|edge| match edge.weight() {
                Slot::Input(slot) => !originals.contains(&(NodeId(edge.target()), *slot)),
                Slot::Output(_) | Slot::Capture(_) => true,
            })
            .map(|edge| edge.id())
            .collect()
    }

    /// The last sequence number behind each anchor; none stands for 0.
    pub(super) fn last_sequences(&self) -> FxHashMap<u32, u32> {
        let mut last = FxHashMap::default();
        let positions = self.node_ids().map(|id| self.node(id).position);
        for position in positions.filter(|position| position.sequence > 0) {
            let entry = last.entry(position.anchor).or_insert(0);
            *entry = (*entry).max(position.sequence);
        }
        last
    }

    /// Gives a node another operand; answers with the one that it had.
    fn redirect(&mut self, node: NodeId, slot: u32, to: ValueId) -> Option<ValueId> {
        let mut edges = self.wires.edges_directed(node.0, Incoming);
        let edge = edges.find(|edge| *edge.weight() == Slot::Input(slot))?;
        let (edge, before) = (edge.id(), ValueId(edge.source()));
        self.wires.remove_edge(edge);
        self.wires.add_edge(to.0, node.0, Slot::Input(slot));
        self.node_mut(node).is_changed = true;
        Some(before)
    }

    fn add_result(&mut self, node: NodeId, slot: u32, value: ValueId) {
        let owner = self.node_mut(node);
        owner.outputs = owner.outputs.max(slot + 1);
        owner.is_changed = true;
        self.wires.add_edge(node.0, value.0, Slot::Output(slot));
    }

    fn add_new_value(&mut self, value: NewValue) -> ValueId {
        let value = match value {
            NewValue::Result { name, ty } => Value::computed(&value_name(self, &name), ty),
            NewValue::Constant { name, tensor } => {
                Value::initializer(&value_name(self, &name), tensor)
            }
            NewValue::Input { name, ty, default } => {
                Value::with_kind(&name, Some(ty), ValueKind::Input { default })
            }
            NewValue::Capture { name, ty } => {
                if let Some(existing) = self.find_value(&name) {
                    return existing;
                }
                Value::with_kind(&name, ty, ValueKind::Captured)
            }
        };
        self.add_value(value)
            .unwrap_or_else(|_| unreachable!("the name was made unique"))
    }

    /// Moves the given use edges and the graph outputs from `old` to `new` and swaps the names, so
    /// that every reader, subgraph bodies included, still reads the name it had.
    fn move_uses(
        &mut self,
        old: ValueId,
        new: ValueId,
        edges: Vec<petgraph::stable_graph::EdgeIndex>,
    ) {
        for edge in edges {
            let (_, target) = self.wires.edge_endpoints(edge).expect("the edge exists");
            let slot = self.wires.remove_edge(edge).expect("the edge exists");
            self.wires.add_edge(new.0, target, slot);
        }
        for output in &mut self.outputs {
            if *output == old {
                *output = new;
            }
        }
        let public = self.value(old).name.clone();
        let private = value_name(self, &format!("{public}.base"));
        self.names.remove(&self.value(new).name.clone());
        self.rename(old, Arc::from(private));
        self.rename(new, public);
        let origin = self.value_vertex(old).origin.take();
        self.value_vertex(new).origin = origin;
        for owner in self.producer(old).into_iter().chain(self.producer(new)) {
            self.node_mut(owner).is_changed = true;
        }
        // The patch's own readers of the original were written with the name it had.
        let readers: Vec<NodeId> = self.uses(old).into_iter().map(|(node, _)| node).collect();
        for reader in readers {
            self.node_mut(reader).is_changed = true;
        }
    }

    /// Renames a computed value for everyone who reads it.
    fn give_name(&mut self, id: ValueId, name: &str) {
        self.rename(id, Arc::from(name));
        self.value_vertex(id).origin = None;
        let readers = self.uses(id).into_iter().map(|(node, _)| node);
        let touched: Vec<NodeId> = readers.chain(self.producer(id)).collect();
        for node in touched {
            self.node_mut(node).is_changed = true;
        }
    }

    fn rename(&mut self, id: ValueId, name: Arc<str>) {
        if self.names.get(&self.value(id).name) == Some(&id) {
            let old = self.value(id).name.clone();
            self.names.remove(&old);
        }
        self.names.insert(name.clone(), id);
        self.value_vertex(id).name = name;
    }

    /// Puts a scope in front of the names of all values but captured ones, and of all nodes; for a graph that
    /// becomes a body, whose names must differ from those around it. Nothing in it may have bodies.
    pub fn qualify(&mut self, scope: &str) {
        let values: Vec<ValueId> = self.value_ids().collect();
        for id in values {
            if !matches!(self.value(id).kind, ValueKind::Captured) {
                let name = format!("{scope}/{}", self.value(id).name);
                self.give_name(id, &name);
            }
        }
        let nodes: Vec<NodeId> = self.node_ids().collect();
        for id in nodes {
            let node = self.node_mut(id);
            node.name = format!("{scope}/{}", node.name);
            node.is_changed = true;
        }
    }

    /// Edits a subgraph of a node: the node is written anew. Values captured by the
    /// edit must be linked with [`Graph::add_capture`] by the caller.
    pub fn edit_subgraph<T>(
        &mut self,
        node: NodeId,
        attribute: usize,
        graph: usize,
        edit: impl FnOnce(&mut Graph) -> T,
    ) -> T {
        let owner = self.node_mut(node);
        owner.is_changed = true;
        edit(&mut owner.attributes[attribute].value.graphs_mut()[graph])
    }
}

impl Graph {
    /// Puts back a body whose values have been typed; nothing else may have changed, so the node's
    /// serialized form stays.
    pub fn put_typed_body(&mut self, node: NodeId, attribute: usize, graph: usize, body: Graph) {
        self.node_mut(node).attributes[attribute].value.graphs_mut()[graph] = body;
    }
}
