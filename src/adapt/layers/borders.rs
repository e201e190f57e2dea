//! Where layers begin and end: one value between any two.
//!
//! What flows out of a layer all goes through the value that leads into the next one, the residual stream. So
//! it is a dominator: of all ways from the modules of a layer to the outputs of the model, the values that
//! every one of them passes are candidates, up to the first module of the next layer. Shapes are no flow: what
//! is computed of them alone belongs to whoever reads it. In front of the first layer the ways are those from
//! the embeddings, or whatever else feeds it alone.

use super::dominators::Tree;
use super::list::List;
use super::naming::Naming;
use crate::graph::{Block, Graph, NodeId, ValueId};
use crate::modules::Modules;
use crate::ty::Proof;
use rustc_hash::{FxHashMap, FxHashSet};

/// Why there are no borders.
pub(super) enum Obstacle {
    /// These values, and not one alone, lead out of layers before the number into those from there on.
    Crossing(usize, Vec<ValueId>),
    /// It is not clear which value leads into the first layer.
    NoEntry,
    /// What stands between layers belongs to the one or to the other.
    Between(usize, ValueId),
    /// The values that lead into the layers are of different types.
    Types(ValueId, ValueId),
    /// Values within the layer that others read, too.
    Leaks(usize, Vec<ValueId>),
}

/// The layers of a list, as blocks.
pub(super) fn blocks(
    (list, naming): (&List, &Naming),
    graph: &Graph,
    modules: &Modules,
) -> Result<Vec<Block>, Obstacle> {
    let flow = Flow::new(list, graph, modules);
    let borders = flow.borders(naming)?;
    for border in &borders[1..] {
        let types = [borders[0], *border].map(|value| graph.value(value).ty.as_ref());
        if let [Some(first), Some(other)] = types
            && first.compare(other) == Proof::Different
        {
            return Err(Obstacle::Types(borders[0], *border));
        }
    }
    let pairs = borders.windows(2).enumerate();
    pairs
        .map(|(layer, pair)| flow.block(layer, pair[0], pair[1]))
        .collect()
}

/// The vertices are the nodes of the graph in its order, and behind them its values.
struct Flow<'g> {
    graph: &'g Graph,
    order: Vec<NodeId>,
    nodes: FxHashMap<NodeId, usize>,
    values: Vec<ValueId>,
    numbers: FxHashMap<ValueId, usize>,
    /// The values that leave the modules of every layer.
    ends: Vec<Vec<ValueId>>,
    /// The nodes of modules in no layer.
    others: Vec<NodeId>,
    /// For every vertex the last layer of which a module lies in front of it.
    behind: Vec<Option<usize>>,
    /// All ways to the outputs.
    out: Tree,
}

impl<'g> Flow<'g> {
    fn new(list: &List, graph: &'g Graph, modules: &Modules) -> Flow<'g> {
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

    fn vertices(&self) -> usize {
        self.order.len() + self.values.len()
    }

    fn value(&self, vertex: usize) -> Option<ValueId> {
        self.values
            .get(vertex.checked_sub(self.order.len())?)
            .copied()
    }

    /// What a node reads of which the elements matter, not only the shape.
    fn flows_into(&self, node: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        let graph = self.graph;
        let op = &graph.node(node).op;
        let of_shape = op.is("Shape") || op.is("Size");
        let operands = graph.operands(node).into_iter().flatten();
        let read = operands.chain(graph.captures(node));
        read.filter(move |_| !of_shape)
    }

    fn results(&self, node: NodeId) -> impl Iterator<Item = ValueId> + use<'_> {
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

    /// The values that lead into the layers, and the one behind the last.
    fn borders(&self, naming: &Naming) -> Result<Vec<ValueId>, Obstacle> {
        let count = self.ends.len();
        let first = self.candidates(1, None);
        let first = match count {
            1 => first.first(),
            _ => first.last(),
        };
        let first = *first.ok_or_else(|| self.crossing(1))?;
        let entries = self.entries(first);
        let mut borders = vec![*entries.first().ok_or(Obstacle::NoEntry)?];
        let mut between = Vec::new();
        for layer in 1..count {
            let found = self.candidates(layer, borders.last().copied());
            borders.push(*found.last().ok_or_else(|| self.crossing(layer))?);
            between.push(found);
        }
        let exits = self.candidates(count, borders.last().copied());
        borders.push(*exits.first().ok_or_else(|| self.crossing(count))?);
        self.settle((&between, &entries, &exits), naming, borders)
    }

    /// The values that all that leaves a layer passes before it enters the next one, and so does what leads
    /// into it; the nearest to the layer first.
    fn candidates(&self, layer: usize, entry: Option<ValueId>) -> Vec<ValueId> {
        let ends = self.ends[layer - 1].iter().copied().chain(entry);
        let ends = ends.map(|value| self.numbers[&value]);
        let read = ends.filter(|vertex| self.out.contains(*vertex));
        let Some(common) = read.reduce(|a, b| self.out.meet(a, b)) else {
            return Vec::new();
        };
        let before = |vertex: &usize| self.behind[*vertex].is_none_or(|last| last < layer);
        let chain = self.out.chain(common).take_while(before);
        chain.filter_map(|vertex| self.value(vertex)).collect()
    }

    /// The values that all that feeds the first layer alone passes before its modules, the last one first.
    /// `first` leads out of it.
    fn entries(&self, first: ValueId) -> Vec<ValueId> {
        let exit = self.numbers[&first];
        let feeds = |vertex: usize| self.behind[vertex].is_none() && self.out.passes(vertex, exit);
        let others = self.others.iter().map(|node| self.nodes[node]);
        let mut sources: FxHashSet<usize> = others.filter(|at| feeds(*at)).collect();
        if sources.is_empty() {
            let inputs = self.graph.inputs().iter();
            let floats = inputs.filter(|id| {
                let ty = self.graph.value(**id).ty.as_ref();
                ty.is_some_and(|ty| ty.dtype.is_float())
            });
            let floats = floats.map(|id| self.numbers[id]);
            sources = floats.filter(|at| feeds(*at)).collect();
        }
        let made = self.order.iter().enumerate().flat_map(|(at, node)| {
            let results = self.results(*node).map(|value| self.numbers[&value]);
            std::iter::once(at).chain(results)
        });
        let given = self.graph.inputs().iter().map(|id| self.numbers[id]);
        let ways = Tree::new(given.chain(made), self.vertices(), |vertex, next| {
            match self.value(vertex) {
                None => {
                    let read = self.flows_into(self.order[vertex]);
                    next.extend(read.map(|value| Some(self.numbers[&value])));
                }
                Some(value) => {
                    let producer = self.graph.producer(value);
                    next.extend(producer.map(|node| Some(self.nodes[&node])));
                }
            }
            next.extend(sources.contains(&vertex).then_some(None));
        });
        let before = ways.chain(exit).filter(|at| self.behind[*at].is_none());
        before.filter_map(|vertex| self.value(vertex)).collect()
    }

    /// As a rule there is one candidate between two layers. Where there are several in a row, operators
    /// between them belong to the layer in front if the last layer ends with the same ones, and to that
    /// behind if the first one begins with them; where both are so, names decide.
    fn settle(
        &self,
        (between, entries, exits): (&[Vec<ValueId>], &[ValueId], &[ValueId]),
        naming: &Naming,
        mut borders: Vec<ValueId>,
    ) -> Result<Vec<ValueId>, Obstacle> {
        let count = between.iter().map(Vec::len).max().unwrap_or(1);
        if count == 1 {
            return Ok(borders);
        }
        let unclear = |layer: usize| Obstacle::Between(layer, borders[layer]);
        let words = self.operators(&between[0]);
        if let Some(other) = between.iter().position(|row| self.operators(row) != words) {
            return Err(unclear(other + 1));
        }
        let fits = |own: &usize| {
            let first = entries.iter().take(count - own).rev();
            let first: Vec<ValueId> = first.copied().collect();
            let last = &exits[..exits.len().min(own + 1)];
            self.operators(last) == words[..*own]
                && self.operators(&first) == words[*own..]
                && self.names_agree(between, *own, naming)
        };
        // How many of the operators belong to the layer in front.
        let owns: Vec<usize> = (0..count).filter(fits).collect();
        let [own] = owns.as_slice() else {
            return Err(unclear(1));
        };
        let last = borders.len() - 1;
        borders[0] = entries[count - 1 - own];
        borders[last] = exits[*own];
        for (border, row) in borders[1..].iter_mut().zip(between) {
            *border = row[*own];
        }
        Ok(borders)
    }

    /// Whether no operator between two layers has the name of the other one.
    fn names_agree(&self, between: &[Vec<ValueId>], own: usize, naming: &Naming) -> bool {
        between.iter().zip(1..).all(|(row, layer)| {
            let made = row.iter().skip(1).enumerate();
            let mut made = made.filter_map(|(at, value)| Some((at, self.graph.producer(*value)?)));
            made.all(|(at, node)| {
                let other = if at < own { layer } else { layer - 1 };
                let found = self.graph.node(node);
                let metadata = found.metadata.iter().map(|(_, text)| text);
                let mut texts = std::iter::once(&found.name).chain(metadata);
                !texts.any(|text| naming.names(text, other))
            })
        })
    }

    /// The operators that make the values behind the first of a row.
    fn operators(&self, row: &[ValueId]) -> Vec<String> {
        let made = row.iter().skip(1).filter_map(|v| self.graph.producer(*v));
        made.map(|node| self.graph.node(node).op.to_string())
            .collect()
    }

    /// The values that lead from layers before the number to those from there on, or to outputs.
    fn crossing(&self, layer: usize) -> Obstacle {
        let before = |vertex: usize| self.behind[vertex].is_some_and(|last| last < layer);
        let beyond = |node: NodeId| {
            let behind = self.behind[self.nodes[&node]];
            behind.is_some_and(|last| last >= layer) && self.flows_into(node).next().is_some()
        };
        let leads = |value: &ValueId| {
            let mut readers = self.graph.uses(*value).into_iter();
            self.graph.is_output(*value) || readers.any(|(node, _)| beyond(node))
        };
        let values = self.values.iter().copied();
        let values = values.filter(|value| before(self.numbers[value]));
        Obstacle::Crossing(layer, values.filter(leads).collect())
    }

    /// The nodes between two borders: what is computed of the one for the other, and what of these is read
    /// for its shape alone.
    fn block(&self, layer: usize, input: ValueId, output: ValueId) -> Result<Block, Obstacle> {
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
