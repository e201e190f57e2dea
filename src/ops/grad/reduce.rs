//! Reductions. The gradient of a result is stretched over the reduced axes by the sweep.

use super::{GradCx, GradOutcome};
use crate::ops::build::{Expr, Refusal, refuse};
use crate::ops::shapes;
use crate::ty::Dim;

/// A reduction at a node.
struct Reduced<'b> {
    x: Expr<'b>,
    axes: Vec<usize>,
    dims: Vec<Dim>,
    drops: bool,
}

impl<'b> Reduced<'b> {
    fn read(cx: &GradCx<'b>) -> Result<Self, Refusal> {
        let dims = cx.dims(0)?;
        let list = match (cx.node.ints("axes"), cx.maybe_x(1)) {
            (Some(axes), _) => axes.to_vec(),
            (None, None) => Vec::new(),
            (None, Some(_)) => match cx.numbers(1) {
                Some(axes) => axes,
                None => return refuse!("its axes are not constants"),
            },
        };
        let axes = match list.is_empty() {
            true if cx.flag("noop_with_empty_axes") => Vec::new(),
            true => (0..dims.len()).collect(),
            false => shapes::axes(&list, dims.len()).map_err(|mismatch| Refusal(mismatch.0))?,
        };
        Ok(Reduced {
            x: cx.x(0)?,
            axes,
            dims,
            drops: cx.int_or("keepdims", 1) == 0,
        })
    }

    /// A result, or its gradient, with the reduced axes in place. A single number goes with any shape.
    fn kept(&self, value: Expr<'b>) -> Expr<'b> {
        if self.drops && self.axes.len() < self.dims.len() {
            value.unsqueeze(&self.axes)
        } else {
            value
        }
    }

    /// How many elements became one.
    fn count(&self) -> Dim {
        self.axes
            .iter()
            .fold(Dim::from(1), |n, axis| n * self.dims[*axis].clone())
    }
}

/// `dx = formula(x, y, dy)`, all with the operand's axes.
fn rule<'b>(
    cx: &mut GradCx<'b>,
    formula: impl FnOnce(&Reduced<'b>, Expr<'b>, Expr<'b>) -> Result<Expr<'b>, Refusal>,
) -> GradOutcome {
    let reduced = Reduced::read(cx)?;
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    cx.try_give(0, || {
        let dy = reduced.kept(dy);
        formula(&reduced, y, dy)
    })
}

/// `y = Σ x`: `dx = dy`.
pub fn sum(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |_, _, dy| Ok(dy))
}

/// `y = Σ x / n`: `dx = dy / n`.
pub fn mean(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, _, dy| {
        let count = reduced.count();
        match count.known() {
            Some(count) => Ok(dy * (1.0 / count as f64)),
            None => {
                let count = dy.builder.size(&count)?.cast(dy.dtype());
                Ok(dy / count)
            }
        }
    })
}

/// `y = max x` or `min x`: `dx = dy / ties` where `x = y`, 0 elsewhere, with `ties` the number of
/// elements that are equal to `y`.
pub fn extremum(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, y, dy| {
        let x = reduced.x;
        let hit = x.is_equal(reduced.kept(y)).cast(x.dtype());
        Ok(hit * (dy / hit.sum_keeping(&reduced.axes)))
    })
}

/// `y = Π x`: `dx = dy · y / x`, for elements other than 0.
pub fn prod(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, y, dy| Ok(dy * reduced.kept(y) / reduced.x))
}

/// `y = Σ |x|`: `dx = dy · sign x`.
pub fn l1(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, _, dy| Ok(dy * reduced.x.apply("Sign")))
}

/// `y = √(Σ x²)`: `dx = dy / y · x`.
pub fn l2(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, y, dy| Ok(dy / reduced.kept(y) * reduced.x))
}

/// `y = log(Σ x)`: `dx = dy / exp y`.
pub fn log_sum(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, y, dy| Ok(dy / reduced.kept(y).exp()))
}

/// `y = log(Σ exp x)`: `dx = dy · exp(x - y)`.
pub fn log_sum_exp(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, y, dy| {
        Ok(dy * (reduced.x - reduced.kept(y)).exp())
    })
}

/// `y = Σ x²`: `dx = 2 · dy · x`.
pub fn sum_square(cx: &mut GradCx<'_>) -> GradOutcome {
    rule(cx, |reduced, _, dy| Ok(dy * 2.0 * reduced.x))
}
