//! A graph made ready to run: nodes in order, values by number, constants read.

use super::array::Array;
use super::decode::decode;
use super::fault::{Failure, Fault};
use super::run::Options;
use super::table::{Entry, find};
use crate::graph::{Graph, Model, Node, NodeId, Slots, Tensor, ValueId, ValueKind};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Bodies nest at most this deep; import refuses deeper ones.
const DEPTH_LIMIT: usize = 64;

/// A graph or a body.
pub(super) struct Plan<'g> {
    pub graph: &'g Graph,
    pub steps: Vec<Step<'g>>,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
    pub constants: Vec<(usize, Result<Arc<Array>, Fault>)>,
    /// Values of the enclosing graph: where they are here and where there.
    pub captured: Vec<(usize, usize)>,
    /// Every value by its number.
    pub values: Vec<ValueId>,
    numbers: FxHashMap<ValueId, usize>,
}

/// One node.
pub(super) struct Step<'g> {
    pub id: NodeId,
    pub node: &'g Node,
    pub entry: Option<&'static Entry>,
    pub opset: i64,
    pub operands: Vec<Option<usize>>,
    pub results: Vec<Option<usize>>,
    /// The subgraphs by the attribute that holds them.
    pub bodies: Vec<(&'g str, Plan<'g>)>,
    /// What the node's bodies read of the graph.
    pub captures: Vec<usize>,
    /// Values that nothing behind the node reads.
    pub frees: Vec<usize>,
}

impl<'g> Plan<'g> {
    /// Reads the constants and sorts the nodes; the enclosing graph of a body is planned before it.
    pub fn new(
        graph: &'g Graph,
        model: &'g Model,
        options: &Options<'_>,
        outer: Option<&Plan<'_>>,
        depth: usize,
    ) -> Result<Self, Failure> {
        if depth > DEPTH_LIMIT {
            return Err(in_graph(format!(
                "bodies nest more than {DEPTH_LIMIT} deep"
            )));
        }
        let values: Vec<ValueId> = graph.value_ids().collect();
        let numbers: FxHashMap<ValueId, usize> =
            values.iter().enumerate().map(|(n, id)| (*id, n)).collect();
        let number = |id: &ValueId| numbers[id];
        let mut plan = Plan {
            graph,
            steps: Vec::new(),
            inputs: graph.inputs().iter().map(number).collect(),
            outputs: graph.outputs().iter().map(number).collect(),
            constants: constants(graph, &numbers, options),
            captured: captured(graph, &numbers, outer),
            values,
            numbers,
        };
        let order = graph.order();
        let order = order.map_err(|_| in_graph("the graph has a cycle".to_owned()))?;
        for id in order {
            let step = plan.step(id, model, options, depth)?;
            plan.steps.push(step);
        }
        plan.set_frees();
        Ok(plan)
    }

    pub fn number(&self, id: ValueId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    fn step(
        &self,
        id: NodeId,
        model: &'g Model,
        options: &Options<'_>,
        depth: usize,
    ) -> Result<Step<'g>, Failure> {
        let node = self.graph.node(id);
        let opset = model.opset(&node.op.domain).unwrap_or(1);
        let numbers = |ids: Slots| -> Vec<Option<usize>> {
            ids.into_iter().map(|id| self.number(id?)).collect()
        };
        let mut bodies = Vec::new();
        for attribute in &node.attributes {
            for body in attribute.value.graphs() {
                let body = Plan::new(body, model, options, Some(self), depth + 1)?;
                bodies.push((attribute.name.as_str(), body));
            }
        }
        let captures = self.graph.captures(id).into_iter();
        Ok(Step {
            id,
            node,
            entry: find(&node.op.domain, &node.op.op_type, opset),
            opset,
            operands: numbers(self.graph.operands(id)),
            results: numbers(self.graph.results(id)),
            bodies,
            captures: captures.filter_map(|value| self.number(value)).collect(),
            frees: Vec::new(),
        })
    }

    /// Says of each result behind which step nothing reads it any more. Inputs of the graph and
    /// constants are kept by their owners and cost nothing here.
    fn set_frees(&mut self) {
        let mut last: FxHashMap<usize, usize> = FxHashMap::default();
        for (index, step) in self.steps.iter().enumerate() {
            for value in step.operands.iter().flatten().chain(&step.captures) {
                last.entry(*value).and_modify(|last| *last = index);
            }
            last.extend(step.results.iter().flatten().map(|value| (*value, index)));
        }
        for output in &self.outputs {
            last.remove(output);
        }
        let mut sorted: Vec<(usize, usize)> = last.into_iter().collect();
        sorted.sort_unstable();
        for (value, step) in sorted {
            self.steps[step].frees.push(value);
        }
    }
}

fn constants(
    graph: &Graph,
    numbers: &FxHashMap<ValueId, usize>,
    options: &Options<'_>,
) -> Vec<(usize, Result<Arc<Array>, Fault>)> {
    let initializers = graph.initializers().iter();
    initializers
        .filter_map(|id| {
            let tensor = graph.value(*id).tensor()?;
            Some((numbers[id], read(tensor, options).map(Arc::new)))
        })
        .collect()
}

/// The elements of a constant.
fn read(tensor: &Tensor, options: &Options<'_>) -> Result<Array, Fault> {
    let raw = match tensor.raw() {
        Some(raw) => Some(raw.clone()),
        None => (options.weights)(tensor),
    };
    match raw {
        Some(raw) => decode(tensor.dtype, &tensor.dims, &raw),
        None => Err(Fault::Unsupported(
            "a tensor whose data is not at hand".to_owned(),
        )),
    }
}

fn captured(
    graph: &Graph,
    numbers: &FxHashMap<ValueId, usize>,
    outer: Option<&Plan<'_>>,
) -> Vec<(usize, usize)> {
    let Some(outer) = outer else {
        return Vec::new();
    };
    let inner = numbers.iter().filter_map(|(id, number)| {
        let value = graph.value(*id);
        let ValueKind::Captured = value.kind else {
            return None;
        };
        let there = outer.graph.find_value(&value.name)?;
        Some((*number, outer.number(there)?))
    });
    inner.collect()
}

pub(super) fn in_graph(why: String) -> Failure {
    Failure {
        place: "the graph".to_owned(),
        fault: Fault::Mismatch(why),
    }
}
