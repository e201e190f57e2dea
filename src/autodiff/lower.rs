//! Nodes on the way of a gradient that are written with other operators first.

use super::activity::{Activity, definition, opset};
use super::errors;
use crate::diag::{Reported, Sink};
use crate::graph::{Model, NodeId, ValueId};
use crate::ops::{Builder, Grad, LowerCx, Refusal};
use crate::passes::{self, Values};

/// How often a lowering may give rise to another.
const MOST_ROUNDS: usize = 8;

/// Rewrites nodes between the parameters and the roots until every operator there has a rule.
/// Returns what shape arithmetic then knows; `None` if nothing had to be rewritten.
pub(super) fn lower(
    model: &mut Model,
    values: &Values,
    roots: &[ValueId],
    wrt: &[ValueId],
    sink: &mut Sink,
) -> Result<Option<Values>, Reported> {
    let mut latest: Option<Values> = None;
    for _ in 0..MOST_ROUNDS {
        let activity = Activity::find(model, roots, wrt, sink)?;
        let nodes = lowered(model, &activity);
        if nodes.is_empty() {
            break;
        }
        let known = latest.as_ref().unwrap_or(values);
        rewrite(model, known, &nodes, sink)?;
        latest = Some(passes::infer_values(model, sink)?);
    }
    Ok(latest)
}

/// The nodes whose operators are written with others.
pub(super) fn lowered(model: &Model, activity: &Activity) -> Vec<NodeId> {
    let has_lowering = |node: &NodeId| {
        definition(model, *node).is_some_and(|entry| matches!(entry.grad, Grad::Lower(_)))
    };
    activity
        .nodes
        .iter()
        .copied()
        .filter(has_lowering)
        .collect()
}

fn rewrite(
    model: &mut Model,
    values: &Values,
    nodes: &[NodeId],
    sink: &mut Sink,
) -> Result<(), Reported> {
    let build = Builder::new(&model.graph, values.all(), model.opset("").unwrap_or(0));
    for node in nodes {
        build.behind(*node);
        build.set_scope(model.graph.display_name(*node));
        one(&build, model, *node)
            .map_err(|refusal| sink.emit(errors::cannot_derive(model, *node, &refusal)))?;
    }
    let patch = build.finish();
    match model.graph.apply(patch) {
        Ok(_) => Ok(()),
        Err(why) => Err(sink.emit(errors::patch_refused(&model.name, &why))),
    }
}

fn one(build: &Builder<'_>, model: &Model, node: NodeId) -> Result<(), Refusal> {
    let Some(Grad::Lower(lowering)) = definition(model, node).map(|entry| entry.grad) else {
        return Ok(());
    };
    let mut cx = LowerCx::new(build, opset(model, node), node);
    lowering(&mut cx)?;
    let reads: Vec<bool> = (0..cx.result_count())
        .map(|slot| cx.is_read(slot))
        .collect();
    let found = cx.finish();
    if let Some(trouble) = build.trouble() {
        return Err(trouble);
    }
    for (slot, value) in model.graph.results(node).into_iter().enumerate() {
        let Some(value) = value else {
            continue;
        };
        match found[slot] {
            Some(result) => build.with_patch(|patch| patch.take_over(value, result.operand)),
            None if reads[slot] => {
                return Err(Refusal(format!("its result {slot} is read")));
            }
            None => {}
        }
    }
    Ok(())
}
