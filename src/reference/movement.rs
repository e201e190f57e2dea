//! Operators that move elements without changing them.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::rows::permuted;
use super::sizes::{self, count, strides, walk};
use super::table::{Entry, many, one};

pub(super) const OPS: &[Entry] = &[
    one("Transpose", 1, transpose),
    one("Concat", 1, concat),
    many("Split", 1, |cx| match cx.optional(1) {
        // An operand in the first version, an attribute in the second.
        Some(_) => split(cx, cx.optional_numbers(1)?),
        None => split(cx, cx.ints("split").map(<[i64]>::to_vec)),
    }),
    many("Split", 13, |cx| split(cx, cx.optional_numbers(1)?)),
    one("Slice", 1, |cx| {
        let list = |name| cx.ints(name).map(<[i64]>::to_vec);
        let (Some(starts), Some(ends)) = (list("starts"), list("ends")) else {
            return mismatch!("no `starts` or no `ends`");
        };
        slice(cx.operand(0)?, &starts, &ends, list("axes"), None)
    }),
    one("Slice", 10, |cx| {
        let (axes, steps) = (cx.optional_numbers(3)?, cx.optional_numbers(4)?);
        slice(
            cx.operand(0)?,
            &cx.numbers(1)?,
            &cx.numbers(2)?,
            axes,
            steps,
        )
    }),
    one("Tile", 6, tile),
    one("Pad", 1, |cx| {
        // `paddings` in the first version.
        let pads = cx.ints("pads").or(cx.ints("paddings")).unwrap_or_default();
        let fill = cx.float_or("value", 0.0);
        let x = cx.operand(0)?;
        pad(cx, x, pads, None, &Array::scalar(x.dtype(), fill)?)
    }),
    one("Pad", 11, |cx| {
        let x = cx.operand(0)?;
        let fill = match cx.optional(2) {
            Some(fill) => fill.clone(),
            None => Array::zeros(x.dtype(), &[])?,
        };
        pad(cx, x, &cx.numbers(1)?, cx.optional_numbers(3)?, &fill)
    }),
    one("Trilu", 14, trilu),
    one("Trilu", 1, trilu).microsoft(),
];

/// `y[i…] = x[permuted i…]`; the axes in reverse order by default.
fn transpose(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let order = match cx.ints("perm") {
        Some(order) => sizes::sizes(order)?,
        None => (0..x.rank()).rev().collect(),
    };
    permuted(x, &order)
}

fn concat(cx: &Cx<'_>) -> Result<Array, Fault> {
    let all = cx.all()?;
    let Some(first) = all.first() else {
        return mismatch!("no operands");
    };
    // Before opset 4 the axis was 1 by default.
    let axis = cx.axis_or("axis", 1, first.rank())?;
    join(&all, axis)
}

/// The tensors one behind the other along an axis.
pub(super) fn join(all: &[&Array], axis: usize) -> Result<Array, Fault> {
    let Some(first) = all.first() else {
        return mismatch!("nothing to join");
    };
    let Some(size) = first.dims().get(axis) else {
        return mismatch!("axis {axis} of {:?}", first.dims());
    };
    let mut dims = first.dims().to_vec();
    dims[axis] = 0;
    for array in all {
        let mut expected = array.dims().to_vec();
        expected
            .get_mut(axis)
            .map(|own| std::mem::replace(own, *size));
        if expected != first.dims() || array.dtype() != first.dtype() {
            return mismatch!(
                "{}{:?} beside {}{:?}",
                array.dtype(),
                array.dims(),
                first.dtype(),
                first.dims()
            );
        }
        dims[axis] += array.dims()[axis];
    }
    count(&dims)?;
    let rows: usize = dims[..axis].iter().product();
    let elements = match first.elements() {
        Elements::Floats(_) => {
            let all: Result<Vec<&[f64]>, _> = all.iter().map(|array| array.as_floats()).collect();
            Elements::Floats(interleaved(&all?, rows))
        }
        Elements::Ints(_) => {
            let all: Result<Vec<&[i128]>, _> = all.iter().map(|array| array.as_ints()).collect();
            Elements::Ints(interleaved(&all?, rows))
        }
    };
    Array::new(first.dtype(), &dims, elements)
}

/// A row of each in turn, of each as many rows.
fn interleaved<T: Copy>(all: &[&[T]], rows: usize) -> Vec<T> {
    let mut joined = Vec::with_capacity(all.iter().map(|data| data.len()).sum());
    for row in 0..rows {
        for data in all {
            let len = data.len() / rows;
            joined.extend_from_slice(&data[row * len..(row + 1) * len]);
        }
    }
    joined
}

/// `len` elements along an axis from `start` on.
pub(super) fn part(array: &Array, axis: usize, start: usize, len: usize) -> Result<Array, Fault> {
    let mut dims = array.dims().to_vec();
    match dims.get_mut(axis) {
        Some(size) if start.checked_add(len).is_some_and(|end| end <= *size) => *size = len,
        _ => {
            return mismatch!(
                "elements {start} to {len} of axis {axis} of {:?}",
                array.dims()
            );
        }
    }
    let own = strides(array.dims());
    let steps: Vec<isize> = own.iter().map(|step| *step as isize).collect();
    let begin = start.saturating_mul(own[axis]) as isize;
    array.pick(&dims, &walk(&dims, &steps, begin)?)
}

/// Parts along an axis, of stated sizes or as equal as can be.
fn split(cx: &Cx<'_>, stated: Option<Vec<i64>>) -> Result<Vec<Array>, Fault> {
    let x = cx.operand(0)?;
    let axis = cx.axis_or("axis", 0, x.rank())?;
    let size = x.dims()[axis];
    let lens = match stated {
        Some(lens) => sizes::sizes(&lens)?,
        None => {
            let parts = match cx.int("num_outputs") {
                Some(parts) => sizes::size(parts)?,
                None => cx.results,
            };
            if parts == 0 || parts > sizes::MOST_ELEMENTS {
                return mismatch!("{parts} parts");
            }
            let len = size.div_ceil(parts);
            (0..parts)
                .map(|i| len.min(size.saturating_sub(i * len)))
                .collect()
        }
    };
    let total = lens
        .iter()
        .try_fold(0_usize, |sum, len| sum.checked_add(*len));
    if total != Some(size) {
        return mismatch!("parts {lens:?} of an axis of {size} elements");
    }
    let mut parts = Vec::new();
    let mut start = 0;
    for len in lens {
        parts.push(part(x, axis, start, len)?);
        start += len;
    }
    Ok(parts)
}

/// `y = x[start:end:step, …]`, as Python does it.
fn slice(
    x: &Array,
    starts: &[i64],
    ends: &[i64],
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Result<Array, Fault> {
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let each = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), each.len()] != [starts.len(); 3] {
        return mismatch!("starts, ends, axes and steps of different lengths");
    }
    // Refuses an axis that is listed twice.
    sizes::axes(&axes, x.rank())?;
    let mut dims = x.dims().to_vec();
    let own = strides(x.dims());
    let mut walked: Vec<isize> = own.iter().map(|step| *step as isize).collect();
    let mut begin = 0_isize;
    for (index, axis) in axes.iter().enumerate() {
        let axis = sizes::axis(*axis, x.rank())?;
        let (start, len) = bounds(dims[axis], starts[index], ends[index], each[index])?;
        dims[axis] = len;
        // A step beyond the data is never taken.
        let step = if len > 1 { each[index] as isize } else { 1 };
        walked[axis] = walked[axis].saturating_mul(step);
        begin = begin.saturating_add((start * own[axis]) as isize);
    }
    x.pick(&dims, &walk(&dims, &walked, begin)?)
}

/// The first position and the number of positions of a slice of one axis.
fn bounds(size: usize, start: i64, end: i64, step: i64) -> Result<(usize, usize), Fault> {
    let size = size as i128;
    let counted = |value: i64| match i128::from(value) {
        value if value < 0 => value + size,
        value => value,
    };
    let step = i128::from(step);
    let (start, span) = match step {
        0 => return mismatch!("a step of 0"),
        1.. => {
            let start = counted(start).clamp(0, size);
            (start, counted(end).clamp(0, size) - start)
        }
        _ => {
            let start = counted(start).clamp(-1, size - 1);
            (start, start - counted(end).clamp(-1, size - 1))
        }
    };
    let len = match span {
        1.. => (span + step.abs() - 1) / step.abs(),
        _ => 0,
    };
    Ok((start.max(0) as usize, len as usize))
}

/// `y = x` repeated along each axis.
fn tile(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let repeats = sizes::sizes(&cx.numbers(1)?)?;
    if repeats.len() != x.rank() {
        return mismatch!("{} repeats of {} axes", repeats.len(), x.rank());
    }
    let mut maps = Vec::new();
    for (size, repeats) in x.dims().iter().zip(repeats) {
        let len = count(&[*size, repeats])?;
        maps.push((0..len).map(|i| Some(i % size)).collect());
    }
    by_axes(x, &maps, &Array::zeros(x.dtype(), &[])?)
}

/// `y[i, j, …] = x[maps[0][i], maps[1][j], …]`, and `fill` where a map says `None`.
pub(super) fn by_axes(
    x: &Array,
    maps: &[Vec<Option<usize>>],
    fill: &Array,
) -> Result<Array, Fault> {
    let dims: Vec<usize> = maps.iter().map(Vec::len).collect();
    count(&dims)?;
    if dims.contains(&0) {
        return x.pick(&dims, &[]);
    }
    let own = strides(x.dims());
    let mut positions = vec![Some(0)];
    for (map, stride) in maps.iter().zip(own) {
        let one = |base: &Option<usize>| {
            let base = *base;
            map.iter()
                .map(move |index| Some(base? + (*index)? * stride))
        };
        positions = positions.iter().flat_map(one).collect();
    }
    x.pick_or(&dims, &positions, fill)
}

/// `y = x` with so many elements before and behind each axis, or fewer where it is negative.
fn pad(
    cx: &Cx<'_>,
    x: &Array,
    pads: &[i64],
    axes: Option<Vec<i64>>,
    fill: &Array,
) -> Result<Array, Fault> {
    let axes = match axes {
        Some(axes) => axes
            .iter()
            .map(|a| sizes::axis(*a, x.rank()))
            .collect::<Result<_, _>>()?,
        None => (0..x.rank()).collect::<Vec<_>>(),
    };
    if pads.len() != 2 * axes.len() {
        return mismatch!("{} pads of {} axes", pads.len(), axes.len());
    }
    let fill = fill.clone().reshaped(&[])?;
    let mode = cx.string("mode").unwrap_or("constant");
    let mut maps: Vec<Vec<Option<usize>>> = x
        .dims()
        .iter()
        .map(|size| (0..*size).map(Some).collect())
        .collect();
    for (index, axis) in axes.iter().enumerate() {
        let (begin, end) = (pads[index], pads[index + axes.len()]);
        let size = x.dims()[*axis];
        let len = size as i128 + i128::from(begin) + i128::from(end);
        let Ok(len) = usize::try_from(len) else {
            return mismatch!("pads {begin} and {end} of an axis of {size} elements");
        };
        count(&[len])?;
        let map = (0..len as i64).map(|at| source(mode, i128::from(at) - i128::from(begin), size));
        maps[*axis] = map.collect::<Result<_, _>>()?;
    }
    by_axes(x, &maps, &fill)
}

/// Where a padded element comes from.
fn source(mode: &str, at: i128, size: usize) -> Result<Option<usize>, Fault> {
    let len = size as i128;
    if (0..len).contains(&at) {
        return Ok(Some(at as usize));
    }
    if mode != "constant" && size == 0 {
        return mismatch!("an empty axis padded with its own elements");
    }
    let at = match mode {
        "constant" => return Ok(None),
        "edge" => at.clamp(0, len - 1),
        "wrap" => at.rem_euclid(len),
        "reflect" if size == 1 => 0,
        "reflect" => {
            let folded = at.rem_euclid(2 * (len - 1));
            folded.min(2 * (len - 1) - folded)
        }
        other => return unsupported!("padding by `{other}`"),
    };
    Ok(Some(at as usize))
}

/// The triangle of the last two axes above, or below, diagonal `k`; 0 elsewhere.
fn trilu(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let [.., rows, columns] = x.dims() else {
        return mismatch!("a triangle of {} axes", x.rank());
    };
    let k = match cx.optional(1) {
        Some(_) => i128::from(cx.number(1)?),
        None => 0,
    };
    let upper = cx.int_or("upper", 1) != 0;
    let keeps = |position: usize| {
        let (row, column) = (position / columns % rows, position % columns);
        let above = column as i128 - row as i128 - k;
        if upper { above >= 0 } else { above <= 0 }
    };
    let positions: Vec<Option<usize>> = (0..x.len())
        .map(|position| keeps(position).then_some(position))
        .collect();
    x.pick_or(x.dims(), &positions, &Array::zeros(x.dtype(), &[])?)
}
