//! Losses with their gradients by the model's output.
//!
//! A loss comes with its own derivative instead of leaving it to the reverse walk: that of
//! cross-entropy then takes one tensor of the size of the logits, where the rules of its operators
//! would take four.

mod classes;
mod numbers;
mod pairs;
mod teacher;

use super::Task;
use crate::graph::Attribute;
use crate::ops::{Expr, Refusal};
use crate::ty::{DType, Dim};
use classes::by_class;
pub(super) use classes::{cross_entropy, exact_rows, filled, next};
use numbers::{multi_label, squared_error};
use pairs::{contrast, cosine};
use teacher::divergence;

/// Labels with this value count for nothing (PyTorch's `ignore_index`).
pub const IGNORED: i64 = -100;

/// A loss in the graph.
pub(super) struct Loss<'b> {
    /// The mean over what counts, `f32[]`.
    pub value: Expr<'b>,
    /// How much counts: labels that are not ignored, or elements; `f32[]`.
    pub count: Expr<'b>,
    /// How many of these the model gets right; `f32[]`, where that makes sense.
    pub correct: Option<Expr<'b>>,
    /// In how many rows it gets every label that counts right, of those with one; `f32[]`, where a
    /// row has several labels.
    pub exact: Option<Expr<'b>>,
    /// Which rows count and are right: 1 or 0, `f32[R, 1]`; where labels are classes.
    pub hits: Option<Expr<'b>>,
    /// The same class by class, where there are a known number of them.
    pub by_class: Option<ByClass<'b>>,
    /// The derivative of `value` by the output, in 32 bits and in the output's shape.
    pub gradient: Option<Expr<'b>>,
}

/// Counts of labels by class, `f32[C]` each.
#[derive(Clone, Copy)]
pub(super) struct ByClass<'b> {
    /// Of the class, and the model says so.
    pub hits: Expr<'b>,
    /// The model says so.
    pub said: Expr<'b>,
    /// Of the class.
    pub meant: Expr<'b>,
}

/// What of a loss is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Gradient,
    Correct,
}

/// Emits the loss of an output against labels.
pub(super) fn loss<'b>(
    task: Task,
    output: Expr<'b>,
    labels: Expr<'b>,
    want: Want,
) -> Result<Loss<'b>, Refusal> {
    match task {
        Task::CausalLm { label_smoothing } => {
            cross_entropy(output, next(labels)?, label_smoothing, want, None)
        }
        Task::Seq2Seq { label_smoothing } => {
            cross_entropy(output, labels, label_smoothing, want, None)
        }
        Task::Classification { label_smoothing }
        | Task::TokenClassification { label_smoothing } => Ok(Loss {
            by_class: match want {
                Want::Gradient => None,
                Want::Correct => by_class(output, labels)?,
            },
            ..cross_entropy(output, labels, label_smoothing, want, None)?
        }),
        Task::MultiLabel => multi_label(output, labels, want),
        Task::Regression => squared_error(output, labels, want),
        Task::Contrastive { temperature } => contrast(output, labels, temperature, want),
        Task::Cosine => cosine(output, labels, want),
        Task::Distillation { temperature } => divergence(output, labels, temperature, want),
    }
}

/// The product of sizes.
pub(super) fn product(dims: &[Dim]) -> Dim {
    let dims = dims.iter().cloned();
    dims.fold(Dim::from(1), |product, dim| product * dim)
}

/// Rows that count in a mean.
struct Counted<'b> {
    /// 1 for a row that counts, 0 for one that does not, `f32[R, 1]`.
    weight: Expr<'b>,
    /// How many count, `f32[]`.
    count: Expr<'b>,
    /// What a row adds to a mean of those that count.
    share: Expr<'b>,
}

impl<'b> Counted<'b> {
    /// Of a boolean for every row, `[R, 1]`. `share` is what a row that counts adds to the mean, `f32[]`, where
    /// there are others besides these.
    fn of(rows: Expr<'b>, share: Option<Expr<'b>>) -> Counted<'b> {
        let weight = rows.cast(DType::F32);
        let count = weight.sum_dropping(&[0, 1]);
        let share = match share {
            Some(share) => weight * share,
            // No row at all gives a loss of 0, not a division by 0.
            None => weight / count.apply2("Max", count.number(1.0)),
        };
        Counted {
            weight,
            count,
            share,
        }
    }
}

/// The likeliest class of every row, `i64[R, 1]`.
fn best(rows: Expr<'_>) -> Expr<'_> {
    let attributes = vec![Attribute::int("axis", 1), Attribute::int("keepdims", 1)];
    rows.with("ArgMax", attributes)
}

fn all(value: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let axes: Vec<usize> = (0..value.rank()?).collect();
    Ok(value.sum_dropping(&axes))
}

fn element_count(value: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let sizes = value.builder.sizes(&[product(&value.dims()?)])?;
    sizes.cast(DType::F32).reshape(&[])
}
