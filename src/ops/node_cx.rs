//! A node of the graph under construction, as rules that emit see it.

use super::build::{Builder, Expr, Refusal, refuse};
use super::known::Known;
use super::shapes;
use crate::graph::{Node, NodeId, Operand};
use crate::ty::Dim;

/// The largest count that arithmetic on sizes is done with.
pub(super) const MOST: i64 = 1 << 30;

/// A node with its operands and results as expressions.
pub struct NodeCx<'b> {
    pub build: &'b Builder<'b>,
    /// The version of the operator's domain that the model imports.
    pub opset: i64,
    pub node: &'b Node,
    pub(super) id: NodeId,
    operands: Vec<Option<Operand>>,
    pub(super) results: Vec<Option<Operand>>,
}

impl<'b> NodeCx<'b> {
    pub fn new(build: &'b Builder<'b>, opset: i64, id: NodeId) -> Self {
        let graph = build.graph();
        let existing = |value: Option<_>| value.map(Operand::Existing);
        NodeCx {
            build,
            opset,
            node: graph.node(id),
            id,
            operands: graph.operands(id).into_iter().map(existing).collect(),
            results: graph.results(id).into_iter().map(existing).collect(),
        }
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

    /// An attribute that counts heads, rows or columns: within what products of two can hold.
    pub fn count(&self, name: &str) -> Result<i64, Refusal> {
        match self.node.int(name) {
            Some(count) if (1..=MOST).contains(&count) => Ok(count),
            Some(count) => refuse!("its `{name}` is {count}"),
            None => refuse!("it has no `{name}`"),
        }
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
}

/// An axis counted from the end if negative.
pub fn axis(axis: i64, rank: usize) -> Result<usize, Refusal> {
    shapes::axis(axis, rank).map_err(|mismatch| Refusal(mismatch.0))
}
