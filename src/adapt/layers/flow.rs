//! What flows where: the modules of layers in front of every value, and the ways from it to the outputs.

use super::dominators::Tree;
use super::list::List;
use crate::graph::{Graph, NodeId, ValueId};
use crate::modules::Modules;
use rustc_hash::{FxHashMap, FxHashSet};

/// The vertices are the nodes of the graph in its order, and behind them its values.
pub(super) struct Flow<'g> {
    pub graph: &'g Graph,
    pub order: Vec<NodeId>,
    pub nodes: FxHashMap<NodeId, usize>,
    pub values: Vec<ValueId>,
    pub numbers: FxHashMap<ValueId, usize>,
    /// The values that leave the modules of every layer.
    pub ends: Vec<Vec<ValueId>>,
    /// The nodes of modules in no layer.
    pub others: Vec<NodeId>,
    /// For every vertex the last layer of which a module lies in front of it.
    pub behind: Vec<Option<usize>>,
    /// All ways to the outputs.
    pub out: Tree,
}

impl<'g> Flow<'g> {
    pub fn new(list: &List, graph: &'g Graph, modules: &Modules) -> Flow<'g> {
        let order = graph.order().unwrap_or_default();
        let nodes: FxHashMap<NodeId, usize> = order.iter().copied().zip(0..).collect();
        let values: Vec<ValueId> = graph.value_ids().collect();
        let numbers = values.iter().copied().zip(order.len()..).collect();
        let mut starts: FxHashMap<NodeId, usize> = FxHashMap::default();
        let mut ends = Vec::new();
        for (layer, sites) in list.layers.iter().enumerate() {
            let sites = sites.iter().map(|site| &modules.sites[*site]);
            starts.extend(sites.clone().map(|site| (site.node, layer)));
            ends.push(sites.map(|site| site.output).collect());
        }
        let sites = modules.sites.iter().chain(&modules.unnamed);
        let others = sites.filter(|site| site.is_module() && site.scope.0.is_empty());
        let others = others.map(|site| site.node);
        let others = others.filter(|node| !starts.contains_key(node)).collect();
        let mut flow = Flow {
            graph,
            nodes,
            values,
            numbers,
            ends,
            others,
            behind: Vec::new(),
            out: Tree::new(std::iter::empty(), 0, |_, _| {}),
            order,
        };
        flow.behind = flow.layers_behind(&starts);
        flow.out = flow.ways_out();
        flow
    }

    pub fn vertices(&self) -> usize {
        self.order.len() + self.values.len()
    }

    pub fn value(&self, vertex: usize) -> Option<ValueId> {
        self.values
            .get(vertex.checked_sub(self.order.len())?)
            .copied()
    }

    /// What a node reads of which the elements matter, not only the shape.
    pub fn flows_into(&self, node: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        let graph = self.graph;
        let op = &graph.node(node).op;
        let of_shape = op.is("Shape") || op.is("Size");
        let operands = graph.operands(node).into_iter().flatten();
        let read = operands.chain(graph.captures(node));
        read.filter(move |_| !of_shape)
    }

    pub fn results(&self, node: NodeId) -> impl Iterator<Item = ValueId> + use<'_> {
        self.graph.results(node).into_iter().flatten()
    }

    fn layers_behind(&self, starts: &FxHashMap<NodeId, usize>) -> Vec<Option<usize>> {
        let mut behind = vec![None; self.vertices()];
        for (at, node) in self.order.iter().enumerate() {
            let read = self
                .flows_into(*node)
                .map(|value| behind[self.numbers[&value]]);
            let own = starts.get(node).copied();
            let found = read.fold(own, Option::max);
            behind[at] = found;
            for result in self.results(*node) {
                behind[self.numbers[&result]] = found;
            }
        }
        behind
    }

    fn ways_out(&self) -> Tree {
        let outputs: FxHashSet<ValueId> = self.graph.outputs().iter().copied().collect();
        // Values of nodes behind their nodes, all others at the front; read from the end.
        let made = self.order.iter().enumerate().flat_map(|(at, node)| {
            let results = self.results(*node).map(|value| self.numbers[&value]);
            std::iter::once(at).chain(results)
        });
        let made: Vec<usize> = made.collect();
        let given = self
            .values
            .iter()
            .filter(|v| self.graph.producer(**v).is_none());
        let given = given.map(|value| self.numbers[value]);
        Tree::new(
            made.into_iter().rev().chain(given),
            self.vertices(),
            |vertex, next| match self.value(vertex) {
                None => next.extend(
                    self.results(self.order[vertex])
                        .map(|v| Some(self.numbers[&v])),
                ),
                Some(value) => {
                    let readers = self.graph.uses(value).into_iter().map(|(node, _)| node);
                    let readers = readers.filter(|node| self.flows_into(*node).next().is_some());
                    next.extend(readers.map(|node| Some(self.nodes[&node])));
                    next.extend(outputs.contains(&value).then_some(None));
                }
            },
        )
    }
}
