//! peftc: compiles adapter specifications and ONNX models.

pub mod adapt;
pub mod cli;
pub mod diag;
pub mod files;
pub mod graph;
pub mod hir;
pub mod modules;
pub mod onnx;
pub mod report;
pub mod runtime;
pub mod stdlib;
pub mod syntax;
pub mod ty;
