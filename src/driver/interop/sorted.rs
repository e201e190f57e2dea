//! The tensors of an adapter of PEFT, by module.

use super::config::lists;
use super::settings::rule_of;
use super::{IN_FULL, MODEL, SHARED, TOOL, errors};
use crate::diag::{Reported, Sink};
use crate::driver::session::{Loaded, Spec};
use crate::hir::{ANY, KEY, Method};
use crate::modules::SiteKind;
use crate::syntax::ast::MethodItem;
use crate::weights::NamedTensor;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The tensors of an adapter by module.
pub(super) struct Sorted {
    /// By the module's path in the model and the name behind it.
    pub tensors: BTreeMap<(String, String), NamedTensor>,
    /// Those that belong to no module.
    pub shared: BTreeMap<String, NamedTensor>,
    pub adapted: BTreeSet<String>,
    pub in_full: BTreeSet<String>,
}

/// What tensors of a method are called behind the path of a module; those that matter, or the others.
pub(super) fn names_of(method: &Method, matter: bool) -> BTreeSet<&str> {
    let rules = method.body.body.iter().filter_map(|item| match item {
        MethodItem::Interchange(rule) if rule.tool.node == TOOL => Some(rule),
        _ => None,
    });
    rules
        .flat_map(|rule| &rule.tensors)
        .filter(|tensor| (tensor.parameter.node != ANY) == matter)
        .map(|tensor| tensor.name.node.as_str())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether a tensor has that name, where `#` stands for any key.
fn is_called(name: &str, known: &str) -> bool {
    match known.split_once(KEY) {
        None => name == known,
        Some((front, back)) => {
            let key = name
                .strip_prefix(front)
                .and_then(|name| name.strip_suffix(back));
            key.is_some_and(|key| !key.is_empty())
        }
    }
}

/// The path of a module and the name of its tensor, where it is called so; behind a point, the path of what
/// holds the module.
fn apart(whole: &str, known: &str) -> Option<(String, String)> {
    let path = whole.strip_suffix(known)?;
    let path = match known.starts_with('.') {
        true => path,
        false => path.strip_suffix('.')?,
    };
    Some((path.to_owned(), known.to_owned()))
}

/// What a tensor of a module is called.
pub(super) fn tensor_name(path: &str, name: &str) -> String {
    match name.starts_with('.') {
        true => format!("{MODEL}{}{name}", holder(path)),
        false => format!("{MODEL}{path}.{name}"),
    }
}

/// The path of what holds a module.
pub(super) fn holder(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(holder, _)| holder)
}

impl Sorted {
    pub(super) fn of(
        method: &Method,
        library: &Spec,
        config: &Map<String, Value>,
        tensors: Vec<NamedTensor>,
        loaded: &Loaded,
        sink: &mut Sink,
    ) -> Result<Sorted, Reported> {
        let mut sorted = Sorted {
            tensors: BTreeMap::new(),
            shared: BTreeMap::new(),
            adapted: BTreeSet::new(),
            in_full: BTreeSet::new(),
        };
        let (own, others) = (names_of(method, true), names_of(method, false));
        let methods = library.program.methods.iter();
        let full =
            methods.filter(|method| rule_of(method).is_some_and(|rule| rule.kind.node == IN_FULL));
        let full: BTreeSet<&str> = full.flat_map(|method| names_of(method, true)).collect();
        let listed = config.get(IN_FULL).unwrap_or(&Value::Null);
        let mut absent = BTreeSet::new();
        for tensor in tensors {
            let inside = tensor.name.strip_prefix(MODEL);
            let split = |names: &BTreeSet<&str>| names.iter().find_map(|name| apart(inside?, name));
            let adapted = split(&own);
            if adapted.is_none() && split(&others).is_some() {
                continue;
            }
            let whole = split(&full).filter(|(path, _)| lists(listed, path));
            let is_adapted = adapted.is_some();
            if let Some((path, name)) = adapted.or(whole) {
                let is_held = name.starts_with('.');
                let known = match is_held {
                    true => reader(&path, loaded),
                    false => module(&path, loaded),
                };
                if known.is_none() && is_held {
                    sink.emit(errors::no_reader(&tensor.name, &path));
                    continue;
                }
                let Some(known) = known else {
                    absent.insert(path);
                    continue;
                };
                let into = if is_adapted {
                    &mut sorted.adapted
                } else {
                    &mut sorted.in_full
                };
                into.insert(known.clone());
                let called = tensor.name.clone();
                let first = sorted.tensors.insert((known, name), tensor);
                if let Some(first) = first {
                    sink.emit(errors::twice(&first.name, &called));
                }
                continue;
            }
            let outside = tensor.name.strip_prefix(SHARED);
            let is_own = |name: &&str| own.iter().any(|known| is_called(name, known));
            match outside.filter(|name| inside.is_none() && is_own(name)) {
                Some(name) => {
                    sorted.shared.insert(name.to_owned(), tensor);
                }
                None => {
                    sink.emit(errors::unknown_tensor(&tensor.name, &method.name.node));
                }
            }
        }
        let known: Vec<&str> = loaded
            .modules
            .sites
            .iter()
            .map(|s| s.path.as_str())
            .collect();
        for path in &absent {
            sink.emit(errors::no_module(path, known.iter().copied()));
        }
        sink.failed()?;
        Ok(sorted)
    }
}

/// The module's path in the model, where it may be called by an alias.
fn module(path: &str, loaded: &Loaded) -> Option<String> {
    let mut sites = loaded.modules.sites.iter();
    let site = sites.find(|site| site.paths().any(|known| known == path))?;
    Some(site.path.clone())
}

/// The only module in there that reads an attention.
fn reader(path: &str, loaded: &Loaded) -> Option<String> {
    let held = loaded.modules.sites.iter().filter(|site| {
        let mut paths = site.paths();
        site.kind == SiteKind::Linear && paths.any(|known| holder(known) == path)
    });
    let reads = held.filter(|site| site.query(site.scope.graph(&loaded.model)).is_ok());
    let found: BTreeSet<&str> = reads.map(|site| site.path.as_str()).collect();
    let mut found = found.into_iter();
    let first = found.next().filter(|_| found.next().is_none());
    first.map(str::to_owned)
}
