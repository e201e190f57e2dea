//! Normalizations. Written with `x̂` for the normalized operand and `g = dy · γ`.

use super::{GradCx, GradOutcome};
use crate::ops::build::{Expr, Refusal, refuse};
use crate::ty::{DType, Dim};

/// `dx` of `x̂ = (x - mean x) · inv` over some axes: `inv · (g - mean g - x̂ · mean(g · x̂))`.
fn centred<'b>(g: Expr<'b>, normal: Expr<'b>, inv: Expr<'b>, axes: &[usize]) -> Expr<'b> {
    let spread = normal * (g * normal).mean_keeping(axes);
    (g - g.mean_keeping(axes) - spread) * inv
}

/// `y = (x - mean x) · inv · γ + β` over the axes from `axis` on, with `inv = 1 / √(var x + ε)`:
/// `dx = inv · (g - mean g - x̂ · mean(g · x̂))`, `dγ = Σ dy · x̂`, `dβ = Σ dy`. Mean and `inv` are
/// results of the node; where they are read, `dx` has `(dmean - dinv · inv² · x̂) / n`, too.
pub fn layer(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let dims = x.dims()?;
    let axis = cx.axis(-1, dims.len())?;
    let axes: Vec<usize> = (axis..dims.len()).collect();
    let kind = stash_type(cx);
    let statistics = statistics(&dims, axis);
    let mean = cx.saved(1, kind, statistics.clone())?;
    let inv = cx.saved(2, kind, statistics)?;
    // Statistics may be of a wider type; products with them are computed in it.
    let kind = mean.dtype();
    let normal = (x.cast(kind) - mean) * inv;
    let dy = dy.cast(kind);
    let (dmean, dinv) = (cx.dy_of(1)?, cx.dy_of(2)?);
    cx.try_give(0, || {
        let mut dx = centred(dy * scale.cast(kind), normal, inv, &axes);
        if let Some(dmean) = dmean {
            dx = dx + shared(dmean, &dims[axis..])?;
        }
        if let Some(dinv) = dinv {
            dx = dx - shared(dinv * inv.square(), &dims[axis..])? * normal;
        }
        Ok(dx.cast(x.dtype()))
    })?;
    cx.give(1, || (dy * normal).cast(x.dtype()));
    cx.give(2, || dy.cast(x.dtype()));
    Ok(())
}

/// What each of so many elements gets of the gradient of their mean.
fn shared<'b>(gradient: Expr<'b>, dims: &[Dim]) -> Result<Expr<'b>, Refusal> {
    let count = dims.iter().fold(Dim::from(1), |n, dim| n * dim.clone());
    Ok(match count.known() {
        Some(count) => gradient * (1.0 / count as f64),
        None => {
            let count = gradient.builder.size(&count)?;
            gradient / count.cast(gradient.dtype())
        }
    })
}

fn stash_type(cx: &GradCx<'_>) -> DType {
    let number = i32::try_from(cx.int_or("stash_type", 1)).ok();
    number.and_then(DType::from_number).unwrap_or(DType::F32)
}

/// The sizes with 1 from the axis on.
fn statistics(dims: &[Dim], axis: usize) -> Vec<Dim> {
    let ones = vec![Dim::from(1); dims.len() - axis];
    [&dims[..axis], &ones].concat()
}

/// `y = x · r · γ` over the axes from `axis` on, with `r = 1 / √(mean x² + ε)`:
/// `dx = r · (g - x̂ · mean(g · x̂))`, `dγ = Σ dy · x̂`. `r` is a result of the node where the
/// operator has one; where it is read, `dx` has `-dr · r² · x̂ / n`, too.
pub fn rms(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let dims = x.dims()?;
    let axis = cx.axis(-1, dims.len())?;
    let axes: Vec<usize> = (axis..dims.len()).collect();
    let kind = stash_type(cx);
    let r = match &*cx.node.op.op_type {
        "SimplifiedLayerNormalization" => cx.saved(1, kind, statistics(&dims, axis))?,
        _ => {
            let epsilon = cx.float_or("epsilon", f64::from(1e-5_f32));
            let wide = if x.dtype() == DType::F64 {
                x
            } else {
                x.cast(kind)
            };
            (wide.square().mean_keeping(&axes) + epsilon)
                .sqrt()
                .reciprocal()
        }
    };
    let kind = r.dtype();
    let normal = x.cast(kind) * r;
    let dy = dy.cast(kind);
    let dr = cx.dy_of(1)?;
    cx.try_give(0, || {
        let g = dy * scale.cast(kind);
        let spread = normal * (g * normal).mean_keeping(&axes);
        let mut dx = (g - spread) * r;
        if let Some(dr) = dr {
            dx = dx - shared(dr * r.square(), &dims[axis..])? * normal;
        }
        Ok(dx.cast(x.dtype()))
    })?;
    cx.give(1, || (dy * normal).cast(x.dtype()));
    Ok(())
}

/// Mean and `1 / √(var + ε)` over some axes, computed again.
fn moments<'b>(x: Expr<'b>, axes: &[usize], epsilon: f64) -> (Expr<'b>, Expr<'b>) {
    let mean = x.mean_keeping(axes);
    let variance = (x - mean).square().mean_keeping(axes);
    (mean, (variance + epsilon).sqrt().reciprocal())
}

/// A vector of channels, shaped to go with `[n, c, …]`.
fn by_channel(vector: Expr<'_>, rank: usize) -> Expr<'_> {
    let behind: Vec<usize> = (1..rank.saturating_sub(1)).collect();
    vector.unsqueeze(&behind)
}

/// The sum over everything but the channels.
fn channel_sum(value: Expr<'_>, rank: usize) -> Expr<'_> {
    let others: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
    value.sum_dropping(&others)
}

/// As [`layer`], over all axes behind the second, with `γ` and `β` by channel.
pub fn instance(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let rank = x.rank()?;
    let axes: Vec<usize> = (2..rank).collect();
    let epsilon = cx.float_or("epsilon", f64::from(1e-5_f32));
    let (mean, inv) = moments(x, &axes, epsilon);
    let normal = (x - mean) * inv;
    cx.give(0, || {
        centred(dy * by_channel(scale, rank), normal, inv, &axes)
    });
    cx.give(1, || channel_sum(dy * normal, rank));
    cx.give(2, || channel_sum(dy, rank));
    Ok(())
}

/// As [`layer`], over groups of channels: `x` counts as `[n, groups, …]`. `γ` and `β` are by
/// channel; before opset 21 by group.
pub fn group(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let dims = x.dims()?;
    let groups = Dim::from(cx.int_or("num_groups", 1));
    if dims.len() < 2 || groups.known() <= Some(0) {
        return refuse!("it has no groups of channels");
    }
    let rest = dims[1..]
        .iter()
        .fold(Dim::from(1), |n, dim| n * dim.clone());
    let apart = [dims[0].clone(), groups.clone(), rest.floor_div(&groups)];
    let epsilon = cx.float_or("epsilon", f64::from(1e-5_f32));
    let rows = x.reshape(&apart)?;
    let (mean, inv) = moments(rows, &[2], epsilon);
    let normal = (rows - mean) * inv;
    if cx.opset < 21 {
        let dy = dy.reshape(&apart)?;
        cx.try_give(0, || {
            centred(dy * by_channel(scale, 3), normal, inv, &[2]).reshape(&dims)
        })?;
        cx.give(1, || channel_sum(dy * normal, 3));
        cx.give(2, || channel_sum(dy, 3));
        return Ok(());
    }
    let rank = dims.len();
    cx.try_give(0, || {
        let g = (dy * by_channel(scale, rank)).reshape(&apart)?;
        centred(g, normal, inv, &[2]).reshape(&dims)
    })?;
    cx.try_give(1, || Ok(channel_sum(dy * normal.reshape(&dims)?, rank)))?;
    cx.give(2, || channel_sum(dy, rank));
    Ok(())
}

/// `y = (x - mean) · inv · γ + β` with running statistics, `inv = 1 / √(var + ε)`:
/// `dx = dy · γ · inv`, `dγ = Σ dy · (x - mean) · inv`, `dβ = Σ dy`, `dmean = -Σ dy · γ · inv`,
/// `dvar = -½ Σ dy · γ · (x - mean) · inv³`.
pub fn batch(cx: &mut GradCx<'_>) -> GradOutcome {
    if cx.flag("training_mode") || (cx.opset < 14 && cx.result_count() > 1) {
        return refuse!("it is in training mode, where its statistics depend on the batch");
    }
    let (x, scale, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (mean, variance) = (cx.x(3)?, cx.x(4)?);
    let rank = x.rank()?;
    let epsilon = cx.float_or("epsilon", f64::from(1e-5_f32));
    let inv = by_channel((variance + epsilon).sqrt().reciprocal(), rank);
    let factor = by_channel(scale, rank) * inv;
    let off = x - by_channel(mean, rank);
    cx.give(0, || dy * factor);
    cx.give(1, || channel_sum(dy * off * inv, rank));
    cx.give(2, || channel_sum(dy, rank));
    cx.give(3, || -channel_sum(dy * factor, rank));
    cx.give(4, || {
        channel_sum(dy * off * factor * inv.square(), rank) * -0.5
    });
    Ok(())
}

/// `y = x / n` along an axis. With `p = 2`, `n = √(Σ x²)`: `dx = (dy - y · Σ dy · y) / n`. With
/// `p = 1`, `n = Σ |x|`: `dx = (dy - sign x · Σ dy · y) / n`.
pub fn lp(cx: &mut GradCx<'_>) -> GradOutcome {
    let axis = cx.axis(-1, cx.rank(0)?)?;
    let p = cx.int_or("p", 2);
    if !(1..=2).contains(&p) {
        return refuse!("its norm is of order {p}");
    }
    cx.only(|x, y, dy| {
        let inner = (dy * y).sum_keeping(&[axis]);
        match p {
            1 => {
                let n = x.reduce_keeping("ReduceL1", &[axis]);
                (dy - x.apply("Sign") * inner) / n
            }
            _ => {
                let n = x.reduce_keeping("ReduceL2", &[axis]);
                (dy - y * inner) / n
            }
        }
    })
}

/// `y = (x - mean x) / √(var x)`: `dx = (dy - mean dy - y · mean(dy · y)) / √(var x)`.
pub fn mean_variance(cx: &mut GradCx<'_>) -> GradOutcome {
    let rank = cx.rank(0)?;
    let axes: Vec<usize> = match cx.node.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|axis| super::axis(*axis, rank))
            .collect::<Result<_, Refusal>>()?,
        None => vec![0, 2, 3],
    };
    cx.only(|x, y, dy| {
        let (_, inv) = moments(x, &axes, 0.0);
        centred(dy, y, inv, &axes)
    })
}
