//! Reading images between their pixels.

use super::array::Array;
use super::conv::grouped;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::normalization::by_channel;
use super::sizes::{self, count, flat, for_each, strides, work};
use super::table::{Entry, one};
use super::window::list;

pub(super) const OPS: &[Entry] = &[
    one("GridSample", 16, grid_sample),
    one("DeformConv", 19, deform_conv),
    one("RoiAlign", 10, roi_align),
    one("MaxRoiPool", 1, max_roi_pool),
];

/// How a value between pixels comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    /// The image in a mirror: around the centers of the outermost pixels, or around their edges.
    Mirror {
        centers: bool,
    },
}

/// The pixels of one axis that a coordinate reads, with their weights.
fn taps(x: f64, mode: Mode) -> Vec<(i64, f64)> {
    if !x.is_finite() {
        return Vec::new();
    }
    let (floor, t) = (x.floor(), x - x.floor());
    let base = floor as i64;
    match mode {
        Mode::Nearest => vec![(x.round_ties_even() as i64, 1.0)],
        Mode::Linear => vec![(base, 1.0 - t), (base.saturating_add(1), t)],
        Mode::Cubic => (-1..=2)
            .map(|step| (base.saturating_add(step), cubic(step as f64 - t, -0.75)))
            .collect(),
    }
}

/// The kernel of cubic interpolation.
pub(super) fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

/// The pixel that an index stands for, which may lie outside.
fn pixel(index: i64, size: usize, padding: Padding) -> Option<usize> {
    let len = i128::from(u64::try_from(size).ok()?);
    let index = i128::from(index);
    if (0..len).contains(&index) {
        return usize::try_from(index).ok();
    }
    let inside = match padding {
        _ if len == 0 => return None,
        Padding::Zeros => return None,
        Padding::Border => index.clamp(0, len - 1),
        Padding::Mirror { .. } if len == 1 => 0,
        Padding::Mirror { centers: true } => {
            let folded = index.rem_euclid(2 * (len - 1));
            folded.min(2 * (len - 1) - folded)
        }
        Padding::Mirror { centers: false } => {
            let folded = index.rem_euclid(2 * len);
            folded.min(2 * len - 1 - folded)
        }
    };
    usize::try_from(inside).ok()
}

/// The value of an image at coordinates, one an axis.
fn sampled(image: &[f64], dims: &[usize], at: &[f64], mode: Mode, padding: Padding) -> f64 {
    let mut reads = vec![(0, 1.0)];
    for ((x, size), stride) in at.iter().zip(dims).zip(strides(dims)) {
        let taps = taps(*x, mode);
        let mut more = Vec::with_capacity(reads.len() * taps.len());
        for (index, weight) in taps {
            if let Some(pixel) = pixel(index, *size, padding) {
                let moved = reads
                    .iter()
                    .map(|(base, w)| (base + pixel * stride, w * weight));
                more.extend(moved);
            }
        }
        reads = more;
    }
    let values = reads
        .iter()
        .filter_map(|(position, w)| Some(image.get(*position)? * w));
    values.sum()
}

/// `y[n, c, o…] = x[n, c, grid[n, o…, :]]`; coordinates go from -1 to 1 and the last axis is first.
fn grid_sample(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, grid) = (cx.operand(0)?, cx.operand(1)?);
    let ([n, c, space @ ..], [batch, out @ .., axes]) = (x.dims(), grid.dims()) else {
        return mismatch!("a grid of {:?} over {:?}", grid.dims(), x.dims());
    };
    if batch != n || *axes != space.len() || out.len() != space.len() || space.is_empty() {
        return mismatch!("a grid of {:?} over {:?}", grid.dims(), x.dims());
    }
    let mode = match cx.string("mode").unwrap_or("linear") {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" | "bicubic" => Mode::Cubic,
        other => return unsupported!("sampling by `{other}`"),
    };
    let corners = cx.flag("align_corners");
    let padding = match cx.string("padding_mode").unwrap_or("zeros") {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Mirror { centers: corners },
        other => return unsupported!("padding by `{other}`"),
    };
    let (points, area) = (count(out)?, count(space)?);
    let dims = [&[*n, *c], out].concat();
    work(&[count(&dims)?, 4_usize.pow(space.len().min(16) as u32)])?;
    let (data, grid) = (x.as_floats()?, grid.as_floats()?);
    let mut y = Vec::with_capacity(count(&dims)?);
    for plane in 0..n * c {
        let image = &data[plane * area..][..area];
        for point in 0..points {
            let at = &grid[(plane / c * points + point) * axes..][..*axes];
            let place = |(x, size): (&f64, &usize)| match corners {
                true => (x + 1.0) / 2.0 * (*size as f64 - 1.0),
                false => ((x + 1.0) * *size as f64 - 1.0) / 2.0,
            };
            let at: Vec<f64> = at.iter().rev().zip(space).map(place).collect();
            y.push(sampled(image, space, &at, mode, padding));
        }
    }
    Array::floats(x.dtype(), &dims, y)
}

/// A convolution whose taps are moved by offsets and weighted by a mask.
fn deform_conv(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, w, offset) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
    let groups = grouped(cx)?;
    let shifts = match cx.int("offset_group") {
        Some(_) => cx.positive("offset_group")?,
        None => 1,
    };
    let ([n, c, space @ ..], [maps, input, kernel @ ..]) = (x.dims(), w.dims()) else {
        return mismatch!("a convolution of {:?} by {:?}", x.dims(), w.dims());
    };
    let ([_, _, out @ ..], axes) = (offset.dims(), space.len()) else {
        return mismatch!("offsets of {:?}", offset.dims());
    };
    let (taps, area, windows) = (count(kernel)?, count(space)?, count(out)?);
    let fits = kernel.len() == axes
        && axes > 0
        && out.len() == axes
        && *c == input * groups
        && maps % groups == 0
        && c % shifts == 0
        && offset.dims()[..2] == [*n, shifts * taps * axes];
    if !fits {
        return mismatch!(
            "offsets of {:?} for {:?} by {:?}",
            offset.dims(),
            x.dims(),
            w.dims()
        );
    }
    let mask = cx.optional(4);
    if let Some(mask) = mask
        && mask.len() != n * shifts * taps * windows
    {
        return mismatch!("a mask of {:?}", mask.dims());
    }
    let (stride, dilation) = (
        list(cx, "strides", axes, 1)?,
        list(cx, "dilations", axes, 1)?,
    );
    let pads = list(cx, "pads", 2 * axes, 0)?;
    work(&[*n, *c, windows, taps, 2_usize.pow(axes.min(16) as u32)])?;
    let (data, shift) = (x.as_floats()?, offset.as_floats()?);
    // Every tap of every channel, read once: `[n, c, taps, windows]`.
    let mut read = Vec::with_capacity(count(&[*n, *c, taps, windows])?);
    for plane in 0..n * c {
        let image = &data[plane * area..][..area];
        let group = plane / c * shifts + plane % c / (c / shifts);
        let mut tap = 0;
        for_each(kernel, |k| {
            let mut window = 0;
            for_each(out, |o| {
                let row = (group * taps + tap) * axes;
                let place = |axis: usize| {
                    let fixed = o[axis] as i64 * stride[axis] - pads[axis]
                        + k[axis] as i64 * dilation[axis];
                    fixed as f64 + shift[(row + axis) * windows + window]
                };
                let at: Vec<f64> = (0..axes).map(place).collect();
                let value = sampled(image, space, &at, Mode::Linear, Padding::Zeros);
                let weight = match mask {
                    Some(mask) => mask.as_floats()?[(group * taps + tap) * windows + window],
                    None => 1.0,
                };
                read.push(value * weight);
                window += 1;
                Ok(())
            })?;
            tap += 1;
            Ok(())
        })?;
    }
    let dims = [&[*n, *maps], out].concat();
    work(&[count(&dims)?, *input, taps])?;
    let weight = w.as_floats()?;
    let mut y = vec![0.0; count(&dims)?];
    for (index, y) in y.iter_mut().enumerate() {
        let (row, window) = (index / windows, index % windows);
        let (sample, map) = (row / maps, row % maps);
        let first = sample * c + map / (maps / groups) * input;
        for tap in 0..input * taps {
            *y += weight[map * input * taps + tap] * read[(first * taps + tap) * windows + window];
        }
    }
    let y = Array::floats(x.dtype(), &dims, y)?;
    match cx.optional(3) {
        Some(bias) => super::matmul::sum(&y, &by_channel(bias, y.rank())?),
        None => Ok(y),
    }
}

/// The image and the sample of each region.
fn image(x: &Array) -> Result<[usize; 4], Fault> {
    match x.dims() {
        [n, c, h, w] => Ok([*n, *c, *h, *w]),
        dims => mismatch!("regions of {dims:?}"),
    }
}

/// `[regions, c, h, w]`: the mean, or maximum, of points inside each bin of each region.
fn roi_align(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, rois) = (cx.operand(0)?, cx.operand(1)?);
    let [n, c, height, width] = image(x)?;
    let samples = cx.numbers(2)?;
    if rois.dims() != [samples.len(), 4] {
        return mismatch!("{} samples of regions {:?}", samples.len(), rois.dims());
    }
    let size = |name| sizes::size(cx.int_or(name, 1));
    let out = [size("output_height")?, size("output_width")?];
    let ratio = sizes::size(cx.int_or("sampling_ratio", 0))?;
    let scale = cx.float_or("spatial_scale", 1.0);
    // Until opset 15 there was no shift by half a pixel.
    let default = if cx.opset >= 16 {
        "half_pixel"
    } else {
        "output_half_pixel"
    };
    let shifted = cx
        .string("coordinate_transformation_mode")
        .unwrap_or(default)
        == "half_pixel";
    let takes_max = cx.string("mode") == Some("max");
    let dims = [samples.len(), c, out[0], out[1]];
    let (data, area) = (x.as_floats()?, height * width);
    let mut y = Vec::with_capacity(count(&dims)?);
    for (roi, sample) in rois.as_floats()?.chunks_exact(4).zip(samples) {
        let sample = sizes::index(sample, n)?;
        let shift = if shifted { 0.5 } else { 0.0 };
        // x1, y1, x2, y2.
        let begin = [roi[1] * scale - shift, roi[0] * scale - shift];
        let end = [roi[3] * scale - shift, roi[2] * scale - shift];
        let span = |axis: usize| {
            let span = end[axis] - begin[axis];
            if shifted { span } else { span.max(1.0) }
        };
        let bin = [
            span(0) / out[0].max(1) as f64,
            span(1) / out[1].max(1) as f64,
        ];
        let points = |axis: usize| match ratio {
            // As many as keep neighbours at most a pixel apart.
            0 => bin[axis].ceil().clamp(0.0, 1e6) as usize,
            ratio => ratio,
        };
        let points = [points(0), points(1)];
        work(&[c, out[0], out[1], points[0], points[1]])?;
        for channel in 0..c {
            let plane = &data[(sample * c + channel) * area..][..area];
            for_each(&out, |at| {
                let place = |axis: usize, point: usize| {
                    begin[axis]
                        + at[axis] as f64 * bin[axis]
                        + (point as f64 + 0.5) * bin[axis] / points[axis] as f64
                };
                let mut values = Vec::new();
                for_each(&points, |point| {
                    let at = [place(0, point[0]), place(1, point[1])];
                    values.extend(corners(plane, [height, width], at, takes_max));
                    Ok(())
                })?;
                y.push(match takes_max {
                    true => values.iter().copied().reduce(f64::max).unwrap_or(0.0),
                    false => values.iter().sum::<f64>() / values.len().max(1) as f64,
                });
                Ok(())
            })?;
        }
    }
    Array::floats(x.dtype(), &dims, y)
}

/// The value at a point: the sum of its four weighted pixels, or the greatest of them. Points more
/// than a pixel outside give 0; others are moved onto the image.
fn corners(plane: &[f64], dims: [usize; 2], at: [f64; 2], takes_max: bool) -> Option<f64> {
    let outside = |axis: usize| at[axis] < -1.0 || at[axis] > dims[axis] as f64;
    if outside(0) || outside(1) {
        return Some(0.0);
    }
    let along = |axis: usize| {
        let most = dims[axis].saturating_sub(1);
        let x = at[axis].max(0.0).min(most as f64);
        let low = x.floor() as usize;
        let t = x - low as f64;
        [(low, 1.0 - t), ((low + 1).min(most), t)]
    };
    let products = along(0).into_iter().flat_map(|(row, a)| {
        along(1).map(|(column, b)| Some(plane.get(row * dims[1] + column)? * a * b))
    });
    let products: Vec<f64> = products.flatten().collect();
    match takes_max {
        true => products.into_iter().reduce(f64::max),
        false => Some(products.into_iter().sum()),
    }
}

/// `[regions, c, h, w]`: the greatest pixel of each bin of each region, whose bounds are rounded.
fn max_roi_pool(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, rois) = (cx.operand(0)?, cx.operand(1)?);
    let [n, c, height, width] = image(x)?;
    let [regions, 5] = rois.dims() else {
        return mismatch!("regions {:?}", rois.dims());
    };
    let Some(&[h, w]) = cx.ints("pooled_shape") else {
        return mismatch!("`pooled_shape` must have 2 entries");
    };
    let out = [sizes::size(h)?, sizes::size(w)?];
    let scale = cx.float_or("spatial_scale", 1.0);
    let dims = [*regions, c, out[0], out[1]];
    work(&[*regions, c, height, width])?;
    let (data, image) = (x.as_floats()?, [height, width]);
    let mut y = Vec::with_capacity(count(&dims)?);
    for roi in rois.as_floats()?.chunks_exact(5) {
        let sample = sizes::index(roi[0] as i64, n)?;
        let round = |x: f64| (x * scale).round();
        let (begin, end) = (
            [round(roi[2]), round(roi[1])],
            [round(roi[4]), round(roi[3])],
        );
        let bin = |axis: usize| (end[axis] - begin[axis] + 1.0).max(1.0) / out[axis] as f64;
        let bounds = |axis: usize, at: usize| {
            let clamp = |x: f64| (x + begin[axis]).clamp(0.0, image[axis] as f64) as usize;
            let at = at as f64;
            clamp((at * bin(axis)).floor())..clamp(((at + 1.0) * bin(axis)).ceil())
        };
        for channel in 0..c {
            let plane = &data[(sample * c + channel) * height * width..][..height * width];
            for_each(&out, |at| {
                let (rows, columns) = (bounds(0, at[0]), bounds(1, at[1]));
                let pixels = rows.flat_map(|row| {
                    columns
                        .clone()
                        .map(move |column| flat(&[row, column], &[width, 1]))
                });
                let values = pixels.filter_map(|position| plane.get(position).copied());
                y.push(values.reduce(f64::max).unwrap_or(0.0));
                Ok(())
            })?;
        }
    }
    Array::floats(x.dtype(), &dims, y)
}
