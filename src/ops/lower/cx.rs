//! What a lowering sees of a node, and what it says.

use crate::graph::{NodeId, Operand};
use crate::ops::build::{Builder, Expr};
use crate::ops::node_cx::NodeCx;
use std::ops::Deref;

/// One node while it is written with other operators.
pub struct LowerCx<'b> {
    at: NodeCx<'b>,
    found: Vec<Option<Expr<'b>>>,
}

impl<'b> Deref for LowerCx<'b> {
    type Target = NodeCx<'b>;

    fn deref(&self) -> &NodeCx<'b> {
        &self.at
    }
}

impl<'b> LowerCx<'b> {
    pub fn new(build: &'b Builder<'b>, opset: i64, id: NodeId) -> Self {
        let at = NodeCx::new(build, opset, id);
        let found = vec![None; at.result_count()];
        LowerCx { at, found }
    }

    /// The results by slot; `None` where the lowering has none.
    pub fn finish(self) -> Vec<Option<Expr<'b>>> {
        self.found
    }

    /// Whether anything reads a result.
    pub fn is_read(&self, slot: usize) -> bool {
        let graph = self.build.graph();
        graph
            .result(self.at.id, slot)
            .is_some_and(|value| graph.use_count(value) > 0 || graph.is_output(value))
    }

    /// Sets a result; ignored if the node does not list so many.
    pub fn set(&mut self, slot: usize, result: Expr<'b>) {
        let result = match result.operand {
            Operand::New(_) => result,
            // A value of the graph keeps its own producer.
            _ => result.apply("Identity"),
        };
        if let Some(found) = self.found.get_mut(slot) {
            *found = Some(result);
        }
    }
}
