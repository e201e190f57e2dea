//! peftc: compiles adapter specifications and ONNX models.

pub mod diag;
pub mod graph;
pub mod modules;
pub mod syntax;
pub mod ty;
