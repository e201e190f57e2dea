//! The start value of one tensor.

use super::numeric::{self, Dense, Factors};
use super::plan::PlannedParameter;
use super::random::{draw, generator, random_tensor};
use super::stored::{base_bias, base_weight, unusable};
use crate::diag::{Reported, Sink};
use crate::graph::{Model, Tensor};
use crate::hir::{Formula, Init, TermId, TermKind};
use crate::modules::Site;
use crate::ty::Dim;
use bytes::Bytes;
use std::cell::OnceCell;
use std::collections::HashMap;

/// Reads the bytes of a constant, wherever it lies; reports why not. Several threads read at once.
pub type WeightReader<'a> = dyn Fn(&Tensor, &mut Sink) -> Result<Bytes, Reported> + Sync + 'a;

/// What the start values of one module are computed from. It is read when the first of them asks for
/// it, and decomposed once for all of them.
pub(super) struct Origin<'a> {
    pub site: &'a Site,
    pub model: &'a Model,
    pub seed: u64,
    pub weights: &'a WeightReader<'a>,
    weight: OnceCell<Dense>,
    bias: OnceCell<Dense>,
    factors: Factors,
}

impl<'a> Origin<'a> {
    pub fn new(site: &'a Site, model: &'a Model, seed: u64, weights: &'a WeightReader<'a>) -> Self {
        Origin {
            site,
            model,
            seed,
            weights,
            weight: OnceCell::new(),
            bias: OnceCell::new(),
            factors: Factors::default(),
        }
    }

    /// The start value of a parameter of the module, f32. `before` are the start values of the
    /// parameters that it may read.
    pub fn tensor(
        &self,
        parameter: &PlannedParameter,
        before: &[&Tensor],
        sink: &mut Sink,
    ) -> Result<Tensor, Reported> {
        let dims = &parameter.dims;
        let values = match &parameter.init {
            Init::Constant(value) => vec![*value as f32; parameter.elements() as usize],
            Init::Random(random) => {
                return Ok(random_tensor(*random, dims, self.seed, &parameter.name));
            }
            Init::Computed(formula) => self.computed(formula, parameter, before, sink)?,
        };
        Ok(Tensor::from_f32(dims, &values))
    }

    fn computed(
        &self,
        formula: &Formula,
        parameter: &PlannedParameter,
        before: &[&Tensor],
        sink: &mut Sink,
    ) -> Result<Vec<f32>, Reported> {
        let weight = match formula.uses(|kind| *kind == TermKind::Weight) {
            true => Some(self.weight(parameter, sink)?),
            false => None,
        };
        let bias = match formula.uses(|kind| *kind == TermKind::Bias) {
            true => self.bias(parameter, sink)?,
            false => None,
        };
        let given = given(formula, before, self.seed, &parameter.name);
        let given = |id: TermId| given.get(&id);
        let found = numeric::evaluate(formula, (weight, bias), &given, &self.factors);
        let found = found.and_then(|dense| match dense.data.iter().all(|v| v.is_finite()) {
            true => Ok(dense),
            false => Err("the start value is not a finite number".to_owned()),
        });
        match found {
            Ok(dense) => Ok(dense.data.iter().map(|v| *v as f32).collect()),
            Err(why) => Err(sink.emit(unusable(self.site, parameter, self.model, &why))),
        }
    }

    fn weight(&self, parameter: &PlannedParameter, sink: &mut Sink) -> Result<&Dense, Reported> {
        if let Some(weight) = self.weight.get() {
            return Ok(weight);
        }
        let read = base_weight(self.site, parameter, self.model, self.weights, sink)?;
        Ok(self.weight.get_or_init(|| read))
    }

    fn bias(
        &self,
        parameter: &PlannedParameter,
        sink: &mut Sink,
    ) -> Result<Option<&Dense>, Reported> {
        let (Some(bias), None) = (self.site.bias, self.bias.get()) else {
            return Ok(self.bias.get());
        };
        let read = base_bias(self.site, bias, parameter, self.model, self.weights, sink)?;
        Ok(Some(self.bias.get_or_init(|| read)))
    }
}

/// Parameters and random numbers of a start value. Those of a tensor are drawn one after the other.
fn given(formula: &Formula, before: &[&Tensor], seed: u64, name: &str) -> HashMap<TermId, Dense> {
    let mut rng = generator(seed, name);
    let mut found = HashMap::new();
    for (id, term) in formula.terms() {
        let dense = |dims: Vec<i64>, data: Vec<f64>| Dense {
            dims: dims.into_iter().map(|dim| dim as usize).collect(),
            data,
        };
        match &term.kind {
            TermKind::Param(index) => {
                let values = before
                    .get(*index)
                    .and_then(|tensor| Some(dense(tensor.dims.clone(), tensor.to_f64s()?)));
                found.extend(values.map(|values| (id, values)));
            }
            TermKind::Drawn(random) => {
                let dims = term.ty.dims.iter().filter_map(Dim::known);
                let dims: Vec<i64> = dims.collect();
                let drawn = draw(*random, &dims, &mut rng);
                let values = drawn.into_iter().map(f64::from).collect();
                found.insert(id, dense(dims, values));
            }
            _ => {}
        }
    }
    found
}
