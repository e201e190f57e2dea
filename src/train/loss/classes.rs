//! One of several classes.

use super::{ByClass, Counted, IGNORED, Loss, Want, best, product};
use crate::graph::Attribute;
use crate::ops::{Builder, Expr, Refusal};
use crate::ty::{DType, Dim};

/// The label of every position's next token; the last position has none. Moving the labels costs
/// nothing, moving the logits would copy the largest tensor of the model.
pub(in super::super) fn next(labels: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let dims = labels.dims()?;
    let moved = labels.slice(1, 1, crate::ops::END);
    Ok(filled(moved, &[dims[0].clone(), Dim::from(1)])?.stated(&dims))
}

/// With labels behind them, in these sizes, that do not count.
pub(in super::super) fn filled<'b>(labels: Expr<'b>, behind: &[Dim]) -> Result<Expr<'b>, Refusal> {
    let build = labels.builder;
    // `Pad` would do, but ONNX Runtime pads integers on a CPU alone.
    let more = build.scalar(IGNORED as f64, DType::I64).expand(behind)?;
    Ok(build.concat(&[labels, more], behind.len() - 1))
}

/// −mean (x[label] − log Σ exp x) over the labels that count; with smoothing ε the target is
/// (1 − ε) · one-hot + ε / C (PyTorch's `cross_entropy`). `share` is what a label counts where others are
/// counted elsewhere.
///
/// Derivative: (softmax(x) − target) / count in the rows that count. The logits' own memory becomes
/// that of their derivative: nothing reads them after their exponentials are there.
pub(in super::super) fn cross_entropy<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
    smoothing: f64,
    want: Want,
    share: Option<Expr<'b>>,
) -> Result<Loss<'b>, Refusal> {
    let build = output.builder;
    let dims = output.dims()?;
    let classes = dims.last().cloned().unwrap_or_else(|| Dim::from(1));
    let rows = product(&dims[..dims.len() - 1]);
    let logits = output
        .cast(DType::F32)
        .reshape(&[rows.clone(), classes.clone()])?;
    let labels = labels.reshape(&[rows.clone(), Dim::from(1)])?;
    let ignored = labels.is_equal(build.scalar(IGNORED as f64, DType::I64));
    let counted = ignored.not();
    let label = counted.choose(labels, build.scalar(0.0, DType::I64));
    let Counted {
        weight,
        count,
        share,
    } = Counted::of(counted, share);
    let best = (want == Want::Correct).then(|| best(logits));
    let picked = at(logits, label);
    let mean = (smoothing > 0.0).then(|| logits.mean_keeping(&[1]));
    // No logit is above the highest and no mean of them, but for rounding, which is of no account for
    // what is only taken off: maxima say that these are read before anything is written over the logits.
    let highest = match best {
        Some(best) => at(logits, best),
        None => logits.reduce_keeping("ReduceMax", &[1]),
    };
    let highest = highest.apply2("Max", picked);
    let highest = mean.map_or(highest, |mean| highest.apply2("Max", mean));
    let powers = (logits - highest).exp();
    let sum = powers.sum_keeping(&[1]);
    let log_sum = highest + sum.log();
    let mut each = (picked - log_sum) * (1.0 - smoothing);
    if let Some(mean) = mean {
        each = each + (mean - log_sum) * smoothing;
    }
    let value = -(each * share).sum_dropping(&[0, 1]);
    let hits = best.map(|best| best.is_equal(label).cast(DType::F32) * weight);
    let exact = match hits {
        Some(hits) => exact_rows(hits, weight, &dims)?,
        None => None,
    };
    let gradient = match want {
        Want::Correct => None,
        Want::Gradient => {
            let mut slope = powers * (share / sum);
            if smoothing > 0.0 {
                let part = slope.number(smoothing) / class_count(build, &classes)?;
                slope = slope - share * part;
            }
            let at_label = share * -(1.0 - smoothing);
            let slope = add_at(slope, label, at_label)?;
            Some(slope.reshape(&dims)?)
        }
    };
    Ok(Loss {
        value,
        count,
        correct: hits.map(|hits| hits.sum_dropping(&[0, 1])),
        exact,
        hits,
        by_class: None,
        gradient,
    })
}

/// The element of every row at a column, `[R, 1]`.
fn at<'b>(rows: Expr<'b>, column: Expr<'b>) -> Expr<'b> {
    let axis = vec![Attribute::int("axis", 1)];
    rows.builder.node("GatherElements", &[rows, column], axis)
}

/// Labels by class; `None` where the number of classes is not known.
pub(super) fn by_class<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
) -> Result<Option<ByClass<'b>>, Refusal> {
    let dims = output.dims()?;
    let classes = dims.last().cloned().unwrap_or_else(|| Dim::from(1));
    let Some(count) = classes.known() else {
        return Ok(None);
    };
    let rows = product(&dims[..dims.len() - 1]);
    let scores = output.cast(DType::F32).reshape(&[rows.clone(), classes])?;
    let labels = labels.reshape(&[rows, Dim::from(1)])?;
    let numbers: Vec<i64> = (0..count).collect();
    let numbers = output.builder.ints(&numbers);
    let ignored = labels.is_equal(output.builder.scalar(IGNORED as f64, DType::I64));
    let said = best(scores).is_equal(numbers).and(ignored.not());
    // No class has the number of a label that does not count.
    let meant = labels.is_equal(numbers);
    let sum = |truths: Expr<'b>| truths.cast(DType::F32).sum_dropping(&[0]);
    Ok(Some(ByClass {
        hits: sum(said.and(meant)),
        said: sum(said),
        meant: sum(meant),
    }))
}

/// Rows of the output `[B, S, C]` in which everything that counts is a hit.
pub(in super::super) fn exact_rows<'b>(
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
