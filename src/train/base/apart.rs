//! Floats of codes for every product by itself.
//!
//! Where the forward and the backward product read the floats of one weight, these would lie in memory from
//! the one to the other, and all weights would be there in full. ONNX Runtime makes one node again of two
//! that are equal: so each reads a scale of its own, a float a column. It runs a node when the first of its
//! readers wants it, operands that stand further behind in the file first: at the front of the graph a
//! weight is the last operand to be made, right in front of its product.

use super::super::graphs::apply;
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, NewNode, NodeId, Operand, Patch};
use crate::ty::DType;

/// Gives every product that reads the floats of codes a `DequantizeLinear` of its own.
pub(in crate::train) fn apart(model: &mut Model, sink: &mut Sink) -> Result<(), Reported> {
    let graph = &model.graph;
    let mut patch = Patch::new();
    for node in graph.node_ids() {
        if is_of_codes(graph, node) {
            split(graph, node, &mut patch);
        }
    }
    apply(model, patch, sink)?;
    Ok(())
}

/// Whether a node makes floats of codes in `i8` that are the same in every run.
fn is_of_codes(graph: &Graph, node: NodeId) -> bool {
    let constant = |slot| graph.value(graph.operand(node, slot)?).constant();
    let codes = constant(0).is_some_and(|codes| codes.dtype == DType::I8);
    graph.node(node).op.is("DequantizeLinear") && codes && constant(1).is_some()
}

/// The first reader keeps the node; bodies do, too, which run as one node.
fn split(graph: &Graph, node: NodeId, patch: &mut Patch) {
    let Some(floats) = graph.result(node, 0) else {
        return;
    };
    let ty = graph.value(floats).ty.clone();
    let original = graph.node(node);
    let operands = graph.operands(node).into_iter();
    let operands: Vec<Option<Operand>> = operands.map(|id| id.map(Operand::Existing)).collect();
    let scale = graph.operand(node, 1).map(|id| graph.value(id));
    let Some((name, scale)) = scale.and_then(|value| Some((&value.name, value.constant()?))) else {
        return;
    };
    let read = graph.uses(floats);
    let is_read_by_body = read.iter().any(|(_, slot)| slot.is_none());
    let mut products = read
        .into_iter()
        .filter_map(|(reader, slot)| Some((reader, slot?)));
    if !is_read_by_body {
        products.next();
    }
    for (reader, at) in products {
        let mut inputs = operands.clone();
        inputs[1] = Some(patch.constant(name, scale.clone()));
        let new = NewNode {
            op: original.op.clone(),
            name: original.name.clone(),
            attributes: original.attributes.clone(),
            inputs,
            metadata: original.metadata.clone(),
        };
        let floats = patch.front().node(new, ty.clone());
        patch.redirect(reader, at, floats);
    }
}
