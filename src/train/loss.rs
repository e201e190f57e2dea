//! Losses with their gradients by the model's output.
//!
//! A loss comes with its own derivative instead of leaving it to the reverse walk: that of
//! cross-entropy then takes one tensor of the size of the logits, where the rules of its operators
//! would take four.

use crate::graph::Attribute;
use crate::ops::{Builder, Expr, Refusal};
use crate::ty::{DType, Dim};

/// Labels with this value count for nothing (PyTorch's `ignore_index`).
pub const IGNORED: i64 = -100;

/// What the model's first output is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Task {
    /// Next-token cross-entropy: logits `[B, S, V]`, labels `i64[B, S]` as in Hugging Face (the
    /// label of a position is its own token; the shift happens here).
    CausalLm { label_smoothing: f64 },
    /// Cross-entropy of a class a row: logits `[B, C]`, labels `i64[B]`.
    Classification { label_smoothing: f64 },
    /// Cross-entropy of a class a token: logits `[B, S, C]`, labels `i64[B, S]`.
    TokenClassification { label_smoothing: f64 },
    /// Binary cross-entropy of every class: logits `[B, C]`, labels `f32[B, C]`.
    MultiLabel,
    /// Mean squared error: output and labels of one shape, `f32`.
    Regression,
}

impl Task {
    pub const NAMES: &'static [&'static str] = &[
        "causal_lm",
        "classification",
        "token_classification",
        "multi_label",
        "regression",
    ];

    /// The word of configurations.
    pub fn name(self) -> &'static str {
        match self {
            Task::CausalLm { .. } => "causal_lm",
            Task::Classification { .. } => "classification",
            Task::TokenClassification { .. } => "token_classification",
            Task::MultiLabel => "multi_label",
            Task::Regression => "regression",
        }
    }

    /// The task of a word.
    pub fn parse(name: &str, label_smoothing: f64) -> Option<Task> {
        Some(match name {
            "causal_lm" => Task::CausalLm { label_smoothing },
            "classification" => Task::Classification { label_smoothing },
            "token_classification" => Task::TokenClassification { label_smoothing },
            "multi_label" => Task::MultiLabel,
            "regression" => Task::Regression,
            _ => return None,
        })
    }

    pub fn label_smoothing(self) -> f64 {
        match self {
            Task::CausalLm { label_smoothing }
            | Task::Classification { label_smoothing }
            | Task::TokenClassification { label_smoothing } => label_smoothing,
            Task::MultiLabel | Task::Regression => 0.0,
        }
    }

    /// The rank that the output must have; `None` for any.
    pub(super) fn rank(self) -> Option<usize> {
        match self {
            Task::CausalLm { .. } | Task::TokenClassification { .. } => Some(3),
            Task::Classification { .. } | Task::MultiLabel => Some(2),
            Task::Regression => None,
        }
    }

    /// Element type and sizes of the labels for an output of these sizes.
    pub(super) fn labels(self, output: &[Dim]) -> (DType, Vec<Dim>) {
        match self {
            Task::CausalLm { .. }
            | Task::Classification { .. }
            | Task::TokenClassification { .. } => (DType::I64, output[..output.len() - 1].to_vec()),
            Task::MultiLabel | Task::Regression => (DType::F32, output.to_vec()),
        }
    }
}

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
    /// The derivative of `value` by the output, in the output's type and shape.
    pub gradient: Option<Expr<'b>>,
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
            cross_entropy(output, next(labels)?, label_smoothing, want)
        }
        Task::Classification { label_smoothing }
        | Task::TokenClassification { label_smoothing } => {
            cross_entropy(output, labels, label_smoothing, want)
        }
        Task::MultiLabel => multi_label(output, labels, want),
        Task::Regression => squared_error(output, labels, want),
    }
}

/// The label of every position's next token; the last position has none. Moving the labels costs
/// nothing, moving the logits would copy the largest tensor of the model.
fn next(labels: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let dims = labels.dims()?;
    let build = labels.builder;
    let above = labels + build.scalar(-IGNORED as f64, DType::I64);
    let behind = [Dim::from(0), Dim::from(1)];
    let moved = above
        .slice(1, 1, crate::ops::END)
        .pad(&[Dim::from(0), Dim::from(0)], &behind)?
        .stated(&dims);
    Ok(moved + build.scalar(IGNORED as f64, DType::I64))
}

/// −mean log softmax(x)[label] over the labels that count; with smoothing ε the target is
/// (1 − ε) · one-hot + ε / C (PyTorch's `cross_entropy`).
///
/// Derivative: (softmax(x) − target) / count in the rows that count.
fn cross_entropy<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
    smoothing: f64,
    want: Want,
) -> Result<Loss<'b>, Refusal> {
    let build = output.builder;
    let dims = output.dims()?;
    let classes = dims.last().cloned().unwrap_or_else(|| Dim::from(1));
    let rows = dims[..dims.len() - 1]
        .iter()
        .fold(Dim::from(1), |rows, dim| rows * dim.clone());
    let logits = output
        .cast(DType::F32)
        .reshape(&[rows.clone(), classes.clone()])?;
    let labels = labels.reshape(&[rows.clone(), Dim::from(1)])?;
    let ignored = labels.is_equal(build.scalar(IGNORED as f64, DType::I64));
    let counted = ignored.not();
    let label = counted.choose(labels, build.scalar(0.0, DType::I64));
    let weight = counted.cast(DType::F32);
    let count = weight.sum_dropping(&[0, 1]);
    // No label at all gives a loss of 0, not a division by 0.
    let divisor = count.apply2("Max", count.number(1.0));
    let share = weight / divisor;
    let log = logits.with("LogSoftmax", vec![Attribute::int("axis", 1)]);
    let picked = build
        .node(
            "GatherElements",
            &[log, label],
            vec![Attribute::int("axis", 1)],
        )
        .stated(&[rows.clone(), Dim::from(1)]);
    let mut each = picked * (1.0 - smoothing);
    if smoothing > 0.0 {
        each = each + log.mean_keeping(&[1]) * smoothing;
    }
    let value = -(each * share).sum_dropping(&[0, 1]);
    let (correct, exact) = match want {
        Want::Gradient => (None, None),
        Want::Correct => {
            let best = logits.with(
                "ArgMax",
                vec![Attribute::int("axis", 1), Attribute::int("keepdims", 1)],
            );
            let hits = best.is_equal(label).cast(DType::F32) * weight;
            (
                Some(hits.sum_dropping(&[0, 1])),
                exact_rows(hits, weight, &dims)?,
            )
        }
    };
    let gradient = match want {
        Want::Correct => None,
        Want::Gradient => {
            let mut slope = log.exp();
            if smoothing > 0.0 {
                let part = slope.number(smoothing) / class_count(build, &classes)?;
                slope = slope - part;
            }
            let at_label = share * -(1.0 - smoothing);
            let slope = add_at(slope * share, label, at_label)?;
            Some(slope.reshape(&dims)?.cast(output.dtype()))
        }
    };
    Ok(Loss {
        value,
        count,
        correct,
        exact,
        gradient,
    })
}

/// Rows of the output `[B, S, C]` in which everything that counts is a hit.
fn exact_rows<'b>(
    hits: Expr<'b>,
    weight: Expr<'b>,
    dims: &[Dim],
) -> Result<Option<Expr<'b>>, Refusal> {
    let [rows, labels, _] = dims else {
        return Ok(None);
    };
    let sum = |each: Expr<'b>| -> Result<Expr<'b>, Refusal> {
        let by_row = each.reshape(&[rows.clone(), labels.clone()])?;
        Ok(by_row.sum_dropping(&[1]))
    };
    let counted = sum(weight)?;
    let complete = sum(hits)?.is_equal(counted);
    let any = counted.number(0.0).is_less(counted);
    Ok(Some(complete.and(any).cast(DType::F32).sum_dropping(&[0])))
}

/// Adds one number a row at the column of the row's label.
fn add_at<'b>(rows: Expr<'b>, label: Expr<'b>, number: Expr<'b>) -> Result<Expr<'b>, Refusal> {
    let dims = rows.dims()?;
    let build = rows.builder;
    if build.opset() >= 16 {
        let attributes = vec![
            Attribute::int("axis", 1),
            Attribute::string("reduction", "add"),
        ];
        let added = build.node("ScatterElements", &[rows, label, number], attributes);
        return Ok(added.stated(&dims));
    }
    // Before that nothing adds: the element is read, changed and written back.
    let axis = || vec![Attribute::int("axis", 1)];
    let before = build
        .node("GatherElements", &[rows, label], axis())
        .stated(&number.dims()?);
    let written = build.node("ScatterElements", &[rows, label, before + number], axis());
    Ok(written.stated(&dims))
}

fn class_count<'b>(build: &'b Builder<'b>, classes: &Dim) -> Result<Expr<'b>, Refusal> {
    match classes.known() {
        Some(count) => Ok(build.scalar(count as f64, DType::F32)),
        None => Err(Refusal(
            "label smoothing needs a fixed number of classes".to_owned(),
        )),
    }
}

/// mean(max(x, 0) − x y + log(1 + e^−|x|)), PyTorch's `binary_cross_entropy_with_logits`.
///
/// Derivative: (σ(x) − y) / n.
fn multi_label<'b>(output: Expr<'b>, labels: Expr<'b>, want: Want) -> Result<Loss<'b>, Refusal> {
    let x = output.cast(DType::F32);
    let count = element_count(x)?;
    let softened = (-x.apply("Abs")).exp() + 1.0;
    let each = x.apply2("Max", x.number(0.0)) - x * labels + softened.log();
    let value = all(each)? / count;
    let correct = (want == Want::Correct)
        .then(|| {
            let said = x.number(0.0).is_less(x);
            let meant = labels.number(0.5).is_less(labels);
            all(said.is_equal(meant).cast(DType::F32))
        })
        .transpose()?;
    let gradient =
        (want == Want::Gradient).then(|| ((x.sigmoid() - labels) / count).cast(output.dtype()));
    Ok(Loss {
        value,
        count,
        correct,
        exact: None,
        gradient,
    })
}

/// mean((x − y)²), PyTorch's `mse_loss`.
///
/// Derivative: 2 (x − y) / n.
fn squared_error<'b>(output: Expr<'b>, labels: Expr<'b>, want: Want) -> Result<Loss<'b>, Refusal> {
    let x = output.cast(DType::F32);
    let count = element_count(x)?;
    let error = x - labels;
    let value = all(error.square())? / count;
    let gradient = (want == Want::Gradient).then(|| (error * 2.0 / count).cast(output.dtype()));
    Ok(Loss {
        value,
        count,
        correct: None,
        exact: None,
        gradient,
    })
}

fn all(value: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let axes: Vec<usize> = (0..value.rank()?).collect();
    Ok(value.sum_dropping(&axes))
}

fn element_count(value: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let count = value
        .dims()?
        .into_iter()
        .fold(Dim::from(1), |count, dim| count * dim);
    let sizes = value.builder.sizes(&[count])?;
    Ok(sizes.cast(DType::F32).reshape(&[])?)
}
