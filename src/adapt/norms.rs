//! Norms whose formula cannot be lowered.
//!
//! A norm is one node, or the last of several: the multiplication by its weight. Then the nodes
//! before it have its input, and `base` on another one has no lowering. A batch or group
//! normalization has its features on the second axis, where no other operator of a formula looks
//! for them.

use crate::graph::Graph;
use crate::hir::{Formula, Lead, TermId, TermKind};
use crate::modules::{Site, SiteKind};

/// Why a formula has no lowering at such a site, if it has none.
pub(super) fn refusal(formula: &Formula, site: &Site, graph: &Graph) -> Option<&'static str> {
    if site.kind != SiteKind::Norm {
        return None;
    }
    let one_node = graph.operand(site.node, 0) == Some(site.input);
    let second = has_features_second(site, graph);
    let is_input = |id: TermId| formula.term(id).kind == TermKind::Input;
    let activations = |kind: &TermKind| {
        let mut operands = kind.operands().into_iter();
        operands.any(|id| formula.term(id).ty.lead != Lead::None)
    };
    let reached = formula.reachable();
    let mut terms = formula.terms().filter(|(id, _)| reached[id.0 as usize]);
    terms.find_map(|(_, term)| match &term.kind {
        TermKind::Base { input, .. } if is_input(*input) => None,
        kind if second && activations(kind) => Some(
            "its features are not on the last axis: only `base(x, weight = …, bias = …)` can be \
             computed",
        ),
        TermKind::Base { .. } if !one_node => {
            Some("the norm is computed by several nodes, so `base` takes no other input than `x`")
        }
        _ => None,
    })
}

fn has_features_second(site: &Site, graph: &Graph) -> bool {
    let op = &graph.node(site.node).op;
    if !op.is("BatchNormalization") && !op.is("GroupNormalization") {
        return false;
    }
    let ty = graph.value(site.input).ty.as_ref();
    let shape = ty.and_then(|ty| ty.shape.as_ref());
    shape.is_none_or(|shape| shape.rank() != 2)
}
