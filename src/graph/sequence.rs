//! A graph whose blocks stand in another sequence: some several times, some not at all.
//!
//! The first use of a block is the block itself, with the ids that it has; further uses are copies
//! that read the same initializers. What is left without a reader is removed.

use super::ir::{Graph, Node, NodeId, Position, Value, ValueId, ValueKind, Vertex};
use super::names::{numbered, value_name};
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::visit::EdgeRef;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// A part of a graph that one value leads into and one value leads out of. Whatever else its nodes read
/// is made outside of all blocks, and whatever else they make is read by themselves alone, in no
/// subgraph. The value that leads out of a block is the one that leads into the next.
#[derive(Clone, Debug)]
pub struct Block {
    /// In the order of the graph.
    pub nodes: Vec<NodeId>,
    pub input: ValueId,
    pub output: ValueId,
}

/// One place of a sequence: what the nodes of its block are there, their results, and the value that leads
/// into it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which block stands here.
    pub block: usize,
    pub nodes: FxHashMap<NodeId, NodeId>,
    pub values: FxHashMap<ValueId, ValueId>,
}

/// Gives the text that a text of the block has at a place: names and metadata.
pub type Rename<'a> = dyn Fn(usize, usize, &str) -> String + 'a;

impl Graph {
    /// This graph with its blocks, all there are in a row, in a sequence of at least one. `rename(block, place,
    /// text)` is asked wherever a block stands at another place than its own.
    pub fn in_sequence(
        &self,
        blocks: &[Block],
        sequence: &[usize],
        rename: &Rename<'_>,
    ) -> (Graph, Vec<Place>) {
        let last = blocks[blocks.len() - 1].output;
        let mut build = Build {
            old: self,
            new: self.clone(),
            blocks,
            rename,
            node_names: FxHashSet::default(),
            sequences: self.last_sequences(),
            public: self.is_public(last).then_some(last),
            end: sequence.len() - 1,
        };
        build.forget_names(sequence);
        let mut places = Vec::with_capacity(sequence.len());
        let mut stream = blocks[0].input;
        let mut anchor = 0;
        for (number, block) in sequence.iter().enumerate() {
            let is_first = !sequence[..number].contains(block);
            let place = match is_first {
                true => build.stay(number, *block, stream),
                false => build.copy(number, *block, stream, anchor),
            };
            let anchors = place.nodes.values();
            let anchors = anchors.map(|node| build.new.node(*node).position.anchor);
            anchor = anchors.fold(anchor, u32::max);
            stream = place.values[&blocks[*block].output];
            places.push(place);
        }
        build.lead_out(stream);
        build.remove_unused(sequence);
        let new = build.new;
        debug_assert!(new.verify().is_empty(), "{:?}", new.verify());
        (new, places)
    }

    /// Whether outsiders know a value by its name.
    fn is_public(&self, value: ValueId) -> bool {
        self.is_output(value) || self.uses(value).iter().any(|(_, slot)| slot.is_none())
    }
}

struct Build<'a> {
    old: &'a Graph,
    new: Graph,
    blocks: &'a [Block],
    rename: &'a Rename<'a>,
    /// Names of nodes that are taken.
    node_names: FxHashSet<String>,
    /// The last sequence number behind each anchor.
    sequences: FxHashMap<u32, u32>,
    /// What leads out of the last block, by which outsiders know it: outputs and subgraphs.
    public: Option<ValueId>,
    /// The number of the last place.
    end: usize,
}

impl Build<'_> {
    fn results(&self, block: usize) -> Vec<ValueId> {
        let nodes = self.blocks[block].nodes.iter();
        nodes
            .flat_map(|node| self.old.results(*node).into_iter().flatten())
            .collect()
    }

    /// Makes the names of what moves or goes free, so that a block may have that of another.
    fn forget_names(&mut self, sequence: &[usize]) {
        let mut moving: FxHashSet<NodeId> = FxHashSet::default();
        for block in 0..self.blocks.len() {
            let place = sequence.iter().position(|other| *other == block);
            if place != Some(block) {
                moving.extend(&self.blocks[block].nodes);
                for result in self.results(block) {
                    self.new.names.remove(&self.old.value(result).name);
                }
            }
        }
        if let Some(public) = self.public {
            // Taken until the last place has it.
            let name = self.old.value(public).name.clone();
            self.new.names.insert(name, public);
        }
        let staying = self.old.node_ids().filter(|node| !moving.contains(node));
        let names = staying.map(|node| self.old.node(node).name.clone());
        self.node_names = names.filter(|name| !name.is_empty()).collect();
    }

    /// Lets a block stand at a place as it is, under other names if it is not its own.
    fn stay(&mut self, number: usize, block: usize, stream: ValueId) -> Place {
        let nodes = self.blocks[block].nodes.clone();
        let results = self.results(block);
        for value in &results {
            if !self.keeps_its_name(*value, number, block) {
                let name = self.value_name(*value, number, block);
                self.give_name_at(*value, name, number, block);
            }
        }
        for node in &nodes {
            if number != block {
                self.rename_node(*node, number, block);
            }
            self.lead_into(*node, self.blocks[block].input, stream);
        }
        Place {
            block,
            nodes: nodes.iter().map(|node| (*node, *node)).collect(),
            values: results
                .iter()
                .map(|value| (*value, *value))
                .chain([(self.blocks[block].input, stream)])
                .collect(),
        }
    }

    fn rename_node(&mut self, node: NodeId, number: usize, block: usize) {
        let name = self.node_name(node, number, block);
        let metadata = self.metadata(&self.old.node(node).metadata, number, block);
        let node = self.new.node_mut(node);
        node.name = name;
        node.metadata = metadata;
        node.is_changed = true;
    }

    fn node_name(&mut self, node: NodeId, number: usize, block: usize) -> String {
        let old = &self.old.node(node).name;
        if old.is_empty() {
            return String::new();
        }
        let wish = (self.rename)(block, number, old);
        let name = numbered(&wish, |name| self.node_names.contains(name));
        self.node_names.insert(name.clone());
        name
    }

    fn metadata(
        &self,
        entries: &[(String, String)],
        number: usize,
        block: usize,
    ) -> Vec<(String, String)> {
        let renamed = |text: &str| (self.rename)(block, number, text);
        let entries = entries.iter();
        entries.map(|(k, v)| (k.clone(), renamed(v))).collect()
    }

    /// Whether a result of a block that stays is called at a place what it is called already.
    fn keeps_its_name(&self, value: ValueId, number: usize, block: usize) -> bool {
        let leads_out = number == self.end && value == self.blocks[block].output;
        let has_the_public_name = self.public == Some(value);
        number == block && (self.public.is_none() || has_the_public_name == leads_out)
    }

    /// What a result of a block is called at a place.
    fn value_name(&self, value: ValueId, number: usize, block: usize) -> Arc<str> {
        if let Some(public) = self.public
            && number == self.end
            && value == self.blocks[block].output
        {
            return self.old.value(public).name.clone();
        }
        let wish = (self.rename)(block, number, &self.old.value(value).name);
        Arc::from(value_name(&self.new, &wish))
    }

    fn give_name_at(&mut self, value: ValueId, name: Arc<str>, number: usize, block: usize) {
        let metadata = self.metadata(&self.old.value(value).metadata, number, block);
        let before = self.new.value(value).name.clone();
        if self.new.names.get(&before) == Some(&value) && self.public != Some(value) {
            self.new.names.remove(&before);
        }
        self.new.names.insert(name.clone(), value);
        let found = self.new.value_vertex(value);
        found.name = name;
        found.metadata = metadata;
        found.is_stated |= found.origin.take().is_some();
        let readers = self.new.uses(value).into_iter().map(|(node, _)| node);
        let touched: Vec<NodeId> = readers.chain(self.new.producer(value)).collect();
        for node in touched {
            self.new.node_mut(node).is_changed = true;
        }
    }

    /// Makes a node read one value in place of another.
    fn lead_into(&mut self, node: NodeId, before: ValueId, after: ValueId) {
        if before == after {
            return;
        }
        let edges = self.new.wires.edges_connecting(before.0, node.0);
        let edges: Vec<_> = edges.map(|edge| (edge.id(), *edge.weight())).collect();
        for (edge, slot) in edges {
            self.new.wires.remove_edge(edge);
            self.new.wires.add_edge(after.0, node.0, slot);
            self.new.node_mut(node).is_changed = true;
        }
    }

    /// Puts a copy of a block at a place, behind the nodes of an anchor.
    fn copy(&mut self, number: usize, block: usize, stream: ValueId, anchor: u32) -> Place {
        let mut place = Place {
            block,
            nodes: FxHashMap::default(),
            values: FxHashMap::from_iter([(self.blocks[block].input, stream)]),
        };
        for value in self.results(block) {
            let copy = self.copy_value(value, number, block);
            place.values.insert(value, copy);
        }
        for id in &self.blocks[block].nodes {
            let last = self.sequences.entry(anchor).or_insert(0);
            *last += 1;
            let sequence = *last;
            let node = Node {
                name: self.node_name(*id, number, block),
                metadata: self.metadata(&self.old.node(*id).metadata, number, block),
                origin: None,
                position: Position { anchor, sequence },
                ..self.old.node(*id).clone()
            };
            let vertex = Vertex::Node(Box::new(node));
            let copy = NodeId(self.new.wires.add_node(vertex));
            for edge in self.old.wires.edges_directed(id.0, Incoming) {
                let read = ValueId(edge.source());
                let read = place.values.get(&read).copied().unwrap_or(read);
                self.new.wires.add_edge(read.0, copy.0, *edge.weight());
            }
            for edge in self.old.wires.edges_directed(id.0, Outgoing) {
                let made = place.values[&ValueId(edge.target())];
                self.new.wires.add_edge(copy.0, made.0, *edge.weight());
            }
            place.nodes.insert(*id, copy);
        }
        place
    }

    fn copy_value(&mut self, value: ValueId, number: usize, block: usize) -> ValueId {
        let found = self.old.value(value);
        let name = self.value_name(value, number, block);
        let copy = Value {
            name: name.clone(),
            ty: found.ty.clone(),
            kind: ValueKind::Computed,
            metadata: self.metadata(&found.metadata, number, block),
            origin: None,
            is_stated: found.is_stated || found.origin.is_some(),
            initializer_origin: None,
        };
        let id = ValueId(self.new.wires.add_node(Vertex::Value(Box::new(copy))));
        self.new.names.insert(name, id);
        id
    }

    /// Makes everything behind the blocks read what leads out of the last place.
    fn lead_out(&mut self, stream: ValueId) {
        let last = self.blocks[self.blocks.len() - 1].output;
        for (reader, _) in self.old.uses(last) {
            self.lead_into(reader, last, stream);
        }
        for output in &mut self.new.outputs {
            if *output == last {
                *output = stream;
            }
        }
    }

    /// Removes the blocks that have no place, and what only these read. Last, because ids of what is
    /// removed may be given out again.
    fn remove_unused(&mut self, sequence: &[usize]) {
        let mut left = Vec::new();
        for block in (0..self.blocks.len()).filter(|block| !sequence.contains(block)) {
            for result in self.results(block) {
                let name = self.new.value(result).name.clone();
                if self.new.names.get(&name) == Some(&result) {
                    self.new.names.remove(&name);
                }
                self.new.wires.remove_node(result.0);
            }
            for node in &self.blocks[block].nodes {
                left.extend(self.old.operands(*node).into_iter().flatten());
                left.extend(self.old.captures(*node));
                self.new.wires.remove_node(node.0);
            }
        }
        self.new.prune(left);
    }
}
