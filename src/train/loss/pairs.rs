//! Embeddings of what belongs together. The rows of the output are anchors, and below them what is
//! compared with them; how many anchors there are, the labels say.

use super::classes::cross_entropy;
use super::{Loss, Want, all, element_count};
use crate::ops::{END, Expr, Refusal};
use crate::ty::{DType, Dim};

/// Vectors are not divided by less (PyTorch's `normalize`).
const SHORTEST: f64 = 1e-12;

/// Rows of length 1.
struct Unit<'b> {
    rows: Expr<'b>,
    /// What they were divided by, `[R, 1]`.
    length: Expr<'b>,
}

impl<'b> Unit<'b> {
    /// u = x / max(|x|, ε).
    fn of(x: Expr<'b>) -> Unit<'b> {
        let length = x.square().sum_keeping(&[1]).sqrt();
        let length = length.apply2("Max", length.number(SHORTEST));
        Unit {
            rows: x / length,
            length,
        }
    }

    /// The derivative by x from that by u: (du − u (u · du)) / max(|x|, ε).
    fn derivative(&self, of_rows: Expr<'b>) -> Expr<'b> {
        let along = (of_rows * self.rows).sum_keeping(&[1]);
        (of_rows - self.rows * along) / self.length
    }

    /// Rows from `start` up to `end`, or to the last one.
    fn part(&self, start: Option<&Dim>, end: Option<&Dim>) -> Result<Expr<'b>, Refusal> {
        let build = self.rows.builder;
        let dims = self.rows.dims()?;
        let (first, last) = (
            start.cloned().unwrap_or_else(|| Dim::from(0)),
            end.unwrap_or(&dims[0]).clone(),
        );
        let at = |place: Option<&Dim>, other: i64| match place {
            Some(dim) => build.size(dim),
            None => Ok(build.ints(&[other])),
        };
        let operands = [self.rows, at(start, 0)?, at(end, END)?, build.ints(&[0])];
        let part = build.node("Slice", &operands, Vec::new());
        Ok(part.stated(&[last - first, dims[1].clone()]))
    }
}

/// Cross-entropy of the cosines of every anchor with all other rows, divided by the temperature, at
/// the row that belongs to the anchor (`MultipleNegativesRankingLoss` of sentence-transformers).
pub(super) fn contrast<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
    temperature: f64,
    want: Want,
) -> Result<Loss<'b>, Refusal> {
    let build = output.builder;
    let dims = output.dims()?;
    let unit = Unit::of(output.cast(DType::F32));
    let examples = labels.dims()?[0].clone();
    let anchors = unit.part(None, Some(&examples))?;
    let others = unit.part(Some(&examples), None)?;
    let scores = anchors.matmul(others.transpose(&[1, 0])) * (1.0 / temperature);
    let loss = cross_entropy(scores, labels, 0.0, want, None)?;
    let gradient = loss.gradient.map(|slope| {
        let slope = slope * (1.0 / temperature);
        let of_anchors = slope.matmul(others);
        let of_others = slope.transpose(&[1, 0]).matmul(anchors);
        let of_rows = build.concat(&[of_anchors, of_others], 0).stated(&dims);
        unit.derivative(of_rows)
    });
    Ok(Loss { gradient, ..loss })
}

/// mean((a · p − y)²) over pairs of rows of length 1 (`CosineSimilarityLoss` of
/// sentence-transformers).
///
/// Derivative by a: 2 (a · p − y) p / n, and by p alike.
pub(super) fn cosine<'b>(
    output: Expr<'b>,
    labels: Expr<'b>,
    want: Want,
) -> Result<Loss<'b>, Refusal> {
    let build = output.builder;
    let dims = output.dims()?;
    let unit = Unit::of(output.cast(DType::F32));
    let examples = labels.dims()?[0].clone();
    let anchors = unit.part(None, Some(&examples))?;
    let others = unit.part(Some(&examples), None)?;
    let others = others.stated(&[examples.clone(), dims[1].clone()]);
    let labels = labels.reshape(&[examples, Dim::from(1)])?;
    let error = (anchors * others).sum_keeping(&[1]) - labels;
    let count = element_count(error)?;
    let gradient = (want == Want::Gradient).then(|| {
        let slope = error * 2.0 / count;
        let parts = [slope * others, slope * anchors];
        let of_rows = build.concat(&parts, 0).stated(&dims);
        unit.derivative(of_rows)
    });
    Ok(Loss {
        value: all(error.square())? / count,
        count,
        correct: None,
        exact: None,
        hits: None,
        by_class: None,
        gradient,
    })
}
