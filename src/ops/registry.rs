//! Entries of the registry and their look-up.

use super::FAMILIES;
use super::cx::{InferCx, Outcome};
use super::grad::{GradCx, GradOutcome};
use super::lower::LowerCx;
use rustc_hash::FxHashMap;
use std::sync::LazyLock;

/// The domain of ONNX Runtime's own operators.
pub const MICROSOFT: &str = "com.microsoft";

/// What peftc knows about one operator from one version of its domain on.
#[derive(Debug)]
pub struct OpDef {
    /// "" is the default domain.
    pub domain: &'static str,
    pub name: &'static str,
    /// The first version of the domain for which the entry holds; it holds until a later one.
    pub since: i64,
    /// How many operands a node may list, absent optional ones included.
    pub operands: Arity,
    /// How many results a node may list.
    pub results: Arity,
    /// The types of the results.
    pub infer: Infer,
    /// The values of the results where those of the operands are known, wholly or in part.
    pub fold: Option<Fold>,
    /// How gradients flow through it.
    pub grad: Grad,
}

/// The number of operands or results that a node may list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    pub min: usize,
    /// `usize::MAX` where there is no limit.
    pub max: usize,
}

/// How the types of the results are found.
#[derive(Clone, Copy, Debug)]
pub enum Infer {
    /// From the attributes and the operands.
    Rule(fn(&mut InferCx<'_>) -> Outcome),
    /// From the node's subgraphs: whoever walks the graph recurses.
    Bodies(Control),
}

/// The operators with subgraphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    If,
    Loop,
    Scan,
}

/// How gradients flow through an operator. There is no default: what nobody has thought about must
/// not look like zero.
#[derive(Clone, Copy, Debug)]
pub enum Grad {
    /// Emits the gradients of the operands that need one.
    Rule(fn(&mut GradCx<'_>) -> GradOutcome),
    /// The results do not change with the operands, or in steps only.
    Zero,
    /// Sets the results as expressions of the operands: the node is rewritten into operators that
    /// have rules before anything is differentiated.
    Lower(fn(&mut LowerCx<'_>) -> GradOutcome),
    /// There is none; the text says what the user can do.
    Missing(&'static str),
}

/// Sets the known results of a node whose types are already inferred.
pub type Fold = fn(&mut InferCx<'_>) -> Option<()>;

pub(super) const fn exactly(count: usize) -> Arity {
    between(count, count)
}

pub(super) const fn between(min: usize, max: usize) -> Arity {
    Arity { min, max }
}

pub(super) const fn at_least(min: usize) -> Arity {
    between(min, usize::MAX)
}

impl Arity {
    /// Whether a node may list so many.
    pub fn allows(self, count: usize) -> bool {
        (self.min..=self.max).contains(&count)
    }
}

/// An operator of the default domain with one result.
pub(super) const fn op(
    name: &'static str,
    since: i64,
    operands: Arity,
    infer: fn(&mut InferCx<'_>) -> Outcome,
    grad: Grad,
) -> OpDef {
    OpDef {
        domain: "",
        name,
        since,
        operands,
        results: exactly(1),
        infer: Infer::Rule(infer),
        fold: None,
        grad,
    }
}

/// An operator of `com.microsoft` with one result.
pub(super) const fn microsoft(
    name: &'static str,
    operands: Arity,
    infer: fn(&mut InferCx<'_>) -> Outcome,
    grad: Grad,
) -> OpDef {
    let mut entry = op(name, 1, operands, infer, grad);
    entry.domain = MICROSOFT;
    entry
}

impl OpDef {
    pub(super) const fn results(mut self, results: Arity) -> Self {
        self.results = results;
        self
    }

    pub(super) const fn folds(mut self, fold: Fold) -> Self {
        self.fold = Some(fold);
        self
    }

    pub(super) const fn bodies(mut self, control: Control) -> Self {
        self.infer = Infer::Bodies(control);
        self
    }
}

type Versions = FxHashMap<(&'static str, &'static str), Vec<&'static OpDef>>;

/// Entries of one operator, newest first.
static INDEX: LazyLock<Versions> = LazyLock::new(|| {
    let mut index = Versions::default();
    for entry in FAMILIES.iter().copied().flatten() {
        index
            .entry((entry.domain, entry.name))
            .or_default()
            .push(entry);
    }
    for versions in index.values_mut() {
        versions.sort_by_key(|entry| std::cmp::Reverse(entry.since));
    }
    index
});

/// The entry of an operator in a version of its domain; `None` where peftc knows nothing of it.
pub fn find(domain: &str, name: &str, opset: i64) -> Option<&'static OpDef> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    INDEX
        .get(&(domain, name))?
        .iter()
        .find(|entry| entry.since <= opset)
        .copied()
}
