//! Neighbouring nodes that work row by row become one node that runs a program of [`kernels`].
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

mod group;
mod node;
#[cfg(test)]
mod tests;
mod write;

use super::errors;
use super::infer::infer_values;
use crate::diag::{Reported, Sink};
use crate::graph::{Model, Patch};
use crate::kernels::DOMAIN;

/// Fuses what can be fused in the top graph. Returns how many nodes now run programs.
pub fn fuse(model: &mut Model, sink: &mut Sink) -> Result<usize, Reported> {
    let values = infer_values(model, sink)?;
    let reader = node::Reader::new(model, &values);
    let Ok(order) = model.graph.order() else {
        return Ok(0);
    };
    let groups = group::groups(&model.graph, &order, &reader);
    let mut patch = Patch::new();
    let mut results = Vec::new();
    let mut count = 0;
    for group in &groups {
        if let Some(written) = write::group(&model.graph, group, &mut patch) {
            results.extend(written);
            count += 1;
        }
    }
    if count == 0 {
        return Ok(0);
    }
    if let Err(why) = model.graph.apply(patch) {
        return Err(sink.emit(errors::patch_refused(&model.name, &why)));
    }
    // ONNX Runtime cannot tell the shapes of what it does not know.
    for value in results {
        model.graph.state_type(value);
    }
    model.opsets.push((DOMAIN.to_owned(), 1));
    Ok(count)
}
