//! What formulas read beside their module: sizes and heads of the modules of a model, other modules on
//! inputs of their own, and the query of an attention.

use super::apply::graph_at;
use super::plan::PlannedSite;
use crate::graph::{Graph, Model};
use crate::hir::{Formula, Lead, ModuleOutput, Outputs, TermKind};
use crate::modules::{Modules, Site, SiteKind};
use std::collections::BTreeMap;

/// ONNX has Max of integers from this opset on.
const INTEGER_MAX: i64 = 12;

/// What the modules of a model take and give.
pub(super) fn outputs(model: &Model, modules: &Modules) -> Outputs {
    let called = modules.sites.iter().filter(|site| site.is_module());
    let each = called.map(|site| ModuleOutput {
        paths: site.paths().map(str::to_owned).collect(),
        inputs: site.in_features,
        features: site.out_features,
        is_linear: site.kind == SiteKind::Linear,
        heads: site
            .query(graph_at(model, &site.scope))
            .map(|query| query.heads),
    });
    Outputs(each.collect())
}

/// The paths of the other modules that a formula applies.
fn applied_in(formula: &Formula) -> impl Iterator<Item = &str> {
    let reached = formula.reachable();
    let terms = formula.terms();
    terms.filter_map(move |(id, term)| {
        let path = term.kind.module()?;
        reached[id.0 as usize].then_some(path)
    })
}

/// The call of a module whose node can be had once more at a site.
fn call<'m>(modules: &'m Modules, path: &str, site: &Site) -> Option<&'m Site> {
    let mut calls = modules.sites.iter().filter(|other| {
        other.kind == SiteKind::Linear && other.path == path && other.scope == site.scope
    });
    calls.next()
}

/// Why a formula cannot read what it does at a site, if it cannot.
pub(super) fn refusal(
    formula: &Formula,
    (graph, opset): (&Graph, i64),
    site: &Site,
    modules: &Modules,
) -> Option<String> {
    for path in applied_in(formula) {
        let Some(other) = call(modules, path, site) else {
            return Some("it applies a module of another branch of the model".to_owned());
        };
        if let Some(obstacle) = &other.obstacle {
            return Some(format!("of a module that it applies, {obstacle}"));
        }
    }
    let (_, term) = formula
        .terms()
        .find(|(_, term)| term.kind == TermKind::Query)?;
    let heads = term.ty.dims.first().and_then(|dim| dim.known());
    match site.query(graph) {
        Err(why) => return Some(why),
        // Sizes are those of the first call of a path.
        Ok(query) if Some(query.heads) != heads => {
            return Some("its calls read attentions of different heads".to_owned());
        }
        Ok(query) if query.turned_in.is_some() && opset < INTEGER_MAX => {
            return Some(format!(
                "the positions of its query need opset {INTEGER_MAX}, and the model is of opset {opset}"
            ));
        }
        Ok(_) => {}
    }
    let shape = graph.value(site.input).ty.as_ref()?.shape.as_ref();
    let rank = shape.map(|shape| shape.rank());
    match (term.ty.lead, rank) {
        (Lead::Full, Some(2 | 3)) => None,
        (_, Some(rank)) => Some(format!("its input has {rank} axes, and no tokens in rows")),
        (_, None) => Some("how many axes its input has is not known".to_owned()),
    }
}

/// The modules that formulas of one graph apply, by their paths.
#[derive(Default)]
pub(super) struct Applied<'m>(BTreeMap<&'m str, &'m Site>);

impl<'m> Applied<'m> {
    /// Those of some sites of one graph.
    pub fn of(sites: &[&'m PlannedSite], modules: &'m Modules) -> Applied<'m> {
        let mut applied = Applied::default();
        for planned in sites {
            let own = &modules.sites[planned.site];
            for method in &planned.methods {
                for path in applied_in(&method.instance.forward) {
                    if let Some(site) = call(modules, path, own) {
                        applied.0.insert(path, site);
                    }
                }
            }
        }
        applied
    }

    /// The module of a path.
    pub fn site(&self, path: &str) -> Option<&'m Site> {
        self.0.get(path).copied()
    }
}
