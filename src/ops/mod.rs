//! What peftc knows about operators: a registry of plain data, one file a family.
//!
//! In: an operator's name, its opset, attributes and what is known about its operands. Out: the
//! types of its results ([`OpDef::infer`]) and, for the arithmetic that exporters do on shapes,
//! their values as symbolic dimensions ([`OpDef::fold`]). Look-up is by (domain, name, version):
//! the newest entry that is not newer than the model's opset. An operator that is not here is no
//! error: nothing is known about its results.
//!
//! What holds: a rule claims only what is true for every run that ONNX Runtime completes; a size
//! that it cannot tell is a fresh symbol, never a guess. Rules never panic, whatever the
//! attributes and operands are, and say [`Mismatch`] where the operands cannot fit together.
//!
//! Not here: walking a graph (`passes`), diagnostics, any reading of weights. Adding an operator is
//! one entry in one family's table; see `README.md` beside this file.

mod arithmetic;
mod build;
mod cx;
mod einsum;
mod emit;
mod form;
mod grad;
mod infer_node;
mod known;
mod lower;
mod node_cx;
mod registry;
mod shapes;

mod activation;
mod attention;
mod constant;
mod control_flow;
mod conv;
mod elementwise;
mod fused;
mod gather;
mod matmul;
mod movement;
mod normalization;
mod pool;
mod quantized;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod select;
mod shape;
mod slice;
mod split;
mod window;

#[cfg(test)]
mod check;

pub use build::{Builder, END, Expr, KnownValues, Refusal};
pub use cx::{InferCx, Mismatch, OperandFacts, Outcome};
pub use emit::{DRAW, Emitter, NOISE, encode_float};
pub use grad::{Around, Given, GradCx, GradOutcome};
pub use infer_node::{Call, Evaluated, evaluate_node, infer_node};
pub use known::{Element, Known};
pub use lower::LowerCx;
pub use node_cx::NodeCx;
pub use registry::{Arity, Control, Fold, Grad, Infer, MICROSOFT, OpDef, find};

/// Every operator, by family.
pub static FAMILIES: &[&[OpDef]] = &[
    elementwise::OPS,
    activation::OPS,
    matmul::OPS,
    reduce::OPS,
    shape::OPS,
    movement::OPS,
    gather::OPS,
    select::OPS,
    constant::OPS,
    normalization::OPS,
    conv::OPS,
    pool::OPS,
    attention::OPS,
    fused::OPS,
    quantized::OPS,
    recurrent::OPS,
    control_flow::OPS,
];
