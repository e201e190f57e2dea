//! Convolutions whose taps are moved.

use super::array::Array;
use super::conv::grouped;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::matmul::sum;
use super::normalization::by_channel;
use super::sample::{Mode, Padding, sampled};
use super::sizes::{count, for_each, work};
use super::table::{Entry, one};
use super::window::list;

pub(super) const OPS: &[Entry] = &[one("DeformConv", 19, deform_conv)];

/// The sizes of a convolution, checked against each other.
struct Sizes<'a> {
    n: usize,
    c: usize,
    maps: usize,
    /// Channels a group of the convolution.
    input: usize,
    groups: usize,
    /// Groups of channels that are moved together.
    shifts: usize,
    space: &'a [usize],
    kernel: &'a [usize],
    out: &'a [usize],
}

impl<'a> Sizes<'a> {
    fn read(cx: &Cx<'a>) -> Result<Self, Fault> {
        let (x, w, offset) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
        let groups = grouped(cx)?;
        let shifts = match cx.int("offset_group") {
            Some(_) => cx.positive("offset_group")?,
            None => 1,
        };
        let ([n, c, space @ ..], [maps, input, kernel @ ..], [samples, moved, out @ ..]) =
            (x.dims(), w.dims(), offset.dims())
        else {
            return mismatch!("a convolution of {:?} by {:?}", x.dims(), w.dims());
        };
        let (taps, axes) = (count(kernel)?, space.len());
        let numbers = taps.saturating_mul(axes).saturating_mul(shifts);
        let fits = kernel.len() == axes
            && axes > 0
            && out.len() == axes
            && *c == input * groups
            && maps % groups == 0
            && c % shifts == 0
            && (samples, *moved) == (n, numbers);
        if !fits {
            let (x, w, offset) = (x.dims(), w.dims(), offset.dims());
            return mismatch!("offsets of {offset:?} for {x:?} by {w:?}");
        }
        if let Some(mask) = cx.optional(4)
            && mask.len() != count(&[*n, shifts, taps, count(out)?])?
        {
            return mismatch!("a mask of {:?}", mask.dims());
        }
        Ok(Sizes {
            n: *n,
            c: *c,
            maps: *maps,
            input: *input,
            groups,
            shifts,
            space,
            kernel,
            out,
        })
    }
}

/// A convolution whose taps are moved by offsets and weighted by a mask.
fn deform_conv(cx: &Cx<'_>) -> Result<Array, Fault> {
    let sizes = Sizes::read(cx)?;
    let read = moved_taps(cx, &sizes)?;
    let (taps, windows) = (count(sizes.kernel)?, count(sizes.out)?);
    let dims = [&[sizes.n, sizes.maps], sizes.out].concat();
    work(&[count(&dims)?, sizes.input, taps])?;
    let weight = cx.operand(1)?.as_floats()?;
    let products = sizes.input * taps;
    let mut y = vec![0.0; count(&dims)?];
    for (index, y) in y.iter_mut().enumerate() {
        let (row, window) = (index / windows, index % windows);
        let (sample, map) = (row / sizes.maps, row % sizes.maps);
        let group = map / (sizes.maps / sizes.groups);
        let first = (sample * sizes.c + group * sizes.input) * taps;
        for tap in 0..products {
            *y += weight[map * products + tap] * read[(first + tap) * windows + window];
        }
    }
    let y = Array::floats(cx.operand(0)?.dtype(), &dims, y)?;
    match cx.optional(3) {
        Some(bias) => sum(&y, &by_channel(bias, y.rank())?),
        None => Ok(y),
    }
}

/// What every tap of every channel reads: `[n, c, taps, windows]`.
fn moved_taps(cx: &Cx<'_>, sizes: &Sizes<'_>) -> Result<Vec<f64>, Fault> {
    let axes = sizes.space.len();
    let (taps, area, windows) = (count(sizes.kernel)?, count(sizes.space)?, count(sizes.out)?);
    let (stride, dilation) = (
        list(cx, "strides", axes, 1)?,
        list(cx, "dilations", axes, 1)?,
    );
    let pads = list(cx, "pads", 2 * axes, 0)?;
    work(&[
        sizes.n,
        sizes.c,
        windows,
        taps,
        2_usize.pow(axes.min(16) as u32),
    ])?;
    let (data, shift) = (cx.operand(0)?.as_floats()?, cx.operand(2)?.as_floats()?);
    let mask = cx.optional(4).map(Array::as_floats).transpose()?;
    let mut read = Vec::with_capacity(count(&[sizes.n, sizes.c, taps, windows])?);
    for plane in 0..sizes.n * sizes.c {
        let image = &data[plane * area..][..area];
        let (sample, channel) = (plane / sizes.c, plane % sizes.c);
        let group = sample * sizes.shifts + channel / (sizes.c / sizes.shifts);
        let mut tap = group * taps;
        for_each(sizes.kernel, |k| {
            let mut window = 0;
            for_each(sizes.out, |o| {
                let place = |axis: usize| {
                    let tap_at = k[axis] as i64 * dilation[axis];
                    let fixed = o[axis] as i64 * stride[axis] - pads[axis] + tap_at;
                    fixed as f64 + shift[(tap * axes + axis) * windows + window]
                };
                let at: Vec<f64> = (0..axes).map(place).collect();
                let value = sampled(image, sizes.space, &at, Mode::Linear, Padding::Zeros);
                read.push(value * mask.map_or(1.0, |mask| mask[tap * windows + window]));
                window += 1;
                Ok(())
            })?;
            tap += 1;
            Ok(())
        })?;
    }
    Ok(read)
}
