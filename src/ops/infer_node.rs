//! Typing one node outside a graph.

use super::cx::{InferCx, Mismatch, OperandFacts};
use super::known::Known;
use super::registry::{Infer, find};
use crate::graph::Attribute;
use crate::ty::{Dim, TensorType};

/// A node that is not in a graph yet.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The node's name: sizes that depend on data are named after it.
    pub name: &'a str,
    pub domain: &'a str,
    pub op_type: &'a str,
    /// The version of the domain that the model imports.
    pub opset: i64,
    pub attributes: &'a [Attribute],
    /// By slot; `None` is an absent optional operand.
    pub operands: &'a [Option<OperandFacts<'a>>],
    /// How many results the node lists.
    pub results: usize,
}

/// The types and the values of a node's results, by slot; the second is empty where none is known.
pub type Evaluated = (Vec<Option<TensorType>>, Vec<Option<Known>>);

/// The types of the results of a node, by slot; `None` where nothing is known, as for an operator
/// that is not in the registry or one with subgraphs.
pub fn infer_node(call: &Call<'_>) -> Result<Vec<Option<TensorType>>, Mismatch> {
    evaluate_node(call).map(|(types, _)| types)
}

/// As [`infer_node`], and what shape arithmetic tells of the results' elements.
pub fn evaluate_node(call: &Call<'_>) -> Result<Evaluated, Mismatch> {
    let mut fresh = |result: usize, axis: usize| {
        Dim::symbol(&if result == 0 {
            format!("{}.{axis}", call.name)
        } else {
            format!("{}.{result}.{axis}", call.name)
        })
    };
    let mut cx = InferCx::new(
        call.opset,
        call.attributes,
        call.operands,
        call.results,
        &mut fresh,
    );
    if let Some(definition) = find(call.domain, call.op_type, call.opset)
        && let Infer::Rule(infer) = definition.infer
    {
        infer(&mut cx)?;
        if let Some(fold) = definition.fold {
            // A value that cannot be followed is no failure.
            let _ = fold(&mut cx);
        }
    }
    Ok(cx.finish())
}
