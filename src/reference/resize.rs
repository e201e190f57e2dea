//! Images of other sizes. Each axis is resized by itself: every result reads a few elements with
//! weights.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::movement::by_axes;
use super::rows::Rows;
use super::sample::cubic;
use super::sizes::{self, count};
use super::table::{Entry, one};

pub(super) const OPS: &[Entry] = &[
    one("Resize", 10, |cx| {
        let scales = cx.operand(1)?.to_f64s();
        resize(cx, &Plan::of_scales(cx, &scales)?, &Style::oldest(cx)?)
    }),
    one("Resize", 11, |cx| {
        let style = Style::read(cx)?;
        let scales = cx
            .optional(2)
            .map(Array::to_f64s)
            .filter(|scales| !scales.is_empty());
        let plan = match (scales, cx.optional_numbers(3)?) {
            (Some(scales), None) => Plan::of_scales(cx, &scales)?,
            (None, Some(sizes)) => Plan::of_sizes(cx, &sizes)?,
            _ => return mismatch!("either scales or sizes are needed"),
        };
        resize(cx, &plan, &style)
    }),
    one("Upsample", 7, |cx| {
        let scales = cx.floats("scales").unwrap_or_default();
        let scales: Vec<f64> = scales.iter().map(|scale| f64::from(*scale)).collect();
        resize(cx, &Plan::of_scales(cx, &scales)?, &Style::oldest(cx)?)
    }),
    one("Upsample", 9, |cx| {
        let scales = cx.operand(1)?.to_f64s();
        resize(cx, &Plan::of_scales(cx, &scales)?, &Style::oldest(cx)?)
    }),
];

/// Where the part of an axis that is read begins and ends, from 0 to 1.
type Part = (f64, f64);

/// What becomes of one axis.
#[derive(Clone, Copy)]
struct Axis {
    from: usize,
    to: usize,
    scale: f64,
    roi: Part,
}

struct Plan(Vec<Axis>);

impl Plan {
    fn kept(x: &Array) -> Vec<Axis> {
        let one = |size: &usize| Axis {
            from: *size,
            to: *size,
            scale: 1.0,
            roi: (0.0, 1.0),
        };
        x.dims().iter().map(one).collect()
    }

    /// The axes that are resized, with their part of the region of interest.
    fn axes(cx: &Cx<'_>, count: usize) -> Result<Vec<(usize, Part)>, Fault> {
        let rank = cx.operand(0)?.rank();
        let axes: Vec<usize> = match cx.ints("axes") {
            Some(axes) => axes
                .iter()
                .map(|a| sizes::axis(*a, rank))
                .collect::<Result<_, _>>()?,
            None => (0..rank).collect(),
        };
        if axes.len() != count {
            return mismatch!("{count} scales or sizes of {} axes", axes.len());
        }
        let crops = cx.string("coordinate_transformation_mode") == Some("tf_crop_and_resize");
        let roi = match cx.optional(1).filter(|_| crops) {
            Some(roi) if roi.len() == 2 * count => roi.to_f64s(),
            Some(roi) => return mismatch!("a region {:?} of {count} axes", roi.dims()),
            None => [vec![0.0; count], vec![1.0; count]].concat(),
        };
        let pairs = axes.into_iter().enumerate();
        Ok(pairs
            .map(|(i, axis)| (axis, (roi[i], roi[i + count])))
            .collect())
    }

    fn of_scales(cx: &Cx<'_>, scales: &[f64]) -> Result<Plan, Fault> {
        let mut plan = Plan::kept(cx.operand(0)?);
        for ((axis, roi), scale) in Plan::axes(cx, scales.len())?.into_iter().zip(scales) {
            let from = plan[axis].from;
            if !scale.is_finite() || *scale <= 0.0 {
                return mismatch!("a scale of {scale}");
            }
            // In single precision, as scales are stated: 10 times 0.7 is 7.
            let to = (from as f64 * (roi.1 - roi.0)) as f32 * *scale as f32;
            let to = count(&[to.floor().max(0.0) as usize])?;
            plan[axis] = Axis {
                from,
                to,
                scale: *scale,
                roi,
            };
        }
        Ok(Plan(plan))
    }

    fn of_sizes(cx: &Cx<'_>, stated: &[i64]) -> Result<Plan, Fault> {
        let mut plan = Plan::kept(cx.operand(0)?);
        let stated = sizes::sizes(stated)?;
        let axes = Plan::axes(cx, stated.len())?;
        let ratios: Vec<f64> = axes
            .iter()
            .zip(&stated)
            .map(|((axis, _), to)| *to as f64 / plan[*axis].from as f64)
            .collect();
        let common = match cx.string("keep_aspect_ratio_policy").unwrap_or("stretch") {
            "stretch" => None,
            "not_larger" => ratios.iter().copied().reduce(f64::min),
            "not_smaller" => ratios.iter().copied().reduce(f64::max),
            other => return unsupported!("the policy `{other}`"),
        };
        for (index, (axis, roi)) in axes.into_iter().enumerate() {
            let from = plan[axis].from;
            let to = match common {
                Some(scale) => count(&[(scale * from as f64 + 0.5).floor() as usize])?,
                None => stated[index],
            };
            plan[axis] = Axis {
                from,
                to,
                scale: common.unwrap_or(ratios[index]),
                roi,
            };
        }
        Ok(Plan(plan))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// How elements are read.
struct Style<'a> {
    mode: Mode,
    nearest: &'a str,
    coordinates: &'a str,
    antialias: bool,
    exclude_outside: bool,
    cubic: f64,
    outside: f64,
}

impl<'a> Style<'a> {
    fn mode(cx: &Cx<'a>) -> Result<Mode, Fault> {
        match cx.string("mode").unwrap_or("nearest") {
            "nearest" => Ok(Mode::Nearest),
            "linear" | "bilinear" => Ok(Mode::Linear),
            "cubic" => Ok(Mode::Cubic),
            other => unsupported!("resizing by `{other}`"),
        }
    }

    /// Before opset 11: coordinates are divided by the scale, and rounded down.
    fn oldest(cx: &Cx<'a>) -> Result<Self, Fault> {
        Ok(Style {
            mode: Style::mode(cx)?,
            nearest: "floor",
            coordinates: "asymmetric",
            antialias: false,
            exclude_outside: false,
            cubic: -0.75,
            outside: 0.0,
        })
    }

    fn read(cx: &Cx<'a>) -> Result<Self, Fault> {
        Ok(Style {
            mode: Style::mode(cx)?,
            nearest: cx.string("nearest_mode").unwrap_or("round_prefer_floor"),
            coordinates: cx
                .string("coordinate_transformation_mode")
                .unwrap_or("half_pixel"),
            antialias: cx.flag("antialias"),
            exclude_outside: cx.flag("exclude_outside"),
            cubic: cx.float_or("cubic_coeff_a", -0.75),
            outside: cx.float_or("extrapolation_value", 0.0),
        })
    }

    /// Where result `at` of an axis lies among the operand's elements.
    fn place(&self, axis: &Axis, at: usize) -> Result<f64, Fault> {
        let (x, from, to) = (at as f64, axis.from as f64, axis.to as f64);
        let half_pixel = (x + 0.5) / axis.scale - 0.5;
        Ok(match self.coordinates {
            "half_pixel" => half_pixel,
            "pytorch_half_pixel" if axis.to > 1 => half_pixel,
            "pytorch_half_pixel" => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = to / (axis.scale * from);
                from / 2.0 * (1.0 - adjustment) + half_pixel
            }
            "align_corners" if axis.to > 1 => x * (from - 1.0) / (to - 1.0),
            "align_corners" => 0.0,
            "asymmetric" => x / axis.scale,
            "tf_crop_and_resize" if axis.to > 1 => {
                let (start, end) = axis.roi;
                (from - 1.0) * (start + x * (end - start) / (to - 1.0))
            }
            "tf_crop_and_resize" => 0.5 * (axis.roi.0 + axis.roi.1) * (from - 1.0),
            // In the middle of the pixel for the nearest, and not for others.
            "tf_half_pixel_for_nn" => (x + 0.5) / axis.scale,
            other => return unsupported!("coordinates by `{other}`"),
        })
    }

    /// The elements of an axis that a place reads; `None` if it lies outside and that shows.
    fn reads(&self, axis: &Axis, x: f64) -> Result<Option<Vec<(usize, f64)>>, Fault> {
        let last = axis.from as f64 - 1.0;
        if self.coordinates == "tf_crop_and_resize" && !(0.0..=last).contains(&x) {
            return Ok(None);
        }
        if axis.from == 0 || !x.is_finite() {
            return mismatch!("an axis of {} elements resized to {}", axis.from, axis.to);
        }
        let inside = |index: f64| index.clamp(0.0, last) as usize;
        if self.mode == Mode::Nearest {
            let index = match self.nearest {
                "round_prefer_floor" => (x - 0.5).ceil(),
                "round_prefer_ceil" => (x + 0.5).floor(),
                "floor" => x.floor(),
                "ceil" => x.ceil(),
                other => return unsupported!("the nearest by `{other}`"),
            };
            return Ok(Some(vec![(inside(index), 1.0)]));
        }
        let shrink = if self.antialias {
            axis.scale.min(1.0)
        } else {
            1.0
        };
        let reach = if self.mode == Mode::Cubic { 2.0 } else { 1.0 } / shrink;
        count(&[reach as usize])?;
        let (base, first) = (x.floor(), (-reach).floor() as i64 + 1);
        let mut reads = Vec::new();
        for step in first..=1 - first {
            let index = base + step as f64;
            let distance = (index - x) * shrink;
            let weight = match self.mode {
                Mode::Cubic => cubic(distance, self.cubic),
                _ => (1.0 - distance.abs()).max(0.0),
            };
            let excluded = self.exclude_outside && !(0.0..=last).contains(&index);
            reads.push((inside(index), if excluded { 0.0 } else { weight }));
        }
        if self.antialias || self.exclude_outside {
            let sum: f64 = reads.iter().map(|(_, weight)| weight).sum();
            reads.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        Ok(Some(reads))
    }
}

fn resize(cx: &Cx<'_>, plan: &Plan, style: &Style<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let dims: Vec<usize> = plan.0.iter().map(|axis| axis.to).collect();
    count(&dims)?;
    if dims.contains(&0) {
        return Array::zeros(x.dtype(), &dims);
    }
    let mut reads = Vec::new();
    for axis in &plan.0 {
        // An axis that keeps its size is not read between its elements.
        let untouched = axis.from == axis.to && axis.scale == 1.0 && axis.roi == (0.0, 1.0);
        let one = |at: usize| match untouched {
            true => Ok(Some(vec![(at, 1.0)])),
            false => style.reads(axis, style.place(axis, at)?),
        };
        reads.push((0..axis.to).map(one).collect::<Result<Vec<_>, Fault>>()?);
    }
    if style.mode == Mode::Nearest {
        let first = |reads: &Option<Vec<(usize, f64)>>| Some(reads.as_ref()?.first()?.0);
        let maps: Vec<Vec<Option<usize>>> = reads
            .iter()
            .map(|axis| axis.iter().map(first).collect())
            .collect();
        let fill = match x.elements() {
            Elements::Floats(_) => Array::scalar(x.dtype(), style.outside)?,
            Elements::Ints(_) => Array::ints(x.dtype(), &[], vec![style.outside as i128])?,
        };
        return by_axes(x, &maps, &fill);
    }
    let mut y = x.clone();
    for (axis, reads) in reads.iter().enumerate() {
        y = weighted(&y, axis, reads)?;
    }
    // What lies outside along any axis is the same everywhere.
    let marks: Vec<Vec<Option<usize>>> = reads
        .iter()
        .map(|axis| {
            axis.iter()
                .enumerate()
                .map(|(i, r)| r.as_ref().map(|_| i))
                .collect()
        })
        .collect();
    by_axes(&y, &marks, &Array::scalar(x.dtype(), style.outside)?)
}

/// One axis resized; what lies outside is 0.
fn weighted(x: &Array, axis: usize, reads: &[Option<Vec<(usize, f64)>>]) -> Result<Array, Fault> {
    let rows = Rows::over(x, &[axis])?;
    let moved = [&rows.outer[..], &[reads.len()]].concat();
    let mut data = Vec::with_capacity(count(&moved)?);
    for row in rows.floats()? {
        for reads in reads {
            let reads = reads.iter().flatten();
            data.push(reads.map(|(index, weight)| row[*index] * weight).sum());
        }
    }
    let mut back: Vec<usize> = (0..x.rank() - 1).collect();
    back.insert(axis, x.rank() - 1);
    super::rows::permuted(&Array::floats(x.dtype(), &moved, data)?, &back)
}
