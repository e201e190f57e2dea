//! peftc's own evaluator of ONNX graphs, in f64: the independent witness.
//!
//! In: a model and its inputs. Out: its outputs, or where and why the run ended. Gradient rules,
//! lowerings and merges are checked against it; it never runs for a user's model in production.
//!
//! What holds:
//! * floats are computed in f64, whatever width is declared, and a `Cast` to a narrower float
//!   keeps f64 unless [`Rounding::Declared`] is asked for: central differences stay smooth.
//!   Quantization rounds as it is defined to. Integers are exact, cut to the width of their type;
//! * a run never panics, whatever model and inputs are: sizes that data state are refused beyond a
//!   limit, and so are turns of a loop;
//! * evaluations are found by (domain, name, version), one family a file, and share no code with
//!   the rooms that they are a witness for.
//!
//! Tensors are plain vectors in row-major order ([`Array`]) and rearranging is a list of positions:
//! a dozen walks are all that the operators need, and every one of them returns an error where a
//! crate for tensors (`ndarray` has five dependencies) panics.
//!
//! Not here: speed beyond small models, strings, sequences, random numbers.

mod array;
mod bodies;
mod cx;
mod decode;
mod fault;
mod minifloat;
mod plan;
mod run;
mod sizes;
mod table;

mod activation;
mod attention;
mod attention_fused;
mod attention_grouped;
mod attention_linear;
mod blocks;
mod cast;
mod cells;
mod constant;
mod conv;
mod deform;
mod einsum;
mod elementwise;
mod fused;
mod gather;
mod heads;
mod matmul;
mod movement;
mod normalization;
mod packed;
mod pool;
mod qlinear;
mod quantized;
mod recurrent;
mod reduce;
mod regions;
mod resize;
mod rows;
mod sample;
mod select;
mod shape;
mod special;
mod suppression;
mod window;

#[cfg(test)]
mod check;
#[cfg(test)]
mod robust_tests;
#[cfg(test)]
mod tests;

pub use array::{Array, Elements};
pub use decode::{decode, encode};
pub use fault::{Failure, Fault};
pub use run::{Call, Evaluator, Options, Rounding, evaluate, run};

use table::Entry;

/// Every evaluation, by family.
static FAMILIES: &[&[Entry]] = &[
    elementwise::OPS,
    activation::OPS,
    matmul::OPS,
    reduce::OPS,
    shape::OPS,
    cast::OPS,
    movement::OPS,
    gather::OPS,
    constant::OPS,
    normalization::OPS,
    bodies::OPS,
    einsum::OPS,
    blocks::OPS,
    select::OPS,
    conv::OPS,
    pool::OPS,
    fused::OPS,
    quantized::OPS,
    qlinear::OPS,
    packed::OPS,
    attention::OPS,
    attention_fused::OPS,
    attention_grouped::OPS,
    attention_linear::OPS,
    recurrent::OPS,
    resize::OPS,
    sample::OPS,
    deform::OPS,
    regions::OPS,
    suppression::OPS,
];
