//! Arithmetic and elementary functions. Broadcasting is undone by the sweep.

use super::{GradCx, GradOutcome, chain};
use crate::ops::build::refuse;

/// `y = a + b`: `da = dy`, `db = dy`.
pub fn add(cx: &mut GradCx<'_>) -> GradOutcome {
    sum(cx)
}

/// `y = a - b`: `da = dy`, `db = -dy`.
pub fn sub(cx: &mut GradCx<'_>) -> GradOutcome {
    let dy = cx.dy()?;
    cx.give(0, || dy);
    cx.give(1, || -dy);
    Ok(())
}

/// `y = a · b`: `da = dy · b`, `db = dy · a`.
/// Where a chain computes an activation, in `y` or in a factor, it has the gradient of that.
pub fn mul(cx: &mut GradCx<'_>) -> GradOutcome {
    if chain::activation(cx)? || chain::gated(cx)? {
        return Ok(());
    }
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.thin_dy()?);
    cx.give(0, || dy * b);
    cx.give(1, || dy * a);
    Ok(())
}

/// `y = a / b`: `da = dy / b`, `db = -dy · y / b`.
pub fn div(cx: &mut GradCx<'_>) -> GradOutcome {
    let (b, y, dy) = (cx.x(1)?, cx.y(0)?, cx.thin_dy()?);
    cx.give(0, || dy / b);
    cx.give(1, || -(dy * y / b));
    Ok(())
}

/// `y = a - round(a / b) · b`, whichever way it rounds: `da = dy`, `db = dy · (y - a) / b`.
pub fn modulo(cx: &mut GradCx<'_>) -> GradOutcome {
    let (a, b, y, dy) = (cx.x(0)?, cx.x(1)?, cx.y(0)?, cx.dy()?);
    cx.give(0, || dy);
    cx.give(1, || dy * (y - a) / b);
    Ok(())
}

/// `y = a^b`: `da = dy · b · a^(b - 1)`, `db = dy · y · log a`; for `b = 2`, `da = 2 · dy · a`.
pub fn pow(cx: &mut GradCx<'_>) -> GradOutcome {
    let (a, b, y, dy) = (cx.x(0)?, cx.x(1)?, cx.y(0)?, cx.thin_dy()?);
    let exponent = cx.float_operand(1);
    cx.give(0, || match exponent {
        Some(2.0) => dy * 2.0 * a,
        Some(3.0) => dy * 3.0 * a.square(),
        Some(0.5) => dy * 0.5 / y,
        Some(0.0) => dy * 0.0,
        Some(number) => dy * number * a.pow(a.number(number - 1.0)),
        None => {
            // The exponent may be of another type.
            let factor = b.cast(a.dtype());
            dy * a.pow(factor - 1.0) * factor
        }
    });
    cx.give(1, || (dy * y * a.log()).cast(b.dtype()));
    Ok(())
}

/// `y = x0 + x1 + …`: `dxi = dy`.
pub fn sum(cx: &mut GradCx<'_>) -> GradOutcome {
    let dy = cx.dy()?;
    for slot in 0..cx.operand_count() {
        cx.give(slot, || dy);
    }
    Ok(())
}

/// `y = (x0 + x1 + … ) / n`: `dxi = dy / n`.
pub fn mean(cx: &mut GradCx<'_>) -> GradOutcome {
    let share = cx.dy()? * (1.0 / cx.operand_count() as f64);
    for slot in 0..cx.operand_count() {
        cx.give(slot, || share);
    }
    Ok(())
}

/// `y = max(x0, x1, …)` or `min`: `dxi = dy / ties` where `xi = y`, 0 elsewhere, with `ties` the
/// number of operands that are equal to `y`.
pub fn extremum(cx: &mut GradCx<'_>) -> GradOutcome {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let mut hits = Vec::new();
    for slot in 0..cx.operand_count() {
        hits.push(cx.x(slot)?.is_equal(y).cast(y.dtype()));
    }
    let Some(ties) = hits.iter().copied().reduce(|ties, hit| ties + hit) else {
        return refuse!("it has no operands");
    };
    let share = match hits.len() {
        1 => dy,
        _ => dy / ties,
    };
    for (slot, hit) in hits.into_iter().enumerate() {
        cx.give(slot, || share * hit);
    }
    Ok(())
}

/// `y = x` where `x ≥ 0`, `s · x` elsewhere: `dx = dy` or `dy · s`, `ds = 0` or `dy · x`.
pub fn prelu(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, slope, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let negative = x.is_less(x.number(0.0));
    cx.give(0, || negative.choose(dy * slope, dy));
    cx.give(1, || negative.keep(dy * x));
    Ok(())
}

/// `y = -x`: `dx = -dy`.
pub fn neg(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, _, dy| -dy)
}

/// `y = |x|`: `dx = dy · sign x`.
pub fn abs(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy * x.apply("Sign"))
}

/// `y = √x`: `dx = dy / (2 y)`.
pub fn sqrt(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| dy * 0.5 / y)
}

/// `y = 1 / x`: `dx = -dy · y²`.
pub fn reciprocal(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| -(dy * y.square()))
}

/// `y = exp x`: `dx = dy · y`.
pub fn exp(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| dy * y)
}

/// `y = log x`: `dx = dy / x`.
pub fn log(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy / x)
}

/// `y = erf x`: `dx = dy · 2/√π · exp(-x²)`.
pub fn erf(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy * std::f64::consts::FRAC_2_SQRT_PI * (-x.square()).exp())
}

/// `y = sin x`: `dx = dy · cos x`.
pub fn sin(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy * x.apply("Cos"))
}

/// `y = cos x`: `dx = -dy · sin x`.
pub fn cos(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| -(dy * x.apply("Sin")))
}

/// `y = tan x`: `dx = dy · (1 + y²)`.
pub fn tan(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| dy * (y.square() + 1.0))
}

/// `y = arcsin x`: `dx = dy / √(1 - x²)`.
pub fn asin(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy / (1.0 - x.square()).sqrt())
}

/// `y = arccos x`: `dx = -dy / √(1 - x²)`.
pub fn acos(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| -(dy / (1.0 - x.square()).sqrt()))
}

/// `y = arctan x`: `dx = dy / (1 + x²)`.
pub fn atan(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy / (x.square() + 1.0))
}

/// `y = sinh x`: `dx = dy · cosh x`, which is `√(1 + y²)`.
pub fn sinh(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| dy * (y.square() + 1.0).sqrt())
}

/// `y = cosh x`: `dx = dy · sinh x`, written as `(exp x - exp(-x)) / 2`.
pub fn cosh(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy * 0.5 * (x.exp() - (-x).exp()))
}

/// `y = arsinh x`: `dx = dy / √(x² + 1)`.
pub fn asinh(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy / (x.square() + 1.0).sqrt())
}

/// `y = arcosh x`: `dx = dy / √(x² - 1)`.
pub fn acosh(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy / (x.square() - 1.0).sqrt())
}

/// `y = artanh x`: `dx = dy / (1 - x²)`.
pub fn atanh(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy / (1.0 - x.square()))
}
