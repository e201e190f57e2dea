//! Normalization layers: one node, or the arithmetic that exporters write instead.

use super::call::{Call, Here};
use super::constant::Constant;
use super::names::same_module;
use super::site::{Layout, Obstacle, SiteKind};
use crate::graph::ValueId;

/// Layer, RMS, group and batch normalization: `(x, scale, bias?)`.
pub(super) fn one_node<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    norm(here, here.operand(0)?, here.constant(1)?, here.constant(2))
}

/// `(input, skip, scale, beta?, bias?)` with the sum as an optional fourth result.
pub(super) fn skip<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let simplified = here.is("SkipSimplifiedLayerNormalization");
    let beta = if simplified { None } else { here.constant(3) };
    let sum = here.graph.result(here.id, 3);
    let input = sum.or_else(|| here.operand(0))?;
    let mut call = norm(here, input, here.constant(2)?, beta)?;
    call.obstacle = sum.is_none().then_some(Obstacle::FusedResidual);
    Some(call)
}

/// The norm inside `com.microsoft:EmbedLayerNormalization`.
pub(super) fn embed<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let input = here.graph.result(here.id, 2).or_else(|| here.operand(0))?;
    let mut call = norm(here, input, here.constant(5)?, here.constant(6))?;
    call.obstacle = Some(Obstacle::FusedEmbedding);
    Some(call)
}

/// `weight * normalized (+ bias)`, started from the Mul by the weight.
pub(super) fn decomposed<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let (weight, normalized) = match (here.constant(0), here.constant(1)) {
        (Some(weight), None) => (weight, here.operand(1)?),
        (None, Some(weight)) => (weight, here.operand(0)?),
        _ => return None,
    };
    let features = weight.vector().filter(|_| weight.dtype.is_float())?;
    let division = behind_casts(here, normalized)?;
    let (numerator, variance) = scaled_by_deviation(here, division)?;
    let spread = mean_square(here, variance)?;
    let layer_input = centered(here, numerator);
    let input = layer_input.unwrap_or(numerator);
    // The square is of the numerator itself, or of another difference to the same mean.
    let same = uncast(here, spread) == uncast(here, numerator)
        || layer_input.is_some() && centered(here, spread) == layer_input;
    if !same {
        return None;
    }
    let mut call = norm(here, uncast(here, input), weight, None)?;
    call.in_features = features;
    call.out_features = features;
    call.nearby.push(division.id);
    if layer_input.is_some() {
        take_bias(here, &mut call, features);
    }
    Some(call)
}

/// `x / sqrt(v)` or `x * (1 / sqrt(v))`: the numerator and `v`.
fn scaled_by_deviation<'a, 'm>(
    here: Here<'a, 'm>,
    division: Here<'a, 'm>,
) -> Option<(ValueId, ValueId)> {
    let (a, b) = (division.operand(0)?, division.operand(1)?);
    if division.is("Div") {
        return Some((a, square_root(here, b)?));
    }
    if !division.is("Mul") {
        return None;
    }
    match (inverse_root(here, b), inverse_root(here, a)) {
        (Some(variance), _) => Some((a, variance)),
        (None, Some(variance)) => Some((b, variance)),
        (None, None) => None,
    }
}

/// The operand of a square root.
fn square_root(here: Here<'_, '_>, value: ValueId) -> Option<ValueId> {
    let node = behind_casts(here, value)?;
    let half = || node.constant(1).and_then(|c| scalar(&c)) == Some(0.5);
    (node.is("Sqrt") || node.is("Pow") && half()).then(|| node.operand(0))?
}

/// The operand of `1 / sqrt`, as Reciprocal, Div or Pow write it.
fn inverse_root(here: Here<'_, '_>, value: ValueId) -> Option<ValueId> {
    let node = behind_casts(here, value)?;
    match &*node.node.op.op_type {
        "Reciprocal" => square_root(here, node.operand(0)?),
        "Div" => {
            let one = node.constant(0)?;
            (scalar(&one)? == 1.0).then(|| square_root(here, node.operand(1)?))?
        }
        "Pow" => (scalar(&node.constant(1)?)? == -0.5).then(|| node.operand(0))?,
        _ => None,
    }
}

/// What is squared and averaged in `mean(d²) + epsilon`.
fn mean_square(here: Here<'_, '_>, variance: ValueId) -> Option<ValueId> {
    let sum = behind_casts(here, variance).filter(|node| node.is("Add"))?;
    let mean = match (sum.constant(0), sum.constant(1)) {
        (None, Some(_)) => sum.operand(0)?,
        (Some(_), None) => sum.operand(1)?,
        _ => return None,
    };
    let mean = behind_casts(here, mean).filter(|node| node.is("ReduceMean"))?;
    let square = behind_casts(here, mean.operand(0)?)?;
    let base = square.operand(0)?;
    let squared = match &*square.node.op.op_type {
        "Pow" => scalar(&square.constant(1)?)? == 2.0,
        "Mul" => square.operand(1) == Some(base),
        _ => false,
    };
    squared.then_some(base)
}

/// `x` of `x - mean(x)`.
fn centered(here: Here<'_, '_>, value: ValueId) -> Option<ValueId> {
    let difference = behind_casts(here, value).filter(|node| node.is("Sub"))?;
    let mean = behind_casts(here, difference.operand(1)?).filter(|node| node.is("ReduceMean"))?;
    let input = difference.operand(0)?;
    (uncast(here, mean.operand(0)?) == uncast(here, input)).then_some(input)
}

/// The bias that an Add brings behind a decomposed layer norm.
fn take_bias<'m>(here: Here<'_, 'm>, call: &mut Call<'m>, features: i64) {
    let Some((add, slot)) = here.sole_user(call.output) else {
        return;
    };
    if !add.is("Add") || !same_module(here.node, add.node) {
        return;
    }
    let bias = add.constant(1 - slot.min(1));
    if let (Some(bias), Some(output)) = (bias, add.result())
        && bias.vector() == Some(features)
    {
        call.bias = Some(bias);
        call.output = output;
        call.nearby.push(add.id);
    }
}

/// The node that computes a value, Casts skipped.
fn behind_casts<'a, 'm>(here: Here<'a, 'm>, value: ValueId) -> Option<Here<'a, 'm>> {
    here.producer(uncast(here, value))
}

/// The value in front of the Casts that lead to this one.
fn uncast(here: Here<'_, '_>, mut value: ValueId) -> ValueId {
    for _ in 0..4 {
        match here.producer(value).filter(|node| node.is("Cast")) {
            Some(cast) => match cast.operand(0) {
                Some(inner) => value = inner,
                None => return value,
            },
            None => return value,
        }
    }
    value
}

/// The single number that a constant holds.
fn scalar(constant: &Constant<'_>) -> Option<f64> {
    if constant.tensor.elements() != 1 {
        return None;
    }
    let floats = constant.tensor.to_f64s();
    floats
        .or_else(|| {
            Some(
                constant
                    .tensor
                    .to_i64s()?
                    .into_iter()
                    .map(|v| v as f64)
                    .collect(),
            )
        })?
        .first()
        .copied()
}

fn norm<'m>(
    here: Here<'_, 'm>,
    input: ValueId,
    weight: Constant<'m>,
    bias: Option<Constant<'m>>,
) -> Option<Call<'m>> {
    let features = weight.dims.last().copied()?;
    Some(Call {
        level: here.level,
        node: here.id,
        kind: SiteKind::Norm,
        input,
        output: here.result()?,
        weight,
        layout: Layout::OutIn,
        bias,
        in_features: features,
        out_features: features,
        parts: Vec::new(),
        obstacle: None,
        nearby: Vec::new(),
    })
}
