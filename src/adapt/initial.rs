//! Start values of the adapter's tensors.
//!
//! Random values are portable and depend on the seed and on the tensor's name alone: ChaCha8 keyed
//! with BLAKE3 of the seed (little-endian u64) and the name. Elements are drawn in row-major order.
//! A uniform number is the upper 24 bits of the next 32-bit word times 2⁻²⁴; a normal one comes in
//! pairs by Box and Muller from two numbers of 53 bits; a whole number below n is the upper half of
//! the next 64-bit word times n.

use super::apply::graph_at;
use super::errors;
use super::numeric::{self, Dense};
use super::plan::PlannedParameter;
use super::refusal::excerpt;
use crate::diag::{Diagnostic, Reported, Sink};
use crate::graph::{Graph, Model, Tensor, ValueId, ValueKind, decode_floats};
use crate::hir::{Formula, Init, Random, TermId, TermKind};
use crate::modules::{Layout, Modules, Scope, Site, SiteKind};
use crate::ty::Dim;
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::HashMap;

/// Reads the bytes of a constant, wherever it lies; reports why not.
pub type WeightReader<'a> = dyn Fn(&Tensor, &mut Sink) -> Result<Bytes, Reported> + 'a;

/// The start value of a parameter, f32.
///
/// `before` are the start values of the parameters that it may read.
pub fn initial_tensor(
    parameter: &PlannedParameter,
    before: &[&Tensor],
    (modules, model): (&Modules, &Model),
    seed: u64,
    weights: &WeightReader<'_>,
    sink: &mut Sink,
) -> Result<Tensor, Reported> {
    let count = parameter.elements() as usize;
    let values = match &parameter.init {
        Init::Constant(value) => vec![*value as f32; count],
        Init::Random(random) => {
            return Ok(random_tensor(
                *random,
                &parameter.dims,
                seed,
                &parameter.name,
            ));
        }
        Init::Computed(formula) => {
            let site = &modules.sites[parameter.site];
            let fail =
                |why: &str, sink: &mut Sink| sink.emit(unusable(site, parameter, model, why));
            let reads = |kind| formula.uses(|k| *k == kind);
            let weight = match reads(TermKind::Weight) {
                true => Some(base_weight(site, parameter, model, weights, sink)?),
                false => None,
            };
            let bias = match (reads(TermKind::Bias), site.bias) {
                (true, Some(bias)) => Some(base_bias(site, bias, parameter, model, weights, sink)?),
                _ => None,
            };
            let given = given(formula, before, seed, &parameter.name);
            let given = |id: TermId| given.get(&id);
            let dense = numeric::evaluate(formula, weight.as_ref(), bias.as_ref(), &given)
                .map_err(|why| fail(&why, sink))?;
            if dense.data.iter().any(|v| !v.is_finite()) {
                return Err(fail("the start value is not a finite number", sink));
            }
            dense.data.iter().map(|v| *v as f32).collect()
        }
    };
    Ok(Tensor::from_f32(&parameter.dims, &values))
}

/// Parameters and random numbers of a start value. Those of a tensor are drawn one after the other.
fn given(formula: &Formula, before: &[&Tensor], seed: u64, name: &str) -> HashMap<TermId, Dense> {
    let mut rng = generator(seed, name);
    let mut found = HashMap::new();
    for (id, term) in formula.terms() {
        let dense = |dims: Vec<i64>, data: Vec<f64>| Dense {
            dims: dims.into_iter().map(|dim| dim as usize).collect(),
            data,
        };
        match &term.kind {
            TermKind::Param(index) => {
                let values = before
                    .get(*index)
                    .and_then(|tensor| Some(dense(tensor.dims.clone(), tensor.to_f64s()?)));
                found.extend(values.map(|values| (id, values)));
            }
            TermKind::Drawn(random) => {
                let dims = term.ty.dims.iter().filter_map(Dim::known);
                let dims: Vec<i64> = dims.collect();
                let drawn = draw(*random, &dims, &mut rng);
                let values = drawn.into_iter().map(f64::from).collect();
                found.insert(id, dense(dims, values));
            }
            _ => {}
        }
    }
    found
}

/// A tensor of random numbers that depend on the seed and on its name.
pub fn random_tensor(random: Random, dims: &[i64], seed: u64, name: &str) -> Tensor {
    let values = draw(random, dims, &mut generator(seed, name));
    Tensor::from_f32(dims, &values)
}

fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

fn draw(random: Random, dims: &[i64], rng: &mut ChaCha8Rng) -> Vec<f32> {
    let count = dims.iter().product::<i64>() as usize;
    let fan_in = match dims {
        [] => 1,
        [one] => *one,
        [_, rest @ ..] => rest.iter().product(),
    } as f64;
    let fan_out = *dims.first().unwrap_or(&1) as f64;
    match random {
        Random::Uniform(low, high) => uniform(rng, count, low, high),
        Random::Normal(mean, std) => normal(rng, count)
            .map(|v| (mean + std * v) as f32)
            .collect(),
        Random::KaimingUniform { a } => {
            let bound = (6.0 / ((1.0 + a * a) * fan_in)).sqrt();
            uniform(rng, count, -bound, bound)
        }
        Random::XavierUniform { gain } => {
            let bound = gain * (6.0 / (fan_in + fan_out)).sqrt();
            uniform(rng, count, -bound, bound)
        }
        Random::Integers(low, high) => (0..count)
            .map(|_| (low + below(rng, (high - low).max(1.0) as u64) as f64) as f32)
            .collect(),
        Random::Distinct(rows, columns) => distinct(rng, dims, rows as u64, columns as u64),
        Random::Orthogonal { gain } => orthogonal(rng, dims[0] as usize, dims[1] as usize, gain),
    }
}

fn uniform(rng: &mut ChaCha8Rng, count: usize, low: f64, high: f64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            let unit = f64::from(rng.next_u32() >> 8) / f64::from(1 << 24);
            (low + (high - low) * unit) as f32
        })
        .collect()
}

/// A whole number from 0 to before `limit`: the upper half of a 64-bit word times the limit.
fn below(rng: &mut ChaCha8Rng, limit: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(limit)) >> 64) as u64
}

/// Different places in ascending order, by Floyd's algorithm (Bentley and Floyd, 1987).
fn distinct(rng: &mut ChaCha8Rng, dims: &[i64], rows: u64, columns: u64) -> Vec<f32> {
    let (count, all) = (dims[0] as u64, rows * columns);
    let mut chosen = std::collections::BTreeSet::new();
    for last in all.saturating_sub(count)..all {
        let drawn = below(rng, last + 1);
        if !chosen.insert(drawn) {
            chosen.insert(last);
        }
    }
    let places = chosen.into_iter();
    match dims.len() {
        1 => places.map(|place| place as f32).collect(),
        _ => places
            .flat_map(|place| [(place / columns) as f32, (place % columns) as f32])
            .collect(),
    }
}

fn normal(rng: &mut ChaCha8Rng, count: usize) -> impl Iterator<Item = f64> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // In (0, 1], so that the logarithm is finite.
        let unit = |rng: &mut ChaCha8Rng| ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let radius = (-2.0 * unit(rng).ln()).sqrt();
        let angle = std::f64::consts::TAU * unit(rng);
        values.push(radius * angle.cos());
        values.push(radius * angle.sin());
    }
    values.truncate(count);
    values.into_iter()
}

/// Orthonormal rows (or columns, if there are more rows) by Gram-Schmidt, done twice for accuracy.
fn orthogonal(rng: &mut ChaCha8Rng, rows: usize, columns: usize, gain: f64) -> Vec<f32> {
    let (vectors, length) = (rows.min(columns), rows.max(columns));
    let drawn: Vec<f64> = normal(rng, vectors * length).collect();
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(vectors);
    for vector in drawn.chunks(length) {
        let mut vector = vector.to_vec();
        for _ in 0..2 {
            for other in &basis {
                let dot: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector
                    .iter_mut()
                    .zip(other)
                    .for_each(|(a, b)| *a -= dot * b);
            }
        }
        let norm = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
        vector.iter_mut().for_each(|v| *v /= norm);
        basis.push(vector);
    }
    let at = |row: usize, column: usize| {
        if rows <= columns {
            basis[row][column]
        } else {
            basis[column][row]
        }
    };
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| (gain * at(row, column)) as f32)
        .collect()
}

/// The base weight in torch's layout, less what the parameter's slice leaves out.
fn base_weight(
    site: &Site,
    parameter: &PlannedParameter,
    model: &Model,
    weights: &WeightReader<'_>,
    sink: &mut Sink,
) -> Result<Dense, Reported> {
    let graph = graph_at(model, &site.scope);
    let stored = (&site.weight.scope, site.weight.value);
    let values = floats(site, stored, parameter, model, weights, sink)?;
    let torch_layout = (site.weight.layout == Layout::OutIn) != is_transposed(graph, site);
    let rows = parameter_rows(site, parameter);
    let (input, output) = (site.in_features as usize, total_outputs(values.len(), site));
    let dense = match site.kind {
        SiteKind::Norm => {
            return Ok(Dense {
                dims: vec![values.len()],
                data: values,
            });
        }
        SiteKind::Embedding => {
            let columns = rows.len();
            let data = values
                .chunks(site.out_features as usize)
                .flat_map(|row| &row[rows.clone()])
                .copied()
                .collect();
            return Ok(Dense {
                dims: vec![input, columns],
                data,
            });
        }
        SiteKind::Conv => {
            let rows = site.out_features as usize;
            return Ok(Dense {
                dims: vec![rows, values.len() / rows.max(1)],
                data: values,
            });
        }
        _ if torch_layout => Dense {
            dims: vec![rows.len(), input],
            data: values[rows.start * input..rows.end * input].to_vec(),
        },
        _ => {
            let data = rows
                .clone()
                .flat_map(|row| (0..input).map(move |column| (row, column)))
                .map(|(row, column)| values[column * output + row])
                .collect();
            Dense {
                dims: vec![rows.len(), input],
                data,
            }
        }
    };
    Ok(dense)
}

/// Output features of the whole weight, of which a fused member has a part.
fn total_outputs(elements: usize, site: &Site) -> usize {
    elements / (site.in_features as usize).max(1)
}

/// The rows of the whole weight that belong to the module, or to the part of it that is adapted.
fn parameter_rows(site: &Site, parameter: &PlannedParameter) -> std::ops::Range<usize> {
    let own = site.slice.clone().unwrap_or(0..site.out_features);
    match &parameter.slice {
        Some(part) => (own.start + part.start) as usize..(own.start + part.end) as usize,
        None => own.start as usize..own.end as usize,
    }
}

fn base_bias(
    site: &Site,
    bias: ValueId,
    parameter: &PlannedParameter,
    model: &Model,
    weights: &WeightReader<'_>,
    sink: &mut Sink,
) -> Result<Dense, Reported> {
    let values = floats(site, (&site.scope, bias), parameter, model, weights, sink)?;
    let rows = parameter_rows(site, parameter);
    let data = values
        .get(rows.clone())
        .map_or(values.clone(), <[f64]>::to_vec);
    Ok(Dense {
        dims: vec![data.len()],
        data,
    })
}

fn floats(
    site: &Site,
    (scope, value): (&Scope, ValueId),
    parameter: &PlannedParameter,
    model: &Model,
    weights: &WeightReader<'_>,
    sink: &mut Sink,
) -> Result<Vec<f64>, Reported> {
    let Some(tensor) = constant(model, scope, value) else {
        return Err(sink.emit(unusable(site, parameter, model, "it is not a constant")));
    };
    let bytes = weights(tensor, sink)?;
    match decode_floats(tensor.dtype, &bytes) {
        Some(values) => Ok(values),
        None => {
            let why = format!("its type is {}", tensor.dtype);
            Err(sink.emit(unusable(site, parameter, model, &why)))
        }
    }
}

fn unusable(site: &Site, parameter: &PlannedParameter, model: &Model, why: &str) -> Diagnostic {
    errors::unreadable_weight(parameter.span, &site.path, why).excerpt(excerpt(model, site))
}

/// The constant behind a value; a captured one is looked up in the graphs around it.
pub(super) fn constant<'m>(model: &'m Model, scope: &Scope, value: ValueId) -> Option<&'m Tensor> {
    let graph = graph_at(model, scope);
    let found = graph.value(value);
    if !matches!(found.kind, ValueKind::Captured) {
        return found.tensor();
    }
    (0..scope.0.len()).rev().find_map(|depth| {
        let outer = graph_at(model, &Scope(scope.0[..depth].to_vec()));
        outer.value(outer.find_value(&found.name)?).tensor()
    })
}

/// Whether an odd number of transposes lies between the initializer and the site's operand.
fn is_transposed(graph: &Graph, site: &Site) -> bool {
    let mut value = site.weight.operand;
    let mut odd = false;
    while value != site.weight.value {
        let Some(node) = graph.producer(value) else {
            break;
        };
        odd ^= graph.node(node).op.is("Transpose");
        let Some(operand) = graph.operand(node, 0) else {
            break;
        };
        value = operand;
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_and_seed_give_the_same_numbers() {
        let draw_for =
            |seed, name| draw(Random::Uniform(0.0, 1.0), &[4], &mut generator(seed, name));
        assert_eq!(draw_for(0, "a.A"), draw_for(0, "a.A"));
        assert_ne!(draw_for(0, "a.A"), draw_for(1, "a.A"));
        assert_ne!(draw_for(0, "a.A"), draw_for(0, "b.A"));
    }

    #[test]
    fn orthogonal_matrices_have_orthonormal_rows_or_columns() {
        for (rows, columns) in [(3, 8), (8, 3), (5, 5)] {
            let values = orthogonal(&mut generator(7, "q"), rows, columns, 1.0);
            let (count, length) = (rows.min(columns), rows.max(columns));
            let at = |v: usize, i: usize| {
                f64::from(if rows <= columns {
                    values[v * columns + i]
                } else {
                    values[i * columns + v]
                })
            };
            for a in 0..count {
                for b in 0..count {
                    let dot: f64 = (0..length).map(|i| at(a, i) * at(b, i)).sum();
                    let expected = f64::from(u8::from(a == b));
                    assert!(
                        (dot - expected).abs() < 1e-6,
                        "{rows}x{columns}: <{a}, {b}> = {dot}"
                    );
                }
            }
        }
    }

    #[test]
    fn places_are_different_and_inside() {
        let mut rng = generator(3, "places");
        let places = distinct(&mut rng, &[20, 2], 5, 4);
        let expected: Vec<f32> = (0..20)
            .flat_map(|p| [(p / 4) as f32, (p % 4) as f32])
            .collect();
        assert_eq!(places, expected);
        let some = distinct(&mut rng, &[7], 1000, 1);
        assert!(some.windows(2).all(|pair| pair[0] < pair[1]) && some[6] < 1000.0);
        assert_ne!(some, distinct(&mut rng, &[7], 1000, 1));
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let values: Vec<f64> = normal(&mut generator(1, "n"), 40_000).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03,
            "mean {mean}, variance {variance}"
        );
    }
}
