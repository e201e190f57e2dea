//! Which sites a statement means. Nothing that the user wrote may match nothing.

use super::errors;
use crate::diag::{Reported, Sink, Span};
use crate::graph::{Graph, Model, ValueId};
use crate::hir::{Compiled, compile_pattern};
use crate::modules::{Modules, Role, Site, SiteKind};
use crate::syntax::ast::{Pattern, StringLit, Target};
use rustc_hash::FxHashSet;
use std::collections::BTreeSet;

/// A site with the slice that the user's pattern asked for.
#[derive(Clone, Debug)]
pub(super) struct Selected<'a> {
    /// Index into [`Modules::sites`].
    pub site: usize,
    pub target: &'a Target,
}

/// The patterns of a statement with the sites that they have matched, for the report.
pub(super) struct Selection<'a> {
    pub sites: Vec<Selected<'a>>,
    /// Heads that `all …` leaves out.
    pub heads: Vec<usize>,
}

/// The sites of the targets less those of the exclusions, in graph order, each once, but once for
/// every slice that is asked for.
pub(super) fn select<'a>(
    targets: &'a [Target],
    except: &'a [Target],
    model: &Model,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<Selection<'a>, Reported> {
    let mut selection = Selection {
        sites: Vec::new(),
        heads: Vec::new(),
    };
    for target in targets {
        for site in match_target(target, model, modules, &mut selection.heads, sink)? {
            let mut same = selection.sites.iter().filter(|s| s.site == site);
            if is_slice(target) || !same.any(|s| !is_slice(s.target)) {
                selection.sites.push(Selected { site, target });
            }
        }
    }
    let role = targets.iter().find(|t| matches!(t, Target::Role { .. }));
    if let Some(role) = role {
        let mut lost = modules.nameless().filter(|site| site.place.is_none());
        if let Some(first) = lost.next() {
            let node = super::apply::graph_at(model, &first.scope).display_name(first.node);
            sink.warn(errors::no_name_no_role(
                target_span(role),
                &node,
                1 + lost.count(),
            ));
        }
    }
    for target in except {
        let excluded = excluded(target, modules, sink)?;
        let before = selection.sites.len();
        selection.sites.retain(|s| !excluded.contains(&s.site));
        if selection.sites.len() == before {
            return Err(sink.emit(errors::exclusion_matches_nothing(
                target_span(target),
                &target_text(target),
            )));
        }
    }
    selection.sites.sort_by_key(|s| s.site);
    Ok(selection)
}

/// Whether a target asks for a part of what it matches.
fn is_slice(target: &Target) -> bool {
    matches!(target, Target::Pattern(pattern) if pattern.slice.is_some())
}

/// Whether a pattern matches one of the site's paths.
pub(super) fn names(pattern: &Compiled, site: &Site) -> bool {
    site.paths().any(|path| pattern.matches(path))
}

fn match_target(
    target: &Target,
    model: &Model,
    modules: &Modules,
    heads: &mut Vec<usize>,
    sink: &mut Sink,
) -> Result<Vec<usize>, Reported> {
    match target {
        Target::Pattern(pattern) => match_pattern(pattern, modules, Site::is_named, sink),
        Target::All { kind, span } => match_all(&kind.node, *span, model, modules, heads, sink),
        Target::Role { role, span } => {
            let matched = with_role(&role.node, modules);
            if matched.is_empty() {
                return Err(sink.emit(errors::no_such_role(*span, &role.node, &roles(modules))));
            }
            Ok(matched)
        }
    }
}

/// Every site of a kind but the output head. A site without a name would be left out silently, so
/// it is an error.
fn match_all(
    kind: &str,
    span: Span,
    model: &Model,
    modules: &Modules,
    heads: &mut Vec<usize>,
    sink: &mut Sink,
) -> Result<Vec<usize>, Reported> {
    let unnamed = modules.nameless().filter(|s| s.kind.name() == kind);
    let unnamed: Vec<&Site> = unnamed.filter(|site| !is_head(model, site)).collect();
    if let Some(first) = unnamed.first() {
        let graph = super::apply::graph_at(model, &first.scope);
        let node = graph.display_name(first.node);
        return Err(sink.emit(errors::unnamed_sites(span, kind, &node, unnamed.len())));
    }
    let of_kind = of_kind(kind, modules);
    let site = |index: &usize| &modules.sites[*index];
    let (mut head, mut rest): (Vec<usize>, Vec<usize>) = of_kind
        .into_iter()
        .partition(|index| is_head(model, site(index)));
    // A module with another call is no head: it is adapted in all of its calls.
    let called: FxHashSet<&str> = rest.iter().map(|index| &*site(index).path).collect();
    let calls = head.extract_if(.., |index| called.contains(&*site(index).path));
    rest.extend(calls);
    rest.sort_unstable();
    if rest.is_empty() {
        let text = format!("all {kind}");
        let head = head
            .first()
            .map(|index| modules.sites[*index].path.as_str());
        return Err(sink.emit(match head {
            Some(head) => errors::only_the_head(span, &text, head),
            None if kind == SiteKind::Cache.name() => errors::no_cache(span, &text),
            None => {
                errors::matches_nothing(span, &text, &paths(modules), modules.nameless().count())
            }
        }));
    }
    heads.append(&mut head);
    Ok(rest)
}

/// The sites that a pattern of the command line names, at least one; those that have their path by
/// their role, too.
pub fn sites_named(
    text: StringLit,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<Vec<usize>, Reported> {
    let pattern = Pattern {
        regex: false,
        span: text.span,
        text,
        slice: None,
    };
    match_pattern(&pattern, modules, |_| true, sink)
}

fn match_pattern(
    pattern: &Pattern,
    modules: &Modules,
    wanted: fn(&Site) -> bool,
    sink: &mut Sink,
) -> Result<Vec<usize>, Reported> {
    let compiled = compile_pattern(pattern, sink)?;
    let matched = indices(modules, |site| wanted(site) && names(&compiled, site));
    let paths = paths(modules);
    if matched.is_empty() {
        return Err(sink.emit(errors::matches_nothing(
            pattern.text.span,
            &pattern.text.node,
            &paths,
            modules.nameless().count(),
        )));
    }
    let mut reported = None;
    for alternative in &compiled.alternatives {
        let mut sites = modules.sites.iter().filter(|site| wanted(site));
        if !sites.any(|site| site.paths().any(|path| alternative.matches(path))) {
            reported = Some(sink.emit(errors::branch_matches_nothing(
                pattern.text.span,
                &pattern.text.node,
                &alternative.text,
                matched.len(),
                &paths,
            )));
        }
    }
    reported.map_or(Ok(matched), Err)
}

fn excluded(target: &Target, modules: &Modules, sink: &mut Sink) -> Result<Vec<usize>, Reported> {
    match target {
        Target::Pattern(pattern) => {
            let compiled = compile_pattern(pattern, sink)?;
            Ok(indices(modules, |site| names(&compiled, site)))
        }
        Target::All { kind, .. } => Ok(of_kind(&kind.node, modules)),
        Target::Role { role, .. } => Ok(with_role(&role.node, modules)),
    }
}

fn indices(modules: &Modules, test: impl Fn(&Site) -> bool) -> Vec<usize> {
    modules
        .sites
        .iter()
        .enumerate()
        .filter(|(_, site)| test(site))
        .map(|(index, _)| index)
        .collect()
}

fn of_kind(kind: &str, modules: &Modules) -> Vec<usize> {
    indices(modules, |site| site.kind.name() == kind)
}

fn with_role(role: &str, modules: &Modules) -> Vec<usize> {
    let role = Role::parse(role);
    indices(modules, |site| {
        role.is_some() && site.place.map(|place| place.role) == role
    })
}

/// Every role that some site has.
fn roles(modules: &Modules) -> BTreeSet<Role> {
    let places = modules.sites.iter().filter_map(|site| site.place);
    places.map(|place| place.role).collect()
}

fn paths(modules: &Modules) -> Vec<&str> {
    modules.named().flat_map(Site::paths).collect()
}

/// The target as the user wrote it, for messages and the report.
pub(super) fn target_text(target: &Target) -> String {
    match target {
        Target::Pattern(pattern) => pattern.text.node.clone(),
        Target::All { kind, .. } => format!("all {}", kind.node),
        Target::Role { role, .. } => format!("role({})", role.node),
    }
}

pub(super) fn target_span(target: &Target) -> Span {
    match target {
        Target::Pattern(pattern) => pattern.span,
        Target::All { span, .. } | Target::Role { span, .. } => *span,
    }
}

/// Operators that an output head may pass through on its way to the model's first output.
const BEHIND_A_HEAD: &[&str] = &[
    "Reshape",
    "Transpose",
    "Cast",
    "Identity",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Flatten",
    "Tanh",
    "Mul",
    "Div",
    "Softmax",
    "Sigmoid",
];

/// Whether a linear site computes the model's first output: PEFT's `all-linear` leaves it out too. A
/// head may lie in the branches of an `If` that gives the output.
pub(super) fn is_head(model: &Model, site: &Site) -> bool {
    site.kind == SiteKind::Linear && heads_output(model, site).is_some()
}

fn heads_output(model: &Model, site: &Site) -> Option<ValueId> {
    let mut graph = &model.graph;
    let mut value = *graph.outputs().first()?;
    for (owner, attribute, index) in &site.scope.0 {
        if !graph.node(*owner).op.is("If") {
            return None;
        }
        let result = traced(graph, value, &|v| graph.producer(v) == Some(*owner))?;
        let results = graph.results(*owner);
        let slot = results.iter().position(|r| *r == Some(result))?;
        graph = &graph.node(*owner).attributes[*attribute].value.graphs()[*index];
        value = *graph.outputs().get(slot)?;
    }
    traced(graph, value, &|v| v == site.output)
}

/// The value that is looked for, on the way back through what may stand behind a head.
fn traced(graph: &Graph, from: ValueId, wanted: &dyn Fn(ValueId) -> bool) -> Option<ValueId> {
    let mut value = from;
    for _ in 0..16 {
        if wanted(value) {
            return Some(value);
        }
        let node = graph.producer(value)?;
        if !BEHIND_A_HEAD.iter().any(|op| graph.node(node).op.is(op)) {
            return None;
        }
        let computed: Vec<ValueId> = graph
            .operands(node)
            .into_iter()
            .flatten()
            .filter(|operand| {
                graph
                    .producer(*operand)
                    .is_some_and(|p| !graph.node(p).op.is("Constant"))
            })
            .collect();
        value = match computed.as_slice() {
            [one] => *one,
            // Reshape targets computed from shapes stand behind the data operand.
            [first, ..]
                if graph.operand(node, 0) == Some(*first) && !graph.node(node).op.is("Mul") =>
            {
                *first
            }
            _ => return None,
        };
    }
    None
}
