//! What a gradient rule sees of a node, and what it says.

use crate::graph::NodeId;
use crate::ops::build::{Builder, Expr, Refusal, refuse};
use crate::ops::node_cx::NodeCx;
use crate::ty::{DType, Dim, Shape, TensorType};
use std::cell::Cell;
use std::ops::Deref;

/// What a rule returns; the gradients are set on the context.
pub type GradOutcome = Result<(), Refusal>;

/// A gradient of an operand.
#[derive(Clone, Copy)]
pub enum Given<'b> {
    /// Of all of it, up to broadcasting.
    Whole(Expr<'b>),
    /// Of the part of one axis from `start` up to `end`; zero elsewhere.
    Part {
        axis: usize,
        start: i64,
        end: i64,
        value: Expr<'b>,
    },
}

/// One node while the gradients of its operands are emitted.
pub struct GradCx<'b> {
    at: NodeCx<'b>,
    incoming: Vec<Option<Expr<'b>>>,
    /// Which of them the rule has asked for.
    followed: Vec<Cell<bool>>,
    needs: Vec<bool>,
    given: Vec<(usize, Given<'b>)>,
}

impl<'b> Deref for GradCx<'b> {
    type Target = NodeCx<'b>;

    fn deref(&self) -> &NodeCx<'b> {
        &self.at
    }
}

impl<'b> GradCx<'b> {
    /// `incoming` holds the gradients of the results by slot, `needs` which operands want theirs.
    pub fn new(
        build: &'b Builder<'b>,
        opset: i64,
        id: NodeId,
        incoming: Vec<Option<Expr<'b>>>,
        needs: Vec<bool>,
    ) -> Self {
        GradCx {
            at: NodeCx::new(build, opset, id),
            followed: vec![Cell::new(false); incoming.len()],
            incoming,
            needs,
            given: Vec::new(),
        }
    }

    /// The gradients by operand, unless a gradient has arrived that the rule did not look at.
    pub fn finish(self) -> Result<Vec<(usize, Given<'b>)>, Refusal> {
        let followed = self.incoming.iter().zip(&self.followed);
        let mut lost = followed.map(|(incoming, followed)| incoming.is_some() && !followed.get());
        match lost.position(|lost| lost) {
            Some(slot) => {
                refuse!("the loss depends on its result {slot}, of which no gradient is known")
            }
            None => Ok(self.given),
        }
    }

    /// A result that the node can compute, listed from now on if it was not: statistics and masks
    /// that the forward pass has anyway.
    pub fn saved(
        &mut self,
        slot: usize,
        dtype: DType,
        dims: Vec<Dim>,
    ) -> Result<Expr<'b>, Refusal> {
        if let Ok(found) = self.y(slot) {
            return Ok(found);
        }
        let name = format!(
            "{}.saved{slot}",
            self.build.graph().display_name(self.at.id)
        );
        let ty = TensorType::new(dtype, Shape(dims));
        let found = self.build.further_result(self.at.id, slot, &name, ty);
        if self.at.results.len() <= slot {
            self.at.results.resize(slot + 1, None);
        }
        self.at.results[slot] = Some(found.operand);
        Ok(found)
    }

    /// Has the node compute in the precision of its operands.
    pub fn compute_exactly(&self) {
        let id = self.at.id;
        self.build
            .with_patch(|patch| patch.drop_attribute(id, "accuracy_level"));
    }

    // --- gradients --------------------------------------------------------------------------

    /// The gradient of the first result.
    pub fn dy(&self) -> Result<Expr<'b>, Refusal> {
        match self.dy_of(0) {
            Some(dy) => Ok(dy),
            None => refuse!("a gradient arrives at a result other than its first"),
        }
    }

    /// The gradient of a result; `None` where the loss does not depend on it.
    pub fn dy_of(&self, slot: usize) -> Option<Expr<'b>> {
        if let Some(followed) = self.followed.get(slot) {
            followed.set(true);
        }
        self.incoming.get(slot).copied().flatten()
    }

    /// Whether the operand's gradient is asked for.
    pub fn needs(&self, slot: usize) -> bool {
        self.needs.get(slot).copied().unwrap_or(false)
    }

    /// Sets an operand's gradient, which is emitted only if it is asked for.
    pub fn give(&mut self, slot: usize, gradient: impl FnOnce() -> Expr<'b>) {
        if self.needs(slot) {
            let gradient = gradient();
            self.given.push((slot, Given::Whole(gradient)));
        }
    }

    /// As [`GradCx::give`], for what may be refused.
    pub fn try_give(
        &mut self,
        slot: usize,
        gradient: impl FnOnce() -> Result<Expr<'b>, Refusal>,
    ) -> GradOutcome {
        if self.needs(slot) {
            let gradient = gradient()?;
            self.given.push((slot, Given::Whole(gradient)));
        }
        Ok(())
    }

    /// Sets the gradient of a part of an operand.
    pub fn give_part(&mut self, slot: usize, axis: usize, start: i64, end: i64, value: Expr<'b>) {
        let part = Given::Part {
            axis,
            start,
            end,
            value,
        };
        self.given.push((slot, part));
    }

    /// The gradient of the only operand.
    pub fn only(
        &mut self,
        formula: impl FnOnce(Expr<'b>, Expr<'b>, Expr<'b>) -> Expr<'b>,
    ) -> GradOutcome {
        let (x, y, dy) = (self.x(0)?, self.y(0)?, self.dy()?);
        self.give(0, || formula(x, y, dy));
        Ok(())
    }
}
