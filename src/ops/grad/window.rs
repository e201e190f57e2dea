//! Sliding windows with every number known but the sizes of the data.

use super::GradCx;
use crate::graph::Attribute;
use crate::ops::build::{Expr, Refusal, refuse};
use crate::ty::Dim;

/// The attributes of a convolution or a pool, one entry an axis.
#[derive(Clone)]
pub struct Window {
    pub kernel: Vec<i64>,
    pub strides: Vec<i64>,
    pub dilations: Vec<i64>,
    pub before: Vec<i64>,
    pub behind: Vec<i64>,
}

impl Window {
    /// The window of a convolution with a weight of these sizes.
    pub fn read(cx: &GradCx<'_>, data: &[Dim], weight: &[Dim]) -> Result<Window, Refusal> {
        let mut window = Window::sizes(cx, kernel(weight)?)?;
        window.pad(cx, data)?;
        Ok(window)
    }

    /// The window of a pool.
    pub fn read_pool(cx: &GradCx<'_>, data: &[Dim]) -> Result<Window, Refusal> {
        let kernel = list(cx, "kernel_shape", data.len().saturating_sub(2), 1)?;
        let mut window = Window::sizes(cx, kernel)?;
        window.pad(cx, data)?;
        Ok(window)
    }

    /// The window of a transposed convolution: that of the convolution which it transposes.
    pub fn read_transposed(
        cx: &GradCx<'_>,
        data: &[Dim],
        weight: &[Dim],
    ) -> Result<Window, Refusal> {
        let mut window = Window::sizes(cx, kernel(weight)?)?;
        let count = window.kernel.len();
        let mode = cx.node.string("auto_pad").unwrap_or("NOTSET");
        let Some(stated) = cx.node.ints("output_shape") else {
            if mode.starts_with("SAME") {
                return refuse!("it pads by itself");
            }
            window.explicit(cx)?;
            return Ok(window);
        };
        let extra = list(cx, "output_padding", count, 0)?;
        if stated.len() < count {
            return refuse!("its `output_shape` has {} entries", stated.len());
        }
        for axis in 0..count {
            let Some(size) = data[axis + 2].known() else {
                return refuse!("it states the shape of its result and takes any size");
            };
            let full = window.strides[axis] * (size - 1) + extra[axis] + window.extent(axis);
            let total = (full - stated[stated.len() - count + axis]).max(0);
            let (small, large) = (total / 2, total - total / 2);
            (window.before[axis], window.behind[axis]) = match mode {
                "SAME_UPPER" => (small, large),
                _ => (large, small),
            };
        }
        Ok(window)
    }

    fn sizes(cx: &GradCx<'_>, kernel: Vec<i64>) -> Result<Window, Refusal> {
        let count = kernel.len();
        Ok(Window {
            strides: list(cx, "strides", count, 1)?,
            dilations: list(cx, "dilations", count, 1)?,
            before: vec![0; count],
            behind: vec![0; count],
            kernel,
        })
    }

    fn explicit(&mut self, cx: &GradCx<'_>) -> Result<(), Refusal> {
        let count = self.kernel.len();
        let pads = list(cx, "pads", 2 * count, 0)?;
        self.before = pads[..count].to_vec();
        self.behind = pads[count..].to_vec();
        Ok(())
    }

    fn pad(&mut self, cx: &GradCx<'_>, data: &[Dim]) -> Result<(), Refusal> {
        let mode = cx.node.string("auto_pad").unwrap_or("NOTSET");
        match mode {
            "VALID" => return Ok(()),
            "SAME_UPPER" | "SAME_LOWER" => {}
            _ => return self.explicit(cx),
        }
        for axis in 0..self.kernel.len() {
            let stride = self.strides[axis];
            let total = match (stride, data[axis + 2].known()) {
                (1, _) => self.extent(axis) - 1,
                (_, Some(size)) => {
                    let count = (size + stride - 1) / stride;
                    ((count - 1) * stride + self.extent(axis) - size).max(0)
                }
                _ => return refuse!("it pads data of symbolic size by itself"),
            };
            let (small, large) = (total / 2, total - total / 2);
            (self.before[axis], self.behind[axis]) = match mode {
                "SAME_UPPER" => (small, large),
                _ => (large, small),
            };
        }
        Ok(())
    }

    /// The elements that the kernel spans.
    fn extent(&self, axis: usize) -> i64 {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// As attributes of a node.
    pub fn attributes(&self) -> Vec<Attribute> {
        vec![
            Attribute::ints("strides", self.strides.as_slice()),
            Attribute::ints("dilations", self.dilations.as_slice()),
            Attribute::ints("pads", [&self.before[..], &self.behind[..]].concat()),
        ]
    }

    /// With strides as dilations and dilations as strides.
    pub fn exchanged(&self) -> Vec<Attribute> {
        let exchanged = Window {
            strides: self.dilations.clone(),
            dilations: self.strides.clone(),
            ..self.clone()
        };
        exchanged.attributes()
    }

    /// The transposed convolution of `dy` with a weight, in the sizes of the data: every element
    /// goes to where its window was.
    pub fn spread<'b>(
        &self,
        dy: Expr<'b>,
        weight: Expr<'b>,
        group: i64,
        data: &[Dim],
    ) -> Result<Expr<'b>, Refusal> {
        let windows = dy.dims()?;
        let mut fitted = self.clone();
        let (mut extra, mut cut) = (vec![0; self.kernel.len()], Vec::new());
        for axis in 0..self.kernel.len() {
            match (data[axis + 2].known(), windows[axis + 2].known()) {
                (Some(size), Some(count)) => {
                    let reached = (count - 1) * self.strides[axis] + self.extent(axis)
                        - self.before[axis]
                        - self.behind[axis];
                    extra[axis] = (size - reached).max(0);
                    // A last window that was rounded up reaches beyond.
                    fitted.behind[axis] += (reached - size).max(0);
                }
                _ if self.strides[axis] == 1 => {}
                _ => {
                    extra[axis] = self.strides[axis] - 1;
                    cut.push(axis + 2);
                }
            }
        }
        let mut attributes = fitted.attributes();
        attributes.push(Attribute::ints("output_padding", extra));
        attributes.push(Attribute::int("group", group));
        let build = dy.builder;
        let mut spread = build.node("ConvTranspose", &[dy, weight], attributes);
        for axis in cut {
            let operands = [
                spread,
                build.ints(&[0]),
                build.size(&data[axis])?,
                build.ints(&[axis as i64]),
            ];
            spread = build.node("Slice", &operands, Vec::new());
        }
        Ok(spread.stated(data))
    }
}

fn kernel(weight: &[Dim]) -> Result<Vec<i64>, Refusal> {
    let sizes: Option<Vec<i64>> = weight.iter().skip(2).map(Dim::known).collect();
    match sizes {
        Some(sizes) => Ok(sizes),
        None => refuse!("the size of its kernel is not known"),
    }
}

fn list(cx: &GradCx<'_>, name: &str, count: usize, default: i64) -> Result<Vec<i64>, Refusal> {
    match cx.node.ints(name) {
        None => Ok(vec![default; count]),
        Some(values) if values.len() == count => Ok(values.to_vec()),
        Some(values) => refuse!("it has {} entries in `{name}`, not {count}", values.len()),
    }
}
