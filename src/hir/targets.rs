//! What can be said of a statement's targets without a model.

use super::errors;
use super::instance::SiteFacts;
use super::pattern::compile_pattern;
use super::program::{Call, Program};
use super::resolve::{KINDS, site_condition, site_size};
use crate::diag::{Reported, Sink};
use crate::syntax::ast::{self, Expr, Target};

/// What a layer can do in its block: the words of `role(…)`.
pub const ROLES: &[&str] = &[
    "q", "k", "v", "o", "gate", "up", "down", "fc1", "fc2", "head",
];

/// Layer kinds and roles are words of the language, and patterns can be read.
pub(super) fn check_targets<'t>(targets: impl Iterator<Item = &'t Target>, sink: &mut Sink) {
    for target in targets {
        match target {
            Target::All { kind, .. } if !KINDS.contains(&kind.node.as_str()) => {
                sink.emit(errors::unknown_kind(kind.span, &kind.node));
            }
            Target::Role { role, .. } if !ROLES.contains(&role.node.as_str()) => {
                sink.emit(errors::unknown_role(role.span, &role.node));
            }
            Target::Pattern(pattern) => {
                // Compiled again where it is matched.
                let _ = compile_pattern(pattern, sink);
            }
            Target::All { .. } | Target::Role { .. } => {}
        }
    }
}

/// What is wrong with the layers whatever the model has.
pub(super) fn check_layers(layers: &ast::Layers, sink: &mut Sink) {
    for range in &layers.ranges {
        if let (start, Some(end)) = (range.start.unwrap_or(0), range.end)
            && start >= end
        {
            sink.emit(errors::no_layers_in_range(range.span, start, end));
        }
    }
}

/// The condition and the slices of a statement are sound for some kind of layer that all of its
/// methods adapt.
pub(super) fn check_sizes(program: &Program, adapt: &ast::Adapt, calls: &[Call], sink: &mut Sink) {
    let kinds = KINDS.iter().filter(|kind| {
        calls.iter().all(|call| {
            let method = program.method(call.method);
            method.kinds.iter().any(|known| known.node == **kind)
        })
    });
    let kinds: Vec<&str> = kinds.copied().collect();
    if let Some(condition) = &adapt.condition {
        check_for_some(&kinds, sink, |facts, sink| {
            site_condition(program, condition, facts, sink).map(drop)
        });
    }
    for bound in adapt.targets.iter().flat_map(bounds) {
        check_for_some(&kinds, sink, |facts, sink| {
            site_size(program, bound, facts, sink).map(drop)
        });
    }
}

fn bounds(target: &Target) -> impl Iterator<Item = &Expr> {
    let slice = match target {
        Target::Pattern(pattern) => pattern.slice.as_ref(),
        _ => None,
    };
    slice
        .into_iter()
        .flat_map(|slice| slice.start.iter().chain(&slice.end))
}

/// Reports the faults for the first kind if there are some for every kind.
fn check_for_some(
    kinds: &[&str],
    sink: &mut Sink,
    check: impl Fn(&SiteFacts, &mut Sink) -> Result<(), Reported>,
) {
    let mut first = None;
    for kind in kinds {
        let mut tried = Sink::new();
        if check(&SiteFacts::symbolic(kind, true), &mut tried).is_ok() {
            return;
        }
        first.get_or_insert(tried);
    }
    for diagnostic in first.iter().flat_map(Sink::diagnostics) {
        sink.emit(diagnostic.clone());
    }
}
