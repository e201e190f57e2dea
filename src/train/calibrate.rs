//! A model that gives what a calibration measures: moments of the inputs of modules, and gradients of
//! their weights.

use super::Recipe;
use super::errors;
use super::graphs::{Outputs, Role, TrainingGraph, apply, builder};
use super::open::Open;
use crate::adapt::Hooks;
use crate::autodiff;
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, Patch, ValueId};
use crate::ops::{Builder, Expr, Refusal};
use crate::passes;
use crate::ty::DType;
use std::ops::Range;

/// A call of a linear module that is measured. Values go by their names.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The module's path, for messages.
    pub path: String,
    pub input: String,
    pub output: String,
    /// What of the last axis of the output is the module's own.
    pub part: Option<Range<i64>>,
    /// Whether its inputs are measured.
    pub inputs: bool,
    /// Whether the gradient of its weight is.
    pub gradient: bool,
}

/// The graph of a calibration, and the names of its outputs.
#[derive(Clone, Debug)]
pub struct CalibrationGraph {
    pub graph: TrainingGraph,
    /// Of every input that is measured; several modules may have one.
    pub inputs: Vec<InputMeasures>,
    /// In the order of the probes.
    pub probes: Vec<ProbeMeasures>,
}

/// Names of outputs that tell of an input, as rows X of the tokens that count.
#[derive(Clone, Debug)]
pub struct InputMeasures {
    /// XᵀX.
    pub gram: String,
    /// The sum of the rows.
    pub sum: String,
    /// How many rows count.
    pub count: String,
    /// The largest entry.
    pub highest: String,
    /// The smallest entry.
    pub lowest: String,
}

/// What is measured of a probe.
#[derive(Clone, Debug)]
pub struct ProbeMeasures {
    /// Index into [`CalibrationGraph::inputs`].
    pub input: Option<usize>,
    /// The output with the gradient of the loss by the weight, `[out, in]`.
    pub gradient: Option<String>,
}

/// Makes the graph of a calibration. The loss of `recipe` is differentiated where a gradient is asked
/// for; without one there is no loss.
pub fn calibration_graph(
    model: &Model,
    probes: &[Probe],
    recipe: &Recipe,
    sink: &mut Sink,
) -> Result<CalibrationGraph, Reported> {
    let open = Open::new(model, &[], recipe.output.as_deref(), sink)?;
    let places = places(&open.model.graph, probes, sink)?;
    let (mut open, gradients, mut outputs) = differentiated(open, probes, &places, recipe, sink)?;
    let known = passes::infer_values(&mut open.model, sink)?;
    let (patch, inputs, probes) = {
        let build = builder(&open.model, known.all());
        build.set_scope("calibration".to_owned());
        if let Some(last) = open.model.graph.order().unwrap_or_default().last() {
            build.behind(*last);
        }
        if outputs.0.is_empty() {
            build.with_patch(Patch::drop_outputs);
        }
        let mut measuring = Measuring {
            build: &build,
            outputs: &mut outputs,
            mask: open.model.padding_mask(),
            rows: Vec::new(),
            inputs: Vec::new(),
        };
        let mut measured = Vec::with_capacity(probes.len());
        for (at, (probe, place)) in probes.iter().zip(&places).enumerate() {
            let found = measuring
                .probe(probe, place, gradients[at], at)
                .and_then(|found| build.trouble().map_or(Ok(found), Err))
                .map_err(|why| sink.emit(errors::cannot_measure(&probe.path, &why.0)))?;
            measured.push(found);
        }
        let inputs = measuring.inputs;
        (build.finish(), inputs, measured)
    };
    apply(&mut open.model, patch, sink)?;
    Ok(CalibrationGraph {
        graph: open.closed(outputs),
        inputs: inputs.into_iter().map(|(_, names)| names).collect(),
        probes,
    })
}

/// The values of a probe.
struct Place {
    input: ValueId,
    output: ValueId,
}

fn places(graph: &Graph, probes: &[Probe], sink: &mut Sink) -> Result<Vec<Place>, Reported> {
    let mut found = Vec::with_capacity(probes.len());
    for probe in probes {
        let (input, output) = (
            graph.find_value(&probe.input),
            graph.find_value(&probe.output),
        );
        let (Some(input), Some(output)) = (input, output) else {
            let why = "it is computed inside a branch or a loop";
            return Err(sink.emit(errors::cannot_measure(&probe.path, why)));
        };
        found.push(Place { input, output });
    }
    Ok(found)
}

/// The gradients of the loss by the outputs of those probes that need it.
fn differentiated(
    mut open: Open,
    probes: &[Probe],
    places: &[Place],
    recipe: &Recipe,
    sink: &mut Sink,
) -> Result<(Open, Vec<Option<ValueId>>, Outputs), Reported> {
    let mut wrt: Vec<ValueId> = Vec::new();
    for (_, place) in probes
        .iter()
        .zip(places)
        .filter(|(probe, _)| probe.gradient)
    {
        if !wrt.contains(&place.output) {
            wrt.push(place.output);
        }
    }
    if wrt.is_empty() {
        return Ok((open, vec![None; probes.len()], Outputs::default()));
    }
    autodiff::check_opset(&open.model, sink)?;
    open.parameters.clone_from(&wrt);
    // In one piece: a head behind which logits come in pieces has no output of its own.
    let mut recipe = recipe.clone();
    recipe.memory.pieces = Some(1);
    let found = open.differentiate(&Hooks::default(), &recipe, false, sink)?;
    let of = |(probe, place): (&Probe, &Place)| {
        let at = wrt.iter().position(|value| *value == place.output)?;
        probe.gradient.then(|| found.gradients[at])
    };
    let gradients = probes.iter().zip(places).map(of).collect();
    Ok((found.open, gradients, found.outputs))
}

/// Emits what is measured.
struct Measuring<'b, 'o> {
    build: &'b Builder<'b>,
    outputs: &'o mut Outputs,
    mask: Option<ValueId>,
    /// Inputs as rows, all of them.
    rows: Vec<(ValueId, Expr<'b>)>,
    inputs: Vec<(ValueId, InputMeasures)>,
}

impl<'b> Measuring<'b, '_> {
    fn probe(
        &mut self,
        probe: &Probe,
        place: &Place,
        gradient: Option<ValueId>,
        number: usize,
    ) -> Result<ProbeMeasures, Refusal> {
        let rows = self.rows_of(place.input)?;
        let input = match probe.inputs {
            true => Some(self.input(place.input, rows)?),
            false => None,
        };
        let gradient = match gradient {
            Some(gradient) => {
                let gradient = as_rows(self.build.expr(gradient))?;
                let own = match &probe.part {
                    Some(part) => gradient.slice(1, part.start, part.end),
                    None => gradient,
                };
                let product = own.transpose(&[1, 0]).matmul(rows);
                Some(self.output(&format!("probe{number}.gradient"), product))
            }
            None => None,
        };
        Ok(ProbeMeasures { input, gradient })
    }

    fn rows_of(&mut self, input: ValueId) -> Result<Expr<'b>, Refusal> {
        if let Some((_, rows)) = self.rows.iter().find(|(known, _)| *known == input) {
            return Ok(*rows);
        }
        let rows = as_rows(self.build.expr(input))?;
        self.rows.push((input, rows));
        Ok(rows)
    }

    fn input(&mut self, input: ValueId, rows: Expr<'b>) -> Result<usize, Refusal> {
        let known = self.inputs.iter().position(|(known, _)| *known == input);
        if let Some(at) = known {
            return Ok(at);
        }
        let at = self.inputs.len();
        let (rows, count) = match self.mask_of(input)? {
            Some(mask) => (rows * mask, mask.sum_dropping(&[0, 1])),
            None => {
                let rows_and_columns = rows.apply("Shape");
                (rows, rows_and_columns.slice(0, 0, 1).cast(DType::F32))
            }
        };
        let mut output = |what: &str, value| self.output(&format!("input{at}.{what}"), value);
        let names = InputMeasures {
            gram: output("gram", rows.transpose(&[1, 0]).matmul(rows)),
            sum: output("sum", rows.sum_dropping(&[0])),
            count: output("count", count),
            highest: output("highest", rows.reduce_keeping("ReduceMax", &[0, 1])),
            lowest: output("lowest", rows.reduce_keeping("ReduceMin", &[0, 1])),
        };
        self.inputs.push((input, names));
        Ok(at)
    }

    /// 1 for a row that counts and 0 for padding, where the model's mask is of the input's tokens.
    fn mask_of(&self, input: ValueId) -> Result<Option<Expr<'b>>, Refusal> {
        let Some(mask) = self.mask else {
            return Ok(None);
        };
        let mask = self.build.expr(mask);
        let (own, of_mask) = (self.build.expr(input).dims()?, mask.dims()?);
        if own.len() != 3 || own[..2] != of_mask[..] {
            return Ok(None);
        }
        let column = self.build.ints(&[-1, 1]);
        Ok(Some(mask.cast(DType::F32).apply2("Reshape", column)))
    }

    fn output(&mut self, name: &str, value: Expr<'b>) -> String {
        self.outputs.add(self.build, Role::Metric, name, value);
        let added = self.outputs.0.last();
        added.map_or_else(String::new, |port| port.name.clone())
    }
}

/// All axes but the last one as one, in 32 bits.
fn as_rows(value: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let features = value.dims()?.last().and_then(|dim| dim.known());
    let Some(features) = features else {
        return Err(Refusal("how many features it has is not known".to_owned()));
    };
    let sizes = value.builder.ints(&[-1, features]);
    Ok(value.cast(DType::F32).apply2("Reshape", sizes))
}
