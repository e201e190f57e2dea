//! Gradients of the ONNX project's node test cases: every case with a float input, differentiated
//! by all of them, against central differences of the reference on the case as it is.
//!
//! What is no float is a constant, as exporters have axes and sizes. A point where the slopes on
//! both sides differ, or beyond which nothing is defined, is left for one near it.

use crate::differentiated::{length, new_node, noise};
use crate::node_cases::{Case, cases, imported};
use crate::tolerances::{NODE_GRADIENT, NODE_GRADIENT_CORNER, NODE_GRADIENT_NARROW};
use peftc::autodiff::gradients;
use peftc::diag::{Code, Sink};
use peftc::graph::{Attribute, Model, Operand, Patch, Tensor, ValueId};
use peftc::passes;
use peftc::reference::{self, Array, Evaluator, Options};
use peftc::ty::DType;
use std::collections::BTreeMap;

const STEP: f64 = 1e-6;

/// How far from the case's own inputs a gradient is checked, one after the other.
const NUDGES: [f64; 3] = [0.0, 0.02, -0.02];

/// Why a case is not checked.
struct Out(String);

fn out<T>(why: &str) -> Result<T, Out> {
    Err(Out(why.to_owned()))
}

fn is_float(array: &Array) -> bool {
    array.dtype().is_float()
}

/// The case with its loss, before and after gradients have been added.
struct Differentiated {
    plain: Model,
    model: Model,
    loss: String,
    /// Inputs and the values that are their gradients.
    gradients: Vec<(String, String)>,
    inputs: Vec<(String, Array)>,
}

fn differentiate(case: &Case) -> Result<Differentiated, Out> {
    let (floats, others): (Vec<_>, Vec<_>) = case
        .inputs
        .iter()
        .cloned()
        .partition(|(_, array)| is_float(array));
    let wanted = floats.iter().filter(|(_, array)| !array.is_empty());
    let wanted: Vec<&str> = wanted.map(|(name, _)| name.as_str()).collect();
    if wanted.is_empty() {
        return out("no float input");
    }
    let Ok(mut plain) = imported(&case.model) else {
        return out("not imported");
    };
    fix(&mut plain, &others);
    if passes::specialize(&mut plain, &[], &mut Sink::new()).is_err() {
        return out("not typed");
    }
    let Some(loss) = project(&mut plain, &case.outputs) else {
        return out("no finite float output");
    };
    if passes::infer(&mut plain, &mut Sink::new()).is_err() {
        return out("not typed");
    }
    let all: Vec<ValueId> = wanted
        .iter()
        .filter_map(|name| plain.graph.find_value(name))
        .collect();
    let (model, wrt, found) = by_as_many_as_possible(&plain, loss, all)?;
    let name = |id: ValueId| model.graph.value(id).name.to_string();
    Ok(Differentiated {
        loss: name(loss),
        gradients: wrt
            .into_iter()
            .map(name)
            .zip(found.into_iter().map(name))
            .collect(),
        inputs: floats,
        plain,
        model,
    })
}

/// Makes inputs constants.
fn fix(model: &mut Model, inputs: &[(String, Array)]) {
    let mut patch = Patch::new();
    for (name, array) in inputs {
        if let Some(id) = model.graph.find_value(name) {
            let dims: Vec<i64> = array.dims().iter().map(|n| *n as i64).collect();
            let tensor = Tensor::from_raw(array.dtype(), &dims, reference::encode(array));
            patch.fix_input(id, tensor);
        }
    }
    model.graph.apply(patch).unwrap();
}

/// Appends the sum of all float outputs, weighted at random, in double precision.
fn project(model: &mut Model, outputs: &[Array]) -> Option<ValueId> {
    let mut patch = Patch::new();
    let mut total: Option<Operand> = None;
    let to = |dtype: DType| vec![Attribute::int("to", i64::from(dtype.number()))];
    for (id, expected) in model.graph.outputs().to_vec().into_iter().zip(outputs) {
        // Scores of masked keys are infinite, and some cases cast what is no number.
        if !is_float(expected) || !expected.to_f64s().iter().all(|v| v.is_finite()) {
            continue;
        }
        let dims: Vec<i64> = expected.dims().iter().map(|n| *n as i64).collect();
        let weights = noise(&model.graph.value(id).name, expected.len());
        let raw: Vec<u8> = weights.iter().flat_map(|v| v.to_le_bytes()).collect();
        let weights = patch.constant("weights", Tensor::from_raw(DType::F64, &dims, raw));
        let wide = patch.node(new_node("Cast", &[id.into()], to(DType::F64)), None);
        let product = patch.node(new_node("Mul", &[wide, weights], vec![]), None);
        let drop = vec![Attribute::int("keepdims", 0)];
        let sum = patch.node(new_node("ReduceSum", &[product], drop), None);
        total = Some(match total {
            Some(before) => patch.node(new_node("Add", &[before, sum], vec![]), None),
            None => sum,
        });
    }
    let total = total?;
    let applied = model.graph.apply(patch).unwrap();
    let Operand::New(index) = total else {
        unreachable!()
    };
    Some(applied.values[index as usize])
}

/// Differentiates by all of the inputs, without those that only say how (a scale of `Resize`) and
/// so have no gradient; or by the first alone, where that is all that a rule has a gradient for.
fn by_as_many_as_possible(
    plain: &Model,
    loss: ValueId,
    all: Vec<ValueId>,
) -> Result<(Model, Vec<ValueId>, Vec<ValueId>), Out> {
    let mut wrt = all;
    loop {
        let (mut model, mut sink) = (plain.clone(), Sink::new());
        if let Ok(found) = gradients(&mut model, loss, &wrt, &mut sink) {
            return Ok((model, wrt, found));
        }
        let first = &sink.diagnostics()[0];
        let without = wrt.iter().position(|id| {
            let name = format!("`{}`", plain.graph.value(*id).name);
            let is_silent = first.code == Code::E0703 || first.message.contains("has arrived");
            is_silent && first.message.contains(&name)
        });
        match without {
            Some(at) if wrt.len() > 1 => drop(wrt.remove(at)),
            Some(_) => return out("no gradient reaches an input"),
            None if wrt.len() > 1 => wrt.truncate(1),
            None => return out(&reason(&first.message)),
        }
    }
}

/// A message without what is the case's own.
fn reason(message: &str) -> String {
    if message.contains("gradients need 11") {
        return "it is of an opset before 11".to_owned();
    }
    if message.contains("by no whole factor") {
        return "it resizes by no whole factor".to_owned();
    }
    let why = message.split_once("cannot be derived: ");
    let operator = message.split_once(", and ");
    match (why, operator) {
        (Some((_, why)), _) => why.to_owned(),
        (None, Some((operator, _))) => operator.to_owned(),
        (None, None) => message.to_owned(),
    }
}

/// What comes of a check at one point.
enum Point {
    Agrees,
    /// There is no one slope.
    Corner,
    Undefined,
}

impl Differentiated {
    fn check(&self) -> Result<(), String> {
        let options = Options::default();
        let plain = Evaluator::new(&self.plain, &options).map_err(|why| why.to_string())?;
        let backward = Evaluator::new(&self.model, &options).map_err(|why| why.to_string())?;
        let mut last = "at no point";
        for nudge in NUDGES {
            let inputs = self.nudged(nudge)?;
            match self.at(&plain, &backward, &inputs)? {
                Point::Agrees => return Ok(()),
                Point::Corner => last = "out: at a corner, and near it",
                Point::Undefined => last = "out: not a number",
            }
        }
        Err(last.to_owned())
    }

    /// The inputs, each moved a bit into the same direction.
    fn nudged(&self, nudge: f64) -> Result<Vec<(&str, Array)>, String> {
        let nudged = self.inputs.iter().map(|(name, array)| {
            let steps = noise(&format!("nudge {name}"), array.len());
            let steps: Vec<f64> = steps.iter().map(|v| v.abs() * nudge).collect();
            Ok((name.as_str(), moved(array, &steps, 1.0)?))
        });
        nudged.collect()
    }

    fn at(
        &self,
        plain: &Evaluator<'_>,
        backward: &Evaluator<'_>,
        inputs: &[(&str, Array)],
    ) -> Result<Point, String> {
        let run = |evaluator: &Evaluator<'_>, inputs: &[(&str, Array)], name: &str| {
            let values = evaluator.values(inputs, &[name]);
            values
                .map(|values| values[0].1.to_f64s())
                .map_err(|why| why.to_string())
        };
        let loss = |inputs: &[(&str, Array)]| Ok::<_, String>(run(plain, inputs, &self.loss)?[0]);
        let (here, same) = (loss(inputs)?, run(backward, inputs, &self.loss)?[0]);
        if !here.is_finite() {
            return Ok(Point::Undefined);
        }
        let bound = self.bound();
        if (here - same).abs() > bound * (1.0 + here.abs()) {
            return Err(format!("the loss is {same}, not {here}"));
        }
        for (name, gradient) in &self.gradients {
            let gradient = run(backward, inputs, gradient)?;
            let at = inputs.iter().position(|(other, _)| other == name).unwrap();
            let own = &inputs[at].1;
            if gradient.len() != own.len() {
                let (found, expected) = (gradient.len(), own.len());
                return Err(format!("{name}: {found} elements, not {expected}"));
            }
            let direction = noise(&format!("along {name}"), own.len());
            let loss_at = |step: f64| {
                let mut all = inputs.to_vec();
                all[at].1 = moved(own, &direction, step)?;
                loss(&all)
            };
            let (ahead, behind) = (loss_at(STEP)?, loss_at(-STEP)?);
            let numeric = (ahead - behind) / (2.0 * STEP);
            if !numeric.is_finite() {
                return Ok(Point::Undefined);
            }
            let analytic: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            let scale = length(&gradient) * length(&direction) + 1e-3;
            if (numeric - analytic).abs() <= bound * scale {
                continue;
            }
            let slopes = [(ahead - here) / STEP, (here - behind) / STEP];
            if (slopes[0] - slopes[1]).abs() > NODE_GRADIENT_CORNER * scale {
                return Ok(Point::Corner);
            }
            return Err(format!(
                "along {name} the loss changes by {numeric}, the gradient says {analytic}"
            ));
        }
        Ok(Point::Agrees)
    }

    /// Narrow types have narrow constants, such as the scale of attention.
    fn bound(&self) -> f64 {
        let mut types = self.inputs.iter().map(|(_, array)| array.dtype());
        match types.any(|dtype| !matches!(dtype, DType::F32 | DType::F64)) {
            true => NODE_GRADIENT_NARROW,
            false => NODE_GRADIENT,
        }
    }
}

fn moved(array: &Array, direction: &[f64], step: f64) -> Result<Array, String> {
    let values = array.to_f64s();
    let values = values.iter().zip(direction).map(|(x, v)| x + step * v);
    let moved = Array::floats(array.dtype(), array.dims(), values.collect());
    moved.map_err(|why| why.to_string())
}

/// Cases that are not checked, by reason. What has no gradient says in its message what to do.
const LEFT_OUT: &[(usize, &str)] = &[
    (322, "no float input"),
    (209, "no finite float output"),
    (19, "no gradient reaches an input"),
    (4, "random numbers"),
    (9, "it is of an opset before 11"),
    // Resampling, but for whole copies of elements.
    (18, "`GridSample` has no gradient"),
    (
        27,
        "it interpolates: only copies of the nearest element have a gradient",
    ),
    (8, "it resizes by no whole factor"),
    (3, "`RoiAlign` has no gradient"),
    (4, "`DeformConv` has no gradient"),
    // Recurrences.
    (13, "`CausalConvWithState` has no gradient"),
    (6, "`GRU` has no gradient"),
    (6, "`LSTM` has no gradient"),
    (6, "`RNN` has no gradient"),
    (14, "`LinearAttention` has no gradient"),
    (14, "`Scan` has no gradient"),
    (4, "`Loop` has no gradient"),
    (7, "`CumProd` has no gradient"),
    // What exporters of networks do not write.
    (6, "`CenterCropPad` has no gradient"),
    (5, "`Compress` has no gradient"),
    (14, "`DequantizeLinear` has no gradient"),
    (3, "`DynamicQuantizeLinear` has no gradient"),
    (2, "`LRN` has no gradient"),
    (5, "`OneHot` has no gradient"),
    (3, "`Range` has no gradient"),
    (3, "`ReverseSequence` has no gradient"),
    (3, "`TensorScatter` has no gradient"),
    (6, "`Unique` has no gradient"),
    // Some forms of operators that have a gradient.
    (1, "`...ii->...i` has an ellipsis"),
    (4, "adding at places needs opset 16"),
    (3, "it combines with `max`"),
    (3, "it combines with `min`"),
    (2, "it combines with `mul`"),
    (
        2,
        "it is in training mode, where its statistics depend on the batch",
    ),
    (1, "it pads by itself"),
    (1, "it slices several axes by steps"),
    (
        1,
        "its indices count columns first, or its opset is below 11",
    ),
    (13, "its keys are in a cache of its caller's"),
    (7, "its masked scores are read"),
    (2, "its norm is of order 3"),
    (2, "its norm is of order 4"),
];

#[test]
fn the_node_cases_of_onnx_have_the_gradients_that_differences_tell() {
    let (cases, _) = cases();
    let mut checked = 0;
    let mut left_out: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for case in &cases {
        let why = match differentiate(case) {
            Err(Out(why)) => why,
            Ok(differentiated) => match differentiated.check() {
                Ok(()) => {
                    checked += 1;
                    continue;
                }
                Err(why) if why.contains("random") => "random numbers".to_owned(),
                Err(why) => match why.strip_prefix("out: ") {
                    Some(why) => why.to_owned(),
                    None => {
                        faults.push(format!("{}: {why}", case.name));
                        continue;
                    }
                },
            },
        };
        left_out.entry(why).or_default().push(&case.name);
    }
    for (why, names) in &left_out {
        eprintln!("{} left out, {why}: {:?}", names.len(), names.first());
    }
    eprintln!(
        "{checked} of {} node cases have their gradients checked",
        cases.len()
    );
    assert!(faults.is_empty(), "{}: {faults:#?}", faults.len());
    let mut counts: Vec<(usize, &str)> =
        left_out.iter().map(|(why, n)| (n.len(), &**why)).collect();
    let mut known = LEFT_OUT.to_vec();
    counts.sort_by_key(|(_, why)| *why);
    known.sort_by_key(|(_, why)| *why);
    assert_eq!(counts, known);
    assert_eq!(checked, 872);
}
