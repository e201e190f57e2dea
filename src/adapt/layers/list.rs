//! Which list of layers is meant, and which of its layers.

use super::errors;
use crate::diag::{Reported, Sink};
use crate::modules::Modules;
use crate::syntax::ast;
use std::collections::BTreeMap;

/// Layers of a model at most: what they take grows with their square.
const MOST: usize = 1024;

/// A list of layers, such as a `ModuleList`.
pub(super) struct List {
    /// Its path, such as `model.layers`.
    pub path: String,
    /// The sites of every layer.
    pub layers: Vec<Vec<usize>>,
}

/// Sites by the number of the layer.
type Numbered = BTreeMap<usize, Vec<usize>>;

/// Every list by its path: what stands in front of a number in a module's path.
fn lists(modules: &Modules) -> BTreeMap<&str, Numbered> {
    let mut found: BTreeMap<&str, Numbered> = BTreeMap::new();
    let named = modules.sites.iter().enumerate();
    for (index, site) in named.filter(|(_, site)| site.is_named()) {
        for (at, _) in site.path.match_indices('.') {
            let behind = site.path[at + 1..].split('.').next().unwrap_or_default();
            if let Ok(number) = behind.parse() {
                let list = found.entry(&site.path[..at]).or_default();
                list.entry(number).or_default().push(index);
            }
        }
    }
    found
}

/// The list that the statement names: by its whole path, or by what it ends with behind a point.
pub(super) fn find(
    layers: &ast::Layers,
    modules: &Modules,
    sink: &mut Sink,
) -> Result<List, Reported> {
    let wanted = &layers.path;
    let lists = lists(modules);
    let longer = format!(".{}", wanted.node);
    let is_meant = |path: &str| path == wanted.node || path.ends_with(&longer);
    let meant: Vec<&str> = lists
        .keys()
        .copied()
        .filter(|path| is_meant(path))
        .collect();
    let path = match meant.as_slice() {
        [path] => *path,
        [] => {
            let known = lists.iter().map(|(path, layers)| (*path, layers.len()));
            let unnamed = modules.nameless().count();
            let fault = errors::no_such_list(wanted.span, &wanted.node, known, unnamed);
            return Err(sink.emit(fault));
        }
        several => {
            let fault = errors::several_lists(wanted.span, &wanted.node, several);
            return Err(sink.emit(fault));
        }
    };
    let numbered = &lists[path];
    if let Some(missing) = (0..numbered.len()).find(|number| !numbered.contains_key(number)) {
        let fault = errors::layer_without_a_module(wanted.span, path, missing);
        return Err(sink.emit(fault));
    }
    Ok(List {
        path: path.to_owned(),
        layers: numbered.values().cloned().collect(),
    })
}

/// The layers that the statement asks for, in its order.
pub(super) fn sequence(
    layers: &ast::Layers,
    list: &List,
    sink: &mut Sink,
) -> Result<Vec<usize>, Reported> {
    let count = list.layers.len();
    let mut sequence = Vec::new();
    let mut reported = None;
    for range in &layers.ranges {
        let bound = |bound: Option<i64>, default: usize| match bound {
            None => default,
            Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
        };
        let (start, end) = (bound(range.start, 0), bound(range.end, count));
        if start >= end || end > count {
            let fault = errors::no_such_layers(range.span, (start, end), &list.path, count);
            reported = Some(sink.emit(fault));
        } else if sequence.len() + end - start > MOST {
            let fault = errors::too_many_layers(range.span, MOST);
            return Err(sink.emit(fault));
        } else {
            sequence.extend(start..end);
        }
    }
    reported.map_or(Ok(sequence), Err)
}
