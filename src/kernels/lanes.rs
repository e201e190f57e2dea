//! What a step does with rows, in loops that compilers turn into vector instructions.

use super::math;
use super::program::{Op, Step};

/// Sums and maxima are kept in so many parts, whatever the processor has.
const LANES: usize = 16;

/// Computes a step. `into` has the length of the result; operands have lengths that the plan has
/// checked. Fails where an index is none of the row's.
#[inline(always)]
pub(super) fn step<'r, const FUSED: bool>(
    step: &Step,
    into: &mut [f32],
    operand: impl Fn(usize) -> &'r [f32],
) -> Result<(), String> {
    match step.op {
        Op::Number => {}
        Op::Neg => unary(into, operand(0), |x| -x),
        Op::Exp => unary(into, operand(0), math::exp::<FUSED>),
        Op::Log => unary(into, operand(0), f32::ln),
        Op::Sqrt => unary(into, operand(0), f32::sqrt),
        Op::Reciprocal => unary(into, operand(0), |x| 1.0 / x),
        Op::Sigmoid => unary(into, operand(0), math::sigmoid::<FUSED>),
        Op::Tanh => unary(into, operand(0), math::tanh::<FUSED>),
        Op::Erf => unary(into, operand(0), math::erf::<FUSED>),
        Op::Square => unary(into, operand(0), |x| x * x),
        Op::Add => binary(into, operand(0), operand(1), |a, b| a + b),
        Op::Sub => binary(into, operand(0), operand(1), |a, b| a - b),
        Op::Mul => binary(into, operand(0), operand(1), |a, b| a * b),
        Op::Div => binary(into, operand(0), operand(1), |a, b| a / b),
        Op::Max => binary(into, operand(0), operand(1), larger),
        Op::Min => binary(into, operand(0), operand(1), smaller),
        Op::Select => select(into, operand(0), operand(1), operand(2)),
        Op::Sum => into[0] = sum(operand(0)),
        Op::Mean => into[0] = sum(operand(0)) / operand(0).len() as f32,
        Op::Largest => into[0] = largest(operand(0)),
        Op::Softmax => softmax::<FUSED>(into, operand(0)),
        Op::LogSoftmax => log_softmax::<FUSED>(into, operand(0)),
        Op::Slice => {
            let start = step.numbers[0] as usize;
            into.copy_from_slice(&operand(0)[start..start + into.len()]);
        }
        Op::Concat => {
            let mut at = 0;
            for slot in 0..step.operands.len() {
                let part = operand(slot);
                into[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
        Op::Pick => into[0] = operand(0)[index(operand(1)[0], operand(0).len())?],
        Op::AddAt => {
            into.copy_from_slice(operand(0));
            let at = index(operand(1)[0], into.len())?;
            into[at] += operand(2)[0];
        }
    }
    Ok(())
}

/// Negative indices count from the end.
#[inline(always)]
fn index(number: f32, length: usize) -> Result<usize, String> {
    let counted = match number < 0.0 {
        true => number + length as f32,
        false => number,
    };
    match counted >= 0.0 && counted < length as f32 {
        true => Ok(counted as usize),
        false => Err(format!("index {number} is outside a row of {length}")),
    }
}

/// As the operators have it, what is no number stays none.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

#[inline(always)]
fn unary(into: &mut [f32], x: &[f32], function: impl Fn(f32) -> f32) {
    for (into, x) in into.iter_mut().zip(x) {
        *into = function(*x);
    }
}

#[inline(always)]
fn binary(into: &mut [f32], a: &[f32], b: &[f32], function: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        ([a], b) => {
            let a = *a;
            for (into, b) in into.iter_mut().zip(b) {
                *into = function(a, *b);
            }
        }
        (a, [b]) => {
            let b = *b;
            for (into, a) in into.iter_mut().zip(a) {
                *into = function(*a, b);
            }
        }
        _ => {
            for ((into, a), b) in into.iter_mut().zip(a).zip(b) {
                *into = function(*a, *b);
            }
        }
    }
}

#[inline(always)]
fn select(into: &mut [f32], condition: &[f32], a: &[f32], b: &[f32]) {
    let stretched = |row: &[f32], at: usize| match row {
        [one] => *one,
        row => row[at],
    };
    match (condition.len() == into.len(), a, b) {
        (true, [a], b) if b.len() == into.len() => {
            let a = *a;
            for ((into, condition), b) in into.iter_mut().zip(condition).zip(b) {
                *into = if *condition != 0.0 { a } else { *b };
            }
        }
        (true, a, [b]) if a.len() == into.len() => {
            let b = *b;
            for ((into, condition), a) in into.iter_mut().zip(condition).zip(a) {
                *into = if *condition != 0.0 { *a } else { b };
            }
        }
        _ => {
            for (at, into) in into.iter_mut().enumerate() {
                *into = match stretched(condition, at) != 0.0 {
                    true => stretched(a, at),
                    false => stretched(b, at),
                };
            }
        }
    }
}

#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    fold(x, 0.0, |sum, x| sum + x)
}

/// Σ a b, added up as [`sum`] adds.
#[inline(always)]
pub(super) fn sum_of_products(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0.0; LANES];
    let (mut a, mut b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut one = |a: &[f32], b: &[f32]| {
        for ((part, a), b) in parts.iter_mut().zip(a).zip(b) {
            *part += a * b;
        }
    };
    for (a, b) in (&mut a).zip(&mut b) {
        one(a, b);
    }
    one(a.remainder(), b.remainder());
    parts.iter().sum()
}

/// The maximum; a row without any number has none.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    fold(x, f32::NEG_INFINITY, larger)
}

/// As [`largest`] without looking for what is no number: that shows in what is computed next.
#[inline(always)]
pub(super) fn ceiling(x: &[f32]) -> f32 {
    fold(x, f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
}

/// In [`LANES`] parts, which then are brought together.
#[inline(always)]
fn fold(x: &[f32], start: f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut parts = [start; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (part, x) in parts.iter_mut().zip(chunk) {
            *part = join(*part, *x);
        }
    }
    for (part, x) in parts.iter_mut().zip(chunks.remainder()) {
        *part = join(*part, *x);
    }
    parts.iter().fold(start, |all, part| join(all, *part))
}

#[inline(always)]
fn softmax<const FUSED: bool>(into: &mut [f32], x: &[f32]) {
    let factor = 1.0 / exponentials::<FUSED>(into, x, ceiling(x));
    for into in into {
        *into *= factor;
    }
}

#[inline(always)]
fn log_softmax<const FUSED: bool>(into: &mut [f32], x: &[f32]) {
    let most = ceiling(x);
    let log = exponentials::<FUSED>(into, x, most).ln();
    unary(into, x, |x| (x - most) - log);
}

/// e^(x - most), and the sum of all.
#[inline(always)]
fn exponentials<const FUSED: bool>(into: &mut [f32], x: &[f32], most: f32) -> f32 {
    let mut parts = [0.0; LANES];
    let (mut own, mut given) = (into.chunks_exact_mut(LANES), x.chunks_exact(LANES));
    let one = |into: &mut [f32], x: &[f32], parts: &mut [f32; LANES]| {
        for ((into, x), part) in into.iter_mut().zip(x).zip(parts) {
            *into = math::bounded_exp::<FUSED>(x - most);
            *part += *into;
        }
    };
    for (into, x) in (&mut own).zip(&mut given) {
        one(into, x, &mut parts);
    }
    one(own.into_remainder(), given.remainder(), &mut parts);
    parts.iter().sum()
}
