//! Takes away what a patch has left without a reader.

use super::ir::{Graph, NodeId, ValueId, ValueKind};

impl Graph {
    /// Removes those of the values that nothing reads any more, the nodes that compute them and
    /// nothing else, and in turn what only these read. What had no reader before is not looked at;
    /// graph inputs, outputs and what is captured from an enclosing graph stay.
    pub(super) fn prune(&mut self, values: Vec<ValueId>) {
        let mut left = values;
        while let Some(value) = left.pop() {
            if !self.contains_value(value) || !self.is_unread(value) {
                continue;
            }
            match self.producer(value) {
                Some(node) => left.extend(self.remove_unread_node(node)),
                None if matches!(self.value(value).kind, ValueKind::Initializer(_)) => {
                    self.initializers.retain(|id| *id != value);
                    self.remove_value(value);
                }
                None => {}
            }
        }
    }

    /// Whether the node has not been removed.
    pub fn contains_node(&self, id: NodeId) -> bool {
        self.wires.contains_node(id.0)
    }

    /// Whether the value has not been removed.
    pub fn contains_value(&self, id: ValueId) -> bool {
        self.wires.contains_node(id.0)
    }

    fn is_unread(&self, id: ValueId) -> bool {
        self.use_count(id) == 0 && !self.is_output(id)
    }

    /// Removes a node of which no result is read; answers with what it read.
    pub(super) fn remove_unread_node(&mut self, node: NodeId) -> Vec<ValueId> {
        let results: Vec<ValueId> = self.results(node).into_iter().flatten().collect();
        if !results.iter().all(|result| self.is_unread(*result)) {
            return Vec::new();
        }
        let mut read: Vec<ValueId> = self.operands(node).into_iter().flatten().collect();
        read.extend(self.captures(node));
        self.wires.remove_node(node.0);
        for result in results {
            self.remove_value(result);
        }
        read
    }

    pub(super) fn remove_value(&mut self, id: ValueId) {
        let name = self.value(id).name.clone();
        self.names.remove(&name);
        self.wires.remove_node(id.0);
    }
}
