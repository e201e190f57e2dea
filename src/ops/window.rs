//! Sizes of sliding windows, for convolutions and pools.

use super::cx::{InferCx, Mismatch, mismatch};
use super::shapes;
use crate::ty::Dim;

/// The largest kernel, stride, dilation or pad that is believed.
const LIMIT: i64 = 1 << 31;

/// How a size is rounded where the stride does not divide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    Down,
    Up,
}

/// The attributes of a window, one entry an axis.
pub(super) struct Window {
    pub kernel: Vec<Option<Dim>>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    /// All begins, then all ends; `None` where `auto_pad` makes them.
    pads: Option<Vec<i64>>,
    same: bool,
    pub rounding: Rounding,
}

impl Window {
    /// Reads the attributes for so many spatial axes.
    pub(super) fn read(cx: &InferCx<'_>, kernel: Vec<Option<Dim>>) -> Result<Self, Mismatch> {
        let rank = kernel.len();
        let auto_pad = cx.string("auto_pad").unwrap_or("NOTSET");
        let same = auto_pad.starts_with("SAME");
        let pads = match auto_pad {
            "VALID" => vec![0; 2 * rank],
            _ => list(cx, "pads", 2 * rank, 0)?,
        };
        Ok(Window {
            kernel,
            strides: list(cx, "strides", rank, 1)?,
            dilations: list(cx, "dilations", rank, 1)?,
            pads: (!same).then_some(pads),
            same,
            rounding: match cx.flag("ceil_mode") {
                true => Rounding::Up,
                false => Rounding::Down,
            },
        })
    }

    /// `floor((size + pads - dilation · (kernel - 1) - 1) / stride) + 1`, or `ceil(size / stride)`
    /// where `auto_pad` keeps the size; `None` if it cannot be told.
    pub(super) fn forward(&self, axis: usize, size: &Dim) -> Option<Dim> {
        let stride = self.strides[axis];
        if self.same {
            return Some(shapes::ceil_div(size, stride));
        }
        let span = size.clone() + self.padding(axis) - self.extent(axis)?;
        let rounded = match (self.rounding, stride) {
            (Rounding::Down, _) | (_, 1) => span.floor_div(&Dim::from(stride)),
            (Rounding::Up, _) => {
                let up = shapes::ceil_div(&span, stride).known()?;
                // A window starts within the data or the padding before it.
                let begin = self.pads.as_ref().map_or(0, |pads| pads[axis]);
                let beyond = up.checked_mul(stride)? >= size.known()?.checked_add(begin)?;
                Dim::from(if beyond { up - 1 } else { up })
            }
        };
        Some(rounded + Dim::from(1))
    }

    /// `stride · (size - 1) + output_padding + dilation · (kernel - 1) + 1 - pads`, or
    /// `size · stride` where `auto_pad` keeps the size.
    pub(super) fn transposed(&self, axis: usize, size: &Dim, extra: i64) -> Option<Dim> {
        let stride = Dim::from(self.strides[axis]);
        if self.same {
            return Some(size.clone() * stride);
        }
        let steps = stride * (size.clone() - Dim::from(1));
        Some(steps + Dim::from(extra) + self.extent(axis)? - self.padding(axis))
    }

    fn padding(&self, axis: usize) -> Dim {
        let count = self.kernel.len();
        let pads = self.pads.as_ref();
        Dim::from(pads.map_or(0, |pads| pads[axis] + pads[axis + count]))
    }

    /// The elements that a kernel spans.
    fn extent(&self, axis: usize) -> Option<Dim> {
        let kernel = self.kernel[axis].clone()?;
        Some((kernel - Dim::from(1)) * Dim::from(self.dilations[axis]) + Dim::from(1))
    }
}

/// A list attribute of one entry an axis, or its default.
pub(super) fn list(
    cx: &InferCx<'_>,
    name: &str,
    count: usize,
    default: i64,
) -> Result<Vec<i64>, Mismatch> {
    let Some(values) = cx.ints(name) else {
        return Ok(vec![default; count]);
    };
    if values.len() != count {
        return mismatch!("{} entries in `{name}`, {count} are needed", values.len());
    }
    let least = if default == 1 { 1 } else { -LIMIT };
    match values.iter().find(|value| !(least..LIMIT).contains(*value)) {
        Some(value) => mismatch!("{value} in `{name}`"),
        None => Ok(values.to_vec()),
    }
}
