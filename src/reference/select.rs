//! Operators whose results depend on an order among elements, or on which of them are true.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::movement::by_axes;
use super::rows::{Rows, permuted};
use super::sizes::{self, count, strides};
use super::table::{Entry, many, one};
use crate::ty::DType;
use std::cmp::Ordering;

pub(super) const OPS: &[Entry] = &[
    many("TopK", 1, |cx| match cx.int("k") {
        Some(k) => top_k(cx, k),
        None => mismatch!("no `k`"),
    }),
    many("TopK", 10, |cx| top_k(cx, cx.number(1)?)),
    one("NonZero", 9, non_zero),
    one("Compress", 9, compress),
    many("Unique", 11, |cx| unique(cx, cx.int_or("sorted", 1) != 0)),
    // ONNX Runtime's own keeps the order of the operand.
    many("Unique", 1, |cx| {
        let all = unique(cx, false)?;
        match <[Array; 4]>::try_from(all) {
            // Values, positions and counts; no first occurrences.
            Ok([values, _, inverse, counts]) => Ok(vec![values, inverse, counts]),
            Err(_) => mismatch!("unique elements"),
        }
    })
    .microsoft(),
    one("CumSum", 11, |cx| {
        running(cx, 0.0, |a, b| a + b, 0, i128::wrapping_add)
    }),
    one("CumProd", 26, |cx| {
        running(cx, 1.0, |a, b| a * b, 1, i128::wrapping_mul)
    }),
];

/// The `k` greatest, or smallest, elements along an axis and where they are; the first of equals
/// comes first.
fn top_k(cx: &Cx<'_>, k: i64) -> Result<Vec<Array>, Fault> {
    let x = cx.operand(0)?;
    let axis = cx.axis_or("axis", -1, x.rank())?;
    let k = sizes::size(k)?;
    let largest = cx.int_or("largest", 1) != 0;
    let rows = Rows::over(x, &[axis])?;
    if k > rows.len {
        return mismatch!("the {k} greatest of {} elements", rows.len);
    }
    let mut order = Vec::new();
    match x.elements() {
        Elements::Floats(_) => {
            for row in rows.floats()? {
                order.push(sorted(row, largest, f64::total_cmp));
            }
        }
        Elements::Ints(_) => {
            for row in rows.ints()? {
                order.push(sorted(row, largest, i128::cmp));
            }
        }
    }
    let kept = order.iter().enumerate().flat_map(|(row, order)| {
        let start = row * rows.len;
        order[..k]
            .iter()
            .map(move |index| (start + index, *index as i128))
    });
    let (positions, indices): (Vec<usize>, Vec<i128>) = kept.unzip();
    let moved = [&rows.outer[..], &[k]].concat();
    let back = |array: Array| {
        let mut axes: Vec<usize> = (0..x.rank() - 1).collect();
        axes.insert(axis, x.rank() - 1);
        permuted(&array, &axes)
    };
    Ok(vec![
        back(rows.array.pick(&moved, &positions)?)?,
        back(Array::ints(DType::I64, &moved, indices)?)?,
    ])
}

/// Positions in the order of their elements.
fn sorted<T>(row: &[T], descending: bool, compare: fn(&T, &T) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| match descending {
        true => compare(&row[*b], &row[*a]),
        false => compare(&row[*a], &row[*b]),
    });
    order
}

/// Where elements are not zero: a row an axis, a column an element.
fn non_zero(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let found: Vec<usize> = match x.elements() {
        Elements::Floats(data) => (0..data.len()).filter(|i| data[*i] != 0.0).collect(),
        Elements::Ints(data) => (0..data.len()).filter(|i| data[*i] != 0).collect(),
    };
    let own = strides(x.dims());
    let mut data = Vec::with_capacity(count(&[x.rank(), found.len()])?);
    for (axis, size) in x.dims().iter().enumerate() {
        data.extend(
            found
                .iter()
                .map(|position| (position / own[axis] % size) as i128),
        );
    }
    Array::ints(DType::I64, &[x.rank(), found.len()], data)
}

/// The slices along an axis, or the elements, whose condition is true.
fn compress(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, condition) = (cx.operand(0)?, cx.operand(1)?.as_ints()?);
    let x = match cx.int("axis") {
        Some(_) => x.clone(),
        None => x.clone().reshaped(&[x.len()])?,
    };
    let axis = cx.axis_or("axis", 0, x.rank())?;
    if condition.len() > x.dims()[axis] {
        return mismatch!(
            "{} conditions of {} slices",
            condition.len(),
            x.dims()[axis]
        );
    }
    let kept = (0..condition.len()).filter(|index| condition[*index] != 0);
    slices(&x, axis, kept.collect())
}

/// Some slices along an axis.
fn slices(x: &Array, axis: usize, indices: Vec<usize>) -> Result<Array, Fault> {
    let mut maps: Vec<Vec<Option<usize>>> = x
        .dims()
        .iter()
        .map(|size| (0..*size).map(Some).collect())
        .collect();
    maps[axis] = indices.into_iter().map(Some).collect();
    by_axes(x, &maps, &Array::zeros(x.dtype(), &[])?)
}

/// The slices that differ, where each is first, which of them each slice is, and how often it is.
fn unique(cx: &Cx<'_>, rising: bool) -> Result<Vec<Array>, Fault> {
    let x = cx.operand(0)?;
    let x = match cx.int("axis") {
        Some(_) => x.clone(),
        None => x.clone().reshaped(&[x.len()])?,
    };
    let axis = cx.axis_or("axis", 0, x.rank())?;
    let others: Vec<usize> = (0..x.rank()).filter(|other| *other != axis).collect();
    let rows = Rows::over(&x, &others)?;
    let mut groups = match x.elements() {
        Elements::Floats(_) => grouped(&rows.floats()?, f64::total_cmp),
        Elements::Ints(_) => grouped(&rows.ints()?, i128::cmp),
    };
    if !rising {
        groups.sort_by_key(|group| group.first().copied());
    }
    let firsts: Vec<usize> = groups
        .iter()
        .filter_map(|group| group.first().copied())
        .collect();
    let mut inverse = vec![0; x.dims()[axis]];
    for (index, group) in groups.iter().enumerate() {
        group
            .iter()
            .for_each(|slice| inverse[*slice] = index as i128);
    }
    let vector = |data: Vec<i128>| Array::ints(DType::I64, &[data.len()], data);
    Ok(vec![
        slices(&x, axis, firsts.clone())?,
        vector(firsts.iter().map(|index| *index as i128).collect())?,
        vector(inverse)?,
        vector(groups.iter().map(|group| group.len() as i128).collect())?,
    ])
}

/// Rows in groups of equals, in rising order of the rows; the members of a group rise, too.
fn grouped<T: PartialEq>(rows: &[&[T]], compare: fn(&T, &T) -> Ordering) -> Vec<Vec<usize>> {
    let whole = |a: &[T], b: &[T]| {
        let mut pairs = a.iter().zip(b);
        let differs = pairs.find_map(|(a, b)| Some(compare(a, b)).filter(|order| order.is_ne()));
        differs.unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| whole(rows[*a], rows[*b]));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in order {
        match groups.last_mut() {
            Some(group) if whole(rows[group[0]], rows[index]).is_eq() => group.push(index),
            _ => groups.push(vec![index]),
        }
    }
    groups
}

/// `y[i] = f(y[i-1], x[i])` along an axis, from either end, with or without its own element.
fn running(
    cx: &Cx<'_>,
    float_start: f64,
    floats: fn(f64, f64) -> f64,
    int_start: i128,
    ints: fn(i128, i128) -> i128,
) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let axis = sizes::axis(cx.number(1)?, x.rank())?;
    let (exclusive, reverse) = (cx.flag("exclusive"), cx.flag("reverse"));
    let rows = Rows::over(x, &[axis])?;
    let elements = match x.elements() {
        Elements::Floats(_) => {
            let each = rows.floats()?.into_iter();
            let run = |row: &[f64]| accumulated(row, float_start, floats, exclusive, reverse);
            Elements::Floats(each.flat_map(run).collect())
        }
        Elements::Ints(_) => {
            let each = rows.ints()?.into_iter();
            let run = |row: &[i128]| accumulated(row, int_start, ints, exclusive, reverse);
            Elements::Ints(each.flat_map(run).collect())
        }
    };
    rows.back(x.dtype(), elements)
}

fn accumulated<T: Copy>(
    row: &[T],
    start: T,
    f: fn(T, T) -> T,
    exclusive: bool,
    reverse: bool,
) -> Vec<T> {
    let mut sum = start;
    let mut step = |x: &T| {
        let before = sum;
        sum = f(sum, *x);
        if exclusive { before } else { sum }
    };
    if !reverse {
        return row.iter().map(step).collect();
    }
    let mut back: Vec<T> = row.iter().rev().map(&mut step).collect();
    back.reverse();
    back
}
