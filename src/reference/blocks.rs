//! Rearrangements of images and sequences.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::movement::by_axes;
use super::rows::permuted;
use super::sizes::{self, count, flat, for_each, strides};
use super::table::{Entry, one};

pub(super) const OPS: &[Entry] = &[
    one("DepthToSpace", 1, depth_to_space),
    one("SpaceToDepth", 1, space_to_depth),
    one("CenterCropPad", 18, center_crop_pad),
    one("ReverseSequence", 10, reverse_sequence),
    one("TensorScatter", 24, tensor_scatter),
];

/// `[n, c, h, w]` and the size of a block.
fn image<'a>(cx: &Cx<'a>) -> Result<(&'a Array, [usize; 4], usize), Fault> {
    let x = cx.operand(0)?;
    match x.dims() {
        [n, c, h, w] => Ok((x, [*n, *c, *h, *w], cx.positive("blocksize")?)),
        dims => mismatch!("blocks of {dims:?}"),
    }
}

/// Channels become blocks of space, with the block before the channel (`DCR`) or behind (`CRD`).
fn depth_to_space(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, [n, c, h, w], b) = image(cx)?;
    let area = count(&[b, b])?;
    if c % area != 0 {
        return mismatch!("{c} channels into blocks of {b} by {b}");
    }
    let depth = c / area;
    let (dims, order) = match cx.string("mode") {
        Some("CRD") => ([n, depth, b, b, h, w], [0, 1, 4, 2, 5, 3]),
        _ => ([n, b, b, depth, h, w], [0, 3, 4, 1, 5, 2]),
    };
    permuted(&x.clone().reshaped(&dims)?, &order)?.reshaped(&[n, depth, h * b, w * b])
}

/// Blocks of space become channels, with the block before the channel (`DCR`) or behind (`CRD`).
fn space_to_depth(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, [n, c, h, w], b) = image(cx)?;
    if h % b != 0 || w % b != 0 {
        return mismatch!("{h} by {w} in blocks of {b} by {b}");
    }
    let blocks = x.clone().reshaped(&[n, c, h / b, b, w / b, b])?;
    let order = match cx.string("mode") {
        Some("CRD") => [0, 1, 3, 5, 2, 4],
        _ => [0, 3, 5, 1, 2, 4],
    };
    permuted(&blocks, &order)?.reshaped(&[n, c * b * b, h / b, w / b])
}

/// The middle of some axes, or the axes in the middle of zeros.
fn center_crop_pad(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let target = sizes::sizes(&cx.numbers(1)?)?;
    let axes: Vec<usize> = match cx.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|axis| sizes::axis(*axis, x.rank()))
            .collect::<Result<_, _>>()?,
        None => (0..x.rank()).collect(),
    };
    if axes.len() != target.len() {
        return mismatch!("{} sizes of {} axes", target.len(), axes.len());
    }
    let mut maps: Vec<Vec<Option<usize>>> = x
        .dims()
        .iter()
        .map(|size| (0..*size).map(Some).collect())
        .collect();
    for (axis, wanted) in axes.into_iter().zip(target) {
        let size = x.dims()[axis];
        count(&[wanted])?;
        let before = wanted.saturating_sub(size) / 2;
        let cropped = size.saturating_sub(wanted) / 2;
        let source = |at: usize| {
            let index = (at + cropped).checked_sub(before)?;
            Some(index).filter(|index| *index < size)
        };
        maps[axis] = (0..wanted).map(source).collect();
    }
    by_axes(x, &maps, &Array::zeros(x.dtype(), &[])?)
}

/// The first elements of each sequence in reverse order, as many as it is long.
fn reverse_sequence(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let (batch, time) = (
        cx.axis_or("batch_axis", 1, x.rank())?,
        cx.axis_or("time_axis", 0, x.rank())?,
    );
    let lens = sizes::sizes(&cx.numbers(1)?)?;
    if batch == time || lens.len() != x.dims()[batch] {
        return mismatch!("{} lengths of sequences in {:?}", lens.len(), x.dims());
    }
    if let Some(len) = lens.iter().find(|len| **len > x.dims()[time]) {
        return mismatch!("a length of {len} of {} elements", x.dims()[time]);
    }
    let own = strides(x.dims());
    let mut positions = Vec::with_capacity(x.len());
    for_each(x.dims(), |at| {
        let (len, here) = (lens[at[batch]], at[time]);
        let there = if here < len { len - 1 - here } else { here };
        positions.push(flat(at, &own) - here * own[time] + there * own[time]);
        Ok(())
    })?;
    x.pick(x.dims(), &positions)
}

/// A cache with an update written along an axis, from an index of each sample on.
fn tensor_scatter(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, update) = (cx.operand(0)?, cx.operand(1)?);
    let axis = cx.axis_or("axis", -2, x.rank())?;
    let mut expected = x.dims().to_vec();
    if axis == 0 || update.rank() != x.rank() {
        return mismatch!("an update {:?} of {:?}", update.dims(), x.dims());
    }
    expected[axis] = update.dims()[axis];
    if expected != update.dims() || x.dtype() != update.dtype() {
        return mismatch!("an update {:?} of {:?}", update.dims(), x.dims());
    }
    let starts = match cx.optional_numbers(2)? {
        Some(starts) => sizes::sizes(&starts)?,
        None => vec![0; x.dims()[0]],
    };
    if starts.len() != x.dims()[0] {
        return mismatch!("{} indices of {} samples", starts.len(), x.dims()[0]);
    }
    let circular = cx.string("mode") == Some("circular");
    let (own, size) = (strides(x.dims()), x.dims()[axis]);
    // Both one behind the other: positions of the update lie behind those of the cache.
    let both = super::movement::join(
        &[
            &x.clone().reshaped(&[x.len()])?,
            &update.clone().reshaped(&[update.len()])?,
        ],
        0,
    )?;
    let mut positions: Vec<usize> = (0..x.len()).collect();
    let mut next = x.len();
    for_each(update.dims(), |at| {
        let mut place = starts[at[0]].saturating_add(at[axis]);
        if circular && size > 0 {
            place %= size;
        }
        if place >= size {
            return mismatch!("an update at {place} of {size} elements");
        }
        positions[flat(at, &own) - at[axis] * own[axis] + place * own[axis]] = next;
        next += 1;
        Ok(())
    })?;
    both.pick(x.dims(), &positions)
}
