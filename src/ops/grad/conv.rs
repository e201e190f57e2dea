//! Convolutions.

use super::window::Window;
use super::{GradCx, GradOutcome};
use crate::graph::Attribute;
use crate::ops::build::{Expr, Refusal};
use crate::ty::Dim;

/// `y = conv(x, w) + b`: `dx = convᵀ(dy, w)`, `dw` is the convolution of `x` with `dy` as the kernel,
/// `db = Σ dy`.
pub fn conv(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, w, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let group = cx.int_or("group", 1);
    let window = Window::read(cx, &x.dims()?, &w.dims()?)?;
    cx.try_give(0, || window.spread(dy, w, group, &x.dims()?))?;
    cx.try_give(1, || kernel_gradient(&window, x, dy, group))?;
    cx.try_give(2, || bias_gradient(dy))
}

/// `y = convᵀ(x, w) + b`: `dx = conv(dy, w)`, `dw` is the convolution of `dy` with `x` as the
/// kernel, `db = Σ dy`.
pub fn conv_transpose(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, w, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let group = cx.int_or("group", 1);
    let dims = x.dims()?;
    let window = Window::read_transposed(cx, &dims, &w.dims()?)?;
    cx.try_give(0, || {
        let mut attributes = window.attributes();
        attributes.push(Attribute::int("group", group));
        let all = dy.builder.node("Conv", &[dy, w], attributes);
        cut(all, &dims)
    })?;
    cx.try_give(1, || kernel_gradient(&window, dy, x, group))?;
    cx.try_give(2, || bias_gradient(dy))
}

fn bias_gradient(dy: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let rank = dy.rank()?;
    let others: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
    Ok(dy.sum_dropping(&others))
}

/// What is beyond the sizes of space is dropped.
fn cut<'b>(mut value: Expr<'b>, dims: &[Dim]) -> Result<Expr<'b>, Refusal> {
    let own = value.dims()?;
    for axis in 2..dims.len() {
        if let (Some(size), Some(wanted)) = (own[axis].known(), dims[axis].known())
            && size > wanted
        {
            value = value.slice(axis, 0, wanted);
        }
    }
    Ok(value)
}

/// `dw[m, c, k…] = Σ dy[n, m, o…] · x[n, c, o · stride + k · dilation…]`: a convolution where the
/// batch counts as channels, strides and dilations change places, and `dy` is the kernel.
fn kernel_gradient<'b>(
    window: &Window,
    x: Expr<'b>,
    dy: Expr<'b>,
    group: i64,
) -> Result<Expr<'b>, Refusal> {
    let dims = x.dims()?;
    let rank = dims.len();
    let space: Vec<usize> = (2..rank).collect();
    let channels = dims[1].floor_div(&Dim::from(group));
    // [n, g · c, …] → [n, g, c, …] → [c, g, n, …] → [c, g · n, …]
    let images = if group == 1 {
        let perm: Vec<usize> = [1, 0].into_iter().chain(space.iter().copied()).collect();
        x.transpose(&perm)
    } else {
        let inner = &dims[2..];
        let (n, g) = (dims[0].clone(), Dim::from(group));
        let apart = [&[n.clone(), g.clone(), channels.clone()], inner].concat();
        let perm: Vec<usize> = [2, 1, 0].into_iter().chain(3..rank + 1).collect();
        let together = [&[channels.clone(), n * g], inner].concat();
        x.reshape(&apart)?.transpose(&perm).reshape(&together)?
    };
    let perm: Vec<usize> = [1, 0].into_iter().chain(space.iter().copied()).collect();
    let mut attributes = window.exchanged();
    attributes.push(Attribute::int("group", group));
    let kernels = dy.transpose(&perm);
    let mut gradient = x.builder.node("Conv", &[images, kernels], attributes);
    for (axis, size) in window.kernel.iter().enumerate() {
        // Where the stride leaves some of the data over, it comes out larger than the kernel.
        if window.strides[axis] > 1 {
            gradient = gradient.slice(axis + 2, 0, *size);
        }
    }
    let mut found = vec![dy.dims()?[1].clone(), channels];
    found.extend(window.kernel.iter().map(|size| Dim::from(*size)));
    Ok(gradient.transpose(&perm).stated(&found))
}
