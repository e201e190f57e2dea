//! Gradient rules, one file a family.
//!
//! In: a node, its operands and results as expressions, and the gradients of its results
//! ([`GradCx`]). Out: the gradients of those operands that need one, emitted as nodes. A rule's
//! comment is its formula; `dy` is the gradient of the loss with respect to the result.
//!
//! What holds: a rule gives an operand's gradient in any shape that the operand broadcasts to or
//! that broadcasts to the operand: the sweep (`autodiff`) sums and stretches. A rule for an
//! operator that broadcasts says nothing about it. What cannot be derived for a node is refused.

pub(super) mod activation;
mod chain;
pub(super) mod conv;
mod cx;
pub(super) mod einsum;
pub(super) mod elementwise;
pub(super) mod fused;
pub(super) mod gather;
pub(super) mod help;
pub(super) mod matmul;
pub(super) mod movement;
pub(super) mod normalization;
pub(super) mod pool;
pub(super) mod quantized;
pub(super) mod reduce;
pub(super) mod resize;
pub(super) mod select;
pub(super) mod shape;
mod softmax;
mod window;

use crate::ops::node_cx::axis;
pub use cx::{Around, Given, GradCx, GradOutcome};

#[cfg(test)]
mod tests;
