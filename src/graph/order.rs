//! The one order in which nodes are listed and written.

use super::ir::{Graph, NodeId, Position};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

impl Graph {
    /// Every node, operands before users. Among the nodes that are ready, the one with the smallest
    /// position comes first, so a sorted import is reproduced exactly and insertions stay beside
    /// their anchor. `Err` holds the nodes of cycles.
    pub fn order(&self) -> Result<Vec<NodeId>, Vec<NodeId>> {
        let mut waiting: FxHashMap<NodeId, usize> = FxHashMap::default();
        let mut ready: BinaryHeap<Reverse<(Position, NodeId)>> = BinaryHeap::new();
        for id in self.node_ids() {
            let operands = self.computed_operands(id);
            if operands == 0 {
                ready.push(Reverse((self.node(id).position, id)));
            } else {
                waiting.insert(id, operands);
            }
        }
        let mut order = Vec::with_capacity(ready.len() + waiting.len());
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for user in self.users_of_node(id) {
                let left = waiting
                    .get_mut(&user)
                    .expect("a user waits for its operands");
                *left -= 1;
                if *left == 0 {
                    waiting.remove(&user);
                    ready.push(Reverse((self.node(user).position, user)));
                }
            }
        }
        if waiting.is_empty() {
            return Ok(order);
        }
        let mut stuck: Vec<NodeId> = waiting.into_keys().collect();
        stuck.sort_by_key(|id| self.node(*id).position);
        Err(stuck)
    }

    /// Operand and capture edges whose value is computed by a node.
    fn computed_operands(&self, id: NodeId) -> usize {
        self.wires
            .neighbors_directed(id.0, petgraph::Direction::Incoming)
            .filter(|value| {
                self.wires
                    .neighbors_directed(*value, petgraph::Direction::Incoming)
                    .next()
                    .is_some()
            })
            .count()
    }

    fn users_of_node(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.wires
            .neighbors_directed(id.0, petgraph::Direction::Outgoing)
            .flat_map(|value| {
                self.wires
                    .neighbors_directed(value, petgraph::Direction::Outgoing)
            })
            .map(NodeId)
    }
}
