//! The text form of a graph: one line a node, for messages, golden tests and hand-written test
//! graphs.

use super::ir::{Graph, NodeId};
use std::fmt::Write;
use std::ops::Range;

/// A node in text form, with the byte ranges that a message may mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeText {
    pub text: String,
    pub results: Range<usize>,
    pub operator: Range<usize>,
}

impl Graph {
    /// One node as `%out: f32[B, 64] = MatMul(%x, %w) {axis = 1} // name`.
    pub fn node_text(&self, id: NodeId) -> NodeText {
        let node = self.node(id);
        let mut line = String::new();
        for (index, result) in self.results(id).into_iter().enumerate() {
            if index > 0 {
                line.push_str(", ");
            }
            match result {
                Some(value) => {
                    let value = self.value(value);
                    let _ = write!(line, "%{}", value.name);
                    if let Some(ty) = &value.ty {
                        let _ = write!(line, ": {ty}");
                    }
                }
                None => line.push('_'),
            }
        }
        let operands: Vec<String> = self
            .operands(id)
            .into_iter()
            .map(|operand| {
                operand.map_or("_".to_owned(), |value| {
                    format!("%{}", self.value(value).name)
                })
            })
            .collect();
        let results = 0..line.len();
        let _ = write!(line, " = {}", node.op);
        let operator = results.end + " = ".len()..line.len();
        let _ = write!(line, "({})", operands.join(", "));
        NodeText {
            text: line,
            results,
            operator,
        }
    }
}
