//! How large a model gets when its functions are inlined, found before anything is expanded.
//!
//! The size of one expansion is a sum over the function's own calls, so that every function is
//! looked at once, however often it is called. A function that calls itself has no size.

use super::Function;
use crate::diag::Diagnostic;
use crate::onnx::errors;
use std::rc::Rc;

/// Functions may call each other this many levels deep.
const DEEPEST_CALLS: usize = 64;
/// Nodes that come out of functions, in all of a model, calls among them included.
const MOST_NODES: u64 = 1_000_000;
/// Bytes of what comes out of functions, names included, in all of a model.
const MOST_BYTES: u64 = 1 << 29;

/// What may come out of the functions of a model: so much that no exporter comes near, and from a
/// small file less than from a large one.
#[derive(Clone, Copy, Default)]
pub(super) struct Limits {
    nodes: u64,
    bytes: u64,
}

impl Limits {
    /// For a model whose graph and functions have `size` bytes together.
    pub fn of(size: u64) -> Limits {
        let nodes = 50_000 + size / 10;
        let bytes = size.saturating_mul(64).saturating_add(32 << 20);
        Limits {
            nodes: MOST_NODES.min(nodes - nodes % 1000),
            bytes: MOST_BYTES.min(bytes - bytes % (1 << 20)),
        }
    }

    /// Checks the size of what comes out of functions.
    pub fn check(self, nodes: u64, bytes: u64) -> Result<(), Diagnostic> {
        let too_large = errors::functions_too_large;
        if nodes > self.nodes {
            return Err(too_large(self.nodes, "nodes"));
        }
        if bytes > self.bytes {
            return Err(too_large(self.bytes, "bytes"));
        }
        Ok(())
    }
}

/// What one call of a function becomes. What depends on the call is linear in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub nodes: u64,
    pub bytes: u64,
    /// How often the call's name and scopes are written.
    pub names: u64,
    /// How often an attribute of the call is written.
    pub references: u64,
    /// Levels of calls, this one included.
    height: usize,
}

impl Cost {
    /// Adds what one more call becomes.
    fn add(&mut self, call: &Call, called: &Cost) {
        let more = [
            called.bytes,
            called.names.saturating_mul(call.name + 1),
            called.references.saturating_mul(call.attributes),
        ];
        self.bytes = more.into_iter().fold(self.bytes, u64::saturating_add);
        self.nodes = self.nodes.saturating_add(called.nodes);
        self.names = self.names.saturating_add(called.names);
        let references = called.references.saturating_mul(call.references);
        self.references = self.references.saturating_add(references);
        self.height = self.height.max(called.height);
    }
}

/// A call, with the bytes that it puts into what it becomes.
pub(super) struct Call {
    pub function: usize,
    /// Of its name and scopes.
    pub name: u64,
    /// Of all its attributes.
    pub attributes: u64,
    /// How many of them it takes from the call around it.
    pub references: u64,
}

/// The costs that are known, and the calls that lead to the function at hand.
pub(super) struct Costs<'a> {
    all: &'a [Rc<Function>],
    known: Vec<Option<Cost>>,
    path: Vec<usize>,
}

impl<'a> Costs<'a> {
    pub fn new(all: &'a [Rc<Function>]) -> Self {
        Costs {
            all,
            known: vec![None; all.len()],
            path: Vec::new(),
        }
    }

    /// Checks what all calls of a model become together.
    pub fn check(&mut self, calls: &[Call], limits: Limits) -> Result<(), Diagnostic> {
        let mut all = Cost::default();
        for call in calls {
            all.add(call, &self.of(call.function)?);
        }
        limits.check(all.nodes, all.bytes)
    }

    fn of(&mut self, function: usize) -> Result<Cost, Diagnostic> {
        let height = self.known[function].map_or(1, |cost| cost.height);
        if let Some(start) = self.path.iter().position(|other| *other == function) {
            let circle = self.path[start..].iter();
            let names: Vec<&str> = circle.map(|at| &*self.all[*at].shown).collect();
            return Err(errors::functions_call_each_other(&names));
        }
        if self.path.len() + height > DEEPEST_CALLS {
            return Err(errors::calls_too_deep(DEEPEST_CALLS));
        }
        if let Some(cost) = self.known[function] {
            return Ok(cost);
        }
        self.path.push(function);
        let Function { own, calls, .. } = &*Rc::clone(&self.all[function]);
        let mut cost = *own;
        for call in calls {
            cost.add(call, &self.of(call.function)?);
        }
        cost.height += 1;
        self.path.pop();
        self.known[function] = Some(cost);
        Ok(cost)
    }

    /// The functions that are called, in the order of the file.
    pub fn called(&self) -> impl Iterator<Item = &'a Function> {
        let known = self.known.iter().zip(self.all);
        known.filter_map(|(cost, function)| cost.map(|_| &**function))
    }
}
