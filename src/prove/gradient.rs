//! Gradients of a random loss, against slopes measured on both sides.

use super::net::node;
use super::numbers::{Named, array, elements, made, normal};
use super::stand::{Stand, arrays, evaluate, evaluated};
use crate::autodiff::gradients;
use crate::diag::{Code, Sink};
use crate::graph::{Attribute, Model, Operand, Patch, Tensor, ValueId};
use crate::reference::{Evaluator, Options};

/// The step of central differences.
const STEP: f64 = 1e-5;

/// A model with its loss and the gradients of all that is trained.
pub(super) struct Slopes {
    pub model: Model,
    pub loss: String,
    /// The initializer and the value that is its gradient.
    pub gradients: Vec<(String, String)>,
    /// Factors of the loss, an input for every output.
    pub projections: Named,
    /// Values through which no gradient flows.
    pub stops: Vec<String>,
    /// What is drawn anew in every step of training, as one draw.
    noise: Named,
    /// What is trained, and no loss depends on.
    pub unreached: Vec<String>,
}

impl Slopes {
    /// `loss = Σ projection · output`, differentiated.
    pub fn new(stand: &Stand, seed: u64) -> Result<Slopes, String> {
        let mut model = stand.adapted.clone();
        let outputs = stand.outputs();
        let shapes = evaluate(&model, &[&stand.inputs], &outputs)?;
        let mut projections = Named::new();
        for (name, array) in &shapes {
            let name = format!("projection.{name}");
            let dims: Vec<i64> = array.dims().iter().map(|d| *d as i64).collect();
            projections.push((
                name.clone(),
                super::numbers::array(&normal(&name, &dims, 1.0, seed))?,
            ));
        }
        let loss = project(&mut model, &outputs)?;
        let mut sink = Sink::new();
        if crate::passes::infer(&mut model, &mut sink).is_err() {
            return Err(first(&sink));
        }
        let trained = stand.start.iter().filter(|tensor| tensor.trainable);
        let names: Vec<String> = trained.map(|tensor| tensor.initializer.clone()).collect();
        let (names, unreached): (Vec<String>, Vec<String>) =
            match differentiated(&mut model.clone(), loss, &names) {
                Ok(_) => (names, Vec::new()),
                // One after the other: those that the loss does not depend on have no gradient.
                Err(_) => names.into_iter().partition(|name| {
                    let alone = std::slice::from_ref(name);
                    !matches!(
                        differentiated(&mut model.clone(), loss, alone),
                        Err((Some(Code::E0703), _))
                    )
                }),
            };
        let found = match names.is_empty() {
            true => Vec::new(),
            false => differentiated(&mut model, loss, &names).map_err(|(_, why)| why)?,
        };
        let name = |id: ValueId| model.graph.value(id).name.to_string();
        let gradients = names.into_iter().zip(found.iter().map(|id| name(*id)));
        let gradients = gradients.collect();
        Ok(Slopes {
            loss: name(loss),
            gradients,
            stops: marked(&model, "peftc.gradient"),
            noise: drawn(&model, &[&stand.inputs, &projections], seed)?,
            unreached,
            projections,
            model,
        })
    }

    /// The gradients in double precision.
    pub fn gradients(&self, stand: &Stand, values: &[(String, Tensor)]) -> Result<Named, String> {
        let names: Vec<String> = self
            .gradients
            .iter()
            .map(|(_, name)| name.clone())
            .collect();
        let values = arrays(values)?;
        evaluate(
            &self.model,
            &[&stand.inputs, &self.projections, &self.noise, &values],
            &names,
        )
    }

    /// For every parameter how far its gradient along a direction is from the slope of the loss,
    /// relative to their lengths.
    pub fn errors(
        &self,
        stand: &Stand,
        values: &[(String, Tensor)],
        found: &Named,
        seed: u64,
    ) -> Result<Vec<(String, f64)>, String> {
        let failed = |failure: crate::reference::Failure| failure.to_string();
        let evaluator = Evaluator::new(&self.model, &Options::default()).map_err(failed)?;
        let at = arrays(values)?;
        // What no gradient flows through is no part of the slope either.
        let given = [&stand.inputs, &self.projections, &self.noise, &at];
        let fixed = evaluated(&evaluator, &given, &self.stops)?;
        let loss = |moved: &Named| -> Result<f64, String> {
            let inputs = [&stand.inputs, &self.projections, &self.noise];
            let given = [&inputs[..], &[&at, moved, &fixed]].concat();
            let loss = evaluated(&evaluator, &given, std::slice::from_ref(&self.loss))?;
            let number = loss
                .first()
                .and_then(|(_, array)| array.to_f64s().first().copied());
            number.ok_or_else(|| "the loss is no number".to_owned())
        };
        let mut errors = Vec::new();
        for ((name, _), (_, gradient)) in self.gradients.iter().zip(found) {
            let value = values.iter().find(|(known, _)| known == name);
            let (_, value) = value.ok_or("a parameter has no value")?;
            let direction = elements(&normal(
                &format!("{name}/direction"),
                &value.dims,
                1.0,
                seed,
            ));
            let center = elements(value);
            let moved = |by: f64| -> Result<Named, String> {
                let sums = center.iter().zip(&direction).map(|(v, d)| v + by * d);
                let like = array(value)?;
                let array = made(like.dtype(), like.dims(), sums.collect())?;
                Ok(vec![(name.clone(), array)])
            };
            let slope = (loss(&moved(STEP)?)? - loss(&moved(-STEP)?)?) / (2.0 * STEP);
            let gradient = gradient.to_f64s();
            let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let length = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let scale = (length(&gradient) * length(&direction)).max(slope.abs());
            let error = if scale == 0.0 {
                0.0
            } else {
                (slope - along).abs() / scale
            };
            errors.push((name.clone(), error));
        }
        Ok(errors)
    }
}

/// The gradients of the loss, or the first fault.
fn differentiated(
    model: &mut Model,
    loss: ValueId,
    names: &[String],
) -> Result<Vec<ValueId>, (Option<Code>, String)> {
    let wrt = names.iter().map(|name| model.graph.find_value(name));
    let wrt: Option<Vec<ValueId>> = wrt.collect();
    let wrt = wrt.ok_or((None, "a parameter is not in the model".to_owned()))?;
    let mut sink = Sink::new();
    gradients(model, loss, &wrt, &mut sink).map_err(|_| {
        let code = sink.diagnostics().first().map(|diagnostic| diagnostic.code);
        (code, first(&sink))
    })
}

fn first(sink: &Sink) -> String {
    let first = sink.diagnostics().first();
    first.map_or_else(String::new, |d| format!("no gradient: {}", d.message))
}

/// Results of the nodes with a mark of this key, by name.
fn marked(model: &Model, key: &str) -> Vec<String> {
    let graph = &model.graph;
    let marked = graph
        .node_ids()
        .filter(|id| graph.node(*id).metadata(key).is_some());
    let results = marked.filter_map(|id| graph.result(id, 0));
    let mut names: Vec<String> = results.map(|id| graph.value(id).name.to_string()).collect();
    names.sort();
    names
}

/// Numbers for what a graph draws in training.
fn drawn(model: &Model, given: &[&Named], seed: u64) -> Result<Named, String> {
    let found = evaluate(model, given, &marked(model, crate::ops::NOISE.0))?;
    let drawn = found.into_iter().map(|(name, array)| {
        let dims: Vec<i64> = array.dims().iter().map(|d| *d as i64).collect();
        let numbers = super::numbers::array(&normal(&name, &dims, 1.0, seed))?;
        Ok((name, numbers))
    });
    drawn.collect()
}

/// Appends `loss = Σ projection · output`, with the projections as inputs.
fn project(model: &mut Model, outputs: &[String]) -> Result<ValueId, String> {
    let mut patch = Patch::new();
    let mut total: Option<Operand> = None;
    for name in outputs {
        let id = model.graph.find_value(name).ok_or("an output is missing")?;
        let value = model.graph.value(id);
        let ty = value.ty.clone().ok_or("an output has no type")?;
        if let Some(producer) = model.graph.producer(id) {
            patch.behind(producer);
        }
        let factors = patch.input(&format!("projection.{name}"), ty, None);
        let product = node(&mut patch, "loss", "Mul", &[id.into(), factors], vec![]);
        let all = vec![Attribute::int("keepdims", 0)];
        let sum = node(&mut patch, "loss", "ReduceSum", &[product], all);
        total = Some(match total {
            Some(before) => node(&mut patch, "loss", "Add", &[before, sum], vec![]),
            None => sum,
        });
    }
    let total = total.ok_or("the model has no output")?;
    patch.output(total);
    let applied = model.graph.apply(patch)?;
    match total {
        Operand::New(index) => Ok(applied.values[index as usize]),
        Operand::Existing(id) | Operand::Original(id) => Ok(id),
    }
}
