//! What data tells of modules, for start values that are made from it.

use super::errors;
use super::plan::{Plan, PlannedParameter};
use crate::diag::{Diagnostic, Reported, Sink};
use crate::graph::Tensor;
use crate::hir::{Formula, Init, Statistic, TermKind};
use crate::modules::Modules;
use std::collections::{BTreeMap, BTreeSet};

/// Statistics of modules, by the path of the module.
#[derive(Clone, Debug, Default)]
pub struct Calibration(BTreeMap<(String, Statistic), Tensor>);

impl Calibration {
    pub fn insert(&mut self, path: &str, statistic: Statistic, tensor: Tensor) {
        self.0.insert((path.to_owned(), statistic), tensor);
    }

    pub fn get(&self, path: &str, statistic: Statistic) -> Option<&Tensor> {
        self.0.get(&(path.to_owned(), statistic))
    }
}

/// What has to be measured for a plan: the number of a site, and a statistic of it. Parameters that
/// have their values already need nothing.
pub fn statistics(
    plan: &Plan,
    modules: &Modules,
    has_value: impl Fn(&str) -> bool,
) -> BTreeSet<(usize, Statistic)> {
    let mut sites: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for parameter in plan.parameters.iter().filter(|p| !has_value(&p.name)) {
        // A module that is called several times is measured as one.
        let path = modules.sites[parameter.site].path.as_str();
        let site = *sites.entry(path).or_insert(parameter.site);
        found.extend(read_by(parameter).map(|statistic| (site, statistic)));
    }
    found
}

/// The statistics that the start value of a parameter reads.
fn read_by(parameter: &PlannedParameter) -> impl Iterator<Item = Statistic> {
    let formula = match &parameter.init {
        Init::Computed(formula) => Some(formula),
        _ => None,
    };
    let reads = |formula: &Formula, statistic| {
        formula.uses(|kind| *kind == TermKind::Calibrated(statistic))
    };
    let all = Statistic::ALL.into_iter();
    all.filter(move |statistic| formula.is_some_and(|formula| reads(formula, *statistic)))
}

/// Whether everything that a plan reads is there, in the shape that it has there.
pub(super) fn check(
    plan: &Plan,
    modules: &Modules,
    calibration: Option<&Calibration>,
    has_value: impl Fn(&str) -> bool,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut reported = Ok(());
    let mut said = BTreeSet::new();
    for parameter in plan.parameters.iter().filter(|p| !has_value(&p.name)) {
        for statistic in read_by(parameter) {
            let fault = fault(parameter, statistic, modules, calibration);
            let new = said.insert((parameter.site, parameter.span, statistic));
            if let Some(fault) = fault.filter(|_| new) {
                reported = Err(sink.emit(fault));
            }
        }
    }
    reported
}

fn fault(
    parameter: &PlannedParameter,
    statistic: Statistic,
    modules: &Modules,
    calibration: Option<&Calibration>,
) -> Option<Diagnostic> {
    let (site, span) = (&modules.sites[parameter.site], parameter.span);
    let Some(calibration) = calibration else {
        return Some(errors::no_calibration(span));
    };
    let wanted = match statistic {
        Statistic::InputMean => vec![site.in_features],
        Statistic::WeightGradient => vec![site.out_features, site.in_features],
        Statistic::InputCovariance | Statistic::InputGram => vec![site.in_features; 2],
    };
    let found = calibration.get(&site.path, statistic).map(|t| &t.dims);
    match found {
        Some(dims) if *dims == wanted => None,
        found => {
            let found = found.map(Vec::as_slice);
            let name = statistic.name();
            Some(errors::not_calibrated(
                span, &site.path, name, &wanted, found,
            ))
        }
    }
}
