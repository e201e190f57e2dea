//! Fusions of ONNX Runtime that stay as they are: their gradient is written with their operands.

use super::activation::{gelu_parts, gelu_tanh};
use super::{GradCx, GradOutcome};
use crate::ops::build::{Expr, refuse};

/// `y = x + b + residual`: `dx = db = dresidual = dy`.
pub fn sum(cx: &mut GradCx<'_>) -> GradOutcome {
    super::elementwise::sum(cx)
}

/// `y = dropout(x + b) + residual`, where the model is run as it is: the gradient of a sum.
pub fn bias_dropout(cx: &mut GradCx<'_>) -> GradOutcome {
    if cx.maybe_x(4).is_some() && cx.float_operand(4) != Some(0.0) {
        return refuse!("it may be in training mode");
    }
    let dy = cx.dy()?;
    (0..3).for_each(|slot| cx.give(slot, || dy));
    Ok(())
}

/// `y = f(x + b)`: `dx = db = dy · f'(x + b)`.
fn biased<'b>(cx: &mut GradCx<'b>, slope: impl FnOnce(Expr<'b>) -> Expr<'b>) -> GradOutcome {
    let (mut x, dy) = (cx.x(0)?, cx.dy()?);
    if let Some(bias) = cx.maybe_x(1) {
        x = x + bias;
    }
    let gradient = dy * slope(x);
    cx.give(0, || gradient);
    cx.give(1, || gradient);
    Ok(())
}

/// `y = gelu(x + b)`: `dx = db = dy · gelu'(x + b)`.
pub fn bias_gelu(cx: &mut GradCx<'_>) -> GradOutcome {
    biased(cx, |x| gelu_parts(x).1)
}

/// `y = gelu(x + b)` by its approximation with `tanh`: `dx = db = dy · gelu'(x + b)`.
pub fn fast_gelu(cx: &mut GradCx<'_>) -> GradOutcome {
    biased(cx, |x| gelu_tanh(x).1)
}

/// `y = softmax(x + b)` over the axes from `axis` on: `dx = db = y · (dy - Σ dy · y)`.
pub fn bias_softmax(cx: &mut GradCx<'_>) -> GradOutcome {
    let (y, dy) = (cx.y(0)?, cx.dy()?);
    let rank = y.rank()?;
    let axes: Vec<usize> = (cx.axis(1, rank)?..rank).collect();
    let weighted = dy * y;
    let gradient = weighted - y * weighted.sum_keeping(&axes);
    cx.give(0, || gradient);
    cx.give(1, || gradient);
    Ok(())
}

/// A rotation of pairs by the angles of their positions: `dx` is `dy` rotated back, which is the
/// same with `-sin`.
pub fn rotary(cx: &mut GradCx<'_>) -> GradOutcome {
    let (build, node, dy) = (cx.build, cx.node, cx.dy()?);
    // ONNX has the positions behind the tables, ONNX Runtime before them.
    let (cos, sin) = match &*node.op.domain {
        "" => (1, 2),
        _ => (2, 3),
    };
    if cx.needs(cos) || cx.needs(sin) {
        return refuse!("its tables of angles would be trained");
    }
    let mut operands = Vec::new();
    for slot in 0..cx.operand_count() {
        operands.push(match cx.maybe_x(slot) {
            _ if slot == 0 => Some(dy.operand),
            Some(table) if slot == sin => Some((-table).operand),
            other => other.map(|x| x.operand),
        });
    }
    let attributes = node.attributes.clone();
    cx.give(0, || {
        build.nodes(&node.op.domain, &node.op.op_type, operands, attributes, 1)[0]
    });
    Ok(())
}
