//! The loss of a node under test.

use crate::diag::Sink;
use crate::graph::{Attribute, Model, NewNode, OpName, Operand, Patch, ValueId};
use crate::passes;

/// Appends `loss = Σ p · y` over the float results, with inputs `p`.
pub(super) fn project(model: &mut Model, results: &[Option<ValueId>]) -> ValueId {
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
        let weights = patch.input(&format!("p{slot}"), ty, None);
        let product = node(
            &mut patch,
            "Mul",
            &[Operand::Existing(*id), weights],
            vec![],
        );
        let drop = vec![Attribute::int("keepdims", 0)];
        let sum = node(&mut patch, "ReduceSum", &[product], drop);
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
