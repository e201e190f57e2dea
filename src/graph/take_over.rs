//! Changes to what a value is: computed by another node, a constant, or gone.

use super::ir::{Graph, NodeId, ValueId, ValueKind};
use super::tensor::Tensor;
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::visit::EdgeRef;

impl Graph {
    /// Makes the node that computes `new` compute `old` in its place: `old` keeps its id, its name
    /// and its readers, and `new` is gone. Returns the node that computed `old` before.
    pub(super) fn take_over(&mut self, old: ValueId, new: ValueId) -> Option<NodeId> {
        let before = self.producer(old);
        let edges = |graph: &Graph, value: ValueId, direction| -> Vec<_> {
            graph
                .wires
                .edges_directed(value.0, direction)
                .map(|edge| (edge.id(), edge.source(), edge.target(), *edge.weight()))
                .collect()
        };
        for (edge, ..) in edges(self, old, Incoming) {
            self.wires.remove_edge(edge);
        }
        for (_, source, _, slot) in edges(self, new, Incoming) {
            self.wires.add_edge(source, old.0, slot);
        }
        for (_, _, target, slot) in edges(self, new, Outgoing) {
            self.wires.add_edge(old.0, target, slot);
        }
        if self.value(old).ty.is_none() {
            let ty = self.value(new).ty.clone();
            self.value_vertex(old).ty = ty;
        }
        let name = self.value(new).name.clone();
        self.names.remove(&name);
        self.wires.remove_node(new.0);
        if let Some(node) = before {
            self.node_mut(node).is_changed = true;
        }
        before
    }

    /// Removes those of the nodes of which no result is read any more; answers with what they read.
    pub(super) fn remove_abandoned(&mut self, nodes: Vec<NodeId>) -> Vec<ValueId> {
        let mut read = Vec::new();
        for node in nodes {
            if self.contains_node(node) {
                read.extend(self.remove_unread_node(node));
            }
        }
        read
    }

    /// Makes an input a constant of its own name.
    pub(super) fn fix_input(&mut self, input: ValueId, tensor: Tensor) {
        self.inputs.retain(|id| *id != input);
        if self.value(input).tensor().is_none() {
            self.initializers.push(input);
        }
        let value = self.value_vertex(input);
        value.kind = ValueKind::Initializer(tensor);
        value.origin = None;
        value.initializer_origin = None;
    }

    /// Removes an input, unless something reads it.
    pub(super) fn drop_input(&mut self, input: ValueId) {
        if self.contains_value(input) && self.use_count(input) == 0 && !self.is_output(input) {
            self.inputs.retain(|id| *id != input);
            self.initializers.retain(|id| *id != input);
            self.remove_value(input);
        }
    }
}
