//! Attention, and what leads back from it, becomes a node each ([`attention`]); other neighbouring nodes
//! that work row by row become one node that runs a program of [`kernels`].
//!
//! Requires: a graph that verifies. Ensures: the model computes the same, with the same names, up to
//! rounding; what fused nodes compute between them is no value any more. The new nodes are of peftc's
//! own domain, which ONNX Runtime knows only in a session with kernels: for a graph in memory, never
//! for a file.
//!
//! A group of nodes has one shape up to the last axis, the rows. Nodes join the groups of their
//! operands, unless something outside of the group lies between them.
//!
//! [`kernels`]: crate::kernels

mod attention;
mod group;
mod node;
#[cfg(test)]
mod tests;
mod write;

use super::errors;
use super::infer::infer_values;
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, NodeId, Patch, ValueId};
use crate::kernels::DOMAIN;

/// Fuses what can be fused, in bodies, too. Returns how many nodes are new.
pub fn fuse(model: &mut Model, sink: &mut Sink) -> Result<usize, Reported> {
    let mut count = graph(model, sink)?;
    let owners = model.graph.node_ids();
    let owners: Vec<NodeId> = owners
        .filter(|node| model.graph.node(*node).has_subgraphs())
        .collect();
    for owner in owners {
        for (attribute, at) in places(&model.graph, owner) {
            let body = &model.graph.node(owner).attributes[attribute].value.graphs()[at];
            let mut inner = model.around(body.clone());
            let found = graph(&mut inner, sink)?;
            if found > 0 {
                let put = |body: &mut Graph| *body = inner.graph;
                model.graph.edit_subgraph(owner, attribute, at, put);
                count += found;
            }
        }
    }
    if count > 0 {
        model.opsets.push((DOMAIN.to_owned(), 1));
    }
    Ok(count)
}

/// Fuses attention alone, in the top graph: what a session with kernels keeps in memory shows.
pub fn fuse_attention(model: &mut Model, sink: &mut Sink) -> Result<usize, Reported> {
    apply(model, attention::attention, sink)
}

/// Where a node has bodies: the attribute, and which graph of it.
fn places(graph: &Graph, node: NodeId) -> Vec<(usize, usize)> {
    let attributes = graph.node(node).attributes.iter().enumerate();
    attributes
        .flat_map(|(attribute, held)| (0..held.value.graphs().len()).map(move |at| (attribute, at)))
        .collect()
}

/// Fuses what can be fused in the top graph of a model, whose opsets stay as they are.
fn graph(model: &mut Model, sink: &mut Sink) -> Result<usize, Reported> {
    let attention = apply(model, attention::attention, sink)?;
    let rows = apply(model, rows, sink)?;
    Ok(attention + rows)
}

/// Adds nodes that take the place of others to a patch; answers with what each computes.
type Find = fn(&node::Reader<'_>, &[NodeId], &mut Patch) -> Vec<Vec<ValueId>>;

fn rows(reader: &node::Reader<'_>, order: &[NodeId], patch: &mut Patch) -> Vec<Vec<ValueId>> {
    let groups = group::groups(reader.graph, order, reader);
    let groups = groups.iter();
    groups
        .filter_map(|group| write::group(reader.graph, group, patch))
        .collect()
}

/// Answers with the number of new nodes.
fn apply(model: &mut Model, find: Find, sink: &mut Sink) -> Result<usize, Reported> {
    let values = infer_values(model, sink)?;
    let reader = node::Reader::new(model, &values);
    let Ok(order) = model.graph.order() else {
        return Ok(0);
    };
    let mut patch = Patch::new();
    let made = find(&reader, &order, &mut patch);
    if made.is_empty() {
        return Ok(0);
    }
    if let Err(why) = model.graph.apply(patch) {
        return Err(sink.emit(errors::patch_refused(&model.name, &why)));
    }
    // ONNX Runtime cannot tell the shapes of what it does not know.
    for value in made.iter().flatten() {
        model.graph.state_type(*value);
    }
    Ok(made.len())
}
