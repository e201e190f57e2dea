//! Element types, symbolic dimensions, shapes: their algebra and how they print.
//!
//! A leaf room: everything else may use it. Dimensions are integers of at least 0; a comparison
//! answers [`Proof`], because "cannot prove" is a different sentence from "differs".

mod dim;
mod dtype;
mod shape;

pub use dim::{Dim, DimAlgebra, DimOp, Proof, Symbol};
pub use dtype::DType;
pub use shape::{Shape, TensorType};
