//! A call of a layer, found but not yet named.

use super::constant::Constant;
use super::level::{At, Levels};
use super::site::{Layout, Obstacle, SiteKind};
use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::ty::DType;
use std::ops::Range;

/// A layer's call as the graph shows it; a fused projection is one call with parts.
#[derive(Clone, Debug)]
pub(super) struct Call<'m> {
    pub level: usize,
    pub node: NodeId,
    pub kind: SiteKind,
    pub input: ValueId,
    pub output: ValueId,
    pub weight: Constant<'m>,
    /// Layout of the weight as the node sees it.
    pub layout: Layout,
    pub bias: Option<Constant<'m>>,
    pub in_features: i64,
    pub out_features: i64,
    pub parts: Vec<Part>,
    pub obstacle: Option<Obstacle>,
    /// Further nodes of the module, whose names and metadata speak of it too: the bias's Add, the
    /// Reshapes around a Gemm.
    pub nearby: Vec<NodeId>,
}

/// One member of a fused projection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The member's last path segment, such as `q_proj`.
    pub name: &'static str,
    /// Its part of the output's last axis.
    pub slice: Range<i64>,
}

impl Call<'_> {
    /// The value that the node reads as its weight.
    pub fn operand(&self) -> ValueId {
        self.weight.values[0].value
    }

    /// Layout of the weight as it is stored.
    pub fn stored(&self) -> Layout {
        if self.weight.transposed {
            self.layout.transposed()
        } else {
            self.layout
        }
    }

    /// Element type of input and output: that of the values where it is known, else the weight's.
    pub fn dtype(&self, graph: &Graph) -> DType {
        let of = |value: ValueId| graph.value(value).ty.as_ref().map(|ty| ty.dtype);
        of(self.output)
            .or_else(|| of(self.input))
            .filter(|dtype| dtype.is_float())
            .unwrap_or(self.weight.dtype)
    }
}

/// One node under examination.
#[derive(Clone, Copy)]
pub(super) struct Here<'a, 'm> {
    pub levels: &'a Levels<'m>,
    pub level: usize,
    pub graph: &'m Graph,
    pub id: NodeId,
    pub node: &'m Node,
}

impl<'a, 'm> Here<'a, 'm> {
    pub fn new(levels: &'a Levels<'m>, level: usize, id: NodeId) -> Self {
        let graph = levels.graph(level);
        Here {
            levels,
            level,
            graph,
            id,
            node: graph.node(id),
        }
    }

    /// Another node of the same graph.
    pub fn at(&self, id: NodeId) -> Self {
        Here::new(self.levels, self.level, id)
    }

    pub fn value(&self, value: ValueId) -> At {
        At {
            level: self.level,
            value,
        }
    }

    pub fn operand(&self, slot: usize) -> Option<ValueId> {
        self.graph.operand(self.id, slot)
    }

    /// The constant behind an operand, if there is one.
    pub fn constant(&self, slot: usize) -> Option<Constant<'m>> {
        self.levels.constant(self.value(self.operand(slot)?))
    }

    /// An operand that is there and is no constant.
    pub fn computed(&self, slot: usize) -> Option<ValueId> {
        let value = self.operand(slot)?;
        self.levels
            .constant(self.value(value))
            .is_none()
            .then_some(value)
    }

    pub fn result(&self) -> Option<ValueId> {
        self.graph.result(self.id, 0)
    }

    /// The node of this graph that computes a value.
    pub fn producer(&self, value: ValueId) -> Option<Here<'a, 'm>> {
        self.graph.producer(value).map(|id| self.at(id))
    }

    /// The one node that reads a value, with the slot, if nothing else does.
    pub fn sole_user(&self, value: ValueId) -> Option<(Here<'a, 'm>, usize)> {
        let (node, slot) = self.graph.sole_use(value)?;
        if self.graph.is_output(value) {
            return None;
        }
        Some((self.at(node), slot?))
    }

    /// Whether it is an operator of ONNX or of ONNX Runtime with this name.
    pub fn is(&self, op_type: &str) -> bool {
        &*self.node.op.op_type == op_type && matches!(&*self.node.op.domain, "" | "com.microsoft")
    }

    pub fn int(&self, attribute: &str, default: i64) -> i64 {
        self.node.int(attribute).unwrap_or(default)
    }
}
