//! Which nodes are computed together.

use super::node::{Reader, Rowwise, Source, same};
use crate::graph::{Graph, NodeId, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// The longest program, in nodes: what lies between its steps has to stay close to the processor.
const MOST_NODES: usize = 64;
/// What is smaller is not worth a program.
const LEAST_ELEMENTS: i64 = 256;

/// Nodes that are computed together, in the order of the graph.
pub(super) type Group = Vec<Rowwise>;

/// The groups of more than one node that does arithmetic.
pub(super) fn groups(graph: &Graph, order: &[NodeId], reader: &Reader<'_>) -> Vec<Group> {
    let mut joining = Joining {
        graph,
        group_of: FxHashMap::default(),
        groups: Vec::new(),
    };
    for id in order {
        if let Some(node) = reader.read(*id).filter(|node| is_large(graph, node)) {
            joining.add(node);
        }
    }
    let position: FxHashMap<NodeId, usize> = order.iter().copied().zip(0..).collect();
    let mut groups = joining.groups;
    for group in &mut groups {
        group.sort_by_key(|node| position[&node.id]);
    }
    groups.retain(|group| group.iter().filter(|node| !node.form.moves()).count() > 1);
    groups
}

/// Whether the rows may be of some size.
fn is_large(graph: &Graph, node: &Rowwise) -> bool {
    let operands = node.operands.iter().filter_map(|source| match source {
        Source::Value(value, _) => Some(*value),
        Source::Number(_) => None,
    });
    let mut values = operands.chain(graph.results(node.id).into_iter().flatten());
    values.any(|value| {
        let shape = graph
            .value(value)
            .ty
            .as_ref()
            .and_then(|ty| ty.shape.as_ref());
        let known = shape.and_then(|shape| shape.known());
        known.is_none_or(|dims| dims.iter().product::<i64>() >= LEAST_ELEMENTS)
    })
}

struct Joining<'g> {
    graph: &'g Graph,
    group_of: FxHashMap<NodeId, usize>,
    /// Those that went into another are empty.
    groups: Vec<Group>,
}

impl Joining<'_> {
    /// Adds a node to the groups of its operands where that is possible, otherwise to a new one.
    fn add(&mut self, node: Rowwise) {
        let mut own = self.groups.len();
        self.group_of.insert(node.id, own);
        self.groups.push(vec![node.clone()]);
        for source in &node.operands {
            let Source::Value(value, _) = source else {
                continue;
            };
            let producer = self.graph.producer(*value);
            let Some(other) = producer.and_then(|id| self.group_of.get(&id).copied()) else {
                continue;
            };
            if other != own && self.may_join(other, own) {
                own = self.join(other, own);
            }
        }
    }

    fn may_join(&self, first: usize, second: usize) -> bool {
        let (a, b) = (&self.groups[first], &self.groups[second]);
        let fits = |a: &Group, b: &Group| same(&a[0].lead, &b[0].lead);
        a.len() + b.len() <= MOST_NODES && fits(a, b) && !self.is_between(first, second)
    }

    fn join(&mut self, first: usize, second: usize) -> usize {
        let moved = std::mem::take(&mut self.groups[second]);
        for node in &moved {
            self.group_of.insert(node.id, first);
        }
        self.groups[first].extend(moved);
        first
    }

    /// Whether something outside of two groups reads from one of them and is read by one of them, as
    /// directly or not as may be.
    fn is_between(&self, first: usize, second: usize) -> bool {
        let is_inside = |id: &NodeId| {
            let group = self.group_of.get(id);
            group.is_some_and(|group| *group == first || *group == second)
        };
        let members = self.groups[first].iter().chain(&self.groups[second]);
        let mut open: Vec<NodeId> = Vec::new();
        for node in members {
            open.extend(self.readers(node.id).filter(|reader| !is_inside(reader)));
        }
        let mut seen: FxHashSet<NodeId> = FxHashSet::default();
        while let Some(id) = open.pop() {
            if is_inside(&id) {
                return true;
            }
            if !seen.insert(id) {
                continue;
            }
            // A group runs as a whole: whoever waits for one of its nodes waits for all.
            if let Some(group) = self.group_of.get(&id) {
                let others = self.groups[*group].iter().map(|node| node.id);
                open.extend(others.filter(|other| !seen.contains(other)));
            }
            open.extend(self.readers(id));
        }
        false
    }

    fn readers(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        let results: Vec<ValueId> = self.graph.results(id).into_iter().flatten().collect();
        let graph = self.graph;
        results
            .into_iter()
            .flat_map(move |value| graph.uses(value))
            .map(|(node, _)| node)
    }
}
