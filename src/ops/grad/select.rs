//! Choices, searches and cumulative operators.

use super::{GradCx, GradOutcome};
use crate::graph::Attribute;
use crate::ops::build::refuse;

/// `y = c ? a : b`: `da = c ? dy : 0`, `db = c ? 0 : dy`.
pub fn choose(cx: &mut GradCx<'_>) -> GradOutcome {
    let (condition, dy) = (cx.x(0)?, cx.dy()?);
    cx.give(1, || condition.keep(dy));
    cx.give(2, || condition.choose(dy.number(0.0), dy));
    Ok(())
}

/// `y, i = topk(x)`: `dx = dy` at the places `i`, 0 elsewhere.
pub fn top_k(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, indices, dy) = (cx.x(0)?, cx.y(1)?, cx.dy()?);
    if cx.opset < 11 {
        return refuse!("writing to places needs opset 11");
    }
    let dims = x.dims()?;
    let axis = Attribute::int("axis", cx.axis(-1, dims.len())? as i64);
    let build = cx.build;
    cx.try_give(0, || {
        let zeros = build.zeros(x.dtype(), &dims)?;
        Ok(build.node("ScatterElements", &[zeros, indices, dy], vec![axis]))
    })
}

/// `y[i] = Σ x[j]` over `j ≤ i`: `dx[j] = Σ dy[i]` over `i ≥ j`, the sum from the other end.
pub fn cum_sum(cx: &mut GradCx<'_>) -> GradOutcome {
    let (axis, dy) = (cx.x(1)?, cx.dy()?);
    let attributes = vec![
        Attribute::int("exclusive", cx.int_or("exclusive", 0)),
        Attribute::int("reverse", i64::from(!cx.flag("reverse"))),
    ];
    let build = cx.build;
    cx.give(0, || build.node("CumSum", &[dy, axis], attributes));
    Ok(())
}
