//! peftc: compiles adapter specifications and ONNX models.

pub mod diag;
pub mod files;
pub mod graph;
pub mod modules;
pub mod onnx;
pub mod syntax;
pub mod ty;
