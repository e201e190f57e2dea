//! Decides what an adapter does to a model, without doing it.

use super::errors;
use super::norms;
use super::refusal::{Cause, Failure, Failures, Refusal};
use super::rows;
use super::select::{self, Selected, Selection};
use crate::diag::{Reported, Sink, Span};
use crate::graph::Model;
use crate::hir::affine::{Tokens, token_reach};
use crate::hir::{
    Adapt, Adapter, Call, Compiled, Context, HyperKind, HyperValue, Init, Instance, Method,
    MethodId, Program, SiteFacts, TermKind, compile_pattern, instantiate, site_condition,
    site_size,
};
use crate::modules::{Modules, Scope, Site, SiteKind};
use crate::syntax::ast::{self, Target};
use crate::ty::Dim;
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
    pub name: String,
    /// Every hyper-parameter as it is at this site, overrides and settings included.
    pub values: BTreeMap<String, HyperValue>,
    pub instance: Arc<Instance>,
    /// Index into [`Plan::parameters`] for every parameter of the instance.
    pub parameters: Vec<usize>,
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
    pub init: Init,
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
    plan.sites
        .sort_by_key(|site| (site.site, site.slice.as_ref().map_or(0, |s| s.start)));
    Ok(plan)
}

/// `--set` values by method and hyper-parameter.
type MethodSettings = BTreeMap<(MethodId, String), HyperValue>;

fn settings(
    program: &Program,
    adapter: &Adapter,
    wanted: &Settings,
    sink: &mut Sink,
) -> Result<MethodSettings, Reported> {
    let used: BTreeSet<MethodId> = adapter
        .adapts
        .iter()
        .flat_map(|a| a.calls.iter().map(|c| c.method))
        .collect();
    let mut found = MethodSettings::new();
    for (name, text) in wanted {
        let (only, hyper_name) = match name.split_once('.') {
            Some((method, hyper)) => (Some(method), hyper),
            None => (None, name.as_str()),
        };
        let mut hit = false;
        for id in &used {
            let method = program.method(*id);
            if only.is_some_and(|only| only != method.name.node) {
                continue;
            }
            let Some(hyper) = method.hyper(hyper_name) else {
                continue;
            };
            let Some(value) = parse_setting(&hyper.kind, text) else {
                return Err(sink.emit(errors::wrong_setting(name, text, &hyper.kind.describe())));
            };
            found.insert((*id, hyper_name.to_owned()), value);
            hit = true;
        }
        if !hit {
            let known: Vec<String> = used
                .iter()
                .flat_map(|id| {
                    program
                        .method(*id)
                        .hypers
                        .iter()
                        .map(|h| h.name.node.clone())
                })
                .collect();
            return Err(sink.emit(errors::unknown_setting(
                name,
                known.iter().map(String::as_str),
            )));
        }
    }
    Ok(found)
}

fn parse_setting(kind: &HyperKind, text: &str) -> Option<HyperValue> {
    match kind {
        HyperKind::Int => text.parse().ok().map(HyperValue::Int),
        HyperKind::Float => text
            .parse()
            .ok()
            .filter(|v: &f64| v.is_finite())
            .map(HyperValue::Float),
        HyperKind::Bool => text.parse().ok().map(HyperValue::Bool),
        HyperKind::String => Some(HyperValue::String(text.to_owned())),
        HyperKind::Choice(options) => options
            .iter()
            .find(|o| *o == text)
            .map(|o| HyperValue::String(o.clone())),
    }
}

/// An override's pattern with its arguments.
type CompiledOverride<'o> = (Compiled, &'o BTreeMap<String, HyperValue>);

struct CachedInstance {
    method: MethodId,
    values: BTreeMap<String, HyperValue>,
    facts: SiteFacts,
    /// A failure is reported once for all sites of these sizes.
    instance: Result<Arc<Instance>, Reported>,
}

struct Planner<'a> {
    program: &'a Program,
    model: &'a Model,
    modules: &'a Modules,
    settings: MethodSettings,
    sink: &'a mut Sink,
    plan: Plan,
    /// Parameters by name: two calls of one module share theirs.
    names: BTreeMap<String, usize>,
    /// Shared tensors that would need several shapes.
    misshapen: BTreeMap<usize, Reported>,
    instances: Vec<CachedInstance>,
}

impl Planner<'_> {
    fn adapt(&mut self, adapt: &Adapt) -> Result<(), Reported> {
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
        let (largest_input, largest_output) = self.largest(&selection);
        let statement = self.plan.statements.len();
        let mut failures = Failures::default();
        for selected in &selection.sites {
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
                let facts = self.facts(site, size, largest_input, largest_output);
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
        let names = adapt
            .calls
            .iter()
            .map(|call| self.call_text(call))
            .collect();
        self.statement(&adapt.targets, names, &selection, adapt.span);
        failures.report(self.model, self.modules, self.sink)
    }

    /// `train` is an `adapt` with the library's method for the kind of each module.
    fn train(&mut self, train: &ast::Train) -> Result<(), Reported> {
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

    fn largest(&self, selection: &Selection<'_>) -> (i64, i64) {
        let sites = || selection.sites.iter().map(|s| &self.modules.sites[s.site]);
        let input = sites().map(|s| rows::columns(self.model, s)).max();
        let input = input.unwrap_or(1);
        (input, sites().map(|s| s.out_features).max().unwrap_or(1))
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

    #[expect(
        clippy::too_many_arguments,
        reason = "one call, all of it decides the instance"
    )]
    fn method(
        &mut self,
        call: &Call,
        adapt: &Adapt,
        values: BTreeMap<String, HyperValue>,
        facts: SiteFacts,
        site_index: usize,
        slice: Option<Range<i64>>,
        statement: usize,
    ) -> Result<PlannedMethod, Failure> {
        let program = self.program;
        let method = program.method(call.method);
        let site = &self.modules.sites[site_index];
        let instance = self.instance(call, method, &values, facts, site)?;
        if let Some(cause) = self.refusal(method, &instance, site) {
            let (site, span) = (site_index, call.span);
            return Err(Refusal { site, span, cause }.into());
        }
        self.warn_site(call, method, token_reach(&instance.forward), site);
        let label = self.label(call, adapt);
        let mut parameters = Vec::new();
        for param in &instance.params {
            let owner = match (&slice, param.shared) {
                (_, true) => format!("shared.{statement}"),
                (Some(slice), _) => format!("{}[{}..{}]", site.path, slice.start, slice.end),
                (None, _) => site.path.clone(),
            };
            let name = match &label {
                Some(label) => format!("{owner}.{label}.{}", param.name),
                None => format!("{owner}.{}", param.name),
            };
            let dims: Vec<i64> = param
                .dims
                .iter()
                .map(|d| d.known().expect("sizes of a site are numbers"))
                .collect();
            let index = match self.names.get(&name).copied() {
                Some(index) => {
                    self.check_shared(index, &dims, site, call.span)?;
                    index
                }
                None => {
                    self.plan.parameters.push(PlannedParameter {
                        name: name.clone(),
                        module: (!param.shared).then(|| site.path.clone()),
                        parameter: param.name.clone(),
                        dims,
                        trainable: param.trainable,
                        init: param.init.clone(),
                        site: site_index,
                        slice: slice.clone(),
                        span: call.span,
                    });
                    self.names.insert(name, self.plan.parameters.len() - 1);
                    self.plan.parameters.len() - 1
                }
            };
            parameters.push(index);
        }
        Ok(PlannedMethod {
            name: method.name.node.clone(),
            values,
            instance,
            parameters,
            span: call.span,
        })
    }

    /// What tells the parameters of the statement's methods apart; nothing where there is one method,
    /// so that names stay short.
    fn label(&self, call: &Call, adapt: &Adapt) -> Option<String> {
        let name = |call: &Call| &self.program.method(call.method).name.node;
        let before = adapt.calls.iter().take_while(|c| !std::ptr::eq(*c, call));
        let same = before.filter(|c| name(c) == name(call)).count();
        match (adapt.calls.len(), same) {
            (1, _) => None,
            (_, 0) => Some(name(call).clone()),
            (_, same) => Some(format!("{}_{}", name(call), same + 1)),
        }
    }

    /// A tensor for several modules has one shape; said once for each.
    fn check_shared(
        &mut self,
        index: usize,
        dims: &[i64],
        site: &Site,
        span: Span,
    ) -> Result<(), Reported> {
        let first = &self.plan.parameters[index];
        if first.dims == dims {
            return Ok(());
        }
        if let Some(reported) = self.misshapen.get(&index) {
            return Err(*reported);
        }
        let owner = &self.modules.sites[first.site].path;
        let diagnostic = errors::shared_shapes_differ(
            span,
            &first.parameter,
            (owner, &first.dims),
            (&site.path, dims),
        );
        let reported = self.sink.emit(diagnostic);
        self.misshapen.insert(index, reported);
        Err(reported)
    }

    fn instance(
        &mut self,
        call: &Call,
        method: &Method,
        values: &BTreeMap<String, HyperValue>,
        facts: SiteFacts,
        site: &Site,
    ) -> Result<Arc<Instance>, Reported> {
        let cached = self
            .instances
            .iter()
            .find(|c| c.method == call.method && c.values == *values && c.facts == facts);
        if let Some(cached) = cached {
            return cached.instance.clone();
        }
        let context = Context {
            span: call.span,
            text: format!(
                "asked for here, for `{}` ({} to {})",
                site.path, facts.input, facts.output
            ),
        };
        let instance = instantiate(
            self.program,
            method,
            values,
            &facts,
            Some(&context),
            self.sink,
        )
        .map(Arc::new);
        self.instances.push(CachedInstance {
            method: call.method,
            values: values.clone(),
            facts,
            instance: instance.clone(),
        });
        instance
    }

    /// The facts of a site without other sites of its statement.
    fn own_facts(&self, site: &Site) -> SiteFacts {
        let input = rows::columns(self.model, site);
        self.facts(site, site.out_features, input, site.out_features)
    }

    fn facts(
        &self,
        site: &Site,
        output: i64,
        largest_input: i64,
        largest_output: i64,
    ) -> SiteFacts {
        SiteFacts {
            kind: site.kind.name().to_owned(),
            input: Dim::from(rows::columns(self.model, site)),
            output: Dim::from(output),
            has_bias: site.bias.is_some(),
            largest_input: Dim::from(largest_input),
            largest_output: Dim::from(largest_output),
        }
    }

    /// What can only be known at the site.
    fn refusal(&self, method: &Method, instance: &Instance, site: &Site) -> Option<Cause> {
        let name = &method.name.node;
        let graph = super::apply::graph_at(self.model, &site.scope);
        let uses = |wanted| instance.forward.uses(|kind| *kind == wanted);
        if token_reach(&instance.forward) != Tokens::Own {
            let shape = graph
                .value(site.input)
                .ty
                .as_ref()
                .and_then(|ty| ty.shape.as_ref());
            let rank = shape.map(|s| s.rank() + usize::from(site.kind == SiteKind::Embedding));
            if site.kind == SiteKind::Conv || rank.is_some_and(|rank| rank < 3) {
                return Some(Cause::Other(format!(
                    "`{name}` looks across tokens, and the module's input has none"
                )));
            }
            if rank.is_none() {
                return Some(Cause::Other(format!(
                    "`{name}` looks across tokens, and it is not known how many axes the \
                     module's input has"
                )));
            }
        }
        if uses(TermKind::Mask) && super::apply::mask_input(self.model).is_none() {
            return Some(Cause::NoMask);
        }
        let mut inits = instance.params.iter().map(|p| &p.init);
        let reads_weight =
            uses(TermKind::Weight) || inits.any(|init| matches!(init, Init::Computed(_)));
        if reads_weight && site.weight.quantization.is_some() {
            return Some(Cause::Other(format!(
                "`{name}` reads the base weight, which is quantized"
            )));
        }
        let groups = graph.node(site.node).int("group").unwrap_or(1);
        rows::refusal(&instance.forward, site, groups)
            .or_else(|| norms::refusal(&instance.forward, site, graph))
            .map(|why| Cause::Other(why.to_owned()))
    }

    fn warn_site(&mut self, call: &Call, method: &Method, reach: Tokens, site: &Site) {
        let cached = self.model.graph.inputs().iter().any(|id| {
            self.model
                .graph
                .value(*id)
                .name
                .starts_with("past_key_values")
        });
        if reach == Tokens::All {
            self.sink
                .warn(errors::reads_padding(call.span, &method.name.node));
        }
        if reach != Tokens::Own && cached {
            self.sink
                .warn(errors::reads_other_tokens(call.span, &method.name.node));
        }
        if !site.shared_with.is_empty() {
            self.sink.warn(errors::tied_weight(
                call.span,
                &site.path,
                &site.shared_with,
            ));
        }
    }
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
