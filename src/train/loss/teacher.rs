//! What another model gives.

use super::classes::exact_rows;
use super::{Counted, Loss, Want, best, product};
use crate::graph::Attribute;
use crate::ops::{Expr, Refusal};
use crate::ty::{DType, Dim};

/// No logarithm of a share counts as less: 0 · log 0 is 0.
const LEAST: f64 = -1e30;

/// T² · mean Σ q (log q − log p) over the rows that count, with p = softmax(x / T) and
/// q = softmax(y / T); PyTorch's `kl_div` with `batchmean`, times T² (Hinton, Vinyals and Dean, arXiv
/// 1503.02531). A row of labels that starts with NaN does not count.
///
/// Derivative: T (p − q) / count.
pub(super) fn divergence<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
    temperature: f64,
    want: Want,
) -> Result<Loss<'b>, Refusal> {
    let dims = output.dims()?;
    let (classes, rows) = match dims.split_last() {
        Some((classes, rows)) => (classes.clone(), product(rows)),
        None => (Dim::from(1), Dim::from(1)),
    };
    let flat = [rows, classes];
    let x = output.cast(DType::F32).reshape(&flat)?;
    let y = labels.reshape(&flat)?;
    let unknown = y.apply("IsNaN");
    let counted = unknown.slice(1, 0, 1).not();
    let y = unknown.choose(y.number(0.0), y);
    let Counted {
        weight,
        count,
        share,
    } = Counted::of(counted, None);
    let log = |value: Expr<'b>| {
        let softened = value * (1.0 / temperature);
        softened.with("LogSoftmax", vec![Attribute::int("axis", 1)])
    };
    let (log_p, log_q) = (log(x), log(y));
    let q = log_q.exp();
    let apart = log_q.apply2("Max", log_q.number(LEAST)) - log_p;
    let each = (q * apart).sum_keeping(&[1]);
    let value = (each * share).sum_dropping(&[0, 1]) * (temperature * temperature);
    let (correct, exact) = match want {
        Want::Gradient => (None, None),
        Want::Correct => {
            let hits = best(x).is_equal(best(y)).cast(DType::F32) * weight;
            let exact = exact_rows(hits, weight, &dims)?;
            (Some(hits.sum_dropping(&[0, 1])), exact)
        }
    };
    let gradient = match want {
        Want::Correct => None,
        Want::Gradient => {
            let slope = (log_p.exp() - q) * (share * temperature);
            Some(slope.reshape(&dims)?)
        }
    };
    Ok(Loss {
        value,
        count,
        correct,
        exact,
        hits: None,
        by_class: None,
        gradient,
    })
}
