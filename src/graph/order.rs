//! The one order in which nodes are listed and written.

use super::ir::{Graph, NodeId, Position};
use petgraph::visit::NodeIndexable;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

impl Graph {
    /// Every node, operands before users. Among the nodes that are ready, the one with the smallest
    /// position comes first, so a sorted import is reproduced exactly and insertions stay beside
    /// their anchor. `Err` holds the nodes of cycles.
    pub fn order(&self) -> Result<Vec<NodeId>, Vec<NodeId>> {
        let position = |id: NodeId| (self.node(id).position, id);
        let mut positions = Vec::with_capacity(self.wires.node_count());
        positions.extend(self.node_ids().map(position));
        // As a rule two ascending runs, what was imported and what a patch has inserted: a stable
        // sort only merges them.
        positions.sort();
        let nodes: Vec<NodeId> = positions.into_iter().map(|(_, id)| id).collect();
        if self.is_topological(&nodes) {
            return Ok(nodes);
        }
        self.sorted(&nodes)
    }

    /// Whether every node stands behind those that compute its operands: in most graphs positions
    /// alone say the order.
    fn is_topological(&self, nodes: &[NodeId]) -> bool {
        let mut seen = vec![false; self.wires.node_bound()];
        nodes.iter().all(|id| {
            let ready = self.producers(*id).all(|producer| seen[producer.index()]);
            seen[id.0.index()] = true;
            ready
        })
    }

    fn sorted(&self, nodes: &[NodeId]) -> Result<Vec<NodeId>, Vec<NodeId>> {
        let mut waiting = vec![0_usize; self.wires.node_bound()];
        let mut ready: BinaryHeap<Reverse<(Position, NodeId)>> = BinaryHeap::new();
        for id in nodes {
            let operands = self.producers(*id).count();
            waiting[id.0.index()] = operands;
            if operands == 0 {
                ready.push(Reverse((self.node(*id).position, *id)));
            }
        }
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for user in self.users_of_node(id) {
                let left = &mut waiting[user.0.index()];
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse((self.node(user).position, user)));
                }
            }
        }
        if order.len() == nodes.len() {
            return Ok(order);
        }
        let stuck = nodes.iter().filter(|id| waiting[id.0.index()] > 0);
        Err(stuck.copied().collect())
    }

    /// The nodes that compute what a node reads, one for every operand and captured value.
    fn producers(&self, id: NodeId) -> impl Iterator<Item = petgraph::graph::NodeIndex> + '_ {
        self.wires
            .neighbors_directed(id.0, petgraph::Direction::Incoming)
            .filter_map(|value| {
                self.wires
                    .neighbors_directed(value, petgraph::Direction::Incoming)
                    .next()
            })
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
