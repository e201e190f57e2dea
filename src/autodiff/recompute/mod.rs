//! Activations that the backward pass computes again instead of finding them kept.
//!
//! In: a model with its gradients. Out: the same model, in which nodes of the backward pass read
//! copies of activations, made by copies of forward nodes.
//!
//! What holds:
//! * The forward pass is cut into blocks where few bytes are alive between its nodes; in a
//!   transformer that is the one hidden state between its layers (`blocks.rs`). What crosses a cut is
//!   kept, what is inside a block is not.
//! * A copy has the operator, the attributes and the operands of its original, dropout masks
//!   included: it computes the same numbers.
//! * The copies of a block wait for the gradient of what the block gives to the next one: what they
//!   read is chosen by that gradient, from twice the same (its shape, or itself), so that no runtime
//!   takes copy and original for the same, nor computes all copies at once (`copies.rs`).
//! * What does not depend on the batch (weights that are unpacked), what is small, and what is drawn
//!   at random by the runtime is kept, not computed again.
//!
//! Not here: whether it is worth it (`train`).

mod blocks;
mod copies;
mod forward;
#[cfg(test)]
mod tests;

use super::{Gradients, errors};
use crate::diag::{Reported, Sink};
use crate::graph::{Model, ValueId};
use crate::ops::Builder;
use crate::passes;
use crate::ty::TensorType;
use blocks::blocks;
use copies::Copies;
use forward::Forward;

/// How what copies read waits for a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Waits {
    /// As a `Reshape` of itself to a shape that the gradient chooses: nothing is copied. Shapes lie on
    /// the host, so that a GPU would stop for each, and could not record the step.
    #[default]
    AsView,
    /// As a copy on the device.
    AsCopy,
}

/// Has the backward pass compute activations again, block by block; answers with how many blocks do.
///
/// `output` is what the loss is of, `wrt` what the gradients are of, and `bytes` the size of a value
/// for a batch as it will come. Values keep their ids and their names.
pub fn recompute(
    model: &mut Model,
    output: ValueId,
    gradients: &Gradients,
    wrt: &[ValueId],
    (bytes, waits): (&dyn Fn(&TensorType) -> u64, Waits),
    sink: &mut Sink,
) -> Result<usize, Reported> {
    let values = passes::infer_values(model, sink)?;
    let Some(forward) = Forward::find(&model.graph, output, wrt, bytes) else {
        return Err(sink.emit(errors::patch_refused(&model.name, "the graph has a cycle")));
    };
    let ends = blocks(&forward);
    let copies = Copies::plan(&model.graph, &forward, &ends, gradients);
    let count = copies.count();
    if count == 0 {
        return Ok(0);
    }
    let patch = {
        let build = Builder::new(&model.graph, values.all(), model.opset("").unwrap_or(0));
        copies.emit(&build, waits);
        if let Some(refusal) = build.trouble() {
            let why = refusal.to_string();
            return Err(sink.emit(errors::patch_refused(&model.name, &why)));
        }
        build.finish()
    };
    match model.graph.apply(patch) {
        Ok(_) => Ok(count),
        Err(why) => Err(sink.emit(errors::patch_refused(&model.name, &why))),
    }
}
