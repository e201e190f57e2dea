//! The graph IR: ONNX's nodes and values as a bipartite graph, with ids that stay valid.
//!
//! In: what `onnx::import` builds, or a [`Builder`]-style series of calls in tests. Out: a
//! [`Graph`] that other rooms read freely and change only through a [`Patch`]; with its blocks in
//! another order, or several times, it is a new graph ([`Graph::in_sequence`]).
//!
//! What holds:
//! * a node's operands and results are edges with a slot; an absent optional operand is a slot
//!   without an edge; a value has at most one producer;
//! * every value has a name that is unique in its graph; names are opaque UTF-8;
//! * a value captured by a subgraph is an operand edge of the node that owns the subgraph, and has
//!   the same name inside and outside. Replacing a value's uses moves its name to the replacement,
//!   so graph outputs and captures keep their names and bodies need no rewriting;
//! * [`Graph::order`] is a topological order that reproduces the imported order and puts inserted
//!   nodes directly behind their anchor.
//!
//! Not here: protobuf (an imported item may carry its serialized form as an opaque [`Origin`],
//! dropped as soon as the item changes), operator semantics, and any reading of weights.

mod apply;
mod attribute;
mod ir;
mod model;
mod names;
mod order;
mod patch;
mod prune;
mod sequence;
mod take_over;
mod tensor;
mod text;
mod verify;

pub use attribute::{Attribute, AttributeValue};
pub use ir::{Graph, Node, NodeId, OpName, Origin, Slots, Value, ValueId, ValueKind};
pub use model::Model;
pub use patch::{Applied, NewNode, Operand, Patch};
pub use sequence::{Block, Place, Rename};
pub use tensor::{ExternalData, Tensor, TensorData, decode_floats};
pub use text::NodeText;
pub use verify::Fault;
