//! Elements by index, and elements replaced by index.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::elementwise::{larger, smaller};
use super::fault::{Fault, mismatch, unsupported};
use super::sizes::{self, count, flat, for_each, strides};
use super::table::{Entry, one};

pub(super) const OPS: &[Entry] = &[
    one("Gather", 1, gather),
    one("GatherElements", 11, gather_elements),
    one("GatherND", 11, gather_nd),
    one("Scatter", 9, scatter_elements),
    one("ScatterElements", 11, scatter_elements),
    one("ScatterND", 11, scatter_nd),
    one("OneHot", 9, one_hot),
    one("Where", 9, choose),
];

/// `y = x[…, indices, …]` along an axis.
fn gather(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    take(x, indices, cx.axis_or("axis", 0, x.rank())?)
}

/// The slices of an axis at indices, which are counted from either end.
pub(super) fn take(x: &Array, indices: &Array, axis: usize) -> Result<Array, Fault> {
    let (outer, rest) = x.dims().split_at(axis.min(x.rank()));
    let Some((&size, inner)) = rest.split_first() else {
        return mismatch!("axis {axis} of {:?}", x.dims());
    };
    let dims = [outer, indices.dims(), inner].concat();
    count(&dims)?;
    let found: Vec<usize> = indices
        .to_i64s()?
        .iter()
        .map(|index| sizes::index(*index, size))
        .collect::<Result<_, _>>()?;
    let (rows, len) = (count(outer)?, count(inner)?);
    let mut positions = Vec::with_capacity(count(&dims)?);
    for row in 0..rows {
        for index in &found {
            let start = (row * size + index) * len;
            positions.extend(start..start + len);
        }
    }
    x.pick(&dims, &positions)
}

/// `y[i, j, …] = x[indices[i, j, …], j, …]` for axis 0, likewise for others.
fn gather_elements(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    let axis = cx.axis_or("axis", 0, x.rank())?;
    x.pick(indices.dims(), &element_positions(x.dims(), indices, axis)?)
}

/// The flat positions in data of shape `dims` that each index stands for.
fn element_positions(dims: &[usize], indices: &Array, axis: usize) -> Result<Vec<usize>, Fault> {
    let fits = |(at, (own, other)): (usize, (&usize, &usize))| at == axis || own >= other;
    if indices.rank() != dims.len() || !dims.iter().zip(indices.dims()).enumerate().all(fits) {
        return mismatch!("indices {:?} into {dims:?}", indices.dims());
    }
    let (own, numbers) = (strides(dims), indices.to_i64s()?);
    let mut positions = Vec::with_capacity(numbers.len());
    for_each(indices.dims(), |at| {
        let index = sizes::index(numbers[positions.len()], dims[axis])?;
        positions.push(flat(at, &own) - at[axis] * own[axis] + index * own[axis]);
        Ok(())
    })?;
    Ok(positions)
}

/// `y[b…, i…, …] = x[b…, indices[b…, i…, :], …]` with `batch_dims` axes `b`.
fn gather_nd(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    let batch = sizes::size(cx.int_or("batch_dims", 0))?;
    let Some((depth, outer)) = indices.dims().split_last() else {
        return mismatch!("indices without axes");
    };
    let indexed = batch.saturating_add(*depth);
    if indexed > x.rank() || batch > outer.len() || x.dims()[..batch] != outer[..batch] {
        return mismatch!("indices {:?} into {:?}", indices.dims(), x.dims());
    }
    let dims = [outer, &x.dims()[indexed..]].concat();
    count(&dims)?;
    let per_batch = count(&outer[batch..])?;
    let starts = nd_starts(x.dims(), indices, batch, per_batch)?;
    let len = count(&x.dims()[indexed..])?;
    let positions: Vec<usize> = starts
        .iter()
        .flat_map(|start| *start..start + len)
        .collect();
    x.pick(&dims, &positions)
}

/// Where each slice that the last axis of the indices names begins.
fn nd_starts(
    dims: &[usize],
    indices: &Array,
    batch: usize,
    per_batch: usize,
) -> Result<Vec<usize>, Fault> {
    let depth = indices.dims().last().copied().unwrap_or(0);
    let (own, numbers) = (strides(dims), indices.to_i64s()?);
    let batch_len = count(&dims[batch..])?;
    let tuples = count(&indices.dims()[..indices.rank() - 1])?;
    let mut starts = Vec::with_capacity(tuples);
    for tuple in 0..tuples {
        let mut start = tuple.checked_div(per_batch).unwrap_or(0) * batch_len;
        for axis in 0..depth {
            let index = sizes::index(numbers[tuple * depth + axis], dims[batch + axis])?;
            start += index * own[batch + axis];
        }
        starts.push(start);
    }
    Ok(starts)
}

/// `y = x` with `y[indices[i, j, …], j, …]` combined with `updates[i, j, …]`, likewise for axes
/// other than 0.
fn scatter_elements(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, indices, updates) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
    let axis = cx.axis_or("axis", 0, x.rank())?;
    if indices.dims() != updates.dims() {
        return mismatch!(
            "indices {:?} for updates {:?}",
            indices.dims(),
            updates.dims()
        );
    }
    let positions = element_positions(x.dims(), indices, axis)?;
    combined(x, &positions, updates, cx.string("reduction"))
}

/// `y = x` with `y[indices[i…, :], …]` combined with `updates[i…, …]`.
fn scatter_nd(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, indices, updates) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
    let Some((depth, outer)) = indices.dims().split_last() else {
        return mismatch!("indices without axes");
    };
    let inner = x.dims().get(*depth..);
    if inner.is_none_or(|inner| [outer, inner].concat() != updates.dims()) {
        let (x, indices, updates) = (x.dims(), indices.dims(), updates.dims());
        return mismatch!("updates {updates:?} at indices {indices:?} of {x:?}");
    }
    let starts = nd_starts(x.dims(), indices, 0, 0)?;
    let len = count(inner.unwrap_or_default())?;
    let positions: Vec<usize> = starts
        .iter()
        .flat_map(|start| *start..start + len)
        .collect();
    combined(x, &positions, updates, cx.string("reduction"))
}

/// The data with an update at each position, in the order of the updates.
fn combined(
    x: &Array,
    positions: &[usize],
    updates: &Array,
    reduction: Option<&str>,
) -> Result<Array, Fault> {
    type Combine<T> = fn(T, T) -> T;
    let (floats, ints): (Combine<f64>, Combine<i128>) = match reduction {
        None | Some("none") => (|_, new| new, |_, new| new),
        Some("add") => (|old, new| old + new, i128::wrapping_add),
        Some("mul") => (|old, new| old * new, i128::wrapping_mul),
        Some("max") => (larger, i128::max),
        Some("min") => (smaller, i128::min),
        Some(other) => return unsupported!("the reduction `{other}`"),
    };
    if x.dtype() != updates.dtype() {
        return mismatch!("updates of type {} for {}", updates.dtype(), x.dtype());
    }
    let elements = match (x.elements(), updates.elements()) {
        (Elements::Floats(x), Elements::Floats(updates)) => {
            Elements::Floats(put(x, positions, updates, floats)?)
        }
        (Elements::Ints(data), Elements::Ints(updates)) => {
            let cut = |old, new| super::array::wrap(x.dtype(), ints(old, new));
            Elements::Ints(put(data, positions, updates, cut)?)
        }
        _ => return mismatch!("updates of type {} for {}", updates.dtype(), x.dtype()),
    };
    Array::new(x.dtype(), x.dims(), elements)
}

fn put<T: Copy>(
    data: &[T],
    positions: &[usize],
    updates: &[T],
    f: impl Fn(T, T) -> T,
) -> Result<Vec<T>, Fault> {
    let mut data = data.to_vec();
    for (position, update) in positions.iter().zip(updates) {
        let old = data.get_mut(*position).ok_or_else(super::array::outside)?;
        *old = f(*old, *update);
    }
    Ok(data)
}

/// `y[…, j, …] = on` where `j` is the index, else `off`; an index outside is nowhere.
fn one_hot(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (indices, values) = (cx.operand(0)?, cx.operand(2)?);
    let depth = match cx.single(1)? {
        Some(depth) if depth >= 0.0 && depth.fract() == 0.0 => sizes::size(depth as i64)?,
        depth => return mismatch!("a depth of {depth:?}"),
    };
    let axis = cx.axis_or("axis", -1, indices.rank() + 1)?;
    let mut dims = indices.dims().to_vec();
    dims.insert(axis, depth);
    count(&dims)?;
    if values.len() != 2 {
        return mismatch!("{} values, `off` and `on` are needed", values.len());
    }
    let at: Vec<f64> = indices.to_f64s();
    let inner = count(&indices.dims()[axis..])?;
    let outer = count(&indices.dims()[..axis])?;
    let mut positions = Vec::with_capacity(count(&dims)?);
    for row in 0..outer {
        for class in 0..depth {
            for column in 0..inner {
                let index = at[row * inner + column];
                let counted = if index < 0.0 {
                    index + depth as f64
                } else {
                    index
                };
                positions.push(usize::from(counted == class as f64));
            }
        }
    }
    values.pick(&dims, &positions)
}

/// `y = if c { a } else { b }`, all broadcast.
fn choose(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (c, a, b) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
    if a.dtype() != b.dtype() {
        return mismatch!("operands of types {} and {}", a.dtype(), b.dtype());
    }
    let dims = sizes::broadcast(&sizes::broadcast(c.dims(), a.dims())?, b.dims())?;
    let stretched = |array| super::rows::stretch(array, &dims);
    let (c, a, b) = (stretched(c)?, stretched(a)?, stretched(b)?);
    let conditions = c.as_ints()?;
    let elements = match (a.elements(), b.elements()) {
        (Elements::Floats(a), Elements::Floats(b)) => Elements::Floats(chosen(conditions, a, b)),
        (Elements::Ints(a), Elements::Ints(b)) => Elements::Ints(chosen(conditions, a, b)),
        _ => return mismatch!("operands of different kinds"),
    };
    Array::new(a.dtype(), &dims, elements)
}

fn chosen<T: Copy>(conditions: &[i128], a: &[T], b: &[T]) -> Vec<T> {
    let pairs = a.iter().zip(b).zip(conditions);
    pairs
        .map(|((a, b), c)| if *c != 0 { *a } else { *b })
        .collect()
}
