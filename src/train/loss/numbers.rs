//! Numbers, each of its own.

use super::{ByClass, Loss, Want, all, element_count};
use crate::ops::{Expr, Refusal};
use crate::train::task::is_column;
use crate::ty::DType;

/// mean(max(x, 0) − x y + log(1 + e^−|x|)), PyTorch's `binary_cross_entropy_with_logits`.
///
/// Derivative: (σ(x) − y) / n.
pub(super) fn multi_label<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
    want: Want,
) -> Result<Loss<'b>, Refusal> {
    let x = output.cast(DType::F32);
    let count = element_count(x)?;
    let softened = (-x.apply("Abs")).exp() + 1.0;
    let each = x.apply2("Max", x.number(0.0)) - x * labels + softened.log();
    let value = all(each)? / count;
    let measured = match want {
        Want::Gradient => None,
        Want::Correct => {
            let said = x.number(0.0).is_less(x);
            let meant = labels.number(0.5).is_less(labels);
            let misses = said.is_equal(meant).not().cast(DType::F32);
            let of_rows = misses.sum_dropping(&[1]);
            let exact = of_rows.is_equal(of_rows.number(0.0)).cast(DType::F32);
            let sum = |truths: Expr<'b>| truths.cast(DType::F32).sum_dropping(&[0]);
            let by_class = ByClass {
                hits: sum(said.and(meant)),
                said: sum(said),
                meant: sum(meant),
            };
            Some((count - all(misses)?, exact.sum_dropping(&[0]), by_class))
        }
    };
    let gradient = (want == Want::Gradient).then(|| (x.sigmoid() - labels) / count);
    Ok(Loss {
        value,
        count,
        correct: measured.map(|(correct, ..)| correct),
        exact: measured.map(|(_, exact, _)| exact),
        hits: None,
        by_class: measured.map(|(.., by_class)| by_class),
        gradient,
    })
}

/// mean((x − y)²), PyTorch's `mse_loss`.
///
/// Derivative: 2 (x − y) / n.
pub(super) fn squared_error<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
    want: Want,
) -> Result<Loss<'b>, Refusal> {
    let x = output.cast(DType::F32);
    let count = element_count(x)?;
    let dims = x.dims()?;
    // One number a row may come without the axis that the output has for it.
    let labels = match is_column(&dims) {
        true => labels.reshape(&dims)?,
        false => labels,
    };
    let error = x - labels;
    let value = all(error.square())? / count;
    let gradient = (want == Want::Gradient).then(|| error * 2.0 / count);
    Ok(Loss {
        value,
        count,
        correct: None,
        exact: None,
        hits: None,
        by_class: None,
        gradient,
    })
}
