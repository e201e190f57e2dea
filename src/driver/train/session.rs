//! Training graphs in ONNX Runtime, fed with batches.

use super::errors;
use crate::data::{Batch, Elements, Input};
use crate::diag::{Reported, Sink};
use crate::driver::{GraphEntry, PortEntry};
use crate::runtime::{
    Activations, Feed, HostTensor, Library, MemoryPattern, ModelSource, NamedTensors, Options,
    Session, Stateful,
};
use crate::weights::read_tensors;
use std::num::NonZeroUsize;
use std::path::Path;

/// What data can give a model.
const INPUTS: &[Input] = &[
    Input::InputIds,
    Input::AttentionMask,
    Input::PositionIds,
    Input::TokenTypeIds,
];

/// The inputs of a training graph by what they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Wiring {
    /// Inputs that a batch fills, with their names.
    batch: Vec<(Input, String)>,
    learning_rate: Option<String>,
    step: Option<String>,
    seed: Option<String>,
    /// Parameters and state, with their shapes.
    pub carried: Vec<Carried>,
}

/// An input that keeps its value from step to step.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    pub name: String,
    /// `<module>.<parameter>` of a trained tensor; `None` for a state.
    pub parameter: Option<String>,
    pub dims: Vec<i64>,
}

impl Carried {
    fn of(port: &PortEntry) -> Carried {
        let parameter = port.parameter.as_ref().map(|parameter| {
            let module = port.module.as_deref().unwrap_or_default();
            match module {
                "" => parameter.clone(),
                module => format!("{module}.{parameter}"),
            }
        });
        let dims = port.shape.iter().filter_map(serde_json::Value::as_i64);
        Carried {
            name: port.name.clone(),
            parameter,
            dims: dims.collect(),
        }
    }
}

impl Wiring {
    /// Fails for an input that no data gives.
    pub fn of(entry: &GraphEntry, sink: &mut Sink) -> Result<Wiring, Reported> {
        let mut wiring = Wiring::default();
        for port in &entry.inputs {
            let name = port.name.clone();
            match port.role {
                "labels" => wiring.batch.push((Input::Labels, name)),
                "learning_rate" => wiring.learning_rate = Some(name),
                "step" => wiring.step = Some(name),
                "seed" => wiring.seed = Some(name),
                "parameter" | "state" => wiring.carried.push(Carried::of(port)),
                _ => match INPUTS.iter().find(|input| input.name() == name) {
                    Some(input) => wiring.batch.push((*input, name)),
                    None => return Err(sink.emit(errors::no_data_for(&name, &entry.file))),
                },
            }
        }
        Ok(wiring)
    }

    /// What a step gives to the next.
    pub fn carried_by(entry: &GraphEntry) -> Vec<Carried> {
        let ports = entry.inputs.iter();
        let ports = ports.filter(|port| matches!(port.role, "parameter" | "state"));
        ports.map(Carried::of).collect()
    }

    pub fn wants(&self, input: Input) -> bool {
        self.batch.iter().any(|(other, _)| *other == input)
    }

    /// The tensors of a batch under the graph's names.
    pub fn inputs(&self, batch: &Batch) -> NamedTensors {
        let mut inputs = NamedTensors::default();
        for (input, name) in &self.batch {
            if let Some(tensor) = batch.tensor(*input) {
                let dims: Vec<i64> = tensor.dims.iter().map(|dim| *dim as i64).collect();
                let tensor = match &tensor.elements {
                    Elements::I64(values) => HostTensor::from_i64(&dims, values),
                    Elements::F32(values) => HostTensor::from_f32(&dims, values),
                };
                inputs.push(name.clone(), tensor);
            }
        }
        inputs
    }

    /// The same with what a step takes besides.
    pub fn step_inputs(&self, batch: &Batch, rate: f64, step: u64, seed: u64) -> NamedTensors {
        let mut inputs = self.inputs(batch);
        let scalar = |value: i64| HostTensor::from_i64(&[], &[value]);
        if let Some(name) = &self.learning_rate {
            inputs.push(name.clone(), HostTensor::from_f32(&[], &[rate as f32]));
        }
        if let Some(name) = &self.step {
            inputs.push(name.clone(), scalar(step as i64));
        }
        if let Some(name) = &self.seed {
            // Another one every step; the primes keep runs of neighbouring seeds apart.
            let mixed = seed.wrapping_mul(1_000_003).wrapping_add(step) % (1 << 31);
            inputs.push(name.clone(), scalar(mixed as i64));
        }
        inputs
    }
}

/// Opens a training graph with what it feeds back to itself.
pub(super) fn open(
    folder: &Path,
    entry: &GraphEntry,
    threads: Option<NonZeroUsize>,
    library: &'static Library,
    sink: &mut Sink,
) -> Result<Stateful, Reported> {
    let options = Options {
        threads,
        // Batches have many shapes; a plan for each would keep memory for all of them.
        memory_pattern: MemoryPattern::Off,
        activations: Activations::Exact,
        ..Options::default()
    };
    let path = folder.join(&entry.file);
    let session = Session::open(library, ModelSource::Path(&path), &options, sink)?;
    let feeds = entry.outputs.iter().filter_map(|port| {
        let input = port.feeds.clone()?;
        Some(Feed {
            output: port.name.clone(),
            input,
        })
    });
    Ok(Stateful::new(session, feeds.collect()))
}

/// Gives parameters their start values, which lie in a file, and states zeros.
pub(super) fn start(
    step: &mut Stateful,
    carried: &[Carried],
    weights: &Path,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let tensors = read_tensors(weights, sink)?;
    for carried in carried {
        let named = carried.parameter.as_ref().and_then(|name| {
            let tensor = tensors.iter().find(|tensor| tensor.name == *name)?;
            HostTensor::new(tensor.dtype, &tensor.dims, tensor.data.clone())
        });
        let tensor = named.unwrap_or_else(|| {
            let count = carried.dims.iter().product::<i64>() as usize;
            HostTensor::from_f32(&carried.dims, &vec![0.0; count])
        });
        step.set(&carried.name, &tensor, sink)?;
    }
    Ok(())
}
