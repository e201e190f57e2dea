//! Symbolic shape and type inference over a model.
//!
//! Requires: a graph that verifies. Ensures: every value whose type follows from the graph's
//! inputs, the initializers and the operators' rules has a type, subgraphs included; sizes that
//! depend on data are open symbols named after the value that has them ([`Dim::open`]). Integer
//! tensors that carry shapes are followed as symbolic dimensions on the way.
//!
//! Where the model states a type itself: for graph inputs the statement is taken as it is. For
//! computed values the inferred type wins, and the statement fills in what inference cannot tell:
//! exporters and optimizers leave stale statements behind, and ONNX Runtime goes by its own
//! inference, too. A shape that contradicts is passed over inside the graph, where nobody reads the
//! statement, and is a warning where it is an output of the model; an element
//! type that contradicts is an error, because ONNX Runtime refuses the model.
//!
//! Not here: what an operator does (`ops`); changing the graph's nodes.
//!
//! [`Dim::open`]: crate::ty::Dim::open

mod bodies;
mod findings;
mod merge;
mod symbols;
mod walk;

use crate::diag::{Reported, Sink};
use crate::graph::{Model, ValueId};
use crate::ops::Known;
use findings::Findings;
use rustc_hash::FxHashMap;
use walk::{Scope, Walk};

/// The values of shape arithmetic in the top graph, where something is known of their elements.
#[derive(Debug, Default)]
pub struct Values(FxHashMap<ValueId, Known>);

impl Values {
    /// All of them.
    pub fn all(&self) -> &FxHashMap<ValueId, Known> {
        &self.0
    }

    /// The elements of a computed value; `None` where none is known, and for initializers.
    pub fn get(&self, value: ValueId) -> Option<&Known> {
        self.0.get(&value)
    }
}

/// Gives every value of the model the most precise type that follows. Fails only where an element
/// type contradicts; every such place is reported.
pub fn infer(model: &mut Model, sink: &mut Sink) -> Result<(), Reported> {
    infer_values(model, sink).map(drop)
}

/// As [`infer`], and returns what is known of the values of shape arithmetic.
pub fn infer_values(model: &mut Model, sink: &mut Sink) -> Result<Values, Reported> {
    let mut findings = Findings::new(&model.name);
    let mut walk = Walk::new(&model.opsets, &mut findings);
    let known = walk.graph(&mut model.graph, Scope::top());
    findings.report(sink)?;
    Ok(Values(known))
}
