//! Dimensions, axes and walks over row-major data. Everything that allocates by a size that data
//! or attributes state goes through [`count`], which refuses what is too large.

use super::fault::{Fault, mismatch};

/// The most elements of one tensor; few in unit tests, which try to exceed them.
pub(super) const MOST_ELEMENTS: usize = if cfg!(test) { 1 << 16 } else { 1 << 26 };
/// The most multiplications of one operator.
const MOST_WORK: u128 = if cfg!(test) { 1 << 22 } else { 1 << 36 };
/// The largest rank; no runtime comes near it.
const MOST_AXES: usize = 64;

/// The number of elements, if so many are allowed.
pub(super) fn count(dims: &[usize]) -> Result<usize, Fault> {
    if dims.len() > MOST_AXES {
        let why = format!(
            "a tensor of {} axes, at most {MOST_AXES} are evaluated",
            dims.len()
        );
        return Err(Fault::TooLarge(why));
    }
    if dims.contains(&0) {
        return Ok(0);
    }
    let elements = dims.iter().try_fold(1_usize, |n, dim| n.checked_mul(*dim));
    match elements {
        Some(elements) if elements <= MOST_ELEMENTS => Ok(elements),
        _ => {
            let why =
                format!("a tensor of {dims:?}, at most {MOST_ELEMENTS} elements are evaluated");
            Err(Fault::TooLarge(why))
        }
    }
}

/// Whether so much work, a product of sizes, is allowed.
pub(super) fn work(factors: &[usize]) -> Result<(), Fault> {
    let product = factors
        .iter()
        .try_fold(1_u128, |n, f| n.checked_mul(*f as u128));
    match product {
        Some(product) if product <= MOST_WORK => Ok(()),
        _ => Err(Fault::TooLarge(format!(
            "{factors:?} multiplications, at most {MOST_WORK} are evaluated"
        ))),
    }
}

/// A size that data or an attribute states.
pub(super) fn size(value: i64) -> Result<usize, Fault> {
    match usize::try_from(value) {
        Ok(size) => Ok(size),
        Err(_) => mismatch!("a size of {value}"),
    }
}

pub(super) fn sizes(values: &[i64]) -> Result<Vec<usize>, Fault> {
    values.iter().map(|value| size(*value)).collect()
}

/// An axis counted from either end.
pub(super) fn axis(value: i64, rank: usize) -> Result<usize, Fault> {
    index(value, rank)
        .map_err(|_| Fault::Mismatch(format!("axis {value} of a tensor with {rank} axes")))
}

/// Distinct axes counted from either end, in rising order.
pub(super) fn axes(values: &[i64], rank: usize) -> Result<Vec<usize>, Fault> {
    let mut found: Vec<usize> = values
        .iter()
        .map(|value| axis(*value, rank))
        .collect::<Result<_, _>>()?;
    found.sort_unstable();
    found.dedup();
    if found.len() != values.len() {
        return mismatch!("an axis is listed twice in {values:?}");
    }
    Ok(found)
}

/// An index counted from either end.
pub(super) fn index(value: i64, len: usize) -> Result<usize, Fault> {
    let counted = match value {
        0.. => usize::try_from(value).ok(),
        _ => usize::try_from(value.unsigned_abs())
            .ok()
            .and_then(|back| len.checked_sub(back)),
    };
    match counted {
        Some(index) if index < len => Ok(index),
        _ => mismatch!("index {value} of {len} elements"),
    }
}

/// How far apart neighbours along each axis lie.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(dims[axis]);
    }
    strides
}

/// The shape to which both broadcast.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Fault> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| {
        let missing = rank - dims.len();
        if axis < missing {
            1
        } else {
            dims[axis - missing]
        }
    };
    let one = |axis: usize| match (at(a, axis), at(b, axis)) {
        (x, y) if x == y => Ok(x),
        (1, y) => Ok(y),
        (x, 1) => Ok(x),
        (x, y) => mismatch!("sizes {x} and {y} do not broadcast"),
    };
    (0..rank).map(one).collect()
}

/// Flat positions in row-major order of `dims`, of which a step along an axis moves by `steps`.
/// The caller knows that they lie in its data: `dims` come out of [`count`].
pub(super) fn walk(dims: &[usize], steps: &[isize], start: isize) -> Result<Vec<usize>, Fault> {
    count(dims)?;
    let mut positions = vec![start];
    if dims.contains(&0) {
        return Ok(Vec::new());
    }
    for (dim, step) in dims.iter().zip(steps) {
        if *dim == 1 {
            continue;
        }
        let mut longer = Vec::with_capacity(positions.len() * dim);
        for position in &positions {
            let mut at = *position;
            for _ in 0..*dim {
                longer.push(at);
                at = at.wrapping_add(*step);
            }
        }
        positions = longer;
    }
    // What lies before the data wraps to what lies far behind it, which no data has.
    Ok(positions
        .into_iter()
        .map(|position| position as usize)
        .collect())
}

/// The positions of an operand of shape `from` that is stretched to `to`.
pub(super) fn stretched(from: &[usize], to: &[usize]) -> Result<Vec<usize>, Fault> {
    if broadcast(from, to)? != to {
        return mismatch!("{from:?} does not broadcast to {to:?}");
    }
    let missing = to.len() - from.len();
    let own = strides(from);
    let steps: Vec<isize> = (0..to.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(axis) if from[axis] != 1 => own[axis] as isize,
            _ => 0,
        })
        .collect();
    walk(to, &steps, 0)
}

/// Calls `visit` with every multi-index of `dims`, in row-major order.
pub(super) fn for_each(
    dims: &[usize],
    mut visit: impl FnMut(&[usize]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let total = count(dims)?;
    let mut at = vec![0; dims.len()];
    for _ in 0..total {
        visit(&at)?;
        for axis in (0..dims.len()).rev() {
            at[axis] += 1;
            if at[axis] < dims[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
    Ok(())
}

/// The flat position of a multi-index.
pub(super) fn flat(at: &[usize], strides: &[usize]) -> usize {
    at.iter().zip(strides).map(|(i, stride)| i * stride).sum()
}
