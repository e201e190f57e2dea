//! The nodes between two borders.

use super::borders::Obstacle;
use super::flow::Flow;
use crate::graph::{Block, NodeId, ValueId};
use rustc_hash::FxHashSet;

impl Flow<'_> {
    /// The nodes between two borders: what is computed of the one for the other, and what of these is read
    /// for its shape alone.
    pub fn block(&self, layer: usize, input: ValueId, output: ValueId) -> Result<Block, Obstacle> {
        let (begin, end) = (self.descendants(input), self.descendants(output));
        let inside = |node: &NodeId| begin.contains(node) && !end.contains(node);
        let flow = self.flow_between(input, output);
        let mut nodes: FxHashSet<NodeId> = FxHashSet::default();
        let mut leaks = Vec::new();
        let is_alone = |value: ValueId, nodes: &FxHashSet<NodeId>| {
            let mut readers = self.graph.uses(value).into_iter();
            value == output
                || !self.graph.is_output(value) && readers.all(|(node, _)| nodes.contains(&node))
        };
        for node in self.order.iter().rev().filter(|node| inside(node)) {
            let results: Vec<ValueId> = self.results(*node).collect();
            match results.iter().all(|value| is_alone(*value, &nodes)) {
                true => {
                    nodes.insert(*node);
                }
                // Its own results count as leaks; what it reads is not to blame.
                false if flow.contains(node) => {
                    leaks.extend(
                        results
                            .into_iter()
                            .filter(|value| !is_alone(*value, &nodes)),
                    );
                    nodes.insert(*node);
                }
                false => {}
            }
        }
        // What leads into a layer is nothing but that, also where its shape alone is read.
        let mut readers = self.graph.uses(input).into_iter();
        let is_read_elsewhere = readers.any(|(node, _)| !nodes.contains(&node));
        let is_read_elsewhere = is_read_elsewhere || self.graph.is_output(input);
        leaks.extend((layer > 0 && is_read_elsewhere).then_some(input));
        if !leaks.is_empty() {
            return Err(Obstacle::Leaks(layer, leaks));
        }
        let in_order = self.order.iter().copied();
        Ok(Block {
            nodes: in_order.filter(|node| nodes.contains(node)).collect(),
            input,
            output,
        })
    }

    /// The nodes that anything is computed of a value in, be it of its shape alone.
    fn descendants(&self, value: ValueId) -> FxHashSet<NodeId> {
        let mut found = FxHashSet::default();
        let mut open = vec![value];
        while let Some(value) = open.pop() {
            for (node, _) in self.graph.uses(value) {
                if found.insert(node) {
                    open.extend(self.results(node));
                }
            }
        }
        found
    }

    /// The nodes on ways from the one value to the other.
    fn flow_between(&self, input: ValueId, output: ValueId) -> FxHashSet<NodeId> {
        let mut forward: FxHashSet<NodeId> = FxHashSet::default();
        let mut made = FxHashSet::from_iter([input]);
        for node in &self.order {
            if self.flows_into(*node).any(|value| made.contains(&value)) {
                forward.insert(*node);
                made.extend(self.results(*node));
            }
        }
        let mut found = FxHashSet::default();
        let mut open: Vec<NodeId> = self.graph.producer(output).into_iter().collect();
        while let Some(node) = open.pop() {
            if forward.contains(&node) && found.insert(node) {
                let read = self.flows_into(node);
                open.extend(read.filter_map(|value| self.graph.producer(value)));
            }
        }
        found
    }
}
