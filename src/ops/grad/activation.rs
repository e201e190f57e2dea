//! Activations, softmax and dropout.

use super::{GradCx, GradOutcome};
use crate::ops::build::{Expr, Refusal, refuse};
use crate::ty::DType;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, PI};

/// `y = max(x, 0)`: `dx = dy` where `y > 0`, 0 elsewhere.
pub fn relu(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| y.number(0.0).is_less(y).keep(dy))
}

/// `y = σ(x)`: `dx = dy · y · (1 - y)`.
pub fn sigmoid(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| dy * (y * (1.0 - y)))
}

/// `y = tanh x`: `dx = dy · (1 - y²)`.
pub fn tanh(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|_, y, dy| dy * (1.0 - y.square()))
}

/// `y = log(1 + exp x)`: `dx = dy · σ(x)`.
pub fn softplus(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy * x.sigmoid())
}

/// `y = x / (1 + |x|)`: `dx = dy / (1 + |x|)²`.
pub fn softsign(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| dy / (x.apply("Abs") + 1.0).square())
}

/// `y = x · Φ(x)` with the normal distribution `Φ(x) = ½ (1 + erf(x / √2))`:
/// `dx = dy · (Φ(x) + x · exp(-x² / 2) / √(2 π))`.
/// Approximated with `Φ(x) = ½ (1 + tanh(√(2/π) (x + 0.044715 x³)))`, which is `σ(w)` with
/// `w = 2 √(2/π) (x + 0.044715 x³)`: `dx = dy · (Φ + x · Φ · (1 - Φ) · w')`.
pub fn gelu(cx: &mut GradCx<'_>) -> GradOutcome {
    if cx.node.string("approximate") == Some("tanh") {
        return cx.elementwise(|x, _, dy| dy * gelu_tanh(x).1);
    }
    cx.elementwise(|x, _, dy| dy * gelu_parts(x).1)
}

/// `Φ(x)` and the slope.
pub(super) fn gelu_parts(x: Expr<'_>) -> (Expr<'_>, Expr<'_>) {
    let below = (x * FRAC_1_SQRT_2).apply("Erf") * 0.5 + 0.5;
    let density = (x.square() * -0.5).exp() * (2.0 * PI).sqrt().recip();
    (below, below + x * density)
}

pub(super) const GELU_CUBIC: f64 = 0.044715;

/// The approximation and its slope.
pub(super) fn gelu_tanh(x: Expr<'_>) -> (Expr<'_>, Expr<'_>) {
    let twice = 2.0 * FRAC_2_PI.sqrt();
    let square = x.square();
    let below = (x * (square * (twice * GELU_CUBIC) + twice)).sigmoid();
    let value = x * below;
    let inner = square * (3.0 * twice * GELU_CUBIC) + twice;
    (value, below + value * (1.0 - below) * inner)
}

/// `y = x · t`, `t = tanh(log(1 + exp x))`: `dx = dy · (t + x · (1 - t²) · σ(x))`.
pub fn mish(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| {
        let t = x.apply("Softplus").tanh();
        dy * (t + x * (1.0 - t.square()) * x.sigmoid())
    })
}

/// `y = x · s`, `s = σ(α x)`: `dx = dy · (s + α · y · (1 - s))`. ONNX Runtime's `QuickGelu` has
/// another default for `α`.
pub fn swish(cx: &mut GradCx<'_>) -> GradOutcome {
    let default = if cx.node.op.is("Swish") { 1.0 } else { 1.702 };
    let alpha = cx.float_or("alpha", default);
    cx.elementwise(|x, y, dy| {
        let s = (x * alpha).sigmoid();
        dy * (s + y * alpha * (1.0 - s))
    })
}

/// `y = g · s · u`, `s = σ(α g)`: `dg = dy · u · s · (1 + α · g · (1 - s))`, `du = dy · g · s`.
pub fn swiglu(cx: &mut GradCx<'_>) -> GradOutcome {
    let alpha = cx.float_or("alpha", 1.0);
    let (gate, up, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let s = (gate * alpha).sigmoid();
    cx.give(0, || dy * up * s * (gate * alpha * (1.0 - s) + 1.0));
    cx.give(1, || dy * (gate * s));
    Ok(())
}

/// `y = x · min(max(x / 6 + ½, 0), 1)`: `dx = dy · (x / 3 + ½)` where `|x| < 3`, `dy` above, 0 below.
pub fn hard_swish(cx: &mut GradCx<'_>) -> GradOutcome {
    cx.elementwise(|x, _, dy| {
        let inside = x.apply("Abs").is_less(x.number(3.0));
        let above = x.number(0.0).is_less(x).cast(x.dtype());
        dy * inside.choose(x * (1.0 / 3.0) + 0.5, above)
    })
}

/// `y = min(max(α x + β, 0), 1)`: `dx = α · dy` where `0 < y < 1`, 0 elsewhere.
pub fn hard_sigmoid(cx: &mut GradCx<'_>) -> GradOutcome {
    let alpha = cx.float_or("alpha", 0.2);
    cx.elementwise(|_, y, dy| {
        let inside = y.number(0.0).is_less(y).and(y.is_less(y.number(1.0)));
        inside.keep(dy * alpha)
    })
}

/// `dx = dy · above` where `x > 0`, `dy · below` elsewhere.
fn two_sided<'b>(
    cx: &mut GradCx<'b>,
    above: f64,
    below: impl FnOnce(Expr<'b>, Expr<'b>) -> Expr<'b>,
) -> GradOutcome {
    cx.elementwise(|x, y, dy| {
        let positive = x.number(0.0).is_less(x);
        positive.choose(dy * above, dy * below(x, y))
    })
}

/// `y = x` where `x > 0`, `α (exp x - 1)` elsewhere: `dx = dy` or `dy · (y + α)`.
pub fn elu(cx: &mut GradCx<'_>) -> GradOutcome {
    let alpha = cx.float_or("alpha", 1.0);
    two_sided(cx, 1.0, |_, y| y + alpha)
}

/// `y = γ x` where `x > 0`, `γ α (exp x - 1)` elsewhere: `dx = γ · dy` or `dy · (y + γ α)`.
pub fn selu(cx: &mut GradCx<'_>) -> GradOutcome {
    let alpha = cx.float_or("alpha", f64::from(1.673_263_2_f32));
    let gamma = cx.float_or("gamma", f64::from(1.050_701_f32));
    two_sided(cx, gamma, |_, y| y + gamma * alpha)
}

/// `y = x` where `x > 0`, `α (exp(x / α) - 1)` elsewhere: `dx = dy` or `dy · (y / α + 1)`.
pub fn celu(cx: &mut GradCx<'_>) -> GradOutcome {
    let alpha = cx.float_or("alpha", 1.0);
    two_sided(cx, 1.0, |_, y| y / alpha + 1.0)
}

/// `y = x` where `x > 0`, `α x` elsewhere: `dx = dy` or `α · dy`.
pub fn leaky_relu(cx: &mut GradCx<'_>) -> GradOutcome {
    let alpha = cx.float_or("alpha", 0.01);
    two_sided(cx, 1.0, |x, _| x.number(alpha))
}

/// `y = x` where `x > α`, 0 elsewhere: `dx = dy` or 0.
pub fn thresholded_relu(cx: &mut GradCx<'_>) -> GradOutcome {
    let alpha = cx.float_or("alpha", 1.0);
    cx.elementwise(|x, _, dy| x.number(alpha).is_less(x).keep(dy))
}

/// `y = x ∓ β` where `|x| > λ`, 0 elsewhere: `dx = dy` or 0.
pub fn shrink(cx: &mut GradCx<'_>) -> GradOutcome {
    let lambda = cx.float_or("lambd", 0.5);
    cx.elementwise(|x, _, dy| x.number(lambda).is_less(x.apply("Abs")).keep(dy))
}

/// `y = min(max(x, low), high)`: `dx = dy` where `y = x`, `dlow = Σ dy` where `x < y = low`,
/// `dhigh = Σ dy` elsewhere: where `x > high`, and everywhere where `low > high`.
pub fn clip(cx: &mut GradCx<'_>) -> GradOutcome {
    let (x, y, dy) = (cx.x(0)?, cx.y(0)?, cx.dy()?);
    let low = cx.maybe_x(1);
    let is_low = || match low {
        Some(low) => x.is_less(y).and(y.is_equal(low)),
        None => x.is_less(y),
    };
    cx.give(0, || x.is_equal(y).keep(dy));
    cx.give(1, || is_low().keep(dy));
    cx.give(2, || match low {
        Some(_) => x.is_equal(y).not().and(is_low().not()).keep(dy),
        None => y.is_less(x).keep(dy),
    });
    Ok(())
}

/// The axes over which a softmax sums: from opset 13 on one, before it and all behind it.
fn summed(cx: &GradCx<'_>) -> Result<Vec<usize>, Refusal> {
    let rank = cx.rank(0)?;
    if cx.opset < 13 {
        return Ok((cx.axis(1, rank)?..rank).collect());
    }
    Ok(vec![cx.axis(-1, rank)?])
}

/// `y = softmax x`: `dx = y · (dy - Σ dy · y)`.
pub fn softmax(cx: &mut GradCx<'_>) -> GradOutcome {
    let axes = summed(cx)?;
    super::softmax::softmax(cx, &axes)
}

/// `y = log softmax x`: `dx = dy - exp(y) · Σ dy`.
pub fn log_softmax(cx: &mut GradCx<'_>) -> GradOutcome {
    let axes = summed(cx)?;
    cx.only(|_, y, dy| dy - y.exp() * dy.sum_keeping(&axes))
}

/// `y = x` where the model is run as it is. In training mode `y = x · mask / (1 - ratio)`:
/// `dx = dy · mask / (1 - ratio)`.
pub fn dropout(cx: &mut GradCx<'_>) -> GradOutcome {
    let dy = cx.dy()?;
    if cx.opset < 12 || cx.maybe_x(2).is_none() {
        cx.give(0, || dy);
        return Ok(());
    }
    match cx.float_operand(2) {
        Some(0.0) => {
            cx.give(0, || dy);
            return Ok(());
        }
        Some(_) => {}
        None => return refuse!("whether it is in training mode is not a constant"),
    }
    let dims = cx.dims(0)?;
    let mask = cx.saved(1, DType::Bool, dims)?;
    let scaled = match (cx.maybe_x(1), cx.float_operand(1)) {
        (None, _) => dy * 2.0,
        (Some(_), Some(ratio)) if ratio < 1.0 => dy * (1.0 - ratio).recip(),
        (Some(ratio), _) => dy / (1.0 - ratio).cast(dy.dtype()),
    };
    cx.give(0, || mask.keep(scaled));
    Ok(())
}
