//! The loss of a node under test.

use crate::diag::Sink;
use crate::graph::{Attribute, Model, NewNode, OpName, Operand, Patch, ValueId};
use crate::passes;

/// What the loss is the sum of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Terms {
    /// The results, each element by a number of its own: `p · y`, with inputs `p`.
    Weighted,
    /// The results themselves: their gradient is the same everywhere, and need not have their shape.
    Plain,
}

/// Appends a loss over the float results.
pub(super) fn project(model: &mut Model, results: &[Option<ValueId>], terms: Terms) -> ValueId {
    let mut patch = Patch::new();
    let (mut sums, mut first) = (Vec::new(), None);
    for (slot, id) in results.iter().enumerate() {
        let Some(id) = id else {
            continue;
        };
        let ty = model.graph.value(*id).ty.clone();
        let Some(ty) = ty.filter(|ty| ty.dtype.is_float()) else {
            continue;
        };
        let dtype = ty.dtype;
        let mut term = Operand::Existing(*id);
        if terms == Terms::Weighted {
            let weights = patch.input(&format!("p{slot}"), ty, None);
            term = node(&mut patch, "Mul", &[term, weights], vec![]);
        }
        let drop = vec![Attribute::int("keepdims", 0)];
        let sum = node(&mut patch, "ReduceSum", &[term], drop);
        // Statistics may be of another type.
        let to = *first.get_or_insert(dtype);
        let same = vec![Attribute::int("to", i64::from(to.number()))];
        sums.push(match dtype == to {
            true => sum,
            false => node(&mut patch, "Cast", &[sum], same),
        });
    }
    let mut total = sums[0];
    for sum in &sums[1..] {
        total = node(&mut patch, "Add", &[total, *sum], vec![]);
    }
    let loss = patch.node(new_node("Identity", &[total], vec![]), None);
    patch.output(loss);
    let applied = model.graph.apply(patch).unwrap();
    let Operand::New(index) = loss else {
        unreachable!()
    };
    let loss = applied.values[index as usize];
    passes::infer(model, &mut Sink::new()).unwrap();
    loss
}

fn new_node(op_type: &str, inputs: &[Operand], attributes: Vec<Attribute>) -> NewNode {
    NewNode {
        op: OpName::new("", op_type),
        name: op_type.to_owned(),
        attributes,
        inputs: inputs.iter().map(|i| Some(*i)).collect(),
        metadata: Vec::new(),
    }
}

fn node(
    patch: &mut Patch,
    op_type: &str,
    inputs: &[Operand],
    attributes: Vec<Attribute>,
) -> Operand {
    patch.node(new_node(op_type, inputs, attributes), None)
}

pub(super) fn add_outputs(model: &mut Model, values: &[ValueId]) {
    values
        .iter()
        .for_each(|value| model.graph.add_output(*value));
}
