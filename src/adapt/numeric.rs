//! Evaluates terms without leading axes in f64: computed start values, and what merges need.

mod axes;
mod factors;

pub(super) use factors::Factors;

use crate::hir::{Axis, Binary, Formula, Reduce, Term, TermId, TermKind};
use std::borrow::Cow;

/// A dense row-major tensor.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub dims: Vec<usize>,
    pub data: Vec<f64>,
}

impl Dense {
    fn scalar(value: f64) -> Self {
        Dense {
            dims: Vec::new(),
            data: vec![value],
        }
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Dense {
            dims: self.dims.clone(),
            data: self.data.iter().map(|v| f(*v)).collect(),
        }
    }
}

/// So many elements all values of a formula may have together (4 GiB), or so many weights' worth.
const MOST_ELEMENTS: usize = 1 << 29;
const MOST_WEIGHTS: usize = 64;

fn elements(term: &Term) -> usize {
    let sizes = sizes(term).into_iter();
    sizes.fold(1, usize::saturating_mul)
}

/// The values of some terms of a formula without input and output; `base` is the weight and the bias, `given`
/// has parameters and random numbers, `factors` what has been decomposed. What `given` has is not computed,
/// nor what it is made of. `Err` names what it cannot compute.
pub(super) fn evaluate_terms<'v>(
    formula: &Formula,
    wanted: &[TermId],
    (weight, bias): (Option<&'v Dense>, Option<&'v Dense>),
    given: &dyn Fn(TermId) -> Option<&'v Dense>,
    factors: &Factors,
) -> Result<Vec<Dense>, String> {
    let needed = needed(formula, wanted, given);
    let of_weight = weight.map_or(0, |weight| weight.data.len());
    let mut left = MOST_ELEMENTS.max(of_weight.saturating_mul(MOST_WEIGHTS));
    let mut values: Vec<Option<Cow<'_, Dense>>> = Vec::with_capacity(needed.len());
    for (id, term) in formula.terms() {
        if !needed[id.0 as usize] {
            values.push(None);
            continue;
        }
        if let Some(known) = given(id) {
            values.push(Some(Cow::Borrowed(known)));
            continue;
        }
        let size = elements(term);
        left = left
            .checked_sub(size)
            .ok_or_else(|| format!("a value of {size} elements is more than there is room for"))?;
        let of = |id: TermId| -> &Dense {
            let value = &values[id.0 as usize];
            value.as_ref().expect("operands come first")
        };
        let value = match &term.kind {
            TermKind::Weight => weight.ok_or("the module has no weight")?.clone(),
            TermKind::Bias => bias.ok_or("the module has no bias")?.clone(),
            TermKind::Number(value) => Dense::scalar(*value),
            TermKind::Unary(function, a) => of(*a).map(|x| function.of_number(x)),
            TermKind::Binary(function, a, b) => binary(*function, of(*a), of(*b)),
            TermKind::MatMul(a, b) => matmul(of(*a), of(*b)),
            TermKind::Transpose(a) => transpose(of(*a)),
            TermKind::Reduce {
                function,
                over: Axis::Dim(axis),
                keep,
                operand,
            } => reduce(*function, *axis, *keep, of(*operand)),
            TermKind::StopGradient(a) | TermKind::Dropout(a, _) => of(*a).clone(),
            TermKind::Noise { like: Some(a), .. } => of(*a).map(|_| 0.0),
            TermKind::Noise { like: None, .. } => {
                let dims = sizes(term);
                let data = vec![0.0; dims.iter().product()];
                Dense { dims, data }
            }
            TermKind::Reshape(a) => Dense {
                dims: sizes(term),
                data: of(*a).data.clone(),
            },
            TermKind::Einsum { equation, operands } => {
                let operands: Vec<&Dense> = operands.iter().map(|id| of(*id)).collect();
                axes::einsum(equation, &operands)
            }
            TermKind::Gather {
                table,
                positions,
                axis,
            } => axes::gather(of(*table), of(*positions), *axis).ok_or(OUTSIDE)?,
            TermKind::Scatter { values, positions } => {
                axes::scatter(of(*values), of(*positions), sizes(term)).ok_or(OUTSIDE)?
            }
            TermKind::Pad {
                operand,
                axis,
                before,
                after,
            } => {
                let size = |dim: &crate::ty::Dim| dim.known().unwrap_or(0) as usize;
                axes::pad(of(*operand), *axis, size(before), size(after))
            }
            TermKind::Iota => {
                let dims = sizes(term);
                let data = (0..dims[0]).map(|at| at as f64).collect();
                Dense { dims, data }
            }
            TermKind::Numbers(numbers) => Dense {
                dims: sizes(term),
                data: numbers.clone(),
            },
            TermKind::Equal(a, b) => elementwise(of(*a), of(*b), |a, b| f64::from(a == b)),
            TermKind::Largest(a) => axes::top(of(*a), last(term)).0,
            TermKind::LargestAt(a) => axes::top(of(*a), last(term)).1,
            TermKind::Factor(factor, a) => factors.factor(*factor, of(*a), term)?,
            TermKind::Slice {
                operand,
                axis,
                start,
                end,
            } => {
                let bounds = (
                    start.known().unwrap_or(0) as usize,
                    end.known().unwrap_or(0) as usize,
                );
                slice(of(*operand), *axis, bounds)
            }
            TermKind::Softmax(a) => softmax(of(*a)),
            TermKind::Concat { axis, operands } => {
                let operands: Vec<&Dense> = operands.iter().map(|id| of(*id)).collect();
                concat(*axis, &operands)
            }
            _ => return Err("it depends on what the module is given".to_owned()),
        };
        values.push(Some(Cow::Owned(value)));
    }
    let take = |id: &TermId| {
        let value = values[id.0 as usize].as_ref();
        value.expect("wanted terms are needed").as_ref().clone()
    };
    Ok(wanted.iter().map(take).collect())
}

/// Which terms must be at hand for the wanted ones.
fn needed<'v>(
    formula: &Formula,
    wanted: &[TermId],
    given: &dyn Fn(TermId) -> Option<&'v Dense>,
) -> Vec<bool> {
    let mut needed = vec![false; formula.terms().count()];
    for id in wanted {
        needed[id.0 as usize] = true;
    }
    for (id, term) in formula.terms.iter().enumerate().rev() {
        if needed[id] && given(TermId(id as u32)).is_none() {
            for operand in term.kind.operands() {
                needed[operand.0 as usize] = true;
            }
        }
    }
    needed
}

const OUTSIDE: &str = "it looks up a position that its axis does not have";

/// Dims of a term as numbers: at a site all sizes are known.
fn sizes(term: &Term) -> Vec<usize> {
    let dims = term.ty.dims.iter();
    dims.map(|dim| dim.known().unwrap_or(1) as usize).collect()
}

fn last(term: &Term) -> usize {
    sizes(term).last().copied().unwrap_or(1)
}

pub(super) fn binary(function: Binary, a: &Dense, b: &Dense) -> Dense {
    elementwise(a, b, |a, b| apply(function, a, b))
}

fn elementwise(a: &Dense, b: &Dense, apply: impl Fn(f64, f64) -> f64) -> Dense {
    let rank = a.dims.len().max(b.dims.len());
    let padded = |d: &Dense| {
        let mut dims = vec![1; rank - d.dims.len()];
        dims.extend(&d.dims);
        dims
    };
    let (da, db) = (padded(a), padded(b));
    let dims: Vec<usize> = da.iter().zip(&db).map(|(x, y)| *x.max(y)).collect();
    let total: usize = dims.iter().product();
    let mut data = Vec::with_capacity(total);
    let mut index = vec![0; rank];
    for _ in 0..total {
        let at = |own: &[usize]| {
            index
                .iter()
                .zip(own)
                .fold(0, |flat, (i, d)| flat * d + if *d == 1 { 0 } else { *i })
        };
        data.push(apply(a.data[at(&da)], b.data[at(&db)]));
        for axis in (0..rank).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Dense { dims, data }
}

pub(super) fn apply(function: Binary, a: f64, b: f64) -> f64 {
    match function {
        Binary::Add => a + b,
        Binary::Subtract => a - b,
        Binary::Multiply => a * b,
        Binary::Divide => a / b,
        Binary::Power => a.powf(b),
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
    }
}

pub(super) fn matmul(a: &Dense, b: &Dense) -> Dense {
    let k = *a.dims.last().expect("typed as a matrix");
    let m = a.data.len() / k.max(1);
    let n = if b.dims.len() == 2 { b.dims[1] } else { 1 };
    let mut data = vec![0.0; m * n];
    for row in 0..m {
        for inner in 0..k {
            let factor = a.data[row * k + inner];
            for column in 0..n {
                data[row * n + column] += factor * b.data[inner * n + column];
            }
        }
    }
    let mut dims = a.dims.clone();
    dims.pop();
    if b.dims.len() == 2 {
        dims.push(n);
    }
    Dense { dims, data }
}

pub(super) fn transpose(a: &Dense) -> Dense {
    let (rows, columns) = (a.dims[0], a.dims[1]);
    let data = (0..columns)
        .flat_map(|c| (0..rows).map(move |r| (r, c)))
        .map(|(r, c)| a.data[r * columns + c])
        .collect();
    Dense {
        dims: vec![columns, rows],
        data,
    }
}

pub(super) fn reduce(function: Reduce, axis: usize, keep: bool, a: &Dense) -> Dense {
    let outer: usize = a.dims[..axis].iter().product();
    let size = a.dims[axis];
    let inner: usize = a.dims[axis + 1..].iter().product();
    let mut data = Vec::with_capacity(outer * inner);
    for o in 0..outer {
        for i in 0..inner {
            let items = (0..size).map(|s| a.data[(o * size + s) * inner + i]);
            data.push(match function {
                Reduce::Sum => items.sum(),
                Reduce::Mean => items.sum::<f64>() / size as f64,
                Reduce::Max => items.fold(f64::NEG_INFINITY, f64::max),
                Reduce::Min => items.fold(f64::INFINITY, f64::min),
                Reduce::Norm => items.map(|v| v * v).sum::<f64>().sqrt(),
            });
        }
    }
    let mut dims = a.dims.clone();
    if keep {
        dims[axis] = 1;
    } else {
        dims.remove(axis);
    }
    Dense { dims, data }
}

pub(super) fn slice(a: &Dense, axis: usize, (start, end): (usize, usize)) -> Dense {
    let outer: usize = a.dims[..axis].iter().product();
    let size = a.dims[axis];
    let inner: usize = a.dims[axis + 1..].iter().product();
    let mut data = Vec::new();
    for o in 0..outer {
        data.extend_from_slice(&a.data[(o * size + start) * inner..(o * size + end) * inner]);
    }
    let mut dims = a.dims.clone();
    dims[axis] = end - start;
    Dense { dims, data }
}

/// Over the last axis.
pub(super) fn softmax(a: &Dense) -> Dense {
    let size = a.dims.last().copied().unwrap_or(1).max(1);
    let mut data = Vec::with_capacity(a.data.len());
    for row in a.data.chunks(size) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = row.iter().map(|v| (v - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        data.extend(powers.iter().map(|power| power / sum));
    }
    Dense {
        dims: a.dims.clone(),
        data,
    }
}

pub(super) fn concat(axis: usize, operands: &[&Dense]) -> Dense {
    let mut dims = operands[0].dims.clone();
    dims[axis] = operands.iter().map(|operand| operand.dims[axis]).sum();
    let outer: usize = dims[..axis].iter().product();
    let mut data = Vec::with_capacity(dims.iter().product());
    for at in 0..outer {
        for operand in operands {
            let size: usize = operand.dims[axis..].iter().product();
            data.extend_from_slice(&operand.data[at * size..(at + 1) * size]);
        }
    }
    Dense { dims, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn dense(dims: &[usize], data: &[f64]) -> Dense {
        Dense {
            dims: dims.to_vec(),
            data: data.to_vec(),
        }
    }

    #[test]
    fn tensors_are_joined_along_any_axis() {
        let (a, b) = (
            dense(&[2, 1], &[1.0, 2.0]),
            dense(&[2, 2], &[3.0, 4.0, 5.0, 6.0]),
        );
        let joined = concat(1, &[&a, &b]);
        assert_eq!(joined.dims, [2, 3]);
        assert_eq!(joined.data, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        let joined = concat(0, &[&b, &b]);
        assert_eq!(joined.dims, [4, 2]);
        assert_eq!(joined.data[4..], b.data);
    }

    #[test]
    fn every_row_of_a_softmax_sums_to_one() {
        let a = softmax(&dense(&[2, 2], &[0.0, 3f64.ln(), 1000.0, 1000.0]));
        assert!((a.data[0] - 0.25).abs() < 1e-15 && (a.data[1] - 0.75).abs() < 1e-15);
        assert_eq!(a.data[2..], [0.5, 0.5]);
    }
}
