//! What is differentiated: values downstream of a parameter and upstream of the loss.

use super::errors;
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, NodeId, ValueId};
use crate::ops::{Grad, OpDef, find};
use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;

/// Marks a node of which no gradient is wanted; see `hir`'s `stop_gradient`.
const STOP: (&str, &str) = ("peftc.gradient", "stop");

/// Active values, and the nodes between them.
pub(super) struct Activity {
    active: Rc<FxHashSet<ValueId>>,
    /// Nodes with an active operand and an active result, operands before users.
    pub nodes: Vec<NodeId>,
}

impl Activity {
    /// Finds what is active. Fails, with every finding reported, if a node between a parameter and
    /// the loss has no gradient or a parameter does not reach the loss.
    pub(super) fn find(
        model: &Model,
        roots: &[ValueId],
        wrt: &[ValueId],
        sink: &mut Sink,
    ) -> Result<Activity, Reported> {
        let graph = &model.graph;
        check_parameters(model, wrt, sink)?;
        let Ok(order) = graph.order() else {
            // Import has refused cycles, and no patch makes one.
            return Err(sink.emit(errors::patch_refused(&model.name, "the graph has a cycle")));
        };
        let down = Flow::down(model, &order, wrt);
        let up = Flow::up(model, &order, roots);
        let active: FxHashSet<ValueId> = down
            .reached
            .keys()
            .filter(|value| up.reached.contains_key(value))
            .copied()
            .collect();
        let is_active = |value: &Option<ValueId>| value.is_some_and(|v| active.contains(&v));
        let reads = |node: NodeId| {
            graph.operands(node).iter().any(is_active)
                || graph.captures(node).iter().any(|v| active.contains(v))
        };
        let nodes: Vec<NodeId> = order
            .into_iter()
            .filter(|node| {
                graph.results(*node).iter().any(is_active) && reads(*node) && flows(model, *node)
            })
            .collect();
        check_rules(model, &nodes, &down, &up, sink);
        check_reach(model, wrt, &active, &down, sink);
        sink.failed()?;
        Ok(Activity {
            active: Rc::new(active),
            nodes,
        })
    }

    pub(super) fn active(&self) -> Rc<FxHashSet<ValueId>> {
        Rc::clone(&self.active)
    }

    pub(super) fn is_active(&self, value: ValueId) -> bool {
        self.active.contains(&value)
    }
}

/// The entry of a node's operator.
pub(super) fn definition(model: &Model, node: NodeId) -> Option<&'static OpDef> {
    let op = &model.graph.node(node).op;
    find(&op.domain, &op.op_type, opset(model, node))
}

/// The version of the domain of a node's operator.
pub(super) fn opset(model: &Model, node: NodeId) -> i64 {
    model.opset(&model.graph.node(node).op.domain).unwrap_or(1)
}

/// Whether a change of the operands can change the results, as far as gradients go.
fn flows(model: &Model, node: NodeId) -> bool {
    let stops = model.graph.node(node).metadata(STOP.0) == Some(STOP.1);
    !stops && !matches!(definition(model, node), Some(entry) if matches!(entry.grad, Grad::Zero))
}

/// Integers and truth values have no gradient; a value of unknown type may.
fn may_have_gradient(graph: &Graph, value: ValueId) -> bool {
    let ty = graph.value(value).ty.as_ref();
    ty.is_none_or(|ty| ty.dtype.is_float())
}

/// The values that are reached from some, each with the one that it was first reached from.
pub(super) struct Flow {
    reached: FxHashMap<ValueId, Option<ValueId>>,
}

impl Flow {
    fn start(values: &[ValueId]) -> Flow {
        Flow {
            reached: values.iter().map(|value| (*value, None)).collect(),
        }
    }

    fn reach(&mut self, graph: &Graph, from: ValueId, to: impl IntoIterator<Item = ValueId>) {
        for value in to {
            if may_have_gradient(graph, value) {
                self.reached.entry(value).or_insert(Some(from));
            }
        }
    }

    fn first(&self, among: impl IntoIterator<Item = ValueId>) -> Option<ValueId> {
        among.into_iter().find(|v| self.reached.contains_key(v))
    }

    /// With the flow, from parameters.
    fn down(model: &Model, order: &[NodeId], wrt: &[ValueId]) -> Flow {
        let graph = &model.graph;
        let mut flow = Flow::start(wrt);
        for node in order {
            let operands = graph.operands(*node).into_iter().flatten();
            if let Some(from) = flow.first(operands.chain(graph.captures(*node)))
                && flows(model, *node)
            {
                flow.reach(graph, from, graph.results(*node).into_iter().flatten());
            }
        }
        flow
    }

    /// Against the flow, from the loss.
    fn up(model: &Model, order: &[NodeId], roots: &[ValueId]) -> Flow {
        let graph = &model.graph;
        let mut flow = Flow::start(roots);
        for node in order.iter().rev() {
            if let Some(from) = flow.first(graph.results(*node).into_iter().flatten())
                && flows(model, *node)
            {
                let operands = graph.operands(*node).into_iter().flatten();
                flow.reach(graph, from, operands.chain(graph.captures(*node)));
            }
        }
        flow
    }

    /// The values on the way from a value back to where the flow started.
    fn way(&self, from: ValueId) -> Vec<ValueId> {
        let mut way = vec![from];
        let mut at = from;
        while let Some(Some(next)) = self.reached.get(&at) {
            way.push(*next);
            at = *next;
        }
        way
    }
}

/// A loss is one float.
pub(super) fn check_loss(model: &Model, loss: ValueId, sink: &mut Sink) -> Result<(), Reported> {
    let value = model.graph.value(loss);
    let is_number = value.ty.as_ref().is_some_and(|ty| {
        let dims = ty.shape.as_ref().map(|shape| &shape.0);
        ty.dtype.is_float()
            && dims.is_some_and(|dims| dims.iter().all(|dim| dim.known() == Some(1)))
    });
    if is_number {
        return Ok(());
    }
    Err(sink.emit(errors::not_a_number(&value.name, value.ty.as_ref())))
}

fn check_parameters(model: &Model, wrt: &[ValueId], sink: &mut Sink) -> Result<(), Reported> {
    let graph = &model.graph;
    for parameter in wrt {
        let value = graph.value(*parameter);
        match &value.ty {
            Some(ty) if ty.dtype.is_float() && ty.shape.is_some() => {}
            ty => {
                sink.emit(errors::not_a_float(&value.name, ty.as_ref()));
            }
        }
    }
    sink.failed()
}

/// Reports every operator without a gradient, at its first node.
fn check_rules(model: &Model, nodes: &[NodeId], down: &Flow, up: &Flow, sink: &mut Sink) {
    let graph = &model.graph;
    let mut found: Vec<(String, NodeId, Option<&str>, usize)> = Vec::new();
    for node in nodes {
        let help = match definition(model, *node).map(|entry| entry.grad) {
            Some(Grad::Rule(_) | Grad::Lower(_) | Grad::Zero) => continue,
            Some(Grad::Missing(help)) => Some(help),
            None => None,
        };
        let op = graph.node(*node).op.to_string();
        match found.iter_mut().find(|(other, ..)| *other == op) {
            Some((.., more)) => *more += 1,
            None => found.push((op, *node, help, 0)),
        }
    }
    for (_, node, help, more) in found {
        let operands = graph.operands(node).into_iter().flatten();
        let from = down.first(operands.chain(graph.captures(node)));
        let to = up.first(graph.results(node).into_iter().flatten());
        let mut way: Vec<ValueId> = from.map(|v| down.way(v)).unwrap_or_default();
        way.reverse();
        way.extend(to.into_iter().flat_map(|v| up.way(v)));
        sink.emit(errors::no_rule(model, node, help, &way, more));
    }
}

/// Reports every parameter from which no way leads to the loss.
fn check_reach(
    model: &Model,
    wrt: &[ValueId],
    active: &FxHashSet<ValueId>,
    down: &Flow,
    sink: &mut Sink,
) {
    let lost: Vec<ValueId> = wrt
        .iter()
        .copied()
        .filter(|value| !active.contains(value))
        .collect();
    if let Some(first) = lost.first() {
        let stop = stopped_at(model, *first, down);
        sink.emit(errors::does_not_reach(model, *first, lost.len() - 1, stop));
    }
}

/// A node that reads a parameter, directly or not, and lets no gradient through.
fn stopped_at(model: &Model, parameter: ValueId, down: &Flow) -> Option<NodeId> {
    let graph = &model.graph;
    let from_it = |value: &ValueId| {
        down.reached.contains_key(value) && down.way(*value).last() == Some(&parameter)
    };
    let order = graph.order().unwrap_or_default();
    order
        .into_iter()
        .find(|node| !flows(model, *node) && graph.operands(*node).iter().flatten().any(from_it))
}
