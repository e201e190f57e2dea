//! Operators with subgraphs: `If`, `Loop`, `Scan`.

use super::array::Array;
use super::fault::{Failure, Fault, mismatch};
use super::movement;
use super::plan::{Plan, Step};
use super::run::{Run, Values, with_constants};
use super::sizes;
use super::table::{Control, Entry, bodies};
use crate::graph::Node;
use crate::ty::DType;
use std::sync::Arc;

pub(super) const OPS: &[Entry] = &[
    bodies("If", 1, Control::If),
    bodies("Loop", 1, Control::Loop),
    bodies("Scan", 9, Control::Scan),
];

/// Either the node itself is at fault, or a node of its body.
pub(super) enum Broken {
    Here(Fault),
    Inside(Failure),
}

impl Broken {
    pub fn at(self, here: impl FnOnce(Fault) -> Failure) -> Failure {
        match self {
            Broken::Here(fault) => here(fault),
            Broken::Inside(failure) => failure,
        }
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Broken::Here(fault)
    }
}

type Operands<'a> = &'a [Option<Arc<Array>>];

/// The results of a node with bodies; `outer` is what its graph knows.
pub(super) fn run(
    run: &mut Run,
    control: Control,
    step: &Step<'_>,
    operands: Operands<'_>,
    outer: &Values,
) -> Result<Vec<Array>, Broken> {
    match control {
        Control::If => branch(run, step, operands, outer),
        Control::Loop => repeat(run, step, operands, outer),
        Control::Scan => scan(run, step, operands, outer),
    }
}

fn body<'a, 'g>(step: &'a Step<'g>, name: &str) -> Result<&'a Plan<'g>, Fault> {
    match step.bodies.iter().find(|(attribute, _)| *attribute == name) {
        Some((_, plan)) => Ok(plan),
        None => mismatch!("no `{name}`"),
    }
}

/// One turn of a body.
fn turn(
    run: &mut Run,
    plan: &Plan<'_>,
    outer: &Values,
    inputs: &[Arc<Array>],
) -> Result<Vec<Arc<Array>>, Broken> {
    run.count()?;
    if inputs.len() != plan.inputs.len() {
        return Err(Broken::Here(Fault::Mismatch(format!(
            "{} inputs into a body of {}",
            inputs.len(),
            plan.inputs.len()
        ))));
    }
    let mut values = with_constants(plan);
    for (here, there) in &plan.captured {
        values[*here] = outer[*there].clone();
    }
    for (number, input) in plan.inputs.iter().zip(inputs) {
        values[*number] = Some(input.clone());
    }
    let needed = vec![true; plan.steps.len()];
    run.steps(plan, &mut values, &needed, &[])
        .map_err(Broken::Inside)?;
    let result = |number: &usize| match &values[*number] {
        Some(array) => Ok(array.clone()),
        None => mismatch!(
            "the body's output `{}` is not computed",
            plan.graph.value(plan.values[*number]).name
        ),
    };
    Ok(plan.outputs.iter().map(result).collect::<Result<_, _>>()?)
}

/// Whether the only element is true.
fn truth(array: &Array) -> Result<bool, Fault> {
    match array.as_ints()? {
        [value] => Ok(*value != 0),
        values => mismatch!("a condition of {} elements", values.len()),
    }
}

/// `y = if c { then() } else { else() }`.
fn branch(
    run: &mut Run,
    step: &Step<'_>,
    operands: Operands<'_>,
    outer: &Values,
) -> Result<Vec<Array>, Broken> {
    let Some(Some(condition)) = operands.first() else {
        return Err(Broken::Here(Fault::Mismatch("no condition".to_owned())));
    };
    let name = match truth(condition)? {
        true => "then_branch",
        false => "else_branch",
    };
    let results = turn(run, body(step, name)?, outer, &[])?;
    Ok(results.iter().map(|array| (**array).clone()).collect())
}

/// `c, v…, s… = body(i, c, v…)` while `c` and `i < m`: the last `v`, and every turn's `s` stacked.
fn repeat(
    run: &mut Run,
    step: &Step<'_>,
    operands: Operands<'_>,
    outer: &Values,
) -> Result<Vec<Array>, Broken> {
    let plan = body(step, "body")?;
    let most = match operands.first() {
        Some(Some(most)) => match most.to_i64s()?.as_slice() {
            [most] => *most,
            _ => {
                return Err(Broken::Here(Fault::Mismatch(
                    "several trip counts".to_owned(),
                )));
            }
        },
        _ => i64::MAX,
    };
    let mut condition = match operands.get(1) {
        Some(Some(condition)) => condition.clone(),
        _ => Arc::new(Array::bools(&[], vec![true])?),
    };
    let mut carried = present(operands.get(2..).unwrap_or_default())?;
    let mut stacks = Stacks::new(plan, 1 + carried.len(), &[], &[]);
    let mut index = 0;
    while index < most && truth(&condition)? {
        let turns = Array::ints(DType::I64, &[], vec![i128::from(index)])?;
        let mut inputs = vec![Arc::new(turns), condition];
        inputs.extend(carried.iter().cloned());
        let mut results = turn(run, plan, outer, &inputs)?.into_iter();
        condition = next(&mut results)?;
        for value in &mut carried {
            *value = next(&mut results)?;
        }
        stacks.push(run, results.collect())?;
        index += 1;
    }
    let mut results: Vec<Array> = carried.iter().map(|array| (**array).clone()).collect();
    results.extend(stacks.finish(run)?);
    Ok(results)
}

fn next(results: &mut impl Iterator<Item = Arc<Array>>) -> Result<Arc<Array>, Fault> {
    match results.next() {
        Some(result) => Ok(result),
        None => mismatch!("the body gives too few results"),
    }
}

fn present(operands: Operands<'_>) -> Result<Vec<Arc<Array>>, Fault> {
    let one = |operand: &Option<Arc<Array>>| match operand {
        Some(array) => Ok(array.clone()),
        None => mismatch!("an absent operand among those that are carried"),
    };
    operands.iter().map(one).collect()
}

/// `v…, s… = body(v…, x[t]…)` for every position `t` of the scanned operands.
fn scan(
    run: &mut Run,
    step: &Step<'_>,
    operands: Operands<'_>,
    outer: &Values,
) -> Result<Vec<Array>, Broken> {
    let (plan, node) = (body(step, "body")?, step.node);
    let count = sizes::size(node.int("num_scan_inputs").unwrap_or(0))?;
    let mut all = present(operands)?;
    let Some(states) = all.len().checked_sub(count).filter(|_| count > 0) else {
        let why = format!("{count} scanned operands of {}", all.len());
        return Err(Broken::Here(Fault::Mismatch(why)));
    };
    let scanned = all.split_off(states);
    let mut carried = all;
    let slices = scanned_slices(node, &scanned)?;
    let turns = slices.first().map_or(0, Vec::len);
    if slices.iter().any(|slices| slices.len() != turns) {
        let why = "scanned operands of different lengths".to_owned();
        return Err(Broken::Here(Fault::Mismatch(why)));
    }
    let axes = node.ints("scan_output_axes").unwrap_or_default();
    let directions = node.ints("scan_output_directions").unwrap_or_default();
    let mut stacks = Stacks::new(plan, states, axes, directions);
    for at in 0..turns {
        let mut inputs = carried.clone();
        inputs.extend(slices.iter().map(|slices| slices[at].clone()));
        let mut results = turn(run, plan, outer, &inputs)?.into_iter();
        for value in &mut carried {
            *value = next(&mut results)?;
        }
        stacks.push(run, results.collect())?;
    }
    let mut results: Vec<Array> = carried.iter().map(|array| (**array).clone()).collect();
    results.extend(stacks.finish(run)?);
    Ok(results)
}

/// The slices of each scanned operand in the order in which they are read.
fn scanned_slices(node: &Node, scanned: &[Arc<Array>]) -> Result<Vec<Vec<Arc<Array>>>, Fault> {
    let axes = node.ints("scan_input_axes").unwrap_or_default();
    let directions = node.ints("scan_input_directions").unwrap_or_default();
    let mut all = Vec::new();
    for (index, array) in scanned.iter().enumerate() {
        let axis = sizes::axis(axes.get(index).copied().unwrap_or(0), array.rank())?;
        let mut slices = Vec::new();
        for at in 0..array.dims()[axis] {
            let slice = movement::part(array, axis, at, 1)?;
            let mut dims = slice.dims().to_vec();
            dims.remove(axis);
            slices.push(Arc::new(slice.reshaped(&dims)?));
        }
        if directions.get(index) == Some(&1) {
            slices.reverse();
        }
        all.push(slices);
    }
    Ok(all)
}

/// What the turns of a loop give to be stacked.
struct Stacks<'a, 'g> {
    plan: &'a Plan<'g>,
    /// Outputs of the body before those that are stacked.
    before: usize,
    axes: &'a [i64],
    directions: &'a [i64],
    /// By output, then by turn.
    all: Vec<Vec<Arc<Array>>>,
}

impl<'a, 'g> Stacks<'a, 'g> {
    fn new(plan: &'a Plan<'g>, before: usize, axes: &'a [i64], directions: &'a [i64]) -> Self {
        Stacks {
            plan,
            before,
            axes,
            directions,
            all: vec![Vec::new(); plan.outputs.len().saturating_sub(before)],
        }
    }

    fn push(&mut self, run: &mut Run, results: Vec<Arc<Array>>) -> Result<(), Fault> {
        for (stack, result) in self.all.iter_mut().zip(results) {
            run.hold(result.len())?;
            stack.push(result);
        }
        Ok(())
    }

    fn finish(self, run: &mut Run) -> Result<Vec<Array>, Fault> {
        let mut stacked = Vec::new();
        for (index, stack) in self.all.iter().enumerate() {
            stack.iter().for_each(|array| run.release(array.len()));
            let Some(first) = stack.first() else {
                stacked.push(self.empty(index)?);
                continue;
            };
            let rank = first.rank() + 1;
            let axis = sizes::axis(self.axes.get(index).copied().unwrap_or(0), rank)?;
            let mut slices = Vec::new();
            for array in stack {
                let mut dims = array.dims().to_vec();
                dims.insert(axis, 1);
                slices.push((**array).clone().reshaped(&dims)?);
            }
            if self.directions.get(index) == Some(&1) {
                slices.reverse();
            }
            let slices: Vec<&Array> = slices.iter().collect();
            stacked.push(movement::join(&slices, axis)?);
        }
        Ok(stacked)
    }

    /// No turn: an empty tensor of the type that the body states, unknown sizes taken as 0.
    fn empty(&self, index: usize) -> Result<Array, Fault> {
        let output = self.plan.outputs[self.before + index];
        let value = self.plan.graph.value(self.plan.values[output]);
        let Some(ty) = &value.ty else {
            return mismatch!("no turn, and the type of `{}` is not stated", value.name);
        };
        let mut dims = vec![0];
        let shape = ty.shape.iter().flat_map(|shape| &shape.0);
        dims.extend(shape.map(|dim| {
            dim.known()
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0)
        }));
        Array::zeros(ty.dtype, &dims)
    }
}
