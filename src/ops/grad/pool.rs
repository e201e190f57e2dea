//! Pooling.

use super::window::Window;
use super::{GradCx, GradOutcome};
use crate::graph::{Attribute, Tensor};
use crate::ops::build::{Expr, Refusal, refuse};
use crate::ops::emit::encode_float;
use crate::ty::{DType, Dim};

/// `y, i = maxpool(x)`: `dx` is `dy` added at the places `i`, which count through all of `x`.
pub fn max_pool(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let dims = x.dims()?;
    let window = Window::read_pool(cx, &dims)?;
    if cx.flag("storage_order") || cx.opset < 11 {
        return refuse!("its indices count columns first, or its opset is below 11");
    }
    let overlaps = (0..window.kernel.len())
        .any(|axis| window.strides[axis] <= (window.kernel[axis] - 1) * window.dilations[axis]);
    let mut attributes = vec![Attribute::int("axis", 0)];
    if overlaps {
        if cx.opset < 16 {
            return refuse!("its windows overlap, and adding at places needs opset 16");
        }
        attributes.push(Attribute::string("reduction", "add"));
    }
    let indices = cx.saved(1, DType::I64, y.dims()?)?;
    let build = cx.build;
    cx.try_give(0, || {
        let zeros = build.zeros(x.dtype(), &[elements(&dims)])?;
        let count = [elements(&y.dims()?)];
        let (indices, dy) = (indices.reshape(&count)?, dy.reshape(&count)?);
        build
            .node("ScatterElements", &[zeros, indices, dy], attributes)
            .reshape(&dims)
    })
}

fn elements(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::from(1), |n, dim| n * dim.clone())
}

/// `y = Σ x / n` over a window: `dx = Σ dy / n` over the windows that an element is in, with `n` the
/// size of the window, or of its part within the data.
pub fn average_pool(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dims = x.dims()?;
    let window = Window::read_pool(cx, &dims)?;
    let pads = window
        .before
        .iter()
        .chain(&window.behind)
        .any(|pad| *pad != 0);
    let partial = pads && !cx.flag("count_include_pad") || cx.flag("ceil_mode");
    let build = cx.build;
    let size: i64 = window.kernel.iter().product();
    let share = match partial {
        false => dy * (1.0 / size as f64),
        true => dy / build.constant("peftc.counts", counts(cx, &window, &dims, dy.dtype())?),
    };
    cx.try_give(0, || spread(&window, share, &dims))
}

/// How many elements every window averages, `[1, 1, windows…]`.
fn counts(cx: &GradCx<'_>, window: &Window, dims: &[Dim], dtype: DType) -> Result<Tensor, Refusal> {
    let windows = cx.y(0)?.dims()?;
    let includes_pads = cx.flag("count_include_pad");
    let mut sizes = vec![1, 1];
    let mut products = vec![1_i64];
    for axis in 0..window.kernel.len() {
        let (Some(size), Some(count)) = (dims[axis + 2].known(), windows[axis + 2].known()) else {
            return refuse!("it averages parts of windows over data of symbolic size");
        };
        let (low, high) = match includes_pads {
            true => (-window.before[axis], size + window.behind[axis]),
            false => (0, size),
        };
        let hits: Vec<i64> = (0..count)
            .map(|at| {
                let start = at * window.strides[axis] - window.before[axis];
                let place = |k: i64| start + k * window.dilations[axis];
                let inside = |k: &i64| (low..high).contains(&place(*k));
                (0..window.kernel[axis]).filter(inside).count() as i64
            })
            .collect();
        products = products
            .iter()
            .flat_map(|product| hits.iter().map(move |hit| product * hit))
            .collect();
        sizes.push(count);
    }
    let bytes: Vec<u8> = products
        .iter()
        .flat_map(|n| encode_float(*n as f64, dtype))
        .collect();
    Ok(Tensor::from_raw(dtype, &sizes, bytes))
}

/// Every element of `[n, c, windows…]` added to all places of its window: a transposed convolution
/// of every channel by itself with ones.
fn spread<'b>(window: &Window, value: Expr<'b>, dims: &[Dim]) -> Result<Expr<'b>, Refusal> {
    let build = value.builder;
    let dtype = value.dtype();
    let single = |dims: &[Dim]| {
        let images = elements(&dims[..2]);
        [&[images, Dim::from(1)], &dims[2..]].concat()
    };
    let kernel: Vec<i64> = [1, 1].iter().chain(&window.kernel).copied().collect();
    let count = kernel.iter().product::<i64>() as usize;
    let ones = Tensor::from_raw(dtype, &kernel, encode_float(1.0, dtype).repeat(count));
    let ones = build.constant("peftc.ones", ones);
    let images = value.reshape(&single(&value.dims()?))?;
    window.spread(images, ones, 1, &single(dims))?.reshape(dims)
}

/// The axes of space.
fn space(rank: usize) -> Vec<usize> {
    (2..rank).collect()
}

/// `y = mean x` over space: `dx = dy / n`.
pub fn global_average(cx: &mut GradCx<'_>) -> GradOutcome {
    let (dims, dy) = (cx.dims(0)?, cx.dy()?);
    let count = elements(&dims[2.min(dims.len())..]);
    let build = cx.build;
    cx.try_give(0, || match count.known() {
        Some(count) => Ok(dy * (1.0 / count as f64)),
        None => Ok(dy / build.size(&count)?.cast(dy.dtype())),
    })
}

/// `y = max x` over space: `dx = dy / ties` where `x = y`, 0 elsewhere.
pub fn global_max(cx: &mut GradCx<'_>) -> GradOutcome {
    let axes = space(cx.rank(0)?);
    cx.only(|x, y, dy| {
        let hit = x.is_equal(y).cast(x.dtype());
        hit * (dy / hit.sum_keeping(&axes))
    })
}

fn order_two(cx: &GradCx<'_>) -> GradOutcome {
    match cx.int_or("p", 2) {
        2 => Ok(()),
        p => refuse!("its norm is of order {p}"),
    }
}

/// `y = √(Σ x²)` over a window: `dx = x · Σ dy / y` over the windows that an element is in.
pub fn lp_pool(cx: &mut GradCx<'_>) -> GradOutcome {
    order_two(cx)?;
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let dims = x.dims()?;
    let window = Window::read_pool(cx, &dims)?;
    cx.try_give(0, || Ok(spread(&window, dy / y, &dims)? * x))
}

/// `y = √(Σ x²)` over space: `dx = dy / y · x`.
pub fn global_lp(cx: &mut GradCx<'_>) -> GradOutcome {
    order_two(cx)?;
    cx.only(|x, y, dy| dy / y * x)
}
