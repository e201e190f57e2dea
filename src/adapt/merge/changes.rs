//! What an adapter changes, module by module, as matrices.

use super::super::apply;
use super::super::initial::WeightReader;
use super::super::plan::{Plan, PlannedSite};
use super::super::refusal::excerpt;
use super::compute::{Merged, Merging};
use super::{check, place};
use crate::diag::{Code, Diagnostic, Reported, Sink, Span};
use crate::graph::{Model, Tensor};
use crate::linalg::Matrix;
use crate::modules::{Modules, Site, SiteKind};
use std::collections::BTreeMap;
use std::ops::Range;

/// The change of one weight, or of the part of it that one statement adapts.
#[derive(Debug)]
pub struct SiteChange {
    /// The modules that have it: several if they share the weight and the adapter's tensors.
    pub paths: Vec<String>,
    /// Part of the module's output features, when the pattern had a slice.
    pub slice: Option<Range<i64>>,
    /// `[out, in]` in f64, whatever the kind of the module.
    pub weight: Matrix,
    /// `None` if nothing is added to the bias.
    pub bias: Option<Vec<f64>>,
}

/// Hands the change of every weight to `each`, as long as that succeeds, with the number of nodes that are
/// done and of all. `Err` of `each` says why a change cannot be used; it is reported at the module.
pub fn changes(
    plan: &Plan,
    model: &Model,
    modules: &Modules,
    values: &BTreeMap<String, Tensor>,
    weights: &WeightReader<'_>,
    each: &mut dyn FnMut(SiteChange, (usize, usize)) -> Result<(), String>,
    sink: &mut Sink,
) -> Result<(), Reported> {
    check::check(plan, model, modules, sink)?;
    check_forms(plan, model, modules, sink)?;
    let merging = Merging {
        plan,
        model,
        modules,
        values,
        weights,
    };
    let mut units = place::units(plan, modules);
    let all = units.len();
    while let Some(group) = place::next_group(&mut units, modules) {
        let merged = merging.merged(&group[0], sink)?;
        if !merged.weight.iter().all(|value| value.is_finite()) {
            return merging.fail(&group[0], "a merged number is not finite", sink);
        }
        for (index, planned) in group[0].sites.iter().enumerate() {
            let mut paths: Vec<String> = Vec::new();
            for unit in &group {
                let path = &modules.sites[unit.sites[index].site].path;
                if !paths.contains(path) {
                    paths.push(path.clone());
                }
            }
            let change = of(&merged, planned, modules, paths);
            if let Err(why) = each(change, (all - units.len(), all)) {
                return Err(sink.emit(refused(plan, planned, model, modules, &why)));
            }
        }
    }
    Ok(())
}

/// Reports every module that has no matrix over all of its inputs.
fn check_forms(
    plan: &Plan,
    model: &Model,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut reported = None;
    for planned in &plan.sites {
        if let Some(why) = no_matrix(model, &modules.sites[planned.site]) {
            reported = Some(sink.emit(refused(plan, planned, model, modules, why)));
        }
    }
    reported.map_or(Ok(()), Err)
}

fn no_matrix(model: &Model, site: &Site) -> Option<&'static str> {
    let node = apply::graph_at(model, &site.scope).node(site.node);
    match site.kind {
        SiteKind::Norm => Some("the weight of a norm is a vector"),
        SiteKind::Conv if node.int("group").unwrap_or(1) != 1 => {
            Some("the convolution has groups, each with an input of its own")
        }
        _ => None,
    }
}

fn no_low_rank(span: Span, path: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0908,
        format!("the change of `{path}` is not the product of two matrices: {why}"),
    )
    .label(span, "adapted here")
    .help("leave the module out of the adapter, or merge all of it with `peftc merge`")
}

fn refused(
    plan: &Plan,
    planned: &PlannedSite,
    model: &Model,
    modules: &Modules,
    why: &str,
) -> Diagnostic {
    let site = &modules.sites[planned.site];
    let span = planned.methods.first().map(|method| method.span);
    let span = span.unwrap_or(plan.statements[planned.statement].span);
    no_low_rank(span, &site.path, why).excerpt(excerpt(model, site))
}

fn of(merged: &Merged, planned: &PlannedSite, modules: &Modules, paths: Vec<String>) -> SiteChange {
    let Merged { grid, added, .. } = merged;
    let rows = grid.range(planned, modules);
    let cells = rows
        .clone()
        .flat_map(|o| (0..grid.inputs).map(move |i| grid.at(o, i)));
    let bias = &added[rows.clone()];
    SiteChange {
        paths,
        slice: planned.slice.clone(),
        weight: Matrix {
            rows: rows.len(),
            columns: grid.inputs,
            data: cells
                .map(|at| merged.weight[at] - merged.stored[at])
                .collect(),
        },
        bias: bias.iter().any(|b| *b != 0.0).then(|| bias.to_vec()),
    }
}
