//! A model: a graph with what ONNX says about it as a whole.

use super::{Graph, Origin};

/// An imported model after its local functions have been inlined.
#[derive(Clone, Debug)]
pub struct Model {
    /// The file's name without its folder, as messages show it.
    pub name: String,
    pub graph: Graph,
    pub ir_version: i64,
    /// Domain and version, in the order of the file; the default domain is written "".
    pub opsets: Vec<(String, i64)>,
    /// Model-level key/value metadata.
    pub metadata: Vec<(String, String)>,
    /// Producer, documentation and other fields of the model that are carried unchanged.
    pub header: Option<Origin>,
    /// The file that it was read from: unchanged items carry slices of it.
    pub source: Option<Origin>,
}

impl Model {
    /// The version of a domain that the model imports; `ai.onnx` is the default domain.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        self.opsets
            .iter()
            .find(|(name, _)| name == domain)
            .map(|(_, version)| *version)
    }
}
