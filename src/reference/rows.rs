//! Operators along axes: the axes are moved behind the others, so that each row lies together.

use super::array::{Array, Elements, each};
use super::fault::{Fault, mismatch};
use super::sizes::{self, count, strides, walk};
use crate::ty::DType;

/// The elements with the axes in another order: axis `i` of the result is axis `order[i]`.
pub(super) fn permuted(array: &Array, order: &[usize]) -> Result<Array, Fault> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..array.rank()) {
        return mismatch!("{order:?} is no order of {} axes", array.rank());
    }
    if order.iter().copied().eq(0..array.rank()) {
        return Ok(array.clone());
    }
    let own = strides(array.dims());
    let dims: Vec<usize> = order.iter().map(|axis| array.dims()[*axis]).collect();
    let steps: Vec<isize> = order.iter().map(|axis| own[*axis] as isize).collect();
    array.pick(&dims, &walk(&dims, &steps, 0)?)
}

/// A tensor seen as rows over some of its axes.
pub(super) struct Rows {
    /// With the axes behind the others.
    pub array: Array,
    /// The other axes, then those of the rows.
    order: Vec<usize>,
    /// The sizes of the other axes.
    pub outer: Vec<usize>,
    /// The elements of a row.
    pub len: usize,
}

impl Rows {
    /// `axes` are distinct axes of the array.
    pub fn over(array: &Array, axes: &[usize]) -> Result<Rows, Fault> {
        let mut order: Vec<usize> = (0..array.rank()).filter(|a| !axes.contains(a)).collect();
        let outer: Vec<usize> = order.iter().map(|axis| array.dims()[*axis]).collect();
        order.extend(axes);
        let row: Vec<usize> = axes.iter().map(|axis| array.dims()[*axis]).collect();
        Ok(Rows {
            array: permuted(array, &order)?,
            order,
            outer,
            len: count(&row)?,
        })
    }

    /// The rows as floats.
    pub fn floats(&self) -> Result<Vec<&[f64]>, Fault> {
        let data = self.array.as_floats()?;
        Ok(split(data, self.len, count(&self.outer)?))
    }

    pub fn ints(&self) -> Result<Vec<&[i128]>, Fault> {
        let data = self.array.as_ints()?;
        Ok(split(data, self.len, count(&self.outer)?))
    }

    /// The rows with other elements, as many, back in the order of the axes.
    pub fn back(&self, dtype: DType, elements: Elements) -> Result<Array, Fault> {
        let moved = Array::new(dtype, self.array.dims(), elements)?;
        let mut inverse = vec![0; self.order.len()];
        for (to, from) in self.order.iter().enumerate() {
            inverse[*from] = to;
        }
        permuted(&moved, &inverse)
    }
}

/// As many rows as there are, each possibly empty.
fn split<T>(data: &[T], len: usize, rows: usize) -> Vec<&[T]> {
    (0..rows)
        .filter_map(|row| data.get(row * len..(row + 1) * len))
        .collect()
}

/// A float tensor with each row along the axes replaced by another of the same length.
pub(super) fn along(
    array: &Array,
    axes: &[usize],
    f: impl Fn(&[f64]) -> Vec<f64>,
) -> Result<Array, Fault> {
    let rows = Rows::over(array, axes)?;
    let data = rows.floats()?.into_iter().flat_map(f).collect();
    rows.back(array.dtype(), Elements::Floats(data))
}

/// The sizes that are left of a tensor when each row over the axes becomes one element.
pub(super) fn reduced_dims(dims: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let one = |(axis, size): (usize, &usize)| match (axes.contains(&axis), keep) {
        (false, _) => Some(*size),
        (true, true) => Some(1),
        (true, false) => None,
    };
    dims.iter().enumerate().filter_map(one).collect()
}

/// The operand stretched to a shape.
pub(super) fn stretch(array: &Array, dims: &[usize]) -> Result<Array, Fault> {
    if array.dims() == dims {
        return Ok(array.clone());
    }
    if array.len() == 1 && array.rank() <= dims.len() {
        let total = count(dims)?;
        let elements = each!(array, |data| vec![data[0]; total]);
        return Array::new(array.dtype(), dims, elements);
    }
    array.pick(dims, &sizes::stretched(array.dims(), dims)?)
}

/// `y = f(a, b)` over the broadcast of both, which are of the same kind.
pub(super) fn zip_floats(
    dtype: DType,
    a: &Array,
    b: &Array,
    f: impl Fn(f64, f64) -> f64,
) -> Result<Array, Fault> {
    let dims = sizes::broadcast(a.dims(), b.dims())?;
    let (a, b) = (stretch(a, &dims)?, stretch(b, &dims)?);
    let pairs = a.as_floats()?.iter().zip(b.as_floats()?);
    Array::floats(dtype, &dims, pairs.map(|(a, b)| f(*a, *b)).collect())
}

/// As [`zip_floats`], of integers; `f` says where it is not defined.
pub(super) fn zip_ints(
    dtype: DType,
    a: &Array,
    b: &Array,
    f: impl Fn(i128, i128) -> Result<i128, Fault>,
) -> Result<Array, Fault> {
    let dims = sizes::broadcast(a.dims(), b.dims())?;
    let (a, b) = (stretch(a, &dims)?, stretch(b, &dims)?);
    let pairs = a.as_ints()?.iter().zip(b.as_ints()?);
    let data = pairs.map(|(a, b)| f(*a, *b)).collect::<Result<_, _>>()?;
    Array::ints(dtype, &dims, data)
}
