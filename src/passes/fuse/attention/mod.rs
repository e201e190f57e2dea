//! Attention, and what leads back from it, as nodes of their own.

mod back;
mod matching;
#[cfg(test)]
mod tests;

use super::node::Reader;
use crate::graph::{Attribute, Graph, NewNode, NodeId, OpName, Patch, ValueId};
use crate::kernels::DOMAIN;
use crate::kernels::attention::{FORM, Form, Gradient, Keys, OPERATOR};
use rustc_hash::{FxHashMap, FxHashSet};

/// Adds nodes that take the place of others to a patch; answers with what each computes.
pub(super) fn attention(
    reader: &Reader<'_>,
    order: &[NodeId],
    patch: &mut Patch,
) -> Vec<Vec<ValueId>> {
    let graph = reader.graph;
    let place: FxHashMap<NodeId, usize> = order.iter().copied().zip(0..).collect();
    let mut made = Vec::new();
    let mut together = Together::default();
    for softmax in order {
        let found = matching::attention(reader, *softmax);
        let Some(found) = found.filter(|found| found.has_no_cycle(graph, &together)) else {
            continue;
        };
        if let Some(back) = &found.back {
            let read = found.read();
            together.extend(back.producers(graph).map(|node| (node, read.clone())));
        }
        if let Some(result) = found.result {
            made.push(found.write(graph, &place, None, &[result], patch));
        }
        if let Some(back) = &found.back {
            let results: Vec<ValueId> = back.results.iter().map(|(_, value)| *value).collect();
            made.push(found.write(graph, &place, Some(back), &results, patch));
        }
    }
    made
}

/// A softmax and what belongs to it.
#[derive(Debug)]
struct Attention {
    softmax: NodeId,
    scale: f32,
    queries: ValueId,
    keys: (ValueId, Keys),
    values: ValueId,
    mask: Option<ValueId>,
    /// See [`Form::guards`].
    guards: bool,
    result: Option<ValueId>,
    back: Option<Back>,
}

#[derive(Debug)]
struct Back {
    of_result: ValueId,
    inner: Option<ValueId>,
    results: Vec<(Gradient, ValueId)>,
}

/// What nodes of the graph will wait for because others are computed with them.
type Together = FxHashMap<NodeId, Vec<ValueId>>;

impl Back {
    fn producers<'b>(&'b self, graph: &'b Graph) -> impl Iterator<Item = NodeId> + 'b {
        let results = self.results.iter();
        results.filter_map(|(_, value)| graph.producer(*value))
    }
}

impl Attention {
    /// What the node of the gradients reads.
    fn read(&self) -> Vec<ValueId> {
        let own = [self.queries, self.keys.0, self.values];
        let back = self.back.iter();
        let given = back.flat_map(|back| [back.of_result].into_iter().chain(back.inner));
        own.into_iter().chain(self.mask).chain(given).collect()
    }

    /// Whether what gradients are computed from does without these gradients, which are computed together.
    fn has_no_cycle(&self, graph: &Graph, together: &Together) -> bool {
        let Some(back) = &self.back else {
            return true;
        };
        let own: FxHashSet<NodeId> = back.producers(graph).collect();
        let read = self.read().into_iter();
        let mut open: Vec<NodeId> = read.filter_map(|value| graph.producer(value)).collect();
        let mut seen: FxHashSet<NodeId> = open.iter().copied().collect();
        while let Some(node) = open.pop() {
            if own.contains(&node) {
                return false;
            }
            let read = graph.operands(node).into_iter().flatten();
            let with = together.get(&node).into_iter().flatten().copied();
            let before = read.chain(graph.captures(node)).chain(with);
            let before = before.filter_map(|value| graph.producer(value));
            open.extend(before.filter(|node| seen.insert(*node)));
        }
        true
    }

    /// One node for what it computes forwards, or backwards.
    fn write(
        &self,
        graph: &Graph,
        place: &FxHashMap<NodeId, usize>,
        back: Option<&Back>,
        results: &[ValueId],
        patch: &mut Patch,
    ) -> Vec<ValueId> {
        let gradients = back.iter().flat_map(|back| &back.results);
        let form = Form {
            scale: self.scale,
            keys: self.keys.1,
            guards: self.guards,
            has_mask: self.mask.is_some(),
            has_inner: back.is_some_and(|back| back.inner.is_some()),
            gradients: gradients.map(|(gradient, _)| *gradient).collect(),
        };
        let own = [self.queries, self.keys.0, self.values];
        let given = back.map(|back| back.of_result);
        let inner = back.and_then(|back| back.inner);
        let operands = own.into_iter().chain(self.mask).chain(given).chain(inner);
        let replaced = results.iter().filter_map(|value| graph.producer(*value));
        if let Some(last) = replaced.max_by_key(|node| place.get(node)) {
            patch.behind(last);
        }
        let suffix = if back.is_some() { ".grad" } else { "" };
        let name = graph.display_name(self.softmax);
        let node = NewNode {
            op: OpName::new(DOMAIN, OPERATOR),
            name: format!("{name}/attention{suffix}"),
            attributes: vec![Attribute::ints(FORM, form.encode())],
            inputs: operands.map(|value| Some(value.into())).collect(),
            metadata: Vec::new(),
        };
        let described = results.iter().map(|value| {
            let value = graph.value(*value);
            (format!("{}/attention", value.name), value.ty.clone())
        });
        let made = patch.node_with_results(node, described.collect());
        for (value, operand) in results.iter().zip(made) {
            patch.take_over(*value, operand);
        }
        results.to_vec()
    }
}
