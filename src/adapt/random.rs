//! Random numbers that are the same everywhere: they depend on the seed and on the tensor's name.
//!
//! ChaCha8 keyed with BLAKE3 of the seed (little-endian u64) and the name. Elements are drawn in
//! row-major order. A uniform number is the upper 24 bits of the next 32-bit word times 2⁻²⁴; a
//! normal one comes in pairs by Box and Muller from two numbers of 53 bits; a whole number below n is
//! the upper half of the next 64-bit word times n.

use crate::graph::Tensor;
use crate::hir::Random;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A tensor of random numbers that depend on the seed and on its name.
pub fn random_tensor(random: Random, dims: &[i64], seed: u64, name: &str) -> Tensor {
    let values = draw(random, dims, &mut generator(seed, name));
    Tensor::from_f32(dims, &values)
}

pub(super) fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

pub(super) fn draw(random: Random, dims: &[i64], rng: &mut ChaCha8Rng) -> Vec<f32> {
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
