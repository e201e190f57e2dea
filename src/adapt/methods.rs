//! Methods at sites: their instances, their parameters, and what a site cannot have.

use super::lower::axes;
use super::plan::{PlannedMethod, PlannedParameter};
use super::planner::{CachedInstance, Planner};
use super::prepend::{self, Placeholders};
use super::refusal::{Cause, Failure, Refusal};
use super::{beside, errors, first_pass, norms, rows};
use crate::diag::{Reported, Span};
use crate::graph::Graph;
use crate::hir::affine::{Tokens, token_reach};
use crate::hir::{
    Adapt, Call, Context, Formula, HyperValue, Init, Instance, Method, Place, SiteFacts, TermKind,
    instantiate,
};
use crate::modules::{Site, SiteKind};
use crate::ty::Dim;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Sizes over the sites of a statement, of inputs and of outputs.
pub(super) struct Totals {
    pub largest: (i64, i64),
    pub sum: (i64, i64),
}

fn reads_parameters(formula: &Formula) -> bool {
    formula.uses(|kind| matches!(kind, TermKind::Param(_)))
}

/// The name of a tensor of a method, which is called by the label where its statement has several.
fn full_name(owner: &str, label: Option<&str>, name: &str) -> String {
    match label {
        Some(label) => format!("{owner}.{label}.{name}"),
        None => format!("{owner}.{name}"),
    }
}

/// `q_proj` of `layers.0.q_proj`.
pub(super) fn last_word(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

impl Planner<'_> {
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, all of it decides the instance"
    )]
    pub fn method(
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
                (_, true) => match &param.key {
                    Some(key) => format!("shared.{statement}.{key}"),
                    None => format!("shared.{statement}"),
                },
                (Some(slice), _) => format!("{}[{}..{}]", site.path, slice.start, slice.end),
                (None, _) => site.path.clone(),
            };
            let name = full_name(&owner, label.as_deref(), &param.name);
            let dims: Vec<i64> = param
                .dims
                .iter()
                .map(|d| d.known().expect("sizes of a site are numbers"))
                .collect();
            let index = match self.names.get(&name).copied() {
                Some(index) => {
                    self.check_shared(index, (&dims, param.rate), site, call.span)?;
                    index
                }
                None => {
                    self.plan.parameters.push(PlannedParameter {
                        name: name.clone(),
                        module: (!param.shared).then(|| site.path.clone()),
                        parameter: param.name.clone(),
                        dims,
                        trainable: param.trainable,
                        rate: param.rate,
                        init: param.init.clone(),
                        reads: match &param.init {
                            Init::Computed(formula) if reads_parameters(formula) => {
                                parameters.clone()
                            }
                            _ => Vec::new(),
                        },
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
        let owner = match &slice {
            Some(slice) => format!("{}[{}..{}]", site.path, slice.start, slice.end),
            None => site.path.clone(),
        };
        let states = instance.training.states.iter();
        let states = states.map(|state| full_name(&owner, label.as_deref(), &state.name));
        Ok(PlannedMethod {
            states: states.collect(),
            id: call.method,
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

    /// A tensor for several modules has one shape and one learning rate; said once for each.
    fn check_shared(
        &mut self,
        index: usize,
        (dims, rate): (&[i64], f64),
        site: &Site,
        span: Span,
    ) -> Result<(), Reported> {
        let first = &self.plan.parameters[index];
        let (owner, path) = (&*self.modules.sites[first.site].path, &*site.path);
        let diagnostic = if first.dims != dims {
            errors::shared_shapes_differ(span, &first.parameter, (owner, &first.dims), (path, dims))
        } else if first.rate != rate {
            let rates = ((owner, first.rate), (path, rate));
            errors::shared_rates_differ(span, &first.parameter, rates)
        } else {
            return Ok(());
        };
        if let Some(reported) = self.misshapen.get(&index) {
            return Err(*reported);
        }
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
            .find(|c| c.method == call.method && c.values == *values && c.serves(&facts));
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
    pub fn own_facts(&self, site: &Site) -> SiteFacts {
        let input = rows::columns(self.model, site);
        let own = Totals {
            largest: (input, site.out_features),
            sum: (input, site.out_features),
        };
        self.facts(site, site.out_features, &own, Place::alone(&site.path))
    }

    pub fn facts(&self, site: &Site, output: i64, totals: &Totals, place: Place) -> SiteFacts {
        SiteFacts {
            kind: site.kind.name().to_owned(),
            input: Dim::from(rows::columns(self.model, site)),
            output: Dim::from(output),
            kernel: Dim::from(rows::kernel_size(self.model, site)),
            has_bias: site.bias.is_some(),
            largest_input: Dim::from(totals.largest.0),
            largest_output: Dim::from(totals.largest.1),
            total_input: Dim::from(totals.sum.0),
            total_output: Dim::from(totals.sum.1),
            place,
            outputs: Some(self.outputs.clone()),
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
        if instance.forward.uses(TermKind::reads_mask) && self.model.padding_mask().is_none() {
            return Some(Cause::NoMask);
        }
        if instance.forward.uses(TermKind::reads_ids)
            && let Some(cause) = self.lacks_ids(name, graph, site)
        {
            return Some(cause);
        }
        let opset = self.model.opset("").unwrap_or(1);
        let beside = beside::refusal(&instance.forward, (graph, opset), site, self.modules);
        if let Some(why) = beside {
            return Some(Cause::Other(why));
        }
        let mut inits = instance.params.iter().map(|p| &p.init);
        let reads_weight = uses(TermKind::Weight)
            || inits.any(|init| match init {
                Init::Computed(formula) => formula.uses(|kind| *kind == TermKind::Weight),
                _ => false,
            });
        if reads_weight && site.weight.quantization.is_some() {
            return Some(Cause::Other(format!(
                "`{name}` reads the base weight, which is quantized"
            )));
        }
        if let Some(count) = prepend::count(&instance.forward)
            && let Err(why) = Placeholders::of(self.model, &[site], count)
        {
            return Some(Cause::Other(why));
        }
        let hooks = instance.training.hooks.iter();
        let hooks = hooks.flat_map(|hook| hook.formula.terms());
        let mut lacks = hooks.filter_map(|(_, term)| axes::opset_lacks(&term.kind, opset));
        let lacks = axes::opset_refusal(&instance.forward, opset).or_else(|| lacks.next());
        if let Some(why) = lacks {
            return Some(Cause::Other(why));
        }
        let groups = graph.node(site.node).int("group").unwrap_or(1);
        rows::refusal(&instance.forward, site, groups)
            .or_else(|| norms::refusal(&instance.forward, site, graph))
            .map(|why| Cause::Other(why.to_owned()))
    }

    /// Why the ids of the model's tokens are not those of the site's, if they are not.
    fn lacks_ids(&self, name: &str, graph: &Graph, site: &Site) -> Option<Cause> {
        let Some(ids) = self.model.token_ids() else {
            return Some(Cause::NoIds);
        };
        let shape = |graph: &Graph, id| graph.value(id).ty.as_ref()?.shape.clone();
        let (own, ids) = (shape(graph, site.input)?, shape(&self.model.graph, ids)?);
        first_pass::of_other_tokens(site, &own, &ids).then(|| {
            Cause::Other(format!(
                "`{name}` reads the ids of the module's tokens, and its input is {own} where \
                 `input_ids` is {ids}"
            ))
        })
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
