//! Pooling.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::sizes::{self, count, strides};
use super::table::{Entry, many, one};
use super::window::{Taps, Window, list};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    many("MaxPool", 1, max_pool),
    one("AveragePool", 1, average_pool),
    one("LpPool", 1, |cx| {
        let p = cx.int_or("p", 2);
        pooled(cx, |values, _| norm(values, p))
    }),
    one("GlobalAveragePool", 1, global_average_pool),
    one("GlobalMaxPool", 1, |cx| {
        global(cx, |row| {
            row.iter()
                .copied()
                .fold(f64::NEG_INFINITY, super::elementwise::larger)
        })
    }),
    one("GlobalLpPool", 1, |cx| {
        let p = cx.int_or("p", 2);
        global(cx, |row| norm(row, p))
    }),
    one("MaxUnpool", 9, max_unpool),
];

fn norm(values: &[f64], p: i64) -> f64 {
    let p = p as f64;
    values
        .iter()
        .map(|x| x.abs().powf(p))
        .sum::<f64>()
        .powf(1.0 / p)
}

/// The axes of space.
fn space(x: &Array) -> Result<&[usize], Fault> {
    match x.dims() {
        [_, _, space @ ..] if !space.is_empty() => Ok(space),
        dims => mismatch!("a pool over {dims:?}"),
    }
}

fn taps(cx: &Cx<'_>, x: &Array) -> Result<Taps, Fault> {
    let space = space(x)?;
    if cx.ints("kernel_shape").is_none() {
        return mismatch!("no `kernel_shape`");
    }
    let kernel = sizes::sizes(&list(cx, "kernel_shape", space.len(), 1)?)?;
    Window::read(cx, &kernel)?.taps(space)
}

/// `y = f(the elements under each window, how many with padding)`.
fn pooled(cx: &Cx<'_>, f: impl Fn(&[f64], usize) -> f64) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let taps = taps(cx, x)?;
    let dims = [&x.dims()[..2], &taps.dims].concat();
    let mut data = Vec::with_capacity(count(&dims)?);
    let mut values = Vec::new();
    for plane in x.as_floats()?.chunks_exact(count(space(x)?)?.max(1)) {
        for (window, padded) in taps.windows().zip(&taps.padded) {
            values.clear();
            values.extend(window.iter().flatten().map(|position| plane[*position]));
            data.push(f(&values, *padded));
        }
    }
    Array::floats(x.dtype(), &dims, data)
}

/// The mean of what lies in the data, or with `count_include_pad` of the padding too.
pub(super) fn average_pool(cx: &Cx<'_>) -> Result<Array, Fault> {
    let with_padding = cx.flag("count_include_pad");
    pooled(cx, |values, padded| {
        let count = if with_padding { padded } else { values.len() };
        values.iter().sum::<f64>() / count as f64
    })
}

/// The greatest element of each window and its position in the tensor.
fn max_pool(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let x = cx.operand(0)?;
    let taps = taps(cx, x)?;
    let dims = [&x.dims()[..2], &taps.dims].concat();
    count(&dims)?;
    let plane = count(space(x)?)?;
    let positions = match x.elements() {
        Elements::Floats(data) => greatest(data, plane, &taps),
        Elements::Ints(data) => greatest(data, plane, &taps),
    };
    // A window that covers padding alone has no greatest element.
    let least = match x.elements() {
        Elements::Floats(_) => Array::scalar(x.dtype(), f64::NEG_INFINITY)?,
        Elements::Ints(_) => Array::ints(x.dtype(), &[], vec![super::array::range(x.dtype()).0])?,
    };
    let y = x.pick_or(&dims, &positions, &least)?;
    let column_major = cx.flag("storage_order");
    let indices = positions.iter().map(|position| {
        let position = position.unwrap_or(0);
        match column_major {
            true => by_columns(position, plane, space(x).unwrap_or_default()) as i128,
            false => position as i128,
        }
    });
    let indices = Array::ints(DType::I64, &dims, indices.collect())?;
    Ok(vec![y, indices])
}

fn greatest<T: Copy + PartialOrd>(data: &[T], plane: usize, taps: &Taps) -> Vec<Option<usize>> {
    let mut positions = Vec::new();
    for (index, values) in data.chunks_exact(plane.max(1)).enumerate() {
        for window in taps.windows() {
            let mut best: Option<usize> = None;
            for position in window.iter().flatten() {
                if best.is_none_or(|best| values[*position] > values[best]) {
                    best = Some(*position);
                }
            }
            positions.push(best.map(|best| index * plane + best));
        }
    }
    positions
}

/// The position as it would be with the first axis of space the fastest.
fn by_columns(position: usize, plane: usize, space: &[usize]) -> usize {
    let (index, mut rest) = (position / plane, position % plane);
    let (mut found, mut stride) = (0, 1);
    for (axis, own) in strides(space).into_iter().enumerate() {
        found += rest / own * stride;
        rest %= own;
        stride *= space[axis];
    }
    index * plane + found
}

/// `y = f(x)` over all of space.
fn global(cx: &Cx<'_>, f: impl Fn(&[f64]) -> f64) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let size = count(space(x)?)?;
    let dims = [&x.dims()[..2], &vec![1; x.rank() - 2]].concat();
    if size == 0 {
        return mismatch!("a pool over {:?}", x.dims());
    }
    Array::floats(
        x.dtype(),
        &dims,
        x.as_floats()?.chunks_exact(size).map(f).collect(),
    )
}

pub(super) fn global_average_pool(cx: &Cx<'_>) -> Result<Array, Fault> {
    global(cx, |row| row.iter().sum::<f64>() / row.len() as f64)
}

/// Zeros with each element where its index says; of the size that is stated, or of the size that
/// the attributes of the pool come to.
fn max_unpool(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, indices) = (cx.operand(0)?, cx.operand(1)?);
    let spatial = space(x)?;
    if x.dims() != indices.dims() {
        return mismatch!("indices {:?} for {:?}", indices.dims(), x.dims());
    }
    let kernel = sizes::sizes(&list(cx, "kernel_shape", spatial.len(), 1)?)?;
    let (_, natural) = Window::read(cx, &kernel)?.transposed_taps(cx, spatial)?;
    let natural = [&x.dims()[..2], &natural].concat();
    let dims = match cx.optional_numbers(2)? {
        Some(stated) => sizes::sizes(&stated)?,
        None => natural.clone(),
    };
    let mut data = vec![0.0; count(&dims)?];
    for (index, value) in indices.to_i64s()?.into_iter().zip(x.as_floats()?) {
        let index = sizes::index(index, count(&natural)?)?;
        let place = moved(index, &natural, &dims)?;
        let slot = data.get_mut(place).ok_or_else(super::array::outside)?;
        *slot = *value;
    }
    Array::floats(x.dtype(), &dims, data)
}

/// A flat position in one shape as a flat position of the same element in a larger one.
fn moved(index: usize, from: &[usize], to: &[usize]) -> Result<usize, Fault> {
    if from.len() != to.len() {
        return mismatch!("an output of {to:?} for {from:?}");
    }
    let (mut rest, mut place) = (index, 0);
    for ((own, other), size) in strides(from).into_iter().zip(strides(to)).zip(to) {
        let at = rest / own;
        if at >= *size {
            return mismatch!("an output of {to:?} for {from:?}");
        }
        place += at * other;
        rest %= own;
    }
    Ok(place)
}
