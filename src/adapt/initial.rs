//! The start value of one tensor.

use super::calibration::Calibration;
use super::numeric::{self, Dense, Factors};
use super::plan::PlannedParameter;
use super::random::{draw, generator, random_tensor};
use super::stored::{base_bias, base_weight, unusable};
use crate::diag::{Reported, Sink};
use crate::graph::{Model, Tensor};
use crate::hir::{Formula, Init, Statistic, TermId, TermKind};
use crate::modules::Site;
use crate::ty::Dim;
use bytes::Bytes;
use std::cell::OnceCell;
use std::collections::HashMap;

/// Reads the bytes of a constant, wherever it lies; reports why not. Several threads read at once.
pub type WeightReader<'a> = dyn Fn(&Tensor, &mut Sink) -> Result<Bytes, Reported> + Sync + 'a;

/// What start values are computed from.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub model: &'a Model,
    /// Of random numbers.
    pub seed: u64,
    pub weights: &'a WeightReader<'a>,
    pub calibration: Option<&'a Calibration>,
}

/// What the start values of one module are computed from. It is read when the first of them asks for
/// it, and decomposed once for all of them.
pub(super) struct Origin<'a> {
    site: &'a Site,
    sources: Sources<'a>,
    weight: OnceCell<Dense>,
    bias: OnceCell<Dense>,
    factors: Factors,
}

impl<'a> Origin<'a> {
    pub fn new(site: &'a Site, sources: Sources<'a>) -> Self {
        Origin {
            site,
            sources,
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
                return Ok(random_tensor(
                    *random,
                    dims,
                    self.sources.seed,
                    &parameter.name,
                ));
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
        let given = self.given(formula, parameter, before);
        let given = |id: TermId| given.get(&id);
        let found = numeric::evaluate(formula, (weight, bias), &given, &self.factors);
        let found = found.and_then(|dense| match dense.data.iter().all(|v| v.is_finite()) {
            true => Ok(dense),
            false => Err("the start value is not a finite number".to_owned()),
        });
        match found {
            Ok(dense) => Ok(dense.data.iter().map(|v| *v as f32).collect()),
            Err(why) => Err(sink.emit(unusable(self.site, parameter, self.sources.model, &why))),
        }
    }

    fn weight(&self, parameter: &PlannedParameter, sink: &mut Sink) -> Result<&Dense, Reported> {
        if let Some(weight) = self.weight.get() {
            return Ok(weight);
        }
        let Sources { model, weights, .. } = self.sources;
        let read = base_weight(self.site, parameter, model, weights, sink)?;
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
        let Sources { model, weights, .. } = self.sources;
        let read = base_bias(self.site, bias, parameter, model, weights, sink)?;
        Ok(Some(self.bias.get_or_init(|| read)))
    }

    /// Parameters, random numbers and statistics of a start value. Random numbers of a tensor are drawn
    /// one after the other.
    fn given(
        &self,
        formula: &Formula,
        parameter: &PlannedParameter,
        before: &[&Tensor],
    ) -> HashMap<TermId, Dense> {
        let mut rng = generator(self.sources.seed, &parameter.name);
        let mut found = HashMap::new();
        for (id, term) in formula.terms() {
            let value = match &term.kind {
                TermKind::Param(index) => before.get(*index).and_then(|tensor| dense(tensor)),
                TermKind::Calibrated(statistic) => self.measured(*statistic, parameter),
                TermKind::Drawn(random) => {
                    let dims: Vec<i64> = term.ty.dims.iter().filter_map(Dim::known).collect();
                    let drawn = draw(*random, &dims, &mut rng);
                    dense(&Tensor::from_f32(&dims, &drawn))
                }
                _ => None,
            };
            found.extend(value.map(|value| (id, value)));
        }
        found
    }

    /// A statistic of the module; of the part of it that is adapted.
    fn measured(&self, statistic: Statistic, parameter: &PlannedParameter) -> Option<Dense> {
        let found = self.sources.calibration?.get(&self.site.path, statistic)?;
        let whole = dense(found)?;
        match (statistic, &parameter.slice) {
            (Statistic::WeightGradient, Some(part)) => {
                let rows = (part.start as usize, part.end as usize);
                Some(numeric::slice(&whole, 0, rows))
            }
            _ => Some(whole),
        }
    }
}

fn dense(tensor: &Tensor) -> Option<Dense> {
    Some(Dense {
        dims: tensor.dims.iter().map(|dim| *dim as usize).collect(),
        data: tensor.to_f64s()?,
    })
}
