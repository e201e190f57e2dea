//! Regions of images, pooled to one size.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::sizes::{self, count, flat, for_each, work};
use super::table::{Entry, one};

pub(super) const OPS: &[Entry] = &[
    one("RoiAlign", 10, roi_align),
    one("MaxRoiPool", 1, max_roi_pool),
];

fn image(x: &Array) -> Result<[usize; 4], Fault> {
    match x.dims() {
        [n, c, h, w] => Ok([*n, *c, *h, *w]),
        dims => mismatch!("regions of {dims:?}"),
    }
}

/// How regions are divided into bins.
struct Bins {
    out: [usize; 2],
    scale: f64,
    /// Points an axis of each bin; 0 for as many as keep neighbours at most a pixel apart.
    ratio: usize,
    /// Whether coordinates are those of pixels' centers.
    shifted: bool,
    takes_max: bool,
}

impl Bins {
    fn read(cx: &Cx<'_>) -> Result<Self, Fault> {
        let size = |name| sizes::size(cx.int_or(name, 1));
        // Until opset 15 there was no shift by half a pixel.
        let default = match cx.opset {
            16.. => "half_pixel",
            _ => "output_half_pixel",
        };
        let mode = cx.string("coordinate_transformation_mode");
        Ok(Bins {
            out: [size("output_height")?, size("output_width")?],
            scale: cx.float_or("spatial_scale", 1.0),
            ratio: sizes::size(cx.int_or("sampling_ratio", 0))?,
            shifted: mode.unwrap_or(default) == "half_pixel",
            takes_max: cx.string("mode") == Some("max"),
        })
    }

    /// Where a region begins, how large its bins are and how many points they have, by axis.
    fn divide(&self, roi: &[f64]) -> [(f64, f64, usize); 2] {
        let shift = if self.shifted { 0.5 } else { 0.0 };
        // x1, y1, x2, y2.
        let one = |axis: usize| {
            let (begin, end) = (roi[1 - axis] * self.scale, roi[3 - axis] * self.scale);
            let span = match self.shifted {
                true => end - begin,
                false => (end - begin).max(1.0),
            };
            let bin = span / self.out[axis].max(1) as f64;
            let points = match self.ratio {
                0 => bin.ceil().clamp(0.0, 1e6) as usize,
                ratio => ratio,
            };
            (begin - shift, bin, points)
        };
        [one(0), one(1)]
    }
}

/// `[regions, c, h, w]`: the mean, or maximum, of points inside each bin of each region.
fn roi_align(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, rois) = (cx.operand(0)?, cx.operand(1)?);
    let [n, c, height, width] = image(x)?;
    let (bins, samples) = (Bins::read(cx)?, cx.numbers(2)?);
    if rois.dims() != [samples.len(), 4] {
        return mismatch!("{} samples of regions {:?}", samples.len(), rois.dims());
    }
    let dims = [samples.len(), c, bins.out[0], bins.out[1]];
    let (data, area) = (x.as_floats()?, count(&[height, width])?);
    let mut y = Vec::with_capacity(count(&dims)?);
    for (roi, sample) in rois.as_floats()?.chunks_exact(4).zip(samples) {
        let sample = sizes::index(sample, n)?;
        let axes = bins.divide(roi);
        work(&[c, bins.out[0], bins.out[1], axes[0].2, axes[1].2])?;
        for channel in 0..c {
            let plane = &data[(sample * c + channel) * area..][..area];
            for_each(&bins.out, |at| {
                y.push(pooled(plane, [height, width], axes, at, bins.takes_max)?);
                Ok(())
            })?;
        }
    }
    Array::floats(x.dtype(), &dims, y)
}

/// The mean or maximum of the points of one bin.
fn pooled(
    plane: &[f64],
    dims: [usize; 2],
    axes: [(f64, f64, usize); 2],
    bin: &[usize],
    takes_max: bool,
) -> Result<f64, Fault> {
    let place = |axis: usize, point: usize| {
        let (begin, size, points) = axes[axis];
        begin + (bin[axis] as f64 + (point as f64 + 0.5) / points as f64) * size
    };
    let mut values = Vec::new();
    for_each(&[axes[0].2, axes[1].2], |point| {
        let at = [place(0, point[0]), place(1, point[1])];
        values.extend(corners(plane, dims, at, takes_max));
        Ok(())
    })?;
    Ok(match takes_max {
        true => values.iter().copied().reduce(f64::max).unwrap_or(0.0),
        false => values.iter().sum::<f64>() / values.len().max(1) as f64,
    })
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
    let (data, area) = (x.as_floats()?, count(&[height, width])?);
    let mut y = Vec::with_capacity(count(&dims)?);
    for roi in rois.as_floats()?.chunks_exact(5) {
        let sample = sizes::index(roi[0] as i64, n)?;
        // sample, x1, y1, x2, y2.
        let bounds = |axis: usize, at: usize| {
            let (begin, end) = (
                (roi[2 - axis] * scale).round(),
                (roi[4 - axis] * scale).round(),
            );
            let bin = (end - begin + 1.0).max(1.0) / out[axis] as f64;
            let clamp = |x: f64| (x + begin).clamp(0.0, [height, width][axis] as f64) as usize;
            clamp((at as f64 * bin).floor())..clamp(((at + 1) as f64 * bin).ceil())
        };
        for channel in 0..c {
            let plane = &data[(sample * c + channel) * area..][..area];
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
