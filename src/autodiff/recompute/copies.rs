//! Copies of forward nodes for the backward pass.

use super::super::Gradients;
use super::Waits;
use super::forward::Forward;
use crate::graph::{Attribute, Graph, NewNode, NodeId, Operand, ValueId};
use crate::ops::{Builder, Expr};
use crate::ty::DType;
use rustc_hash::{FxHashMap, FxHashSet};

/// Behind the last block.
const NONE: usize = usize::MAX;

/// What is copied in one block.
struct Block {
    /// In order.
    nodes: Vec<NodeId>,
    /// What the copies read and something else computes: it passes the gate.
    gated: FxHashSet<ValueId>,
    /// Operands that become those of copies.
    reads: Vec<(NodeId, usize, ValueId)>,
    /// What the copies wait for.
    gate: Vec<ValueId>,
}

/// What is copied.
pub(super) struct Copies<'g> {
    graph: &'g Graph,
    /// The last one first: its copies are needed first.
    blocks: Vec<Block>,
}

impl<'g> Copies<'g> {
    pub fn plan(
        graph: &'g Graph,
        forward: &Forward,
        ends: &[usize],
        gradients: &Gradients,
    ) -> Copies<'g> {
        if ends.len() < 2 {
            let blocks = Vec::new();
            return Copies { graph, blocks };
        }
        let mut start = 0;
        let mut blocks: Vec<Block> = Vec::with_capacity(ends.len());
        for end in ends {
            blocks.push(block(graph, forward, start, *end));
            start = end + 1;
        }
        let levels = levels(graph, forward, &blocks);
        let mut used = FxHashSet::default();
        for (number, (block, end)) in blocks.iter_mut().zip(ends).enumerate().rev() {
            block.gate = gate(graph, forward, gradients, &levels, number, *end);
            // Gradients of parameters of later blocks come first, too: what they need is free then.
            let of = gradients.of.iter().copied();
            let later = of.filter(|value| {
                level(graph, forward, &levels, *value).is_some_and(|level| level > number)
                    && used.insert(*value)
            });
            let later: Vec<ValueId> = later.collect();
            if !block.gate.is_empty() {
                block.gate.extend(later);
            }
        }
        blocks.retain(|block| !block.gate.is_empty() && !block.reads.is_empty());
        blocks.reverse();
        Copies { graph, blocks }
    }

    /// How many blocks have copies.
    pub fn count(&self) -> usize {
        self.blocks.len()
    }

    pub fn emit(&self, build: &Builder<'_>, waits: Waits) {
        for block in &self.blocks {
            self.emit_block(block, build, waits);
        }
    }

    fn emit_block(&self, block: &Block, build: &Builder<'_>, waits: Waits) {
        if let Some((reader, ..)) = block.reads.first() {
            build.behind(*reader);
        }
        build.set_scope("again".to_owned());
        let is_open = is_open(&block.gate, build);
        let mut copied: FxHashMap<ValueId, Operand> = FxHashMap::default();
        for node in &block.nodes {
            let operands = self.graph.operands(*node).into_iter();
            let inputs: Vec<Option<Operand>> = operands
                .map(|operand| {
                    let operand = operand?;
                    if let Some(copy) = copied.get(&operand) {
                        return Some(*copy);
                    }
                    if !block.gated.contains(&operand) {
                        return Some(operand.into());
                    }
                    let passed = passed(build.expr(operand), is_open, waits);
                    copied.insert(operand, passed);
                    Some(passed)
                })
                .collect();
            let results = self.copy(*node, inputs, build);
            let originals = self.graph.results(*node);
            for (original, copy) in originals.into_iter().zip(results) {
                if let (Some(original), Some(copy)) = (original, copy) {
                    copied.insert(original, copy);
                }
            }
        }
        for (reader, slot, value) in &block.reads {
            if let Some(copy) = copied.get(value) {
                build.with_patch(|patch| patch.redirect(*reader, *slot, *copy));
            }
        }
    }

    fn copy(
        &self,
        node: NodeId,
        inputs: Vec<Option<Operand>>,
        build: &Builder<'_>,
    ) -> Vec<Option<Operand>> {
        let original = self.graph.node(node);
        let new = NewNode {
            op: original.op.clone(),
            name: format!("again/{}", self.graph.display_name(node)),
            attributes: original.attributes.clone(),
            inputs,
            metadata: original.metadata.clone(),
        };
        let results = self.graph.results(node).into_iter().map(|result| {
            let value = self.graph.value(result?);
            Some((format!("again/{}", value.name), value.ty.clone()))
        });
        let results = results.collect();
        build.with_patch(|patch| patch.node_with_some_results(new, results))
    }
}

/// The nodes from `start` to `end` that are copied, and for whom.
fn block(graph: &Graph, forward: &Forward, start: usize, end: usize) -> Block {
    // Kept anyway, or not worth it.
    let stays = |value: ValueId| {
        let life = forward.life(value);
        life.is_none_or(|life| life.from < start || life.to > end) || forward.is_small(value)
    };
    let mut wanted: FxHashSet<ValueId> = FxHashSet::default();
    let mut nodes = Vec::new();
    for node in forward.nodes[start..=end].iter().rev() {
        let results = graph.results(*node).into_iter().flatten();
        let is_wanted = |value: ValueId| {
            let mut uses = graph.uses(value).into_iter();
            let is_read = uses.any(|(reader, slot)| !forward.contains(reader) && slot.is_some());
            !stays(value) && (wanted.contains(&value) || is_read)
        };
        if Forward::can_be_copied(graph, *node) && results.into_iter().any(is_wanted) {
            nodes.push(*node);
            wanted.extend(graph.operands(*node).into_iter().flatten());
        }
    }
    nodes.reverse();
    keep_gated(graph, forward, nodes, &stays)
}

/// Leaves out the nodes of which no operand passes the gate: their copies would be the originals.
fn keep_gated(
    graph: &Graph,
    forward: &Forward,
    nodes: Vec<NodeId>,
    stays: &dyn Fn(ValueId) -> bool,
) -> Block {
    let chosen: FxHashSet<NodeId> = nodes.iter().copied().collect();
    let inside = |value: ValueId| graph.producer(value).is_some_and(|n| chosen.contains(&n));
    let mut copied: FxHashSet<ValueId> = FxHashSet::default();
    let mut found = Block {
        nodes: Vec::new(),
        gated: FxHashSet::default(),
        reads: Vec::new(),
        gate: Vec::new(),
    };
    for node in nodes {
        let operands = graph.operands(node).into_iter().flatten();
        let gated: Vec<ValueId> = operands
            .clone()
            .filter(|value| !inside(*value) && passes_gate(graph, forward, *value))
            .collect();
        if gated.is_empty() && !operands.into_iter().any(|value| copied.contains(&value)) {
            continue;
        }
        found.gated.extend(gated);
        for result in graph.results(node).into_iter().flatten() {
            copied.insert(result);
            // Small results are kept for others; copies read the copy.
            if stays(result) {
                continue;
            }
            let uses = graph.uses(result).into_iter();
            let readers = uses.filter(|(reader, _)| !forward.contains(*reader));
            let readers = readers.filter_map(|(reader, slot)| Some((reader, slot?, result)));
            found.reads.extend(readers);
        }
        found.nodes.push(node);
    }
    found
}

/// Whether a value from outside of a block has to wait: activations, and the seed of dropouts. Sizes
/// and masks of integers need not.
fn passes_gate(graph: &Graph, forward: &Forward, value: ValueId) -> bool {
    if !forward.is_varying(value) {
        return false;
    }
    let ty = graph.value(value).ty.as_ref();
    let rank = ty.and_then(|ty| Some(ty.shape.as_ref()?.rank()));
    let is_float = ty.is_some_and(|ty| ty.dtype.is_float());
    match rank {
        Some(0) => graph.producer(value).is_none(),
        Some(_) => is_float,
        None => false,
    }
}

/// Of every node behind the forward pass: the first block whose copies it or what it reads needs.
fn levels(graph: &Graph, forward: &Forward, blocks: &[Block]) -> FxHashMap<NodeId, usize> {
    let mut levels: FxHashMap<NodeId, usize> = FxHashMap::default();
    for (number, block) in blocks.iter().enumerate() {
        for (reader, ..) in &block.reads {
            let level = levels.entry(*reader).or_insert(NONE);
            *level = (*level).min(number);
        }
    }
    for node in &forward.behind {
        let operands = graph.operands(*node).into_iter().flatten();
        let read = operands.chain(graph.captures(*node));
        let of = read.filter_map(|value| levels.get(&graph.producer(value)?).copied());
        if let Some(least) = of.min() {
            let level = levels.entry(*node).or_insert(NONE);
            *level = (*level).min(least);
        }
    }
    levels
}

/// Of a value that is computed behind the forward pass.
fn level(
    graph: &Graph,
    forward: &Forward,
    levels: &FxHashMap<NodeId, usize>,
    value: ValueId,
) -> Option<usize> {
    let node = graph.producer(value)?;
    (!forward.contains(node)).then(|| levels.get(&node).copied().unwrap_or(NONE))
}

/// Gradients of what a block gives to later ones, as far as its own copies are not needed for them.
fn gate(
    graph: &Graph,
    forward: &Forward,
    gradients: &Gradients,
    levels: &FxHashMap<NodeId, usize>,
    number: usize,
    end: usize,
) -> Vec<ValueId> {
    let mut found: Vec<ValueId> = Vec::new();
    for node in forward.nodes[..=end].iter().rev() {
        for result in graph.results(*node).into_iter().flatten() {
            let crosses = forward.life(result).is_some_and(|life| life.to > end);
            let Some(gradient) = gradients.all.get(&result).filter(|_| crosses) else {
                continue;
            };
            let level = level(graph, forward, levels, *gradient);
            if level.is_some_and(|level| level > number) && !found.contains(gradient) {
                found.push(*gradient);
            }
        }
    }
    found
}

/// A boolean, `[1]`, that is there when all of the gate is. What it says decides nothing.
fn is_open<'b>(gate: &[ValueId], build: &'b Builder<'b>) -> Expr<'b> {
    let firsts: Vec<Expr<'b>> = gate
        .iter()
        .map(|value| {
            let mut first = build.expr(*value);
            for axis in 0..first.rank().unwrap_or(0) {
                first = first.slice(axis, 0, 1);
            }
            let one = build.ints(&[1]);
            build
                .node("Reshape", &[first, one], Vec::new())
                .cast(DType::F32)
        })
        .collect();
    let sum = match firsts.as_slice() {
        [one] => *one,
        several => build.node("Sum", several, Vec::new()),
    };
    sum.apply("IsNaN")
}

/// The same numbers, once the gate is open.
fn passed<'b>(value: Expr<'b>, is_open: Expr<'b>, waits: Waits) -> Operand {
    let build = value.builder;
    if value.rank() == Ok(0) {
        let is_open = build.node("Squeeze", &[is_open], Vec::<Attribute>::new());
        return is_open.choose(value, value).operand;
    }
    let passed = match waits {
        Waits::AsView => {
            let shape = value.apply("Shape");
            let chosen = is_open.choose(shape, shape);
            build.node("Reshape", &[value, chosen], Vec::new())
        }
        Waits::AsCopy => is_open.choose(value, value),
    };
    match value.dims() {
        Ok(dims) => passed.stated(&dims).operand,
        Err(_) => passed.operand,
    }
}
