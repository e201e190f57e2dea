//! What prevents a merge, by expression and by module.

use super::super::errors;
use super::super::plan::{Plan, PlannedMethod};
use super::super::refusal::excerpt;
use crate::diag::{Reported, Sink, Span};
use crate::graph::Model;
use crate::hir::affine::{Affine, is_affine};
use crate::hir::{Formula, TermKind};
use crate::modules::{Modules, Site, SiteKind};
use std::collections::BTreeSet;

/// Reports every method that does not merge, each expression once, and every weight that cannot be
/// written.
pub(super) fn check(
    plan: &Plan,
    model: &Model,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut said: BTreeSet<(Span, Span)> = BTreeSet::new();
    let mut reported = None;
    for planned in &plan.sites {
        let site = &modules.sites[planned.site];
        for method in &planned.methods {
            if let Some((span, why)) = obstacle(method, site)
                && said.insert((span, method.span))
            {
                let diagnostic = errors::does_not_merge(method, span, &site.path, why);
                reported = Some(sink.emit(diagnostic));
            }
        }
        if let Some(quantization) = &site.weight.quantization {
            let span = planned
                .methods
                .first()
                .map_or(plan.statements[0].span, |m| m.span);
            if said.insert((span, span)) {
                let why = format!("it is quantized (`{}`)", quantization.op_type);
                let diagnostic = errors::cannot_merge_into(span, &site.path, &why);
                reported = Some(sink.emit(diagnostic.excerpt(excerpt(model, site))));
            }
        }
    }
    reported.map_or(Ok(()), Err)
}

/// The expression that prevents a method from merging at a site, and why.
pub(in super::super) fn obstacle(
    method: &PlannedMethod,
    site: &Site,
) -> Option<(Span, &'static str)> {
    let formula = &method.instance.forward;
    match is_affine(formula) {
        Affine::No { span, why } => Some((span, why)),
        Affine::Yes if site.kind == SiteKind::Norm => outside_of_base(formula),
        Affine::Yes => None,
    }
}

/// A norm divides by its input's own length: it is linear in what `base` has normalized alone.
fn outside_of_base(formula: &Formula) -> Option<(Span, &'static str)> {
    let is_input = |id| formula.term(id).kind == TermKind::Input;
    let reached = formula.reachable();
    let mut terms = formula.terms().filter(|(id, _)| reached[id.0 as usize]);
    terms.find_map(|(_, term)| {
        let fits = match &term.kind {
            TermKind::Base { input, .. } => is_input(*input),
            kind => !kind.operands().into_iter().any(is_input),
        };
        (!fits).then_some((term.span, "a norm is not linear in its own input"))
    })
}
