//! Reductions over axes.

use super::array::{Array, Elements, range};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::rows::{Rows, reduced_dims};
use super::sizes;
use super::special::log_sum_exp;
use super::table::{Entry, one};
use crate::ty::DType;

/// Each reduction with its versions: axes are an attribute until the second, an operand from then
/// on.
pub(super) const OPS: &[Entry] = &[
    one("ReduceSum", 1, |cx| {
        reduce(cx, 13, total, |_, row| Ok(sum(row)))
    }),
    one("ReduceMean", 1, |cx| {
        reduce(cx, 18, |row| total(row) / row.len() as f64, mean)
    }),
    one("ReduceMax", 1, |cx| {
        reduce(cx, 18, greatest, |dtype, row| {
            Ok(row.iter().copied().max().unwrap_or(range(dtype).0))
        })
    }),
    one("ReduceMin", 1, |cx| {
        reduce(cx, 18, least, |dtype, row| {
            Ok(row.iter().copied().min().unwrap_or(range(dtype).1))
        })
    }),
    one("ReduceProd", 1, |cx| {
        reduce(
            cx,
            18,
            |row| row.iter().product(),
            |_, row| Ok(row.iter().fold(1, |product, x| product.wrapping_mul(*x))),
        )
    }),
    one("ReduceL1", 1, |cx| {
        reduce(
            cx,
            18,
            |row| row.iter().map(|x| x.abs()).sum(),
            |_, row| Ok(row.iter().map(|x| x.abs()).sum()),
        )
    }),
    one("ReduceL2", 1, |cx| {
        reduce(
            cx,
            18,
            |row| squares(row).sqrt(),
            |_, row| Ok(int_squares(row).isqrt()),
        )
    }),
    one("ReduceLogSum", 1, |cx| {
        reduce(cx, 18, |row| total(row).ln(), no_integers)
    }),
    one("ReduceLogSumExp", 1, |cx| {
        reduce(cx, 18, log_sum_exp, no_integers)
    }),
    one("ReduceSumSquare", 1, |cx| {
        reduce(cx, 18, squares, |_, row| Ok(int_squares(row)))
    }),
    one("ArgMax", 1, |cx| arg(cx, |x, best| x > best)),
    one("ArgMin", 1, |cx| arg(cx, |x, best| x < best)),
];

fn total(row: &[f64]) -> f64 {
    // The empty sum of floats would be a negative zero.
    row.iter().fold(0.0, |sum, x| sum + x)
}

fn sum(row: &[i128]) -> i128 {
    row.iter().fold(0, |sum, x| sum.wrapping_add(*x))
}

fn mean(_: DType, row: &[i128]) -> Result<i128, Fault> {
    let count = row.len() as i128;
    sum(row)
        .checked_div(count)
        .map_or_else(|| mismatch!("the mean of no integers"), Ok)
}

fn greatest(row: &[f64]) -> f64 {
    row.iter()
        .copied()
        .fold(f64::NEG_INFINITY, super::elementwise::larger)
}

fn least(row: &[f64]) -> f64 {
    row.iter()
        .copied()
        .fold(f64::INFINITY, super::elementwise::smaller)
}

fn squares(row: &[f64]) -> f64 {
    row.iter().fold(0.0, |sum, x| sum + x * x)
}

fn int_squares(row: &[i128]) -> i128 {
    row.iter()
        .fold(0, |sum, x| sum.saturating_add(x.saturating_mul(*x)))
}

fn no_integers(dtype: DType, _: &[i128]) -> Result<i128, Fault> {
    unsupported!("logarithms of type {dtype}")
}

/// Which axes the node reduces; none is an identity of the reducing step alone.
fn axes(cx: &Cx<'_>, rank: usize, operand_since: i64) -> Result<Vec<usize>, Fault> {
    let stated = match cx.opset >= operand_since {
        true => cx.optional_numbers(1)?,
        false => cx.ints("axes").map(<[i64]>::to_vec),
    };
    match stated {
        Some(list) if !list.is_empty() => sizes::axes(&list, rank),
        _ if cx.flag("noop_with_empty_axes") => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

/// `y = f(x)` over rows of some axes.
fn reduce(
    cx: &Cx<'_>,
    operand_since: i64,
    floats: impl Fn(&[f64]) -> f64,
    ints: impl Fn(DType, &[i128]) -> Result<i128, Fault>,
) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let axes = axes(cx, x.rank(), operand_since)?;
    let rows = Rows::over(x, &axes)?;
    let dims = reduced_dims(x.dims(), &axes, cx.int_or("keepdims", 1) != 0);
    let elements = match x.elements() {
        Elements::Floats(_) => Elements::Floats(rows.floats()?.into_iter().map(floats).collect()),
        Elements::Ints(_) => {
            let each = rows.ints()?.into_iter().map(|row| ints(x.dtype(), row));
            Elements::Ints(each.collect::<Result<_, _>>()?)
        }
    };
    Array::new(x.dtype(), &dims, elements)
}

/// The position of the first element, or the last with `select_last_index`, that no other beats.
fn arg(cx: &Cx<'_>, beats: fn(f64, f64) -> bool) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let axis = cx.axis_or("axis", 0, x.rank())?;
    let last = cx.flag("select_last_index");
    // Positions are the same for integers as far as floats tell them apart.
    let floats = Array::floats(DType::F64, x.dims(), x.to_f64s())?;
    let rows = Rows::over(&floats, &[axis])?;
    let best = |row: &[f64]| {
        let mut best = 0;
        for (index, x) in row.iter().enumerate() {
            if beats(*x, row[best]) || last && *x == row[best] {
                best = index;
            }
        }
        best as i128
    };
    let data = rows.floats()?.into_iter().map(best).collect();
    let dims = reduced_dims(x.dims(), &[axis], cx.int_or("keepdims", 1) != 0);
    Array::ints(DType::I64, &dims, data)
}
