//! Boxes that overlap better ones.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::sizes::work;
use super::table::{Entry, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[one("NonMaxSuppression", 10, suppress)];

/// `[sample, class, box]` of boxes in the order of their scores, without those that overlap one
/// before them by more than a threshold.
fn suppress(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (boxes, scores) = (cx.operand(0)?, cx.operand(1)?);
    let (&[batch, count, 4], &[samples, classes, each]) = (boxes.dims(), scores.dims()) else {
        return mismatch!("boxes {:?} with scores {:?}", boxes.dims(), scores.dims());
    };
    if (samples, each) != (batch, count) {
        return mismatch!("boxes {:?} with scores {:?}", boxes.dims(), scores.dims());
    }
    work(&[batch, classes, count, count])?;
    let most = match cx.optional(2) {
        Some(_) => usize::try_from(cx.number(2)?).unwrap_or(0),
        None => 0,
    };
    let overlap = cx.single(3)?.unwrap_or(0.0);
    let least = cx.single(4)?.unwrap_or(f64::NEG_INFINITY);
    let centered = cx.flag("center_point_box");
    let corners: Vec<[f64; 4]> = boxes
        .as_floats()?
        .chunks_exact(4)
        .map(|b| corners(b, centered))
        .collect();
    let mut found = Vec::new();
    for (row, scores) in scores.as_floats()?.chunks_exact(count.max(1)).enumerate() {
        let own = &corners[row / classes.max(1) * count..][..count];
        let mut order: Vec<usize> = (0..count).filter(|index| scores[*index] > least).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let mut kept: Vec<usize> = Vec::new();
        for index in order {
            let hidden = kept
                .iter()
                .any(|other| shared(&own[*other], &own[index]) > overlap);
            if kept.len() < most && !hidden {
                kept.push(index);
            }
        }
        let (sample, class) = (row / classes.max(1), row % classes.max(1));
        found.extend(kept.iter().flat_map(|index| [sample, class, *index]));
    }
    let data: Vec<i128> = found.into_iter().map(|index| index as i128).collect();
    Array::ints(DType::I64, &[data.len() / 3, 3], data)
}

/// The least and the greatest coordinates.
fn corners(stated: &[f64], centered: bool) -> [f64; 4] {
    let (a, b) = match centered {
        true => {
            let half = [stated[2] / 2.0, stated[3] / 2.0];
            let at = [stated[0], stated[1]];
            (
                [at[0] - half[0], at[1] - half[1]],
                [at[0] + half[0], at[1] + half[1]],
            )
        }
        false => ([stated[0], stated[1]], [stated[2], stated[3]]),
    };
    [
        a[0].min(b[0]),
        a[1].min(b[1]),
        a[0].max(b[0]),
        a[1].max(b[1]),
    ]
}

/// The area that two boxes share, relative to the area that they cover.
fn shared(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |x: &[f64; 4]| (x[2] - x[0]) * (x[3] - x[1]);
    let common = side(0) * side(1);
    match area(a) + area(b) - common {
        0.0 => 0.0,
        union => common / union,
    }
}
