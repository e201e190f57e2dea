//! The naming ladder: which torch module a call belongs to, and which rung says so.
//!
//! In: calls without names. Out: one [`Answer`] for each. The first rung that gives a plausible path
//! wins; a weight's own name may only sharpen it (functional calls such as those of
//! `nn.MultiheadAttention` run in the scope of the module around the one that owns the weight).
//! Weights' names are not asked when several calls read the weight: a tied head would be called an
//! embedding. Values and structure are rungs of their own: `values`, `roles`.

mod alias;
mod convention;
mod exporter;
mod parameter;
pub(super) mod sidecar;

pub(super) use alias::Dialect;
pub(super) use exporter::tidy;

use super::call::{Call, Here};
use super::level::{At, Levels};
use super::site::{NameSource, SiteKind};
use crate::graph::Node;
use parameter::Parameter;
use rustc_hash::FxHashMap;
use std::ops::Range;

/// What the ladder says about one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Empty if no rung gives a path.
    pub path: String,
    pub source: Option<NameSource>,
    /// Other torch paths of the module.
    pub aliases: Vec<String>,
    pub disagreements: Vec<(NameSource, String)>,
    /// Modules by their part of the output, where the name map or a fused projection has several.
    pub members: Vec<Member>,
    /// Whether the name of the weight or the bias says the same path.
    pub confirmed: bool,
    /// Why there is no path.
    pub because: String,
}

/// A module that computes a part of a call's output; an empty path stands for an unknown one.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub path: String,
    pub slice: Option<Range<i64>>,
}

impl Answer {
    /// The members of the call: itself, if it is one module.
    pub fn members(&self) -> Vec<Member> {
        if self.members.is_empty() {
            return vec![Member {
                path: self.path.clone(),
                slice: None,
            }];
        }
        self.members.clone()
    }
}

/// Whether two nodes belong to one module, as far as their names tell.
pub(super) fn same_module(a: &Node, b: &Node) -> bool {
    if let (Some(a), Some(b)) = (exporter::scope_path(a), exporter::scope_path(b)) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (exporter::scopes(&a.name), exporter::scopes(&b.name))
        && a == b
    {
        return true;
    }
    let (a, b) = (exporter::node_paths(&a.name), exporter::node_paths(&b.name));
    match (a.first(), b.first()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

/// Names every call from what exporters wrote on nodes, weights and biases.
pub(super) fn from_exporter(
    levels: &Levels<'_>,
    calls: &[Call<'_>],
    dialect: Dialect,
) -> Vec<Answer> {
    let ladder = Ladder::new(levels, calls, dialect);
    let mut answers: Vec<Answer> = calls.iter().map(|call| ladder.answer(call)).collect();
    join_repeated_calls(calls, &mut answers);
    refuse_conflicts(calls, &mut answers);
    convention::complete(levels, calls, &mut answers);
    answers
}

struct Ladder<'a, 'm> {
    levels: &'a Levels<'m>,
    dialect: Dialect,
    /// How many calls read a constant as their weight or bias.
    readers: FxHashMap<At, usize>,
}

impl<'a, 'm> Ladder<'a, 'm> {
    fn new(levels: &'a Levels<'m>, calls: &[Call<'m>], dialect: Dialect) -> Self {
        let mut readers: FxHashMap<At, usize> = FxHashMap::default();
        for call in calls {
            let constants = [Some(&call.weight), call.bias.as_ref()];
            for value in constants.into_iter().flatten().flat_map(|c| &c.values) {
                *readers.entry(*value).or_insert(0) += 1;
            }
        }
        Ladder {
            levels,
            dialect,
            readers,
        }
    }

    fn answer(&self, call: &Call<'_>) -> Answer {
        let parameters = self.parameters(call);
        let scope = self
            .scope_path(call)
            .map(|path| (NameSource::NameScopes, path));
        let node = self
            .node_path(call, &parameters)
            .map(|path| (NameSource::NodePath, path));
        let modules = parameters
            .iter()
            .filter_map(|(source, parameter)| match parameter {
                Parameter::OfModule(path) => Some((*source, path.clone())),
                Parameter::Other(_) => None,
            });
        let rungs: Vec<(NameSource, String)> =
            scope.into_iter().chain(node).chain(modules).collect();
        let Some((source, path)) = choose(call.kind, &rungs, &parameters) else {
            return Answer {
                because: unnamed_reason(&parameters),
                ..Answer::default()
            };
        };
        let confirmed = rungs.iter().filter(|(_, other)| *other == path).count() > 1;
        let disagreements = rungs
            .into_iter()
            .filter(|(rung, other)| *rung != source && *other != path)
            .collect();
        Answer {
            path,
            source: Some(source),
            disagreements,
            confirmed,
            aliases: Vec::new(),
            members: Vec::new(),
            because: String::new(),
        }
    }

    fn scope_path(&self, call: &Call<'_>) -> Option<String> {
        self.nodes(call).find_map(exporter::scope_path)
    }

    /// The path in the nodes' names, else in the name of the result. Where a repeated prefix is
    /// there and could belong to the path, a parameter's name decides.
    fn node_path(&self, call: &Call<'_>, parameters: &[(NameSource, Parameter)]) -> Option<String> {
        let result = call
            .result(self.levels)
            .map(|value| self.levels.name(value));
        let names = self
            .nodes(call)
            .map(|node| node.name.as_str())
            .chain(result);
        let paths = names
            .map(exporter::node_paths)
            .find(|paths| !paths.is_empty())?;
        let confirmed = paths.iter().find(|path| {
            parameters
                .iter()
                .any(|(_, parameter)| matches!(parameter, Parameter::OfModule(p) if p == *path))
        });
        let path = confirmed.or(paths.first())?;
        Some(self.dialect.torch_path(path))
    }

    fn nodes<'c>(&'c self, call: &'c Call<'_>) -> impl Iterator<Item = &'m Node> + 'c {
        let graph = self.levels.graph(call.level);
        std::iter::once(call.node)
            .chain(call.nearby.iter().copied())
            .map(move |id| graph.node(id))
    }

    /// What the names of weight and bias say, in the order of the rungs.
    fn parameters(&self, call: &Call<'_>) -> Vec<(NameSource, Parameter)> {
        let named = |source, values: &[At], read: fn(&crate::graph::Value) -> Option<Parameter>| {
            let parameter = values
                .iter()
                .filter(|at| self.readers.get(at).copied() == Some(1))
                .find_map(|at| read(self.levels.graph(at.level).value(at.value)))?;
            Some((source, self.in_torch(parameter)))
        };
        let weight = &call.weight.values;
        let bias = call.bias.as_ref().map_or(&[][..], |bias| &bias.values);
        [
            named(NameSource::FoldedFrom, weight, parameter::folded),
            named(NameSource::WeightName, weight, parameter::named),
            named(NameSource::BiasName, bias, parameter::named),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn in_torch(&self, parameter: Parameter) -> Parameter {
        match parameter {
            Parameter::OfModule(path) => Parameter::OfModule(self.dialect.torch_path(&path)),
            other => other,
        }
    }
}

/// The first rung, sharpened by the weight's own name; `None` if the weight turns out to be a
/// parameter of a larger module.
fn choose(
    kind: SiteKind,
    rungs: &[(NameSource, String)],
    parameters: &[(NameSource, Parameter)],
) -> Option<(NameSource, String)> {
    let first = rungs.first()?;
    if !matches!(first.0, NameSource::NameScopes | NameSource::NodePath) {
        return Some(first.clone());
    }
    for (source, parameter) in parameters {
        match parameter {
            // Folding a batch normalization into a convolution leaves the normalization's scope on
            // the node, and its name on the bias.
            Parameter::OfModule(path)
                if kind == SiteKind::Conv && *source == NameSource::WeightName =>
            {
                return Some((*source, path.clone()));
            }
            Parameter::OfModule(path) if is_inside(path, &first.1) => {
                return Some((*source, path.clone()));
            }
            Parameter::OfModule(path) if *path == first.1 => return Some(first.clone()),
            Parameter::Other(name) if is_inside(name, &first.1) => return None,
            _ => {}
        }
    }
    Some(first.clone())
}

impl Call<'_> {
    fn result(&self, levels: &Levels<'_>) -> Option<At> {
        let here = Here::new(levels, self.level, self.node);
        here.result().map(|value| here.value(value))
    }
}

fn unnamed_reason(parameters: &[(NameSource, Parameter)]) -> String {
    let other = parameters
        .iter()
        .find_map(|(_, parameter)| match parameter {
            Parameter::Other(name) => Some(name),
            Parameter::OfModule(_) => None,
        });
    match other {
        Some(name) => format!("its weight `{name}` is no module's `weight`"),
        None => "neither the node nor its weight carries a module path".to_owned(),
    }
}

/// Whether a dotted name lies inside a module.
fn is_inside(name: &str, module: &str) -> bool {
    name.strip_prefix(module)
        .is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

/// TorchScript calls the second run of one module `shared_1`. It is the same module if it reads the
/// same weight as the call whose path lacks the number.
fn join_repeated_calls(calls: &[Call<'_>], answers: &mut [Answer]) {
    let mut by_weight: FxHashMap<At, Vec<usize>> = FxHashMap::default();
    for (index, call) in calls.iter().enumerate() {
        by_weight.entry(call.weight.root).or_default().push(index);
    }
    for group in by_weight.values().filter(|group| group.len() > 1) {
        let paths: Vec<String> = group
            .iter()
            .map(|index| answers[*index].path.clone())
            .collect();
        for index in group {
            if let Some(original) = original_path(&answers[*index].path, &paths) {
                answers[*index].path = original.to_owned();
            }
        }
    }
}

/// The path among `paths` that differs only by the numbers of repeated calls.
fn original_path<'p>(path: &str, paths: &'p [String]) -> Option<&'p str> {
    paths
        .iter()
        .filter(|candidate| candidate.len() < path.len())
        .find(|candidate| {
            let (mut a, mut b) = (candidate.split('.'), path.split('.'));
            loop {
                match (a.next(), b.next()) {
                    (None, None) => return true,
                    (Some(plain), Some(numbered)) if is_repetition(plain, numbered) => {}
                    _ => return false,
                }
            }
        })
        .map(String::as_str)
}

fn is_repetition(plain: &str, numbered: &str) -> bool {
    match numbered.strip_prefix(plain) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('_')
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())),
        None => false,
    }
}

/// One path for calls of different layers is the path of the module around them. The call whose
/// weight confirms the path keeps it; the others stay unnamed.
fn refuse_conflicts(calls: &[Call<'_>], answers: &mut [Answer]) {
    let mut by_path: FxHashMap<(usize, String), Vec<usize>> = FxHashMap::default();
    for (index, (call, answer)) in calls.iter().zip(&*answers).enumerate() {
        if !answer.path.is_empty() {
            let key = (call.level, answer.path.clone());
            by_path.entry(key).or_default().push(index);
        }
    }
    for ((_, path), group) in by_path {
        let layer = |index: usize| {
            let call = &calls[index];
            (call.kind, call.in_features, call.out_features)
        };
        let one_layer = group.iter().all(|index| layer(*index) == layer(group[0]));
        if one_layer {
            continue;
        }
        for index in group {
            let answer = &mut answers[index];
            let functional = matches!(
                answer.source,
                Some(NameSource::NameScopes | NameSource::NodePath)
            );
            if functional && !answer.confirmed {
                *answer = Answer {
                    because: format!("several layers are called in the scope of `{path}`"),
                    ..Answer::default()
                };
            }
        }
    }
}
