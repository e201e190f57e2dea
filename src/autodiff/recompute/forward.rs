//! The forward pass of a differentiated graph: its nodes in order, and how long their results live.

use crate::graph::{Graph, NodeId, ValueId, ValueKind};
use crate::ty::TensorType;
use rustc_hash::{FxHashMap, FxHashSet};

/// Operators whose result is their operand in another shape, without a copy.
const VIEWS: &[&str] = &["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"];

/// Operators of which no two runs give the same.
const RANDOM: &[&str] = &[
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
];

/// A result of a forward node; views of one are one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub bytes: u64,
    /// The places of the node that computes it and of the last forward node that reads it.
    pub from: usize,
    pub to: usize,
    /// Whether anything behind the forward pass reads it.
    pub is_kept: bool,
}

/// What is computed from the batch on the way to the output.
pub(super) struct Forward {
    /// Nodes, operands before users.
    pub nodes: Vec<NodeId>,
    places: FxHashMap<NodeId, usize>,
    /// Everything that is computed to compute the output, what does not depend on the batch included.
    all: FxHashSet<NodeId>,
    /// Every node of the graph behind it, operands before users.
    pub behind: Vec<NodeId>,
    /// What depends on the batch.
    varying: FxHashSet<ValueId>,
    /// By the first of the views.
    lives: FxHashMap<ValueId, Life>,
    roots: FxHashMap<ValueId, ValueId>,
    /// Below this many bytes a value is not worth a node.
    small: u64,
}

impl Forward {
    /// `None` for a graph with a cycle.
    pub fn find(
        graph: &Graph,
        output: ValueId,
        wrt: &[ValueId],
        bytes: &dyn Fn(&TensorType) -> u64,
    ) -> Option<Forward> {
        let order = graph.order().ok()?;
        let all = ancestors(graph, output);
        let mut found = Forward {
            nodes: Vec::new(),
            places: FxHashMap::default(),
            behind: Vec::new(),
            varying: varying_inputs(graph, wrt),
            lives: FxHashMap::default(),
            roots: FxHashMap::default(),
            small: 0,
            all,
        };
        for node in order {
            if !found.all.contains(&node) {
                found.behind.push(node);
            } else if found.varies(graph, node) {
                found.add(graph, node, bytes);
            }
        }
        found.note_readers(graph, output);
        let largest = found.lives.values().map(|life| life.bytes).max();
        // Statistics of rows are a hundredth of the rows.
        found.small = largest.unwrap_or(0) / 100;
        Some(found)
    }

    fn varies(&self, graph: &Graph, node: NodeId) -> bool {
        let operands = graph.operands(node).into_iter().flatten();
        let mut read = operands.chain(graph.captures(node));
        read.any(|value| self.varying.contains(&value))
    }

    fn add(&mut self, graph: &Graph, node: NodeId, bytes: &dyn Fn(&TensorType) -> u64) {
        let place = self.nodes.len();
        self.nodes.push(node);
        self.places.insert(node, place);
        let operator = &graph.node(node).op;
        let is_view = operator.domain.is_empty() && VIEWS.contains(&&*operator.op_type);
        let viewed = graph.operand(node, 0).filter(|_| is_view);
        let viewed = viewed.and_then(|operand| self.roots.get(&operand).copied());
        for result in graph.results(node).into_iter().flatten() {
            self.varying.insert(result);
            if let Some(root) = viewed {
                self.roots.insert(result, root);
                continue;
            }
            self.roots.insert(result, result);
            let life = Life {
                bytes: graph.value(result).ty.as_ref().map_or(0, bytes),
                from: place,
                to: place,
                is_kept: false,
            };
            self.lives.insert(result, life);
        }
    }

    fn note_readers(&mut self, graph: &Graph, output: ValueId) {
        let end = self.nodes.len();
        for (value, root) in &self.roots {
            let Some(life) = self.lives.get_mut(root) else {
                continue;
            };
            if *value == output || graph.is_output(*value) {
                life.to = end;
            }
            for (reader, _) in graph.uses(*value) {
                match self.places.get(&reader) {
                    Some(place) => life.to = life.to.max(*place),
                    None => life.is_kept |= !self.all.contains(&reader),
                }
            }
        }
    }

    pub fn lives(&self) -> impl Iterator<Item = Life> + '_ {
        self.lives.values().copied()
    }

    /// Of a result of a forward node.
    pub fn life(&self, value: ValueId) -> Option<Life> {
        self.lives.get(self.roots.get(&value)?).copied()
    }

    pub fn is_varying(&self, value: ValueId) -> bool {
        self.varying.contains(&value)
    }

    /// Whether the node belongs to what is computed for the output.
    pub fn contains(&self, node: NodeId) -> bool {
        self.all.contains(&node)
    }

    pub fn is_small(&self, value: ValueId) -> bool {
        self.life(value).is_none_or(|life| life.bytes <= self.small)
    }

    /// Whether a copy of the node computes the same.
    pub fn can_be_copied(graph: &Graph, node: NodeId) -> bool {
        let node = graph.node(node);
        !node.has_subgraphs() && !RANDOM.contains(&&*node.op.op_type)
    }
}

fn ancestors(graph: &Graph, output: ValueId) -> FxHashSet<NodeId> {
    let mut found = FxHashSet::default();
    let mut left: Vec<NodeId> = graph.producer(output).into_iter().collect();
    while let Some(node) = left.pop() {
        if found.insert(node) {
            let operands = graph.operands(node).into_iter().flatten();
            let read = operands.chain(graph.captures(node));
            left.extend(read.filter_map(|value| graph.producer(value)));
        }
    }
    found
}

/// The inputs that a batch fills.
fn varying_inputs(graph: &Graph, wrt: &[ValueId]) -> FxHashSet<ValueId> {
    let inputs = graph.inputs().iter().copied();
    let given = inputs.filter(|input| {
        let is_given = matches!(graph.value(*input).kind, ValueKind::Input { default: None });
        is_given && !wrt.contains(input)
    });
    given.collect()
}
