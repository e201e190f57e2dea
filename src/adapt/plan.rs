//! Decides what an adapter does to a model, without doing it.

use super::beside;
use super::errors;
use super::first_pass;
use super::planner::Planner;
use super::prepend;
use super::settings::settings;
use crate::diag::{Reported, Sink, Span};
use crate::graph::Model;
use crate::hir::{Adapter, HyperValue, Init, Instance, MethodId, Program};
use crate::modules::{Modules, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Hyper-parameters that win over the spec: name, or method and name with a dot, and value.
    pub settings: Settings,
}

/// `--set` values in the order given.
pub type Settings = Vec<(String, String)>;

/// Everything that [`apply`](super::apply()) will do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub adapter: String,
    pub statements: Vec<StatementPlan>,
    /// In graph order.
    pub sites: Vec<PlannedSite>,
    /// New tensors in a stable order: shared ones first, then by site.
    pub parameters: Vec<PlannedParameter>,
}

/// One `adapt` or `train` statement with what it matched.
#[derive(Clone, Debug)]
pub struct StatementPlan {
    /// The targets as written.
    pub targets: Vec<String>,
    /// The methods with the hyper-parameters that differ from their defaults; `train` for a
    /// statement that trains modules in full.
    pub methods: Vec<String>,
    /// Paths of the adapted modules, each once.
    pub modules: Vec<String>,
    /// Output heads that `all …` left out.
    pub heads: Vec<String>,
    pub span: Span,
}

/// A site with the methods that change it, in the order of application.
#[derive(Clone, Debug)]
pub struct PlannedSite {
    /// Index into [`Modules::sites`].
    pub site: usize,
    pub statement: usize,
    /// Part of the module's output features, when the pattern had a slice.
    pub slice: Option<Range<i64>>,
    pub methods: Vec<PlannedMethod>,
}

/// One method at one site.
#[derive(Clone, Debug)]
pub struct PlannedMethod {
    /// In the plan's program.
    pub id: MethodId,
    pub name: String,
    /// Every hyper-parameter as it is at this site, overrides and settings included.
    pub values: BTreeMap<String, HyperValue>,
    pub instance: Arc<Instance>,
    /// Index into [`Plan::parameters`] for every parameter of the instance.
    pub parameters: Vec<usize>,
    /// The names of what it keeps in training, `<module path>.<state>`.
    pub states: Vec<String>,
    /// Where the spec asks for it.
    pub span: Span,
}

/// A tensor that the adapter brings.
#[derive(Clone, Debug)]
pub struct PlannedParameter {
    /// `<module path>.<parameter>`.
    pub name: String,
    /// The module that it belongs to; `None` for one that several modules share.
    pub module: Option<String>,
    /// Its name in the method.
    pub parameter: String,
    pub dims: Vec<i64>,
    /// Trained, or frozen and saved with the adapter.
    pub trainable: bool,
    /// What its learning rate is multiplied with.
    pub rate: f64,
    pub init: Init,
    /// The parameters that the start value may read, by their number in the method; indices into
    /// [`Plan::parameters`].
    pub reads: Vec<usize>,
    /// The module whose weight a computed start value reads; index into [`Modules::sites`].
    pub site: usize,
    pub slice: Option<Range<i64>>,
    pub span: Span,
}

impl PlannedParameter {
    /// The largest number there is if there are more: a spec may ask for that, and is refused when
    /// it is compiled.
    pub fn elements(&self) -> u64 {
        let dims = self.dims.iter().map(|dim| *dim as u64);
        dims.fold(1, u64::saturating_mul)
    }
}

/// The sum, or the largest number there is.
pub fn total(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

impl Plan {
    /// Elements of all trained tensors.
    pub fn trainable(&self) -> u64 {
        let trained = self.parameters.iter().filter(|p| p.trainable);
        total(trained.map(PlannedParameter::elements))
    }

    /// What all tensors of the adapter take in a file.
    pub fn bytes(&self) -> u64 {
        let elements = self.parameters.iter().map(PlannedParameter::elements);
        total(elements.map(|elements| elements.saturating_mul(4)))
    }

    /// Distinct module paths that are adapted.
    pub fn module_count(&self, modules: &Modules) -> usize {
        self.sites
            .iter()
            .map(|s| modules.sites[s.site].path.as_str())
            .collect::<BTreeSet<_>>()
            .len()
    }
}

/// Plans one adapter of a program. All errors of all statements are reported at once.
pub fn plan(
    program: &Program,
    adapter: &Adapter,
    model: &Model,
    modules: &Modules,
    options: &Options,
    sink: &mut Sink,
) -> Result<Plan, Reported> {
    let settings = settings(program, adapter, &options.settings, sink)?;
    let mut planner = Planner {
        program,
        model,
        modules,
        settings,
        sink,
        plan: Plan {
            adapter: adapter.name.node.clone(),
            statements: Vec::new(),
            sites: Vec::new(),
            parameters: Vec::new(),
        },
        names: BTreeMap::new(),
        misshapen: BTreeMap::new(),
        instances: Vec::new(),
        outputs: Arc::new(beside::outputs(model, modules)),
    };
    let mut failed = None;
    for train in &adapter.trains {
        failed = planner.train(train).err().or(failed);
    }
    for adapt in &adapter.adapts {
        failed = planner.adapt(adapt).err().or(failed);
    }
    let Planner { mut plan, sink, .. } = planner;
    if let Some(reported) = failed {
        return Err(reported);
    }
    check_overlaps(&plan, modules, sink)?;
    prepend::check(&plan, model, modules, sink)?;
    first_pass::check(&plan, model, modules, sink)?;
    plan.sites
        .sort_by_key(|site| (site.site, site.slice.as_ref().map_or(0, |s| s.start)));
    Ok(plan)
}

/// A site belongs to one statement; slices of one module may belong to several, and be several of
/// one, if they do not overlap.
fn check_overlaps(plan: &Plan, modules: &Modules, sink: &mut Sink) -> Result<(), Reported> {
    let mut clashes: BTreeMap<(usize, usize), Vec<&str>> = BTreeMap::new();
    let mut by_site: BTreeMap<(usize, &Scope), Vec<&PlannedSite>> = BTreeMap::new();
    for planned in &plan.sites {
        by_site
            .entry((planned.site, &modules.sites[planned.site].scope))
            .or_default()
            .push(planned);
    }
    for planned in by_site.values() {
        for (index, second) in planned.iter().enumerate() {
            for first in &planned[..index] {
                let apart = match (&first.slice, &second.slice) {
                    (Some(a), Some(b)) => a.end <= b.start || b.end <= a.start,
                    _ => false,
                };
                if !apart {
                    let key = (
                        first.statement.min(second.statement),
                        first.statement.max(second.statement),
                    );
                    clashes
                        .entry(key)
                        .or_default()
                        .push(&modules.sites[second.site].path);
                }
            }
        }
    }
    let mut reported = None;
    for ((first, second), mut paths) in clashes {
        paths.dedup();
        if first == second {
            let span = plan.statements[first].span;
            reported = Some(sink.emit(errors::sliced_twice(span, paths[0], paths.len())));
            continue;
        }
        let (first, second) = (plan.statements[first].span, plan.statements[second].span);
        reported = Some(sink.emit(errors::adapted_twice(second, first, paths[0], paths.len())));
    }
    reported.map_or(Ok(()), Err)
}
