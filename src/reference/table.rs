//! Entries of the table of evaluations and their look-up.

use super::FAMILIES;
use super::array::Array;
use super::cx::Cx;
use super::fault::Fault;
use rustc_hash::FxHashMap;
use std::sync::LazyLock;

/// How one operator is evaluated from one version of its domain on.
pub(super) struct Entry {
    /// "" is the default domain.
    pub domain: &'static str,
    pub name: &'static str,
    /// The entry holds from this version on, until a later one.
    pub since: i64,
    pub eval: Eval,
}

/// What computes the results of a node.
#[derive(Clone, Copy)]
pub(super) enum Eval {
    /// An operator with one result.
    One(fn(&Cx<'_>) -> Result<Array, Fault>),
    /// By slot; results that the node does not list are dropped.
    Many(fn(&Cx<'_>) -> Result<Vec<Array>, Fault>),
    /// From the node's subgraphs: whoever runs the graph runs them.
    Bodies(Control),
}

/// The operators with subgraphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    If,
    Loop,
    Scan,
}

/// An operator of the default domain with one result.
pub(super) const fn one(
    name: &'static str,
    since: i64,
    eval: fn(&Cx<'_>) -> Result<Array, Fault>,
) -> Entry {
    entry("", name, since, Eval::One(eval))
}

/// An operator of the default domain with several results.
pub(super) const fn many(
    name: &'static str,
    since: i64,
    eval: fn(&Cx<'_>) -> Result<Vec<Array>, Fault>,
) -> Entry {
    entry("", name, since, Eval::Many(eval))
}

pub(super) const fn bodies(name: &'static str, since: i64, control: Control) -> Entry {
    entry("", name, since, Eval::Bodies(control))
}

const fn entry(domain: &'static str, name: &'static str, since: i64, eval: Eval) -> Entry {
    Entry {
        domain,
        name,
        since,
        eval,
    }
}

impl Entry {
    /// The same in ONNX Runtime's own domain.
    pub(super) const fn microsoft(mut self) -> Self {
        self.domain = "com.microsoft";
        self
    }
}

type Versions = FxHashMap<(&'static str, &'static str), Vec<&'static Entry>>;

/// Entries of one operator, newest first.
static INDEX: LazyLock<Versions> = LazyLock::new(|| {
    let mut index = Versions::default();
    for entry in FAMILIES.iter().copied().flatten() {
        let versions = index.entry((entry.domain, entry.name)).or_default();
        versions.push(entry);
    }
    for versions in index.values_mut() {
        versions.sort_by_key(|entry| std::cmp::Reverse(entry.since));
    }
    index
});

/// The entry of an operator in a version of its domain.
pub(super) fn find(domain: &str, name: &str, opset: i64) -> Option<&'static Entry> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    let versions = INDEX.get(&(domain, name))?;
    versions.iter().find(|entry| entry.since <= opset).copied()
}
