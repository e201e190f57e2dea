//! Fused computations: many elementwise operators, sums along rows and what losses do with a row, in one
//! walk over memory, and attention as a whole ([`attention`]).
//!
//! In: a [`Program`], short steps over rows of tensors, and the tensors. Out: its results. A row is
//! what lies along the last axis; tensors with fewer or shorter axes are stretched over the others,
//! as ONNX broadcasts. The steps of a row, or of a piece of one, are computed one after the other in
//! memory that the processor keeps close, so that what lies between them is never written out.
//!
//! What holds: a program says nothing of sizes and is checked against them before it runs; no input
//! makes it panic; the results of a row depend on nothing but its operands, so that they are the same
//! bytes with any number of threads; processors that multiply and add in one instruction round once
//! where others round twice. Numbers agree
//! with those of the operators one by one up to rounding ([`math`] states how closely).
//!
//! Not here: finding what can be fused (`passes`), threads and ONNX Runtime (`runtime`).

pub mod attention;
mod lanes;
mod math;
mod memory;
mod plan;
mod program;
mod run;
#[cfg(test)]
mod tests;

pub use memory::{Source, Target};
pub use plan::Plan;
pub use program::{Kind, Op, Program, Step};
pub use run::Run;

/// The domain of these operators; it occurs in no file.
pub const DOMAIN: &str = "peftc";
/// The operator that runs a program, and the attribute that holds it.
pub const OPERATOR: &str = "Rows";
pub const PROGRAM: &str = "program";
