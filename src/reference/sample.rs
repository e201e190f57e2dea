//! Reading images between their pixels.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::sizes::{count, strides, work};
use super::table::{Entry, one};

pub(super) const OPS: &[Entry] = &[one("GridSample", 16, grid_sample)];

/// How a value between pixels comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// What lies outside of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
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
pub(super) fn sampled(
    image: &[f64],
    dims: &[usize],
    at: &[f64],
    mode: Mode,
    padding: Padding,
) -> f64 {
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
