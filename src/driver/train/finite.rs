//! What ends a run because it is no number: a loss, a gradient, a parameter.

use super::session::Carried;
use super::stepper::{Stepper, Updated};
use std::ops::Range;

/// What of an update is not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bad {
    /// The loss of a batch.
    Loss { batch: usize, loss: f64 },
    /// The norm of all gradients together, and the first batch whose gradient is not finite, where
    /// batches have gradients of their own and one of them is to blame.
    Gradient { batch: Option<usize>, norm: f64 },
}

impl Bad {
    /// The first thing of an update that is not finite. A gradient may be none where the loss is a
    /// number: that of `Sqrt` at 0 is infinite.
    pub fn of(updated: &Updated) -> Option<Bad> {
        let mut losses = updated.losses.iter().enumerate();
        if let Some((batch, loss)) = losses.find(|(_, loss)| !loss.is_finite()) {
            return Some(Bad::Loss { batch, loss: *loss });
        }
        (!updated.grad_norm.is_finite()).then_some(Bad::Gradient {
            batch: updated.bad_gradient,
            norm: updated.grad_norm,
        })
    }

    /// Which batches of so many it may come from.
    pub fn batches(self, count: usize) -> Range<usize> {
        match self {
            Bad::Loss { batch, .. }
            | Bad::Gradient {
                batch: Some(batch), ..
            } => batch..batch + 1,
            Bad::Gradient { batch: None, .. } => 0..count,
        }
    }

    /// What it is and what it comes to.
    pub fn words(self) -> (&'static str, f64) {
        match self {
            Bad::Loss { loss, .. } => ("loss", loss),
            Bad::Gradient { norm, .. } => ("norm of the gradients", norm),
        }
    }
}

/// A trained tensor that is not finite. A gradient may be finite and the change by it not: a learning
/// rate is an `f32`.
pub(super) fn bad_parameter(step: &Stepper) -> Option<&Carried> {
    let mut carried = step.carried.iter();
    carried.find(|carried| {
        // The state of the optimizer is twice as large, and what is wrong with it shows in a parameter.
        carried.parameter.is_some()
            && step
                .get(&carried.name)
                .and_then(|value| value.to_f64s())
                .is_some_and(|values| values.iter().any(|value| !value.is_finite()))
    })
}
