//! Training graphs of a planned adapter: written beside the adapted model, and named in the manifest.

use super::errors;
use super::session::Planned;
use crate::adapt::{Adapted, random_tensor};
use crate::diag::{Reported, Sink};
use crate::files::{self, Staging};
use crate::graph::{ExternalData, Model, Tensor, TensorData, ValueId};
use crate::hir::{Compiled, Random};
use crate::passes;
use crate::train::{
    self, Base, Graphs, Parameter, PlannedHead, Port, Rate, Role, TrainingGraph, Trains,
};
use crate::ty::{DType, TensorType};
use bytes::Bytes;
use rustc_hash::FxHashMap;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// A tensor of the adapter: the plan's, or the head's.
pub(super) struct Brought {
    /// In the weights file.
    pub name: String,
    /// In the model.
    pub initializer: String,
    /// Path of its module; `None` for one that several modules share.
    pub module: Option<String>,
    /// Its name in the method or in the module.
    pub parameter: String,
    pub trainable: bool,
    /// What its learning rate is multiplied with, besides what a recipe says.
    pub rate: f64,
    pub tensor: Tensor,
}

/// The tensors of a plan, in its order.
pub(super) fn brought(planned: &Planned, adapted: Adapted, trains: Trains) -> Vec<Brought> {
    let parameters = planned.plan.parameters.iter().zip(adapted.tensors);
    parameters
        .map(|(parameter, tensor)| Brought {
            name: tensor.name,
            initializer: tensor.initializer,
            module: parameter.module.clone(),
            parameter: parameter.parameter.clone(),
            trainable: tensor.trainable && trains == Trains::HeadAndAdapter,
            rate: parameter.rate,
            tensor: tensor.tensor,
        })
        .collect()
}

/// Adds a head to an adapted model: its tensors are those of `values`, or drawn. Answers with the
/// output that it adds, too.
pub(super) fn with_head(
    head: &PlannedHead,
    model: &mut Model,
    seed: u64,
    values: &BTreeMap<String, Tensor>,
    sink: &mut Sink,
) -> Result<(Vec<Brought>, String), Reported> {
    let tensor = |name: &str, dims: &[i64]| {
        let stored = tensor_name(head, name);
        match values.get(&stored) {
            Some(value) => value.clone(),
            // As BERT's heads start: small weights, and no bias.
            None if name == "weight" => {
                random_tensor(Random::Normal(0.0, 0.02), dims, seed, &stored)
            }
            None => Tensor::from_f32(dims, &vec![0.0; dims.iter().product::<i64>() as usize]),
        }
    };
    let parameters = head.parameters();
    let tensors = parameters.iter().map(|(name, dims)| tensor(name, dims));
    let tensors: Vec<Tensor> = tensors.collect();
    let added = train::add_head(model, head, &tensors, sink)?;
    let all = parameters.iter().zip(added.initializers).zip(tensors);
    let all = all.map(|(((name, _), initializer), tensor)| Brought {
        name: tensor_name(head, name),
        initializer,
        module: Some(head.module.clone()),
        parameter: (*name).to_owned(),
        trainable: true,
        rate: 1.0,
        tensor,
    });
    Ok((all.collect(), added.output))
}

/// The name of a head's tensor in the weights file.
pub(super) fn tensor_name(head: &PlannedHead, parameter: &str) -> String {
    format!("{}.{parameter}", head.module)
}

/// The model with its flags fixed, without branches that are never taken, and with caches of earlier
/// tokens empty.
pub(super) fn specialized<'m>(
    model: &'m Model,
    flags: &[(String, bool)],
    sink: &mut Sink,
) -> Result<Cow<'m, Model>, Reported> {
    let mut nodes = model.graph.node_ids();
    let has_branches = nodes.any(|node| model.graph.node(node).op.is("If"));
    let mut specialized = Cow::Borrowed(model);
    if !flags.is_empty() || has_branches {
        passes::specialize(specialized.to_mut(), flags, sink)?;
    }
    if passes::has_past(&specialized) {
        passes::without_past(specialized.to_mut(), sink)?;
    }
    Ok(specialized)
}

/// What is trained, in the order of the adapter's tensors. A rate of the recipe is multiplied with that of
/// the method.
pub(super) fn trained(
    all: &[Brought],
    rates: &[Rate],
    sink: &mut Sink,
) -> Result<Vec<Parameter>, Reported> {
    let trained: Vec<&Brought> = all.iter().filter(|tensor| tensor.trainable).collect();
    let mut parameters: Vec<(String, Parameter)> = trained
        .iter()
        .map(|tensor| {
            let parameter = Parameter {
                initializer: tensor.initializer.clone(),
                module: tensor.module.clone(),
                name: tensor.parameter.clone(),
                rate: tensor.rate,
            };
            (tensor.name.clone(), parameter)
        })
        .collect();
    for rate in rates {
        let glob = Compiled::glob(&rate.parameters);
        let glob = glob.map_err(|why| sink.emit(errors::bad_rate(&rate.parameters, &why)))?;
        let pairs = parameters.iter_mut().zip(&trained);
        let found = pairs.filter(|((name, _), _)| glob.matches(name));
        let count = found
            .map(|((_, parameter), tensor)| parameter.rate = tensor.rate * rate.times)
            .count();
        if count == 0 {
            let names = parameters
                .iter()
                .map(|(_, parameter)| parameter.name.as_str());
            return Err(sink.emit(errors::rate_of_nothing(&rate.parameters, names)));
        }
    }
    Ok(parameters
        .into_iter()
        .map(|(_, parameter)| parameter)
        .collect())
}

/// The file of frozen weights that training graphs share.
pub(super) struct BaseData {
    location: String,
    path: PathBuf,
    file: BufWriter<File>,
    end: u64,
}

impl BaseData {
    /// A staged file, which graphs name by its `location`.
    pub fn create(
        location: String,
        staging: &Staging,
        sink: &mut Sink,
    ) -> Result<BaseData, Reported> {
        let path = staging.path(&location);
        let file =
            File::create(&path).map_err(|error| sink.emit(files::cannot_write(&path, &error)))?;
        Ok(BaseData {
            location,
            path,
            file: BufWriter::with_capacity(1 << 18, file),
            end: 0,
        })
    }

    pub fn keep(&mut self, bytes: &[u8], sink: &mut Sink) -> Result<ExternalData, Reported> {
        let offset = self.end;
        let length = bytes.len() as u64;
        let padding = length.next_multiple_of(ALIGNMENT) - length;
        let written = self
            .file
            .write_all(bytes)
            .and_then(|()| self.file.write_all(&vec![0; padding as usize]));
        written.map_err(|error| sink.emit(files::cannot_write(&self.path, &error)))?;
        self.end += length + padding;
        Ok(ExternalData {
            location: self.location.clone(),
            offset,
            length,
        })
    }

    /// The file's name, if there is anything in it.
    pub fn finish(mut self, sink: &mut Sink) -> Result<Option<String>, Reported> {
        let flushed = self.file.flush();
        flushed.map_err(|error| sink.emit(files::cannot_write(&self.path, &error)))?;
        Ok((self.end > 0).then_some(self.location))
    }
}

/// The adapted model with its frozen weights in fewer bits.
pub(super) fn rounded(
    model: &Model,
    base: Base,
    tensors: &[Brought],
    rounding: train::Rounding<'_>,
    sink: &mut Sink,
) -> Result<Model, Reported> {
    let adapter = tensors.iter();
    let adapter = adapter.map(|tensor| tensor.initializer.as_str()).collect();
    let mut model = model.clone();
    train::round_base(&mut model, base, &adapter, rounding, sink)?;
    Ok(model)
}

/// Moves what graphs have in common out of them: each tensor of the model is written once.
pub(super) fn share(
    graphs: &mut Graphs,
    data: &mut BaseData,
    sink: &mut Sink,
) -> Result<(), Reported> {
    // By where the elements lie in memory: graphs of one model have them from there.
    let mut kept: FxHashMap<(usize, usize), ExternalData> = FxHashMap::default();
    let all = [
        &mut graphs.step,
        &mut graphs.grad,
        &mut graphs.update,
        &mut graphs.eval,
    ];
    for graph in all.map(|graph| &mut graph.model.graph) {
        let large: Vec<(ValueId, Bytes)> = graph
            .initializers()
            .iter()
            .filter_map(|id| match &graph.value(*id).constant()?.data {
                TensorData::Raw(bytes) if bytes.len() >= SHARED => Some((*id, bytes.clone())),
                _ => None,
            })
            .collect();
        for (id, bytes) in large {
            let key = (bytes.as_ptr() as usize, bytes.len());
            let place = match kept.get(&key) {
                Some(place) => place.clone(),
                None => {
                    let place = data.keep(&bytes, sink)?;
                    kept.insert(key, place.clone());
                    place
                }
            };
            graph.refer_to_data(id, place);
        }
    }
    Ok(())
}

/// Smaller tensors stay in each graph.
const SHARED: usize = 1024;

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

impl GraphEntry {
    /// An entry of a manifest; `None` if it is none that this version writes.
    pub fn read(entry: &Value) -> Option<GraphEntry> {
        let ports = |side: &str| -> Option<Vec<PortEntry>> {
            let ports = entry.get(side)?.as_array()?;
            ports.iter().map(PortEntry::read).collect()
        };
        Some(GraphEntry {
            file: entry.get("file")?.as_str()?.to_owned(),
            inputs: ports("inputs")?,
            outputs: ports("outputs")?,
        })
    }
}

impl PortEntry {
    fn read(port: &Value) -> Option<PortEntry> {
        let text = |key: &str| Some(port.get(key)?.as_str()?.to_owned());
        let role = text("role")?;
        let dtype = text("dtype")?;
        let dtypes = DType::ALL.iter().map(|dtype| dtype.name());
        Some(PortEntry {
            name: text("name")?,
            role: Role::ALL
                .iter()
                .map(|role| role.name())
                .find(|name| *name == role)?,
            dtype: dtypes.into_iter().find(|name| *name == dtype)?,
            shape: port.get("shape")?.as_array()?.clone(),
            module: text("module"),
            parameter: text("parameter"),
            feeds: text("feeds"),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_a_recipe_are_multiplied_with_those_of_methods() {
        let tensor = |name: &str, rate: f64| Brought {
            name: format!("fc.{name}"),
            initializer: format!("fc.{name}"),
            module: Some("fc".to_owned()),
            parameter: name.to_owned(),
            trainable: true,
            rate,
            tensor: Tensor::from_f32(&[1], &[0.0]),
        };
        let all = [tensor("A", 1.0), tensor("B", 4.0), tensor("c", 4.0)];
        let rate = |parameters: &str, times: f64| Rate {
            parameters: parameters.to_owned(),
            times,
        };
        // Of several that match the last one counts.
        let rates = [rate("*", 3.0), rate("B", 2.0), rate("A", 5.0)];
        let found = trained(&all, &rates, &mut Sink::new()).unwrap();
        let found: Vec<f64> = found.iter().map(|parameter| parameter.rate).collect();
        assert_eq!(found, [5.0, 8.0, 12.0]);
    }
}
