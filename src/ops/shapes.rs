//! Shape algebra that several families share.

use super::cx::{MAX_RANK, Mismatch, mismatch};
use super::known::MAX_EXPRESSION;
use crate::ty::{Dim, Proof};

/// An axis counted from the end if negative; a mismatch if the tensor has no such axis.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Mismatch> {
    let rank = rank as i64;
    if axis < -rank || axis >= rank {
        return mismatch!("axis {axis} of a tensor with {rank} axes");
    }
    Ok(if axis < 0 { axis + rank } else { axis } as usize)
}

/// Every axis of a list, sorted, each once.
pub(super) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Mismatch> {
    if list.len() > MAX_RANK {
        return mismatch!("a list of {} axes", list.len());
    }
    let mut found = list
        .iter()
        .map(|a| axis(*a, rank))
        .collect::<Result<Vec<_>, _>>()?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Numpy's broadcasting. Two sizes of which neither is shown to be 1 are taken as their maximum,
/// which is what they come to if one of them is 1 and what both are if they are equal.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Mismatch> {
    let rank = a.len().max(b.len());
    let mut dims = Vec::with_capacity(rank);
    for from_end in (1..=rank).rev() {
        let left = a.len().checked_sub(from_end).map(|at| &a[at]);
        let right = b.len().checked_sub(from_end).map(|at| &b[at]);
        dims.push(match (left, right) {
            (Some(left), Some(right)) => broadcast_dim(left, right)?,
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => unreachable!("one of the two has the larger rank"),
        });
    }
    Ok(dims)
}

fn broadcast_dim(a: &Dim, b: &Dim) -> Result<Dim, Mismatch> {
    if a == b {
        return Ok(a.clone());
    }
    match (a.known(), b.known()) {
        (Some(1), _) => Ok(b.clone()),
        (_, Some(1)) => Ok(a.clone()),
        (Some(x), Some(y)) => mismatch!("sizes {x} and {y} do not broadcast"),
        // The other must be 1 or the same.
        (Some(_), None) => Ok(a.clone()),
        (None, Some(_)) => Ok(b.clone()),
        (None, None) => Ok(a.larger(b)),
    }
}

/// Two sizes that must be equal: the one of which more is known. A mismatch if they differ.
pub(super) fn same(what: &str, a: &Dim, b: &Dim) -> Result<Dim, Mismatch> {
    if a.compare(b) == Proof::Different {
        return mismatch!("{what} differ: {a} and {b}");
    }
    Ok(if b.known().is_some() { b } else { a }.clone())
}

/// The product of sizes; `None` if it takes too much to write down.
pub(super) fn product(dims: &[Dim]) -> Option<Dim> {
    dims.iter().try_fold(Dim::from(1), |product, dim| {
        let product = product * dim.clone();
        (product.size() <= 4 * MAX_EXPRESSION).then_some(product)
    })
}

/// `ceil(a / b)` for a positive number `b`.
pub(super) fn ceil_div(a: &Dim, b: i64) -> Dim {
    (a.clone() + Dim::from(b - 1)).floor_div(&Dim::from(b))
}
