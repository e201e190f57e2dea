//! Operators written with others: fusions of ONNX Runtime and of late opsets.
//!
//! In: a node ([`LowerCx`]). Out: its results as expressions of its operands, in operators that
//! have gradient rules and compute the same. Only a node on the way of a gradient is rewritten; all
//! others stay fused. What a node asks for and its lowering does not have is refused.

mod attention;
mod cx;
mod fused;
mod grouped;
mod heads;
mod multi_head;

pub(super) use attention::attention;
pub use cx::LowerCx;
pub(super) use fused::{
    bias_split_gelu, embed_norm, fused_conv, fused_gemm, fused_matmul, group_norm, skip_layer_norm,
    skip_rms_norm,
};
pub(super) use grouped::grouped;
pub(super) use multi_head::{multi_head, packed};
