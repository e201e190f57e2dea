//! Reverse-mode differentiation of a graph.
//!
//! In: a model, a value that is one number (the loss) and values to differentiate it by. Out: the
//! same model with the nodes that compute the gradients behind its own. [`gradients`] is the way in.
//!
//! What holds:
//! * only what lies downstream of a parameter and upstream of the loss is differentiated; a node
//!   there without a gradient rule is an error that shows the way from the parameter to the loss;
//! * a rule (`ops`) says nothing of broadcasting: the sweep sums what was stretched, deciding by
//!   symbolic sizes, adds up the gradients of a value with several readers, and joins those of
//!   slices that lie side by side;
//! * a gradient that is the same along an axis has size 1 there until a rule asks for all of it;
//! * an operator that has no rule but a lowering (attention, fusions) is first written with others,
//!   only where it lies on the way;
//! * emitted nodes are standard ONNX of the model's opset. Their shapes come from the graph's inputs,
//!   never from a computed value. The forward nodes stay as they are; some give a further result
//!   (the statistics of a normalization).
//!
//! Not here: what an operator's gradient is (`ops`), losses and optimizers.

mod activity;
#[cfg(test)]
mod chain_tests;
mod errors;
mod fit;
mod lower;
mod recompute;
mod sweep;
#[cfg(test)]
mod tests;

pub use recompute::{Waits, recompute};

use crate::diag::{Reported, Sink};
use crate::graph::{Model, Operand, ValueId};
use crate::ops::Builder;
use crate::passes;
use activity::Activity;
use rustc_hash::FxHashMap;

/// The first opset whose operators every rule can be written in, but for those that say otherwise.
const OLDEST_OPSET: i64 = 11;

/// Appends the gradients of `loss` with respect to each of `wrt` to the model and returns them, in
/// the same order. A gradient has the element type and the shape of its parameter.
///
/// The loss is a float of one element, whatever its rank; its own gradient is 1. A parameter is any
/// float value of the top graph: an initializer, an input or a computed value. Values keep their
/// ids and their names. One value may be the gradient of several parameters.
///
/// Types are inferred on the way; they need not be there. Fails when a node between a parameter and
/// the loss cannot be differentiated, when a parameter does not reach the loss, and when the loss is
/// not one float. The model has not been changed then.
pub fn gradients(
    model: &mut Model,
    loss: ValueId,
    wrt: &[ValueId],
    sink: &mut Sink,
) -> Result<Vec<ValueId>, Reported> {
    check_opset(model, sink)?;
    let values = passes::infer_values(model, sink)?;
    activity::check_loss(model, loss, sink)?;
    let seed = Seed {
        value: loss,
        gradient: None,
    };
    append(model, &values, &[seed], wrt, sink).map(|found| found.of)
}

/// [`gradients`] of a loss that is not in the graph, or whose derivative is known in closed form:
/// `gradient` is its derivative by `value`, of the same element type and shape.
pub fn gradients_from(
    model: &mut Model,
    value: ValueId,
    gradient: ValueId,
    wrt: &[ValueId],
    sink: &mut Sink,
) -> Result<Gradients, Reported> {
    check_opset(model, sink)?;
    let values = passes::infer_values(model, sink)?;
    let seed = Seed {
        value,
        gradient: Some(gradient),
    };
    append(model, &values, &[seed], wrt, sink)
}

/// Gradients in a graph.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of what was asked for, in its order, type and shape.
    pub of: Vec<ValueId>,
    /// Of every value on the way, in a shape that broadcasts to its own.
    pub all: FxHashMap<ValueId, ValueId>,
}

/// Where the sweep starts.
struct Seed {
    value: ValueId,
    /// The derivative of the loss by it; `None` for the loss itself.
    gradient: Option<ValueId>,
}

/// Refuses a model whose opset lacks what gradients are written in.
pub fn check_opset(model: &Model, sink: &mut Sink) -> Result<(), Reported> {
    match model.opset("").unwrap_or(0) {
        opset if opset < OLDEST_OPSET => Err(sink.emit(errors::opset_too_old(&model.name, opset))),
        _ => Ok(()),
    }
}

fn append(
    model: &mut Model,
    values: &passes::Values,
    seeds: &[Seed],
    wrt: &[ValueId],
    sink: &mut Sink,
) -> Result<Gradients, Reported> {
    let roots: Vec<ValueId> = seeds.iter().map(|seed| seed.value).collect();
    let activity = Activity::find(model, &roots, wrt, sink)?;
    if lower::lowered(model, &activity).is_empty() {
        return sweep_over(model, values, &activity, seeds, wrt, sink);
    }
    // On a copy: a failure leaves the model as it was.
    let mut lowered = model.clone();
    let latest = lower::lower(&mut lowered, values, &roots, wrt, sink)?;
    let values = latest.as_ref().unwrap_or(values);
    let activity = Activity::find(&lowered, &roots, wrt, sink)?;
    let found = sweep_over(&mut lowered, values, &activity, seeds, wrt, sink)?;
    *model = lowered;
    Ok(found)
}

fn sweep_over(
    model: &mut Model,
    values: &passes::Values,
    activity: &Activity,
    seeds: &[Seed],
    wrt: &[ValueId],
    sink: &mut Sink,
) -> Result<Gradients, Reported> {
    let build = Builder::new(&model.graph, values.all(), model.opset("").unwrap_or(0));
    let found = sweep::run(&build, model, activity, seeds, wrt)
        .map_err(|diagnostic| sink.emit(*diagnostic))?;
    let patch = build.finish();
    let applied = model
        .graph
        .apply(patch)
        .map_err(|why| sink.emit(errors::patch_refused(&model.name, &why)))?;
    let resolved = |operand: Operand| match operand {
        Operand::Existing(id) | Operand::Original(id) => id,
        Operand::New(index) => applied.values[index as usize],
    };
    let all = found.all.into_iter();
    Ok(Gradients {
        of: found.of.into_iter().map(resolved).collect(),
        all: all.map(|(value, of)| (value, resolved(of))).collect(),
    })
}
