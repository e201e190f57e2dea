//! Running a plan.

use super::array::{Array, Kind, kind};
use super::bodies;
use super::cx::Cx;
use super::fault::{Failure, Fault};
use super::plan::{Plan, Step, in_graph};
use super::table::{Eval, find};
use crate::graph::{Attribute, Model, Tensor};
use bytes::Bytes;
use std::sync::Arc;

/// The most elements that are held at a time.
const MOST_HELD: usize = 1 << 28;
/// The most nodes and turns of one run, those of bodies in every turn.
const MOST_STEPS: usize = 1 << 20;

/// What a `Cast` to a narrower float does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Nothing: every float is computed in f64, so that central differences are smooth.
    #[default]
    None,
    /// It rounds to the declared width.
    Declared,
}

/// How a model is evaluated.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub rounding: Rounding,
    /// The bytes of a tensor whose data is not in the model itself.
    pub weights: &'a dyn Fn(&Tensor) -> Option<Bytes>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            rounding: Rounding::None,
            weights: &|_| None,
        }
    }
}

/// A model ready to be evaluated again and again; its constants are read once.
pub struct Evaluator<'m> {
    plan: Plan<'m>,
    rounding: Rounding,
}

/// Evaluates a model once. See [`Evaluator::run`].
pub fn run(
    model: &Model,
    inputs: &[(&str, Array)],
    options: &Options<'_>,
) -> Result<Vec<(String, Array)>, Failure> {
    Evaluator::new(model, options)?.run(inputs)
}

impl<'m> Evaluator<'m> {
    pub fn new(model: &'m Model, options: &Options<'_>) -> Result<Self, Failure> {
        Ok(Evaluator {
            plan: Plan::new(&model.graph, model, options, None, 0)?,
            rounding: options.rounding,
        })
    }

    /// The model's outputs. An input names any value of the top graph: what is given is not
    /// computed, so that initializers and intermediate values can be replaced.
    pub fn run(&self, inputs: &[(&str, Array)]) -> Result<Vec<(String, Array)>, Failure> {
        let graph = self.plan.graph;
        let outputs = graph.outputs().iter();
        let names: Vec<&str> = outputs.map(|id| &*graph.value(*id).name).collect();
        self.values(inputs, &names)
    }

    /// Values of the top graph by name. Nodes that they do not need are not evaluated.
    pub fn values(
        &self,
        inputs: &[(&str, Array)],
        names: &[&str],
    ) -> Result<Vec<(String, Array)>, Failure> {
        let mut wanted = Vec::new();
        for name in names {
            wanted.push(self.number(name)?);
        }
        let mut values = self.given(inputs)?;
        let needed = needed(&self.plan, &values, &wanted);
        let mut run = Run::new(self.rounding);
        run.steps(&self.plan, &mut values, &needed, &wanted)?;
        let result = |(name, number): (&&str, &usize)| match &values[*number] {
            Some(array) => Ok(((*name).to_owned(), (**array).clone())),
            None => Err(absent(&self.plan, *number)),
        };
        names.iter().zip(&wanted).map(result).collect()
    }

    fn number(&self, name: &str) -> Result<usize, Failure> {
        let id = self.plan.graph.find_value(name);
        let number = id.and_then(|id| self.plan.number(id));
        number.ok_or_else(|| in_graph(format!("there is no value `{name}`")))
    }

    /// The constants, and the inputs in their place.
    fn given(&self, inputs: &[(&str, Array)]) -> Result<Values, Failure> {
        let mut values = with_constants(&self.plan);
        for (name, array) in inputs {
            let number = self.number(name)?;
            let declared = self.plan.graph.value(self.plan.values[number]).ty.as_ref();
            let array = match declared {
                Some(ty) => as_declared(array, ty.dtype),
                None => Ok(array.clone()),
            };
            let array = array.map_err(|fault| Failure {
                place: format!("input `{name}`"),
                fault,
            })?;
            values[number] = Some(Arc::new(array));
        }
        Ok(values)
    }
}

/// Floats are taken for each other, whatever their width.
fn as_declared(array: &Array, dtype: crate::ty::DType) -> Result<Array, Fault> {
    if array.dtype() != dtype && (kind(array.dtype())?, kind(dtype)?) != (Kind::Float, Kind::Float)
    {
        let why = format!("a tensor of type {}, {dtype} is needed", array.dtype());
        return Err(Fault::Mismatch(why));
    }
    array.clone().typed(dtype)
}

/// Values by their numbers; `None` where none is known yet or any more.
pub(super) type Values = Vec<Option<Arc<Array>>>;

pub(super) fn with_constants(plan: &Plan<'_>) -> Values {
    let mut values: Values = vec![None; plan.values.len()];
    for (number, constant) in &plan.constants {
        values[*number] = constant.as_ref().ok().cloned();
    }
    values
}

/// Which steps the wanted values need.
fn needed(plan: &Plan<'_>, values: &Values, wanted: &[usize]) -> Vec<bool> {
    let mut open = vec![false; values.len()];
    for number in wanted {
        open[*number] = values[*number].is_none();
    }
    let mut needed = vec![false; plan.steps.len()];
    for (index, step) in plan.steps.iter().enumerate().rev() {
        if step.results.iter().flatten().any(|number| open[*number]) {
            needed[index] = true;
            for number in step.operands.iter().flatten().chain(&step.captures) {
                open[*number] |= values[*number].is_none();
            }
        }
    }
    needed
}

/// What a value without elements is called.
fn absent(plan: &Plan<'_>, number: usize) -> Failure {
    let fault = plan.constants.iter().find(|(at, _)| *at == number);
    let fault = fault.and_then(|(_, constant)| constant.as_ref().err().cloned());
    Failure {
        place: format!("value `{}`", plan.graph.value(plan.values[number]).name),
        fault: fault.unwrap_or(Fault::Mismatch(
            "it is neither given nor computed".to_owned(),
        )),
    }
}

/// What a run counts.
pub(super) struct Run {
    rounding: Rounding,
    steps: usize,
    held: usize,
}

impl Run {
    fn new(rounding: Rounding) -> Self {
        Run {
            rounding,
            steps: 0,
            held: 0,
        }
    }

    /// Runs those steps that are needed; drops what nothing reads any more, but for `kept`.
    pub fn steps(
        &mut self,
        plan: &Plan<'_>,
        values: &mut Values,
        needed: &[bool],
        kept: &[usize],
    ) -> Result<(), Failure> {
        for (step, needed) in plan.steps.iter().zip(needed) {
            if *needed {
                self.step(plan, step, values)?;
            }
            for number in step.frees.iter().filter(|number| !kept.contains(number)) {
                if let Some(array) = values[*number].take() {
                    self.held = self.held.saturating_sub(array.len());
                }
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        plan: &Plan<'_>,
        step: &Step<'_>,
        values: &mut Values,
    ) -> Result<(), Failure> {
        let here = |fault| Failure {
            place: format!("`{}` ({})", plan.graph.display_name(step.id), step.node.op),
            fault,
        };
        self.count().map_err(here)?;
        let mut operands = Vec::with_capacity(step.operands.len());
        for number in &step.operands {
            operands.push(match number {
                Some(number) => Some(match &values[*number] {
                    Some(array) => array.clone(),
                    None => return Err(absent(plan, *number)),
                }),
                None => None,
            });
        }
        let results = match step.entry.map(|entry| entry.eval) {
            None => return Err(here(Fault::Unknown)),
            Some(Eval::Bodies(control)) => bodies::run(self, control, step, &operands, values)
                .map_err(|error| error.at(here))?,
            Some(eval) => {
                let operands: Vec<Option<&Array>> = operands.iter().map(Option::as_deref).collect();
                let (attributes, count) = (&step.node.attributes, step.results.len());
                let cx = Cx::new(step.opset, self.rounding, attributes, &operands, count);
                call(eval, &cx).map_err(here)?
            }
        };
        for (number, array) in step.results.iter().zip(results) {
            if let Some(number) = number {
                // What was given in place of the result stays.
                if values[*number].is_none() {
                    self.hold(array.len()).map_err(here)?;
                    values[*number] = Some(Arc::new(array));
                }
            }
        }
        Ok(())
    }

    /// Counts a node or a turn of a loop.
    pub fn count(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        match self.steps {
            0..=MOST_STEPS => Ok(()),
            _ => Err(Fault::TooLarge(format!(
                "more than {MOST_STEPS} nodes and turns of loops"
            ))),
        }
    }

    /// Counts elements that are held.
    pub fn hold(&mut self, elements: usize) -> Result<(), Fault> {
        self.held = self.held.saturating_add(elements);
        match self.held {
            0..=MOST_HELD => Ok(()),
            _ => Err(Fault::TooLarge(format!(
                "more than {MOST_HELD} elements at a time"
            ))),
        }
    }

    /// Counts elements that are dropped.
    pub fn release(&mut self, elements: usize) {
        self.held = self.held.saturating_sub(elements);
    }
}

fn call(eval: Eval, cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    match eval {
        Eval::One(eval) => Ok(vec![eval(cx)?]),
        Eval::Many(eval) => eval(cx),
        Eval::Bodies(_) => Err(Fault::Unsupported(
            "a node with subgraphs by itself".to_owned(),
        )),
    }
}

/// A node that is in no graph.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub domain: &'a str,
    pub op_type: &'a str,
    /// The version of the domain.
    pub opset: i64,
    pub attributes: &'a [Attribute],
    /// By slot; `None` is an absent optional operand.
    pub operands: &'a [Option<&'a Array>],
    /// How many results the node lists.
    pub results: usize,
    pub rounding: Rounding,
}

/// Evaluates one node: its results by slot, at least as many as are not left out.
pub fn evaluate(node: &Call<'_>) -> Result<Vec<Array>, Fault> {
    let entry = find(node.domain, node.op_type, node.opset).ok_or(Fault::Unknown)?;
    let cx = Cx::new(
        node.opset,
        node.rounding,
        node.attributes,
        node.operands,
        node.results,
    );
    call(entry.eval, &cx)
}
