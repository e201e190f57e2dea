//! A model: a graph with what ONNX says about it as a whole.

use super::{Graph, Origin, ValueId, ValueKind};
use crate::ty::DType;

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
    /// A model that is read from no file, with a version of the default domain.
    pub fn new(name: &str, graph: Graph, ir_version: i64, opset: i64) -> Model {
        Model {
            name: name.to_owned(),
            graph,
            ir_version,
            opsets: vec![(String::new(), opset)],
            metadata: Vec::new(),
            header: None,
            source: None,
        }
    }

    /// Another graph in the versions of this model and under its name.
    pub fn around(&self, graph: Graph) -> Model {
        Model {
            opsets: self.opsets.clone(),
            ..Model::new(&self.name, graph, self.ir_version, 1)
        }
    }

    /// The input that tells tokens (1) from padding (0): `attention_mask[batch, tokens]`.
    pub fn padding_mask(&self) -> Option<ValueId> {
        let id = self.graph.find_value("attention_mask")?;
        let value = self.graph.value(id);
        let rank = value.ty.as_ref()?.shape.as_ref()?.rank();
        (matches!(value.kind, ValueKind::Input { .. }) && rank == 2).then_some(id)
    }

    /// The input that holds the ids of the tokens: `input_ids[batch, tokens]`.
    pub fn token_ids(&self) -> Option<ValueId> {
        let id = self.graph.find_value("input_ids")?;
        let value = self.graph.value(id);
        let ty = value.ty.as_ref()?;
        let is_ids = matches!(ty.dtype, DType::I32 | DType::I64) && ty.shape.as_ref()?.rank() == 2;
        (matches!(value.kind, ValueKind::Input { .. }) && is_ids).then_some(id)
    }

    /// The version of a domain that the model imports; `ai.onnx` is the default domain.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        self.opsets
            .iter()
            .find(|(name, _)| name == domain)
            .map(|(_, version)| *version)
    }
}
