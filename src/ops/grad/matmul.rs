//! Matrix products.

use super::{GradCx, GradOutcome};
use crate::graph::Attribute;
use crate::ops::build::{Expr, Refusal};
use crate::ty::Dim;

/// `α op(A) op(B)` of matrices, where an operand may be transposed.
#[derive(Clone, Copy)]
struct Transposed<'b>(Expr<'b>, bool);

fn product<'b>(a: Transposed<'b>, b: Transposed<'b>, alpha: f64) -> Expr<'b> {
    let mut attributes = Vec::new();
    for (name, is_transposed) in [("transA", a.1), ("transB", b.1)] {
        if is_transposed {
            attributes.push(Attribute::int(name, 1));
        }
    }
    if attributes.is_empty() && alpha == 1.0 {
        return a.0.matmul(b.0);
    }
    if alpha != 1.0 {
        attributes.push(Attribute::float("alpha", alpha as f32));
    }
    a.0.builder.node("Gemm", &[a.0, b.0], attributes)
}

/// `Y = A B`: `dA = dY Bᵀ`, `dB = Aᵀ dY`. Where `B` is a matrix, everything before the last axis of
/// `A` counts as rows: both are products of matrices that read their operands as they are stored,
/// so that no weight is transposed.
pub fn matmul(cx: &mut GradCx<'_>) -> GradOutcome {
    let (a, b) = (cx.dims(0)?, cx.dims(1)?);
    match (a.len(), b.len()) {
        (1, _) | (_, 1) => with_vector(cx, &a, &b),
        (_, 2) => by_rows(cx, &a, &b),
        _ => batched(cx),
    }
}

fn by_rows(cx: &mut GradCx<'_>, a: &[Dim], b: &[Dim]) -> GradOutcome {
    let (left, right, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (k, n) = (&b[0], &b[1]);
    let rows = &a[..a.len() - 1];
    let dy = flat(dy, rows, n)?;
    cx.try_give(0, || {
        product(Transposed(dy, false), Transposed(right, true), 1.0).reshape(a)
    })?;
    cx.try_give(1, || {
        let left = flat(left, rows, k)?;
        Ok(product(Transposed(left, true), Transposed(dy, false), 1.0))
    })
}

/// As a matrix of so many columns.
fn flat<'b>(x: Expr<'b>, rows: &[Dim], columns: &Dim) -> Result<Expr<'b>, Refusal> {
    let count = rows
        .iter()
        .fold(Dim::from(1), |product, dim| product * dim.clone());
    x.reshape(&[count, columns.clone()])
}

fn batched(cx: &mut GradCx<'_>) -> GradOutcome {
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    cx.try_give(0, || Ok(dy.matmul(b.transpose_last()?)))?;
    cx.try_give(1, || Ok(a.transpose_last()?.matmul(dy)))
}

/// A vector counts as one row on the left and as one column on the right.
fn with_vector(cx: &mut GradCx<'_>, a: &[Dim], b: &[Dim]) -> GradOutcome {
    let (left, right, mut dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let rank = dy.rank()?;
    let (row, column) = (a.len() == 1, b.len() == 1);
    if column {
        dy = dy.unsqueeze(&[rank]);
    }
    if row {
        let at = dy.rank()? - 1;
        dy = dy.unsqueeze(&[at]);
    }
    let left = if row { left.unsqueeze(&[0]) } else { left };
    let right = if column { right.unsqueeze(&[1]) } else { right };
    cx.try_give(0, || {
        let gradient = dy.matmul(right.transpose_last()?);
        let at = gradient.rank()? - 2;
        Ok(if row {
            gradient.squeeze(&[at])
        } else {
            gradient
        })
    })?;
    cx.try_give(1, || {
        let gradient = left.transpose_last()?.matmul(dy);
        let at = gradient.rank()? - 1;
        Ok(if column {
            gradient.squeeze(&[at])
        } else {
            gradient
        })
    })
}

/// `Y = α op(A) op(B) + β C`: `d op(A) = α dY op(B)ᵀ`, `d op(B) = α op(A)ᵀ dY`, `dC = β dY`.
pub fn gemm(cx: &mut GradCx<'_>) -> GradOutcome {
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (alpha, beta) = (cx.float_or("alpha", 1.0), cx.float_or("beta", 1.0));
    let (ta, tb) = (cx.flag("transA"), cx.flag("transB"));
    cx.give(0, || match ta {
        false => product(Transposed(dy, false), Transposed(b, !tb), alpha),
        true => product(Transposed(b, tb), Transposed(dy, true), alpha),
    });
    cx.give(1, || match tb {
        false => product(Transposed(a, !ta), Transposed(dy, false), alpha),
        true => product(Transposed(dy, true), Transposed(a, ta), alpha),
    });
    cx.give(2, || dy * beta);
    Ok(())
}
