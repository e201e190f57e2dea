//! The start value of one tensor.

use super::calibration::Calibration;
use super::errors;
use super::numeric::{self, Dense, Factors};
use super::plan::PlannedParameter;
use super::random::{draw, generator, random_tensor};
use super::stored::{base_bias, base_weight, unusable};
use crate::diag::{Reported, Sink};
use crate::graph::{Model, Tensor};
use crate::hir::{Formula, Init, Statistic, TermId, TermKind};
use crate::modules::Site;
use crate::ty::{DType, Dim};
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
    /// parameters that it may read, `joined` what it joins over all modules.
    pub fn tensor(
        &self,
        parameter: &PlannedParameter,
        (before, joined): (&[&Tensor], &[Tensor]),
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
            Init::Computed(formula) => {
                let dense = self.computed(
                    formula,
                    &[formula.result()],
                    parameter,
                    (before, joined),
                    sink,
                )?;
                dense
                    .iter()
                    .flat_map(|d| &d.data)
                    .map(|v| *v as f32)
                    .collect()
            }
        };
        Ok(Tensor::from_f32(dims, &values))
    }

    /// What the module gives to every value that the start of a parameter joins, f64, in their order.
    pub fn parts(
        &self,
        parameter: &PlannedParameter,
        sink: &mut Sink,
    ) -> Result<Vec<Tensor>, Reported> {
        let Init::Computed(formula) = &parameter.init else {
            return Ok(Vec::new());
        };
        let wanted: Vec<TermId> = formula.everywhere().map(|(operand, _)| operand).collect();
        let found = self.computed(formula, &wanted, parameter, (&[], &[]), sink)?;
        Ok(found.iter().map(tensor_of).collect())
    }

    fn computed(
        &self,
        formula: &Formula,
        wanted: &[TermId],
        parameter: &PlannedParameter,
        (before, joined): (&[&Tensor], &[Tensor]),
        sink: &mut Sink,
    ) -> Result<Vec<Dense>, Reported> {
        let weight = match formula.uses(|kind| *kind == TermKind::Weight) {
            true => Some(self.weight(parameter, sink)?),
            false => None,
        };
        let bias = match formula.uses(|kind| *kind == TermKind::Bias) {
            true => self.bias(parameter, sink)?,
            false => None,
        };
        let mut given = self.given(formula, parameter, before);
        let wholes = formula.everywhere().zip(joined);
        given.extend(wholes.filter_map(|((_, whole), tensor)| Some((whole, dense(tensor)?))));
        let given = |id: TermId| given.get(&id);
        let base = (weight, bias);
        let found = numeric::evaluate_terms(formula, wanted, base, &given, &self.factors);
        let is_finite = |dense: &Dense| dense.data.iter().all(|v| v.is_finite());
        let found = found.and_then(|all| match all.iter().all(is_finite) {
            true => Ok(all),
            false => Err("the start value is not a finite number".to_owned()),
        });
        match found {
            Ok(found) => Ok(found),
            Err(why) if weight.is_none() => {
                let (span, name) = (parameter.span, &parameter.name);
                Err(sink.emit(errors::start_not_computed(span, name, &why)))
            }
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

/// In double precision.
fn tensor_of(dense: &Dense) -> Tensor {
    let dims: Vec<i64> = dense.dims.iter().map(|dim| *dim as i64).collect();
    let raw: Vec<_> = dense.data.iter().map(|v| v.to_le_bytes()).collect();
    Tensor::from_raw(DType::F64, &dims, raw.into_flattened())
}

fn dense(tensor: &Tensor) -> Option<Dense> {
    Some(Dense {
        dims: tensor.dims.iter().map(|dim| *dim as usize).collect(),
        data: tensor.to_f64s()?,
    })
}
