//! Statement by statement: which sites an adapter takes, and with which values.

use super::methods::{Totals, last_word};
use super::plan::{Plan, PlannedSite, StatementPlan};
use super::refusal::{Cause, Failure, Failures, Refusal};
use super::select::{self, Selected, Selection};
use super::settings::MethodSettings;
use super::{errors, rows};
use crate::diag::{Reported, Sink, Span};
use crate::graph::Model;
use crate::hir::{
    Adapt, Call, Compiled, Formula, HyperValue, Init, Instance, MethodId, Outputs, Place, Program,
    SiteFacts, compile_pattern, site_condition, site_size,
};
use crate::modules::{Modules, Site, SiteKind};
use crate::syntax::ast::{self, Target};
use crate::ty::Dim;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// An override's pattern with its arguments.
type CompiledOverride<'o> = (Compiled, &'o BTreeMap<String, HyperValue>);

pub(super) struct CachedInstance {
    pub method: MethodId,
    pub values: BTreeMap<String, HyperValue>,
    pub facts: SiteFacts,
    /// A failure is reported once for all sites of these sizes.
    pub instance: Result<Arc<Instance>, Reported>,
}

impl CachedInstance {
    /// Whether it is the instance of a site with these facts.
    pub fn serves(&self, facts: &SiteFacts) -> bool {
        let anywhere = self
            .instance
            .as_ref()
            .is_ok_and(|instance| !instance.reads_place);
        let anywhere = anywhere || self.instance.is_err();
        match anywhere {
            true => {
                SiteFacts {
                    place: self.facts.place.clone(),
                    ..facts.clone()
                } == self.facts
            }
            false => self.facts == *facts,
        }
    }
}

pub(super) struct Planner<'a> {
    pub program: &'a Program,
    pub model: &'a Model,
    pub modules: &'a Modules,
    pub settings: MethodSettings,
    pub sink: &'a mut Sink,
    pub plan: Plan,
    /// Parameters by name: two calls of one module share theirs.
    pub names: BTreeMap<String, usize>,
    /// Shared tensors that would need several shapes.
    pub misshapen: BTreeMap<usize, Reported>,
    pub instances: Vec<CachedInstance>,
    /// What the modules of the model give.
    pub outputs: Arc<Outputs>,
}

impl Planner<'_> {
    pub fn adapt(&mut self, adapt: &Adapt) -> Result<(), Reported> {
        let mut selection = select::select(
            &adapt.targets,
            &adapt.except,
            self.model,
            self.modules,
            self.sink,
        )?;
        if let Some(condition) = &adapt.condition {
            self.filter(&mut selection, condition)?;
        }
        self.check_kinds(adapt, &selection)?;
        let overrides = self.overrides(adapt, &selection)?;
        let (totals, places) = (self.totals(&selection), self.places(&selection));
        let statement = self.plan.statements.len();
        let mut failures = Failures::default();
        for (selected, place) in selection.sites.iter().zip(places) {
            let site = &self.modules.sites[selected.site];
            let slice = match self.slice(selected, site) {
                Ok(slice) => slice,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            let mut methods = Vec::new();
            for call in &adapt.calls {
                let more: Vec<&BTreeMap<String, HyperValue>> = overrides
                    .iter()
                    .filter(|(pattern, _)| select::names(pattern, site))
                    .map(|(_, arguments)| *arguments)
                    .collect();
                let values = self.values(call, &more);
                let size = slice
                    .as_ref()
                    .map_or(site.out_features, |s| s.end - s.start);
                let facts = self.facts(site, size, &totals, place.clone());
                match self.method(
                    call,
                    adapt,
                    values,
                    facts,
                    selected.site,
                    slice.clone(),
                    statement,
                ) {
                    Ok(method) => methods.push(method),
                    Err(failure) => failures.push(failure),
                }
            }
            self.plan.sites.push(PlannedSite {
                site: selected.site,
                statement,
                slice,
                methods,
            });
        }
        self.check_everywhere(statement)?;
        let names = adapt
            .calls
            .iter()
            .map(|call| self.call_text(call))
            .collect();
        self.statement(&adapt.targets, names, &selection, adapt.span);
        failures.report(self.model, self.modules, self.sink)
    }

    /// What a hook or a start value joins over the modules of a statement has one shape at all of them.
    fn check_everywhere(&mut self, statement: usize) -> Result<(), Reported> {
        let sites = self
            .plan
            .sites
            .iter()
            .filter(|site| site.statement == statement);
        let mut first: BTreeMap<(usize, usize, usize), (usize, Vec<Dim>)> = BTreeMap::new();
        for site in sites {
            for (place, method) in site.methods.iter().enumerate() {
                for (number, formula) in joining(&method.instance).enumerate() {
                    for (call, (operand, whole)) in formula.everywhere().enumerate() {
                        let dims = formula.term(operand).ty.dims.clone();
                        let key = (place, number, call);
                        let (other, known) = first
                            .entry(key)
                            .or_insert_with(|| (site.site, dims.clone()));
                        if *known != dims {
                            let path = |site: usize| self.modules.sites[site].path.as_str();
                            let diagnostic = errors::joined_shapes_differ(
                                (method.span, formula.term(whole).span),
                                (path(*other), known),
                                (path(site.site), &dims),
                            );
                            return Err(self.sink.emit(diagnostic));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// `train` is an `adapt` with the library's method for the kind of each module.
    pub fn train(&mut self, train: &ast::Train) -> Result<(), Reported> {
        let selection = select::select(
            &train.targets,
            &train.except,
            self.model,
            self.modules,
            self.sink,
        )?;
        let statement = self.plan.statements.len();
        let adapt = |method| Adapt {
            targets: train.targets.clone(),
            except: Vec::new(),
            condition: None,
            calls: vec![Call {
                method,
                arguments: BTreeMap::new(),
                span: train.span,
            }],
            overrides: Vec::new(),
            span: train.span,
        };
        let mut failures = Failures::default();
        for selected in &selection.sites {
            let site = &self.modules.sites[selected.site];
            let Some(method) = self.program.train.get(site.kind.name()).copied() else {
                let why = format!("{} modules cannot be trained in full yet", site.kind.name());
                failures.push(Refusal {
                    site: selected.site,
                    span: train.span,
                    cause: Cause::Other(why),
                });
                continue;
            };
            let adapt = adapt(method);
            let call = &adapt.calls[0];
            let facts = self.own_facts(site);
            match self.method(
                call,
                &adapt,
                BTreeMap::new(),
                facts,
                selected.site,
                None,
                statement,
            ) {
                Ok(method) => self.plan.sites.push(PlannedSite {
                    site: selected.site,
                    statement,
                    slice: None,
                    methods: vec![method],
                }),
                Err(failure) => failures.push(failure),
            }
        }
        self.statement(
            &train.targets,
            vec!["train".to_owned()],
            &selection,
            train.span,
        );
        failures.report(self.model, self.modules, self.sink)
    }

    fn statement(
        &mut self,
        targets: &[Target],
        methods: Vec<String>,
        selection: &Selection<'_>,
        span: Span,
    ) {
        let path = |index: &usize| self.modules.sites[*index].path.clone();
        let mut modules: Vec<String> = selection.sites.iter().map(|s| path(&s.site)).collect();
        modules.dedup();
        self.plan.statements.push(StatementPlan {
            targets: targets.iter().map(select::target_text).collect(),
            methods,
            modules,
            heads: selection.heads.iter().map(path).collect(),
            span,
        });
    }

    fn call_text(&self, call: &Call) -> String {
        let method = self.program.method(call.method);
        let values = self.values(call, &[]);
        let set: Vec<String> = method
            .hypers
            .iter()
            .filter_map(|hyper| {
                let value = values.get(&hyper.name.node)?;
                let shown = call.arguments.contains_key(&hyper.name.node)
                    || hyper.default.as_ref() != Some(value);
                shown.then(|| format!("{} = {value}", hyper.name.node))
            })
            .collect();
        if set.is_empty() {
            method.name.node.clone()
        } else {
            format!("{}({})", method.name.node, set.join(", "))
        }
    }

    fn values(
        &self,
        call: &Call,
        overrides: &[&BTreeMap<String, HyperValue>],
    ) -> BTreeMap<String, HyperValue> {
        let method = self.program.method(call.method);
        let mut values = call.values(method, overrides);
        values.retain(|name, _| method.hyper(name).is_some());
        for ((id, name), value) in &self.settings {
            if *id == call.method {
                values.insert(name.clone(), value.clone());
            }
        }
        values
    }

    fn filter(
        &mut self,
        selection: &mut Selection<'_>,
        condition: &ast::Expr,
    ) -> Result<(), Reported> {
        let matched = selection.sites.len();
        let mut kept = Vec::new();
        for selected in selection.sites.drain(..) {
            let site = &self.modules.sites[selected.site];
            let facts = self.own_facts(site);
            if site_condition(self.program, condition, &facts, self.sink)? {
                kept.push(selected);
            }
        }
        if kept.is_empty() {
            return Err(self
                .sink
                .emit(errors::condition_leaves_nothing(condition.span, matched)));
        }
        selection.sites = kept;
        Ok(())
    }

    fn check_kinds(&mut self, adapt: &Adapt, selection: &Selection<'_>) -> Result<(), Reported> {
        let mut reported = None;
        for call in &adapt.calls {
            let method = self.program.method(call.method).clone();
            let kinds: Vec<String> = method.kinds.iter().map(|k| k.node.clone()).collect();
            for target in &adapt.targets {
                let wrong: Vec<&Site> = selection
                    .sites
                    .iter()
                    .filter(|s| std::ptr::eq(s.target, target))
                    .map(|s| &self.modules.sites[s.site])
                    .filter(|site| !kinds.iter().any(|k| k == site.kind.name()))
                    .collect();
                if let Some(first) = wrong.first() {
                    let span = select::target_span(target);
                    reported = Some(self.sink.emit(errors::wrong_kind(
                        span,
                        first,
                        wrong.len(),
                        &method.name.node,
                        &kinds,
                    )));
                }
            }
        }
        reported.map_or(Ok(()), Err)
    }

    fn overrides<'o>(
        &mut self,
        adapt: &'o Adapt,
        selection: &Selection<'_>,
    ) -> Result<Vec<CompiledOverride<'o>>, Reported> {
        let mut compiled = Vec::new();
        for entry in &adapt.overrides {
            let pattern = compile_pattern(&entry.pattern, self.sink)?;
            let applies = selection
                .sites
                .iter()
                .any(|s| select::names(&pattern, &self.modules.sites[s.site]));
            if !applies {
                return Err(self.sink.emit(errors::override_matches_nothing(
                    entry.pattern.span,
                    &entry.pattern.text.node,
                )));
            }
            compiled.push((pattern, &entry.arguments));
        }
        Ok(compiled)
    }

    fn totals(&self, selection: &Selection<'_>) -> Totals {
        let sizes = selection.sites.iter().map(|selected| {
            let site = &self.modules.sites[selected.site];
            (rows::columns(self.model, site), site.out_features)
        });
        let start = Totals {
            largest: (1, 1),
            sum: (0, 0),
        };
        sizes.fold(start, |all, (input, output)| Totals {
            largest: (all.largest.0.max(input), all.largest.1.max(output)),
            sum: (all.sum.0 + input, all.sum.1 + output),
        })
    }

    /// The places of the selected sites among each other, in their order.
    fn places(&self, selection: &Selection<'_>) -> Vec<Place> {
        let mut order: Vec<usize> = (0..selection.sites.len()).collect();
        order.sort_by_key(|at| selection.sites[*at].site);
        let kind_of = |at: usize| {
            let site = &self.modules.sites[selection.sites[at].site];
            let sizes = (rows::columns(self.model, site), site.out_features);
            (last_word(&site.path), sizes)
        };
        let mut families: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for at in &order {
            families.entry(kind_of(*at)).or_default().push(*at);
        }
        let number = |list: &[usize], at: usize| {
            let place = list.iter().position(|other| *other == at);
            Dim::from(place.unwrap_or(0) as i64)
        };
        let mut numbers = vec![0; order.len()];
        for (number, at) in order.iter().enumerate() {
            numbers[*at] = number as i64;
        }
        (0..selection.sites.len())
            .map(|at| {
                let family = &families[&kind_of(at)];
                Place {
                    name: kind_of(at).0.to_owned(),
                    path: self.modules.sites[selection.sites[at].site].path.clone(),
                    site: Dim::from(numbers[at]),
                    sites: Dim::from(order.len() as i64),
                    sibling: number(family, at),
                    siblings: Dim::from(family.len() as i64),
                }
            })
            .collect()
    }

    /// The slice of a pattern for one site, in output features of the module.
    fn slice(
        &mut self,
        selected: &Selected<'_>,
        site: &Site,
    ) -> Result<Option<Range<i64>>, Failure> {
        let Target::Pattern(pattern) = selected.target else {
            return Ok(None);
        };
        let Some(bounds) = &pattern.slice else {
            return Ok(None);
        };
        let whole = match site.kind {
            SiteKind::Conv => Some("channels of a convolution cannot be sliced"),
            SiteKind::Norm => Some("a norm is computed from all of its features"),
            SiteKind::Cache => Some("a cache has no output features"),
            SiteKind::Linear | SiteKind::Embedding => None,
        };
        let refused = |why: String| Refusal {
            site: selected.site,
            span: pattern.span,
            cause: Cause::Slice(why),
        };
        if let Some(why) = whole {
            return Err(refused(why.to_owned()).into());
        }
        let facts = self.own_facts(site);
        let mut bound = |expr: &Option<ast::Expr>, default: i64| match expr {
            Some(expr) => site_size(self.program, expr, &facts, self.sink),
            None => Ok(default),
        };
        let start = bound(&bounds.start, 0)?;
        let end = bound(&bounds.end, site.out_features)?;
        if start < 0 || end > site.out_features || start >= end {
            let why = format!("{start}..{end} of {} output features", site.out_features);
            return Err(refused(why).into());
        }
        Ok(Some(start..end))
    }
}

/// The formulas of an instance that may join values of several modules.
fn joining(instance: &Instance) -> impl Iterator<Item = &Formula> {
    let hooks = instance.training.hooks.iter().map(|hook| &hook.formula);
    let starts = instance
        .params
        .iter()
        .filter_map(|param| match &param.init {
            Init::Computed(formula) => Some(formula),
            Init::Constant(_) | Init::Random(_) => None,
        });
    hooks.chain(starts)
}
