//! Sums over batches, in double precision, and the statistics that they come to.

use crate::graph::Tensor;
use crate::hir::Statistic;
use crate::runtime::NamedTensors;
use crate::train::{CalibrationGraph, InputMeasures};

/// What has been added up of all batches.
pub(super) struct Sums {
    batches: f64,
    /// Of every input of the graph.
    inputs: Vec<InputSums>,
    /// Of every probe that has a gradient.
    gradients: Vec<Matrix>,
}

#[derive(Clone, Debug, Default)]
struct InputSums {
    /// How many rows.
    count: f64,
    sum: Vec<f64>,
    /// XᵀX.
    gram: Matrix,
    /// XᵀX of every batch divided by the square of its largest entry.
    scaled: Matrix,
}

/// Row by row; empty as long as nothing has been added.
#[derive(Clone, Debug, Default)]
struct Matrix {
    dims: Vec<i64>,
    data: Vec<f64>,
}

impl Matrix {
    fn add(&mut self, dims: &[i64], values: &[f64], factor: f64) {
        if self.data.is_empty() {
            self.dims = dims.to_vec();
            self.data = vec![0.0; values.len()];
        }
        let sums = self.data.iter_mut();
        sums.zip(values)
            .for_each(|(sum, value)| *sum += value * factor);
    }

    fn add_to(&self, other: &mut Matrix) {
        other.add(&self.dims, &self.data, 1.0);
    }
}

impl Sums {
    pub fn new(graph: &CalibrationGraph) -> Sums {
        Sums {
            batches: 0.0,
            inputs: vec![InputSums::default(); graph.inputs.len()],
            gradients: vec![Matrix::default(); graph.probes.len()],
        }
    }

    /// Adds what a batch has given.
    pub fn add(&mut self, graph: &CalibrationGraph, outputs: &NamedTensors) {
        self.batches += 1.0;
        for (sums, names) in self.inputs.iter_mut().zip(&graph.inputs) {
            sums.add(names, outputs);
        }
        for (sums, probe) in self.gradients.iter_mut().zip(&graph.probes) {
            let found = probe.gradient.as_ref().and_then(|name| outputs.get(name));
            if let Some(gradient) = found {
                let values = gradient.to_f64s().unwrap_or_default();
                sums.add(gradient.dims(), &values, 1.0);
            }
        }
    }

    /// A statistic of a module from the probes of its calls; `None` if it is no finite number.
    pub fn statistic(
        &self,
        statistic: Statistic,
        graph: &CalibrationGraph,
        probes: &[usize],
    ) -> Option<Tensor> {
        let inputs = probes.iter().filter_map(|probe| graph.probes[*probe].input);
        let inputs = inputs.map(|input| &self.inputs[input]);
        let mut all = Matrix::default();
        match statistic {
            Statistic::InputMean => all = mean(inputs).0,
            Statistic::InputCovariance => {
                inputs.clone().for_each(|input| input.gram.add_to(&mut all));
                let (mean, count) = mean(inputs);
                let mean = mean.data.iter();
                let products = mean.clone().flat_map(|a| mean.clone().map(move |b| a * b));
                let entries = all.data.iter_mut().zip(products);
                entries.for_each(|(entry, product)| *entry = *entry / count - product);
            }
            Statistic::InputGram => {
                inputs.for_each(|input| input.scaled.add_to(&mut all));
                all.data.iter_mut().for_each(|entry| *entry /= self.batches);
            }
            Statistic::WeightGradient => {
                probes
                    .iter()
                    .for_each(|probe| self.gradients[*probe].add_to(&mut all));
                all.data.iter_mut().for_each(|entry| *entry /= self.batches);
            }
        }
        let single: Vec<f32> = all.data.iter().map(|entry| *entry as f32).collect();
        let is_found = !single.is_empty() && single.iter().all(|entry| entry.is_finite());
        is_found.then(|| Tensor::from_f32(&all.dims, &single))
    }
}

/// The mean of all rows, and how many there are.
fn mean<'s>(inputs: impl Iterator<Item = &'s InputSums>) -> (Matrix, f64) {
    let (mut mean, mut count) = (Matrix::default(), 0.0);
    for input in inputs {
        mean.add(&[input.sum.len() as i64], &input.sum, 1.0);
        count += input.count;
    }
    mean.data.iter_mut().for_each(|sum| *sum /= count);
    (mean, count)
}

impl InputSums {
    fn add(&mut self, names: &InputMeasures, outputs: &NamedTensors) {
        let values = |name: &str| outputs.get(name).and_then(|tensor| tensor.to_f64s());
        let number = |name: &str| values(name).and_then(|values| values.first().copied());
        let number = |name: &str| number(name).unwrap_or(f64::NAN);
        let sum = values(&names.sum).unwrap_or_default();
        self.sum.resize(sum.len(), 0.0);
        self.sum
            .iter_mut()
            .zip(&sum)
            .for_each(|(all, one)| *all += one);
        self.count += number(&names.count);
        let gram = values(&names.gram).unwrap_or_default();
        let dims = [sum.len() as i64; 2];
        self.gram.add(&dims, &gram, 1.0);
        // The largest entry, as PEFT has it; the one of largest size where none is above 0.
        let (highest, lowest) = (number(&names.highest), number(&names.lowest));
        let largest = match highest > 0.0 {
            true => highest,
            false => -lowest,
        };
        self.scaled.add(&dims, &gram, 1.0 / (largest * largest));
    }
}
