//! Measuring: what a graph gives for all batches of a data set.

use super::errors;
use super::session::Wiring;
use crate::data::{Batcher, Dataset};
use crate::diag::{Diagnostic, Reported, Sink};
use crate::runtime::{HostTensor, NamedTensors, Stateful};

/// A measurement on held-out examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// The mean over all labels.
    pub loss: f64,
    /// The share of labels that the model gets right, where labels are right or wrong.
    pub accuracy: Option<f64>,
    /// The harmonic mean of precision and recall, averaged over the classes that labels or answers
    /// have (scikit-learn's `f1_score` with `average="macro"`).
    pub f1: Option<f64>,
    /// The share of examples of which that holds for every label, where they have several.
    pub exact: Option<f64>,
}

impl Scores {
    /// e to the loss: how many tokens a language model hesitates between, on the mean.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// What a data set has been measured at.
pub(super) struct Measurement {
    pub scores: Scores,
    /// The examples of the first batch whose loss is no finite number.
    pub bad: Option<Vec<usize>>,
}

/// Runs a graph on every batch, once.
pub(super) fn measure(
    eval: &mut Stateful,
    wiring: &Wiring,
    batches: &mut Batcher,
    sink: &mut Sink,
) -> Result<Measurement, Reported> {
    let (mut sums, mut bad) = (Sums::default(), None);
    for _ in 0..batches.batches() {
        let batch = batches.next_batch();
        let found = eval.run(&wiring.inputs(&batch), sink)?;
        sums.add(&found, batch.rows);
        if bad.is_none() && !sums.loss.is_finite() {
            bad = Some(batch.examples);
        }
    }
    let scores = sums.scores();
    Ok(Measurement { scores, bad })
}

impl Measurement {
    /// The warning of a loss that is none; `of` says what was measured.
    pub fn warning(&self, of: &str, dataset: &Dataset) -> Option<Diagnostic> {
        let examples = self.bad.as_ref()?.iter();
        let rows: Vec<String> = examples.map(|example| dataset.place(*example)).collect();
        Some(errors::held_out_not_finite(of, self.scores.loss, &rows))
    }
}

/// What the batches of a measurement add up to.
#[derive(Default)]
struct Sums {
    loss: f64,
    count: f64,
    correct: Option<f64>,
    exact: Option<f64>,
    /// Hits, answers and labels by class.
    by_class: Option<[Vec<f64>; 3]>,
    rows: usize,
}

impl Sums {
    fn add(&mut self, found: &NamedTensors, rows: usize) {
        let labels = number(found, "count");
        self.loss += number(found, "loss") * labels;
        self.count += labels;
        self.rows += rows;
        for (sum, name) in [(&mut self.correct, "correct"), (&mut self.exact, "exact")] {
            if found.get(name).is_some() {
                *sum = Some(sum.unwrap_or(0.0) + number(found, name));
            }
        }
        let counts = ["class_hits", "class_said", "class_meant"].map(|name| {
            let found = found.get(name).and_then(HostTensor::to_f64s);
            found.unwrap_or_default()
        });
        if counts[0].is_empty() {
            return;
        }
        match &mut self.by_class {
            None => self.by_class = Some(counts),
            Some(sums) => {
                for (sum, more) in sums.iter_mut().zip(counts) {
                    sum.iter_mut()
                        .zip(more)
                        .for_each(|(sum, more)| *sum += more);
                }
            }
        }
    }

    fn scores(&self) -> Scores {
        let labels = f64::max(self.count, 1.0);
        Scores {
            loss: self.loss / labels,
            accuracy: self.correct.map(|correct| correct / labels),
            f1: self.by_class.as_ref().and_then(|[hits, said, meant]| {
                let classes = hits.iter().zip(said).zip(meant);
                macro_f1(classes.map(|((hits, said), meant)| [*hits, *said, *meant]))
            }),
            exact: self.exact.map(|exact| exact / self.rows.max(1) as f64),
        }
    }
}

/// Of hits, answers and labels by class; `None` if no class has any.
fn macro_f1(classes: impl Iterator<Item = [f64; 3]>) -> Option<f64> {
    let occurring = classes.filter(|[_, said, meant]| said + meant > 0.0);
    let all: Vec<f64> = occurring
        .map(|[hits, said, meant]| 2.0 * hits / (said + meant))
        .collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

/// A number of the outputs; 0 for one that the graph does not have.
pub(super) fn number(found: &NamedTensors, name: &str) -> f64 {
    let values = found.get(name).and_then(HostTensor::to_f64s);
    values
        .and_then(|values| values.first().copied())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `f1_score([0, 0, 1, 2], [0, 1, 1, 1], average="macro")` of scikit-learn 1.7.
    #[test]
    fn a_class_that_nobody_has_does_not_count() {
        let classes = [
            [1.0, 1.0, 2.0],
            [1.0, 3.0, 1.0],
            [0.0, 0.0, 1.0],
            [0.0, 0.0, 0.0],
        ];
        let found = macro_f1(classes.into_iter()).unwrap();
        assert!((found - 0.388_888_888_888_888_9).abs() < 1e-12, "{found}");
        assert_eq!(macro_f1([[0.0; 3]].into_iter()), None);
    }
}
