//! What a step of training takes of memory, before anything runs.
//!
//! ONNX Runtime visits nodes depth first from the last ones, frees a value behind its last reader,
//! writes element-wise results over an operand that nobody reads any more, and keeps weights of
//! products in the order that its kernels want, once for every way that a product reads them. The walk
//! does the same on paper, with the arena that tensors lie in (`arena.rs`): what it has touched stays, and
//! pieces that do not fit come on top of what is alive.
//!
//! Attention is one node where sessions compute it as one. Other kernels move little.
//!
//! Against the most memory that two steps of `peftc bench train` took (Llama of 30 M parameters, rank 8,
//! ONNX Runtime 1.32 on a CPU), in MiB, estimate / measured:
//!
//! | adapted | batch | activations kept | computed again |
//! |---|---|---|---|
//! | q, v | 4 × 128 | 432 / 446 | 434 / 419 |
//! | q, v | 2 × 512 | 556 / 616 | 434 / 423 |
//! | all linear | 4 × 128 | 476 / 508 | 440 / 430 |
//! | all linear | 2 × 512 | 632 / 714 | 440 / 465 |

use super::TrainingGraph;
use super::arena::{Arena, Place};
use super::sizes::{BatchSizes, Sizes};
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, NodeId, Tensor, TensorData, ValueId};
use crate::passes;
use crate::ty::TensorType;
use rustc_hash::{FxHashMap, FxHashSet};

/// What a process takes with ONNX Runtime loaded, and what a session takes for a node; measured.
const PROCESS: u64 = 76 << 20;
const NODE: u64 = 4 << 10;

/// Results that are their operand in another shape.
const VIEWS: &[&str] = &["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"];

/// Operators that write over an operand of the result's size.
const IN_PLACE: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Neg",
    "Sqrt",
    "Exp",
    "Log",
    "Reciprocal",
    "Sigmoid",
    "Tanh",
    "Relu",
    "Cast",
    "Clip",
    "Abs",
    "Max",
    "Min",
    "Sum",
    "ScatterElements",
];

/// Operators that keep a constant operand in an order of their own, and which one.
const PRODUCTS: &[(&str, usize)] = &[
    ("MatMul", 1),
    ("Gemm", 1),
    ("MatMulInteger", 1),
    ("DynamicQuantizeMatMul", 1),
    ("MatMulNBits", 1),
];

/// Bytes that one step takes at its peak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub batch: BatchSizes,
    /// Frozen weights as the sessions keep them.
    pub weights: u64,
    /// Trained tensors and the state of the optimizer, before and behind the step.
    pub state: u64,
    /// Everything else that a step touches.
    pub activations: u64,
    /// What frozen weights take while a session is opened, which is over when a step runs.
    pub opening: u64,
    /// The process without a model.
    pub process: u64,
    /// The largest values that are alive at the peak, by name.
    pub largest: Vec<(String, TensorType, u64)>,
}

impl Estimate {
    pub fn total(&self) -> u64 {
        let run = self.state.saturating_add(self.activations);
        let parts = [self.weights, self.process, run.max(self.opening)];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// With what another graph of the same process takes besides.
    pub(super) fn beside(mut self, other: &Estimate) -> Estimate {
        self.weights = self.weights.saturating_add(other.weights);
        self.state = self.state.saturating_add(other.state);
        self.activations = self.activations.saturating_add(other.activations);
        self.process = self
            .process
            .saturating_add(other.process.saturating_sub(PROCESS));
        self
    }
}

/// What a run of a training graph takes, with attention computed as one or operator by operator.
pub(super) fn estimate(
    of: &TrainingGraph,
    batch: BatchSizes,
    fuses: bool,
    sink: &mut Sink,
) -> Result<Estimate, Reported> {
    let mut fused = None;
    if fuses {
        let mut model = of.model.clone();
        passes::fuse_attention(&mut model, sink)?;
        fused = Some(model);
    }
    let graph = &fused.as_ref().unwrap_or(&of.model).graph;
    let sizes = Sizes::of(graph, batch);
    // What a step gives to the next lies in the arena, beside what it was given itself.
    let carried = of.outputs.iter().filter(|port| port.feeds.is_some());
    let state = 2 * carried.map(|port| sizes.bytes(&port.ty)).sum::<u64>();
    let peak = Walk::peak(graph, &sizes);
    Ok(Estimate {
        batch,
        weights: weights(graph),
        state,
        activations: peak.touched.saturating_sub(state),
        opening: initial(graph),
        process: PROCESS + NODE * graph.node_count() as u64,
        largest: peak.largest(graph, &sizes),
    })
}

/// Weights in the order of the products that read them, and as they are where something else does.
fn weights(graph: &Graph) -> u64 {
    let mut sum = 0_u64;
    for id in graph.initializers() {
        let Some(tensor) = graph.value(*id).constant() else {
            continue;
        };
        let bytes = stored(tensor);
        let mut kept = FxHashSet::default();
        orders(graph, *id, &mut kept);
        sum = sum.saturating_add(bytes.saturating_mul(kept.len().max(1) as u64));
    }
    sum
}

/// The orders that a weight is kept in: a transposed operand is packed in another one; `None` is its own.
fn orders(graph: &Graph, weight: ValueId, found: &mut FxHashSet<Option<i64>>) {
    for (reader, slot) in graph.uses(weight) {
        let node = graph.node(reader);
        if slot.is_none() {
            let bodies = node.attributes.iter().flat_map(|at| at.value.graphs());
            for body in bodies {
                if let Some(inside) = body.find_value(&graph.value(weight).name) {
                    orders(body, inside, found);
                }
            }
            continue;
        }
        let packs = |(op, at): &(&str, usize)| *node.op.op_type == **op && Some(*at) == slot;
        found.insert(match PRODUCTS.iter().any(packs) {
            true => Some(node.int("transB").unwrap_or(0)),
            false => None,
        });
    }
}

/// Weights as the file has them.
fn initial(graph: &Graph) -> u64 {
    let tensors = graph.initializers().iter();
    let sizes = tensors.filter_map(|id| Some(stored(graph.value(*id).constant()?)));
    sizes.fold(0, u64::saturating_add)
}

fn stored(tensor: &Tensor) -> u64 {
    match &tensor.data {
        TensorData::External(place) => place.length,
        _ => tensor.byte_len(),
    }
}

/// What is alive at the worst moment, and what has been touched until the end.
struct Peak {
    touched: u64,
    alive: Vec<ValueId>,
}

impl Peak {
    /// The five largest.
    fn largest(&self, graph: &Graph, sizes: &Sizes) -> Vec<(String, TensorType, u64)> {
        let alive = self.alive.iter();
        let named = alive.filter_map(|id| {
            let value = graph.value(*id);
            let ty = value.ty.clone()?;
            let bytes = sizes.bytes(&ty);
            Some((value.name.to_string(), ty, bytes))
        });
        let mut found: Vec<(String, TensorType, u64)> = named.collect();
        found.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
        found.truncate(5);
        found
    }
}

/// A run on paper.
struct Walk<'g> {
    graph: &'g Graph,
    sizes: &'g Sizes,
    arena: Arena,
    /// Whose memory a value has.
    owner: FxHashMap<ValueId, ValueId>,
    /// Readers that have not run, over all values of an owner.
    readers: FxHashMap<ValueId, usize>,
    /// Of what is alive.
    held: FxHashMap<ValueId, (Place, u64)>,
    alive: u64,
    /// What the bodies of the node that runs take while it does.
    passing: Option<(Place, u64)>,
}

impl<'g> Walk<'g> {
    fn peak(graph: &'g Graph, sizes: &'g Sizes) -> Peak {
        let order = order(graph);
        let mut first = Walk::new(graph, sizes, Arena::new());
        let alive = first.all(&order);
        // The second step has what the first one has given, until its end.
        let before: Vec<(Place, u64)> = first.held.into_values().collect();
        let mut second = Walk::new(graph, sizes, first.arena);
        second.all(&order);
        for (place, _) in before {
            second.arena.give_back(place);
        }
        Peak {
            touched: second.arena.touched(),
            alive,
        }
    }

    fn new(graph: &'g Graph, sizes: &'g Sizes, arena: Arena) -> Walk<'g> {
        Walk {
            graph,
            sizes,
            arena,
            owner: FxHashMap::default(),
            readers: FxHashMap::default(),
            held: FxHashMap::default(),
            alive: 0,
            passing: None,
        }
    }

    /// Runs everything; answers with what is alive when that is most.
    fn all(&mut self, order: &[NodeId]) -> Vec<ValueId> {
        let (mut large, mut alive) = (0, Vec::new());
        for node in order {
            self.run(*node);
            // Noting every new peak by name would take as long as everything else.
            if self.alive > large + large / 50 {
                large = self.alive;
                alive = self.held.keys().copied().collect();
            }
            self.free(*node);
        }
        alive
    }

    fn run(&mut self, node: NodeId) {
        let graph = self.graph;
        if graph.node(node).has_subgraphs() {
            let bytes = self.bodies(node);
            self.passing = Some((self.arena.take(bytes), bytes));
            self.alive = self.alive.saturating_add(bytes);
        }
        let op = &graph.node(node).op;
        let is = |list: &[&str]| op.domain.is_empty() && list.contains(&&*op.op_type);
        let reused = match () {
            () if is(VIEWS) => graph.operand(node, 0).filter(|value| self.is_here(*value)),
            () if is(IN_PLACE) => self.last_of(node),
            () => None,
        };
        for (slot, result) in graph.results(node).into_iter().enumerate() {
            let Some(result) = result else {
                continue;
            };
            let uses = graph.use_count(result) + usize::from(graph.is_output(result));
            let owner = match reused.filter(|_| slot == 0) {
                Some(value) => self.owner[&value],
                None => result,
            };
            self.owner.insert(result, owner);
            *self.readers.entry(owner).or_insert(0) += uses;
            if owner == result {
                let ty = graph.value(result).ty.as_ref();
                let bytes = ty.map_or(0, |ty| self.sizes.bytes(ty));
                let place = self.arena.take(bytes);
                self.held.insert(result, (place, bytes));
                self.alive = self.alive.saturating_add(bytes);
            }
        }
    }

    /// What one turn of the largest body touches.
    fn bodies(&self, node: NodeId) -> u64 {
        let attributes = self.graph.node(node).attributes.iter();
        let bodies = attributes.flat_map(|attribute| attribute.value.graphs());
        let touched = bodies.map(|body| {
            let mut walk = Walk::new(body, self.sizes, Arena::new());
            walk.all(&order(body));
            walk.arena.touched()
        });
        touched.max().unwrap_or(0)
    }

    fn is_here(&self, value: ValueId) -> bool {
        self.owner.contains_key(&value)
    }

    /// An operand that this node is the last to read, of the size of its result.
    fn last_of(&self, node: NodeId) -> Option<ValueId> {
        let graph = self.graph;
        let result = graph.value(graph.result(node, 0)?).ty.as_ref()?;
        let bytes = self.sizes.bytes(result);
        let operands = graph.operands(node).into_iter().flatten();
        let mut last = operands.filter(|value| {
            let owner = self.owner.get(value);
            owner.is_some_and(|owner| {
                let held = self.held.get(owner);
                self.readers[owner] == 1 && held.is_some_and(|(_, held)| *held == bytes)
            })
        });
        last.next()
    }

    fn free(&mut self, node: NodeId) {
        let graph = self.graph;
        if let Some((place, bytes)) = self.passing.take() {
            self.arena.give_back(place);
            self.alive = self.alive.saturating_sub(bytes);
        }
        let operands = graph.operands(node).into_iter().flatten();
        let read: Vec<ValueId> = operands.chain(graph.captures(node)).collect();
        let results = graph.results(node).into_iter().flatten();
        for value in read {
            if let Some(owner) = self.owner.get(&value).copied() {
                if let Some(readers) = self.readers.get_mut(&owner) {
                    *readers = readers.saturating_sub(1);
                }
                self.let_go(owner);
            }
        }
        for result in results {
            self.let_go(self.owner[&result]);
        }
    }

    fn let_go(&mut self, owner: ValueId) {
        if self.readers.get(&owner) == Some(&0)
            && let Some((place, bytes)) = self.held.remove(&owner)
        {
            self.alive = self.alive.saturating_sub(bytes);
            self.arena.give_back(place);
        }
    }
}

/// Depth first from the nodes that nobody reads, the last one first; so are the nodes that one reads.
fn order(graph: &Graph) -> Vec<NodeId> {
    let listed = graph.order().unwrap_or_default();
    let number: FxHashMap<NodeId, usize> = listed.iter().copied().zip(0..).collect();
    let is_leaf = |node: &NodeId| {
        let mut results = graph.results(*node).into_iter().flatten();
        results.all(|result| graph.use_count(result) == 0)
    };
    let mut left: Vec<(NodeId, bool)> = listed
        .iter()
        .copied()
        .filter(is_leaf)
        .map(|n| (n, false))
        .collect();
    let mut seen: FxHashSet<NodeId> = FxHashSet::default();
    let mut found = Vec::with_capacity(listed.len());
    while let Some((node, is_done)) = left.pop() {
        if is_done {
            found.push(node);
            continue;
        }
        if !seen.insert(node) {
            continue;
        }
        left.push((node, true));
        let operands = graph.operands(node).into_iter().flatten();
        let read = operands.chain(graph.captures(node));
        let mut before: Vec<NodeId> = read.filter_map(|value| graph.producer(value)).collect();
        before.sort_by_key(|node| number.get(node));
        left.extend(before.into_iter().map(|node| (node, false)));
    }
    found
}
