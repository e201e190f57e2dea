//! Training graphs of a planned adapter: written beside the adapted model, and named in the manifest.

use super::session::Planned;
use crate::adapt::Adapted;
use crate::diag::{Reported, Sink};
use crate::files::{self, Staging};
use crate::graph::{ExternalData, Model};
use crate::train::{self, Graphs, Parameter, Port, Recipe, TrainingGraph};
use crate::ty::TensorType;
use serde::Serialize;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufWriter, Write};

/// What is trained, in the order of the plan.
pub fn trained(planned: &Planned, adapted: &Adapted) -> Vec<Parameter> {
    let parameters = planned.plan.parameters.iter().zip(&adapted.tensors);
    parameters
        .filter(|(_, tensor)| tensor.trainable)
        .map(|(parameter, tensor)| Parameter {
            initializer: tensor.initializer.clone(),
            module: parameter.module.clone(),
            name: parameter.parameter.clone(),
        })
        .collect()
}

/// The training graphs of an adapted model.
pub fn training_graphs(
    planned: &Planned,
    adapted: &Adapted,
    model: &Model,
    recipe: &Recipe,
    sink: &mut Sink,
) -> Result<Graphs, Reported> {
    train::graphs(model, &trained(planned, adapted), recipe, sink)
}

/// The adapted model with its frozen weights in 8 bits. Their codes are written to the staged file,
/// which the model names by its `location`.
pub fn rounded(
    model: &Model,
    adapted: &Adapted,
    location: &str,
    staging: &Staging,
    read: &train::ReadWeight<'_>,
    sink: &mut Sink,
) -> Result<Model, Reported> {
    let path = staging.path(location);
    let failed = |error: &io::Error, sink: &mut Sink| sink.emit(files::cannot_write(&path, error));
    let file = File::create(&path).map_err(|error| failed(&error, sink))?;
    let mut file = BufWriter::with_capacity(1 << 18, file);
    let mut end = 0;
    let mut keep = |bytes: &[u8], sink: &mut Sink| {
        let offset = end;
        let length = bytes.len() as u64;
        let padding = length.next_multiple_of(ALIGNMENT) - length;
        file.write_all(bytes)
            .and_then(|()| file.write_all(&vec![0; padding as usize]))
            .map_err(|error| failed(&error, sink))?;
        end += length + padding;
        Ok(ExternalData {
            location: location.to_owned(),
            offset,
            length,
        })
    };
    let adapter = adapted.tensors.iter();
    let adapter = adapter.map(|tensor| tensor.initializer.as_str()).collect();
    let mut model = model.clone();
    train::round_base(&mut model, &adapter, read, &mut keep, sink)?;
    file.flush().map_err(|error| failed(&error, sink))?;
    Ok(model)
}

/// Tensors of a file begin at multiples of this, which no instruction set exceeds.
const ALIGNMENT: u64 = 64;

/// A training graph in the manifest.
#[derive(Debug, Serialize)]
pub struct GraphEntry {
    /// In the manifest's folder.
    pub file: String,
    pub inputs: Vec<PortEntry>,
    pub outputs: Vec<PortEntry>,
}

/// An input or an output of a training graph.
#[derive(Debug, Serialize)]
pub struct PortEntry {
    pub name: String,
    pub role: &'static str,
    pub dtype: &'static str,
    /// Sizes: numbers, and names of those that a batch decides.
    pub shape: Vec<Value>,
    pub module: Option<String>,
    pub parameter: Option<String>,
    /// Of an output: the input of the next run that takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feeds: Option<String>,
}

impl GraphEntry {
    pub fn new(file: String, graph: &TrainingGraph, parameters: &[Parameter]) -> GraphEntry {
        let entry = |port: &Port| {
            let parameter = port.parameter.map(|index| &parameters[index]);
            PortEntry {
                name: port.name.clone(),
                role: port.role.name(),
                dtype: port.ty.dtype.name(),
                shape: shape(&port.ty),
                module: parameter.and_then(|p| p.module.clone()),
                parameter: parameter.map(|p| p.name.clone()),
                feeds: port.feeds.clone(),
            }
        };
        GraphEntry {
            file,
            inputs: graph.inputs.iter().map(entry).collect(),
            outputs: graph.outputs.iter().map(entry).collect(),
        }
    }
}

fn shape(ty: &TensorType) -> Vec<Value> {
    let dims = ty.shape.iter().flat_map(|shape| &shape.0);
    dims.map(|dim| match dim.known() {
        Some(size) => size.into(),
        None => dim.to_string().into(),
    })
    .collect()
}
