//! The nodes between borders.

use super::borders::Obstacle;
use super::flow::Flow;
use crate::graph::{Block, NodeId, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// For a node the last border that anything of it is computed of.
type Levels = FxHashMap<NodeId, usize>;

impl Flow<'_> {
    /// The nodes between each border and the next: what is computed of the one for the other, and what of
    /// these is read for its shape alone.
    pub fn blocks(&self, borders: &[ValueId]) -> Result<Vec<Block>, Obstacle> {
        let levels = self.levels(borders, |node| {
            let graph = self.graph;
            let operands = graph.operands(node).into_iter().flatten();
            operands.chain(graph.captures(node)).collect()
        });
        let flow = self.levels(borders, |node| self.flows_into(node).collect());
        let mut members: Vec<Vec<NodeId>> = vec![Vec::new(); borders.len()];
        for node in &self.order {
            if let Some(level) = levels.get(node) {
                members[*level].push(*node);
            }
        }
        let pairs = borders.windows(2).enumerate();
        pairs
            .map(|(layer, pair)| self.block(layer, [pair[0], pair[1]], &members[layer], &flow))
            .collect()
    }

    fn levels(&self, borders: &[ValueId], read: impl Fn(NodeId) -> Vec<ValueId>) -> Levels {
        let borders = borders.iter().enumerate();
        let borders: FxHashMap<ValueId, usize> = borders.map(|(level, id)| (*id, level)).collect();
        let mut levels = Levels::default();
        for node in &self.order {
            let level = |value: ValueId| {
                let made = self.graph.producer(value);
                let made = made.and_then(|node| levels.get(&node).copied());
                borders.get(&value).copied().max(made)
            };
            if let Some(level) = read(*node).into_iter().filter_map(level).max() {
                levels.insert(*node, level);
            }
        }
        levels
    }

    /// Of the members, which are computed of the first border and not of the second, those that no other
    /// node reads.
    fn block(
        &self,
        layer: usize,
        [input, output]: [ValueId; 2],
        members: &[NodeId],
        flow: &Levels,
    ) -> Result<Block, Obstacle> {
        let needed = self.needed(layer, output, flow);
        let mut nodes: FxHashSet<NodeId> = FxHashSet::default();
        let mut leaks = Vec::new();
        let is_alone = |value: ValueId, nodes: &FxHashSet<NodeId>| {
            let mut readers = self.graph.uses(value).into_iter();
            value == output
                || !self.graph.is_output(value) && readers.all(|(node, _)| nodes.contains(&node))
        };
        for node in members.iter().rev() {
            let results: Vec<ValueId> = self.results(*node).collect();
            match results.iter().all(|value| is_alone(*value, &nodes)) {
                true => {
                    nodes.insert(*node);
                }
                // Its own results are leaks; what it reads is not to blame.
                false if needed.contains(node) => {
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
        let members = members.iter().copied();
        Ok(Block {
            nodes: members.filter(|node| nodes.contains(node)).collect(),
            input,
            output,
        })
    }

    /// The nodes on ways from the border of this number to the value.
    fn needed(&self, layer: usize, output: ValueId, flow: &Levels) -> FxHashSet<NodeId> {
        let mut found = FxHashSet::default();
        let mut open: Vec<NodeId> = self.graph.producer(output).into_iter().collect();
        while let Some(node) = open.pop() {
            if flow.get(&node) == Some(&layer) && found.insert(node) {
                let read = self.flows_into(node);
                open.extend(read.filter_map(|value| self.graph.producer(value)));
            }
        }
        found
    }
}
