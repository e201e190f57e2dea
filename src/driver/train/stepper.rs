//! One update: a fused graph on one batch, or the gradients of several batches added up.

use super::scores::number;
use super::session::{Carried, Engine, Wiring, open, start};
use crate::data::{Batch, Dataset};
use crate::diag::{Reported, Sink};
use crate::driver::compile::Artifacts;
use crate::driver::training::GraphEntry;
use crate::runtime::{HostTensor, Library, NamedTensors, Stateful};
use std::path::PathBuf;

/// What an update was.
pub(super) struct Updated {
    /// Of every batch.
    pub losses: Vec<f64>,
    /// The mean over everything that counts, in all batches.
    pub loss: f64,
    pub grad_norm: f64,
    /// The first batch whose own gradient is not finite, where batches have some.
    pub bad_gradient: Option<usize>,
}

/// What an update needs besides its batches.
#[derive(Clone, Copy)]
pub(super) struct Update {
    pub learning_rate: f64,
    /// The first is 1.
    pub step: u64,
    /// Of the run.
    pub seed: u64,
}

/// Parameters and the state of an optimizer, and the graphs that change them.
pub(super) struct Stepper {
    /// Of the graph that takes batches.
    pub wiring: Wiring,
    /// What an update gives to the next.
    pub carried: Vec<Carried>,
    /// The graph that takes batches.
    pub file: PathBuf,
    kind: Kind,
}

enum Kind {
    Fused(Box<Stateful>),
    Halves(Box<Halves>),
}

/// The graphs of gradients and of updates. Parameters lie in both.
struct Halves {
    grad: Stateful,
    update: Stateful,
    /// Outputs of the first and inputs of the second.
    gradients: Vec<(String, String)>,
    learning_rate: Option<String>,
    step: Option<String>,
}

impl Stepper {
    /// With start values. Several batches an update take graphs of their own.
    pub fn new(
        batches: usize,
        dataset: &Dataset,
        artifacts: &Artifacts,
        engine: Engine,
        library: &'static Library,
        sink: &mut Sink,
    ) -> Result<Stepper, Reported> {
        let folder = artifacts
            .weights
            .parent()
            .unwrap_or(std::path::Path::new(""));
        let graph = |name: &str| &artifacts.manifest.graphs[name];
        let opened = |entry: &GraphEntry, sink: &mut Sink| {
            let mut graph = open(folder, entry, engine, library, sink)?;
            start(
                &mut graph,
                &Wiring::carried_by(entry),
                &artifacts.weights,
                sink,
            )?;
            Ok(graph)
        };
        let (first, kind) = match batches {
            0 | 1 => ("step", Kind::Fused(Box::new(opened(graph("step"), sink)?))),
            _ => {
                let [grad, update] = ["grad", "update"].map(graph);
                let halves = Halves {
                    grad: opened(grad, sink)?,
                    update: opened(update, sink)?,
                    gradients: gradients(grad, update),
                    learning_rate: input(update, "learning_rate"),
                    step: input(update, "step"),
                };
                ("grad", Kind::Halves(Box::new(halves)))
            }
        };
        Ok(Stepper {
            wiring: Wiring::of(graph(first), dataset, sink)?,
            carried: Wiring::carried_by(graph("step")),
            file: folder.join(&graph(first).file),
            kind,
        })
    }

    /// What the next update reads.
    pub fn get(&self, carried: &str) -> Option<HostTensor> {
        match &self.kind {
            Kind::Fused(step) => step.get(carried),
            Kind::Halves(halves) => halves.update.get(carried),
        }
    }

    pub fn set(
        &mut self,
        carried: &Carried,
        tensor: &HostTensor,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        match &mut self.kind {
            Kind::Fused(step) => step.set(&carried.name, tensor, sink),
            Kind::Halves(halves) => {
                if carried.parameter.is_some() {
                    halves.grad.set(&carried.name, tensor, sink)?;
                }
                halves.update.set(&carried.name, tensor, sink)
            }
        }
    }

    /// The inputs of the graph that takes batches, for one of the batches of an update.
    pub fn inputs(&self, batch: &Batch, number: usize, of: usize, update: Update) -> NamedTensors {
        // Every batch draws masks of its own; one batch an update has the number of the update.
        let drawn = (update.step - 1) * of as u64 + number as u64 + 1;
        let rate = update.learning_rate;
        self.wiring
            .step_inputs(batch, rate, update.step, (update.seed, drawn))
    }

    /// Changes everything once. There is at least one batch.
    pub fn update(
        &mut self,
        batches: &[Batch],
        update: Update,
        sink: &mut Sink,
    ) -> Result<Updated, Reported> {
        let count = batches.len();
        let inputs: Vec<NamedTensors> = batches
            .iter()
            .enumerate()
            .map(|(at, batch)| self.inputs(batch, at, count, update))
            .collect();
        match &mut self.kind {
            // It has one batch an update.
            Kind::Fused(step) => {
                let found = step.run(&inputs[0], sink)?;
                let loss = number(&found, "loss");
                Ok(Updated {
                    losses: vec![loss],
                    loss,
                    grad_norm: number(&found, "grad_norm"),
                    bad_gradient: None,
                })
            }
            Kind::Halves(halves) => halves.update(&inputs, update, &self.carried, sink),
        }
    }
}

impl Halves {
    /// With the mean gradient over everything that counts in all batches, as one large batch has it.
    fn update(
        &mut self,
        batches: &[NamedTensors],
        update: Update,
        carried: &[Carried],
        sink: &mut Sink,
    ) -> Result<Updated, Reported> {
        let mut sums: Vec<(Vec<i64>, Vec<f64>)> = Vec::new();
        let (mut losses, mut total, mut loss) = (Vec::new(), 0.0, 0.0);
        let mut bad_gradient = None;
        for (batch, inputs) in batches.iter().enumerate() {
            let found = self.grad.run(inputs, sink)?;
            let count = number(&found, "count");
            total += count;
            losses.push(number(&found, "loss"));
            loss += number(&found, "loss") * count;
            for (at, (output, _)) in self.gradients.iter().enumerate() {
                let Some(gradient) = found.get(output) else {
                    continue;
                };
                let values = gradient.to_f64s().unwrap_or_default();
                if values.iter().any(|value| !value.is_finite()) {
                    bad_gradient.get_or_insert(batch);
                }
                if sums.len() == at {
                    sums.push((gradient.dims().to_vec(), vec![0.0; values.len()]));
                }
                let sum = sums[at].1.iter_mut();
                sum.zip(values)
                    .for_each(|(sum, value)| *sum += value * count);
            }
        }
        // Without a label there is no gradient.
        let divisor = f64::max(total, 1.0);
        let mut inputs = NamedTensors::default();
        for ((_, input), (dims, sum)) in self.gradients.iter().zip(&sums) {
            let mean: Vec<f32> = sum.iter().map(|sum| (sum / divisor) as f32).collect();
            inputs.push(input, HostTensor::from_f32(dims, &mean));
        }
        if let Some(name) = &self.learning_rate {
            let rate = update.learning_rate as f32;
            inputs.push(name, HostTensor::from_f32(&[], &[rate]));
        }
        if let Some(name) = &self.step {
            inputs.push(name, HostTensor::from_i64(&[], &[update.step as i64]));
        }
        let found = self.update.run(&inputs, sink)?;
        for carried in carried.iter().filter(|carried| carried.parameter.is_some()) {
            if let Some(tensor) = self.update.get(&carried.name) {
                self.grad.set(&carried.name, &tensor, sink)?;
            }
        }
        Ok(Updated {
            losses,
            loss: loss / divisor,
            grad_norm: number(&found, "grad_norm"),
            bad_gradient,
        })
    }
}

/// Outputs of the graph of gradients, each with the input of the graph of updates: both have those of
/// all trained tensors, in their order.
fn gradients(grad: &GraphEntry, update: &GraphEntry) -> Vec<(String, String)> {
    let outputs = grad.outputs.iter().filter(|port| port.role == "gradient");
    let inputs = update.inputs.iter().filter(|port| port.role == "gradient");
    outputs
        .zip(inputs)
        .map(|(output, input)| (output.name.clone(), input.name.clone()))
        .collect()
}

fn input(entry: &GraphEntry, role: &str) -> Option<String> {
    let mut ports = entry.inputs.iter();
    let port = ports.find(|port| port.role == role)?;
    Some(port.name.clone())
}
