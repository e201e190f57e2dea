//! What a gradient rule sees of a node, and what it says.

use crate::graph::{Node, NodeId, Operand};
use crate::ops::build::{Builder, Expr, Refusal, refuse};
use crate::ops::known::Known;
use crate::ty::{DType, Dim, Shape, TensorType};

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
    pub build: &'b Builder<'b>,
    /// The version of the operator's domain that the model imports.
    pub opset: i64,
    pub node: &'b Node,
    id: NodeId,
    operands: Vec<Option<Operand>>,
    results: Vec<Option<Operand>>,
    incoming: Vec<Option<Expr<'b>>>,
    needs: Vec<bool>,
    given: Vec<(usize, Given<'b>)>,
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
        let graph = build.graph();
        let existing = |value: Option<_>| value.map(Operand::Existing);
        GradCx {
            build,
            opset,
            node: graph.node(id),
            id,
            operands: graph.operands(id).into_iter().map(existing).collect(),
            results: graph.results(id).into_iter().map(existing).collect(),
            incoming,
            needs,
            given: Vec::new(),
        }
    }

    /// The gradients by operand.
    pub fn finish(self) -> Vec<(usize, Given<'b>)> {
        self.given
    }

    // --- attributes -------------------------------------------------------------------------

    pub fn int_or(&self, name: &str, default: i64) -> i64 {
        self.node.int(name).unwrap_or(default)
    }

    /// Whether an integer attribute is present and not 0.
    pub fn flag(&self, name: &str) -> bool {
        self.int_or(name, 0) != 0
    }

    pub fn float_or(&self, name: &str, default: f64) -> f64 {
        self.node.float(name).map_or(default, f64::from)
    }

    /// The attribute `axis` of a tensor with so many axes.
    pub fn axis(&self, default: i64, rank: usize) -> Result<usize, Refusal> {
        axis(self.int_or("axis", default), rank)
    }

    // --- operands and results ---------------------------------------------------------------

    pub fn operand_count(&self) -> usize {
        self.operands.len()
    }

    pub fn result_count(&self) -> usize {
        self.results.len()
    }

    /// An operand that may be absent.
    pub fn maybe_x(&self, slot: usize) -> Option<Expr<'b>> {
        let operand = self.operands.get(slot).copied().flatten()?;
        Some(self.build.expr(operand))
    }

    pub fn x(&self, slot: usize) -> Result<Expr<'b>, Refusal> {
        match self.maybe_x(slot) {
            Some(x) => Ok(x),
            None => refuse!("its operand {slot} is absent"),
        }
    }

    /// The sizes of an operand.
    pub fn dims(&self, slot: usize) -> Result<Vec<Dim>, Refusal> {
        self.x(slot)?.dims()
    }

    pub fn rank(&self, slot: usize) -> Result<usize, Refusal> {
        self.x(slot)?.rank()
    }

    /// The elements of a small operand, where something is known of them.
    pub fn known(&self, slot: usize) -> Option<Known> {
        self.build.known(self.maybe_x(slot)?.operand)
    }

    /// The elements of a small operand, if all are numbers: axes, pads, sizes.
    pub fn numbers(&self, slot: usize) -> Option<Vec<i64>> {
        self.known(slot)?.numbers()
    }

    /// The only element of an operand, if it is a known number.
    pub fn float_operand(&self, slot: usize) -> Option<f64> {
        self.known(slot)?.single()?.float()
    }

    pub fn y(&self, slot: usize) -> Result<Expr<'b>, Refusal> {
        match self.results.get(slot).copied().flatten() {
            Some(y) => Ok(self.build.expr(y)),
            None => refuse!("its result {slot} is absent"),
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
        let name = format!("{}.saved{slot}", self.build.graph().display_name(self.id));
        let ty = TensorType::new(dtype, Shape(dims));
        let found = self.build.further_result(self.id, slot, &name, ty);
        if self.results.len() <= slot {
            self.results.resize(slot + 1, None);
        }
        self.results[slot] = Some(found.operand);
        Ok(found)
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

/// An axis counted from the end if negative.
pub fn axis(axis: i64, rank: usize) -> Result<usize, Refusal> {
    crate::ops::shapes::axis(axis, rank).map_err(|mismatch| Refusal(mismatch.0))
}
