//! Operators that leave the elements in order.

use super::{GradCx, GradOutcome};
use crate::ops::build::refuse;

/// `y = x`: `dx = dy`.
pub fn identity(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, _, dy| dy)
}

/// `y = x` as another float type: `dx = dy` as the operand's.
pub fn cast(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy.cast(x.dtype()))
}

/// `y = x` in another shape: `dx = dy` in the operand's.
pub fn reshape(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let dims = x.dims()?;
    cx.try_give(0, || dy.reshape(&dims))
}

/// `y = x` broadcast: `dx = Σ dy` over what was stretched, which the sweep sums.
pub fn expand(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    if x.rank()? > dy.rank()? {
        return refuse!("its result has fewer axes than its operand");
    }
    cx.give(0, || dy);
    Ok(())
}
