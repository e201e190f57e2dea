//! Where layers begin and end: one value between any two.
//!
//! What flows out of a layer all goes through the value that leads into the next one, the residual stream. So
//! it is a dominator: of all ways from the modules of a layer to the outputs of the model, the values that
//! every one of them passes are candidates, up to the first module of the next layer. Shapes are no flow: what
//! is computed of them alone belongs to whoever reads it. In front of the first layer the ways are those from
//! the embeddings, or whatever else feeds it alone.

use super::dominators::Tree;
use super::flow::Flow;
use super::list::List;
use super::naming::Naming;
use crate::graph::{Block, Graph, NodeId, ValueId};
use crate::modules::Modules;
use crate::ty::Proof;
use rustc_hash::FxHashSet;

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
    flow.blocks(&borders)
}

impl Flow<'_> {
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
        let entry = entries.first().ok_or_else(|| self.no_entry(first));
        let mut borders = vec![*entry?];
        let mut between = Vec::new();
        for layer in 1..count {
            let found = self.candidates(layer, borders.last().copied());
            borders.push(*found.last().ok_or_else(|| self.crossing(layer))?);
            between.push(found);
        }
        let exits = self.candidates(count, borders.last().copied());
        if exits.is_empty() {
            return Err(self.crossing(count));
        }
        self.settle((&between, &entries, &exits), naming)
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

    /// As a rule there is one candidate between two layers. Where there are several in a row, the operators
    /// between them belong to the layers that their names say; without names to those in front if the last
    /// layer ends with the same ones, and to those behind if the first one begins with them.
    fn settle(
        &self,
        (between, entries, exits): (&[Vec<ValueId>], &[ValueId], &[ValueId]),
        naming: &Naming,
    ) -> Result<Vec<ValueId>, Obstacle> {
        if let Some(borders) = self.named_borders((between, entries, exits), naming) {
            return Ok(borders);
        }
        let count = between.iter().map(Vec::len).max().unwrap_or(1);
        let unclear = |layer: usize| Obstacle::Between(layer, between[layer - 1][0]);
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
        let inner = between.iter().map(|row| row[*own]);
        let entry = std::iter::once(entries[count - 1 - own]);
        Ok(entry.chain(inner).chain([exits[*own]]).collect())
    }

    /// The borders as names of operators have them: `None` if one between two layers has the name of neither,
    /// or they do not follow each other.
    fn named_borders(
        &self,
        (between, entries, exits): (&[Vec<ValueId>], &[ValueId], &[ValueId]),
        naming: &Naming,
    ) -> Option<Vec<ValueId>> {
        let is_of = |value: &ValueId, layer: usize| {
            let producer = self.graph.producer(*value);
            producer.is_some_and(|node| self.has_name_of(node, layer, naming))
        };
        let first = entries.iter().take_while(|value| is_of(value, 0)).count();
        let mut borders = vec![*entries.get(first)?];
        for (row, layer) in between.iter().zip(1..) {
            let own = row[1..].iter().take_while(|value| is_of(value, layer - 1));
            let own = own.count();
            let rest = &row[own + 1..];
            let is_next = |value: &ValueId| is_of(value, layer) && !is_of(value, layer - 1);
            let split = rest.iter().all(is_next) && !row[1..=own].iter().any(|v| is_of(v, layer));
            borders.push(split.then_some(row[own])?);
        }
        let last = between.len();
        let own = exits[1..].iter().take_while(|value| is_of(value, last));
        borders.push(exits[own.count()]);
        Some(borders)
    }

    /// Whether a node has a name, or metadata, of a layer.
    fn has_name_of(&self, node: NodeId, layer: usize, naming: &Naming) -> bool {
        let found = self.graph.node(node);
        let metadata = found.metadata.iter().map(|(_, text)| text);
        let mut texts = std::iter::once(&found.name).chain(metadata);
        texts.any(|text| naming.names(text, layer))
    }

    /// Whether no operator between two layers has the name of the other one.
    fn names_agree(&self, between: &[Vec<ValueId>], own: usize, naming: &Naming) -> bool {
        between.iter().zip(1..).all(|(row, layer)| {
            let made = row.iter().skip(1).enumerate();
            let mut made = made.filter_map(|(at, value)| Some((at, self.graph.producer(*value)?)));
            made.all(|(at, node)| {
                let other = if at < own { layer } else { layer - 1 };
                !self.has_name_of(node, other, naming)
            })
        })
    }

    /// The operators that make the values behind the first of a row.
    fn operators(&self, row: &[ValueId]) -> Vec<String> {
        let made = row.iter().skip(1).filter_map(|v| self.graph.producer(*v));
        made.map(|node| self.graph.node(node).op.to_string())
            .collect()
    }

    /// Nothing leads into the first layer alone: where not all leads out of it through one value, that is why.
    fn no_entry(&self, first: ValueId) -> Obstacle {
        match self.crossing(1) {
            Obstacle::Crossing(layer, values) if values.iter().any(|value| *value != first) => {
                Obstacle::Crossing(layer, values)
            }
            _ => Obstacle::NoEntry,
        }
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
}
