//! Arrays of the proofs: made from the seed, cut, and compared.

use crate::adapt::random_tensor;
use crate::graph::{Tensor, decode_floats};
use crate::hir::Random;
use crate::reference::Array;
use crate::ty::DType;

/// Named arrays, as the reference takes them.
pub(super) type Named = Vec<(String, Array)>;

/// Standard normal numbers, times a factor, that depend on the seed and the name.
pub(super) fn normal(name: &str, dims: &[i64], scale: f64, seed: u64) -> Tensor {
    random_tensor(Random::Normal(0.0, scale), dims, seed, name)
}

/// The elements of an inline tensor of floats.
pub(super) fn elements(tensor: &Tensor) -> Vec<f64> {
    let raw = tensor.raw().cloned().unwrap_or_default();
    decode_floats(tensor.dtype, &raw).unwrap_or_default()
}

pub(super) fn array(tensor: &Tensor) -> Result<Array, String> {
    let dims: Vec<usize> = tensor.dims.iter().map(|d| *d as usize).collect();
    Array::floats(DType::F32, &dims, elements(tensor)).map_err(|fault| fault.to_string())
}

/// A part of one axis.
pub(super) fn cut(array: &Array, axis: usize, start: usize, end: usize) -> Result<Array, String> {
    let dims = array.dims();
    if axis >= dims.len() || end > dims[axis] {
        return Err("an array is cut outside of it".to_owned());
    }
    let outer: usize = dims[..axis].iter().product();
    let inner: usize = dims[axis + 1..].iter().product();
    let pieces = (0..outer).flat_map(|at| {
        let row = at * dims[axis] * inner;
        row + start * inner..row + end * inner
    });
    let all = array.to_f64s();
    let data: Vec<f64> = pieces.map(|at| all[at]).collect();
    let mut dims = dims.to_vec();
    dims[axis] = end - start;
    made(array.dtype(), &dims, data)
}

/// Two arrays along an axis.
pub(super) fn join(a: &Array, b: &Array, axis: usize) -> Result<Array, String> {
    let (da, db) = (a.dims(), b.dims());
    let size = |dims: &[usize]| dims[axis..].iter().product::<usize>().max(1);
    let (sa, sb) = (size(da), size(db));
    let (a64, b64) = (a.to_f64s(), b.to_f64s());
    let rows = a64.chunks(sa).zip(b64.chunks(sb));
    let data = rows.flat_map(|(x, y)| x.iter().chain(y).copied()).collect();
    let mut dims = da.to_vec();
    dims[axis] += db[axis];
    made(a.dtype(), &dims, data)
}

pub(super) fn made(dtype: DType, dims: &[usize], data: Vec<f64>) -> Result<Array, String> {
    let array = if dtype.is_float() {
        Array::floats(dtype, dims, data)
    } else {
        Array::ints(dtype, dims, data.iter().map(|v| *v as i128).collect())
    };
    array.map_err(|fault| fault.to_string())
}

/// The largest difference over the largest magnitude of what is expected.
pub(super) fn distance(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let pairs = found.iter().zip(expected);
    let largest = pairs.fold(0.0_f64, |most, (a, b)| {
        let difference = (a - b).abs();
        if difference.is_nan() {
            f64::INFINITY
        } else {
            most.max(difference)
        }
    });
    let scale = expected.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    if largest == 0.0 {
        0.0
    } else {
        largest / scale.max(f64::MIN_POSITIVE)
    }
}

/// [`distance`] of all arrays of one list.
pub(super) fn apart(found: &Named, expected: &Named) -> f64 {
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0, |most, ((_, a), (_, b))| {
        most.max(distance(&a.to_f64s(), &b.to_f64s()))
    })
}
