//! ONNX Runtime's operators on quantized tensors: the operands are taken as the numbers that they
//! stand for, and the result is quantized again.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::movement::join;
use super::quantized::{coded, plain};
use super::rows::{along, permuted, stretch, zip_floats};
use super::special::{sigmoid, softmax};
use super::table::{Entry, one};
use super::{pool, sizes};

pub(super) const OPS: &[Entry] = &[
    one("QLinearAdd", 1, |cx| two(cx, |a, b| a + b)).microsoft(),
    one("QLinearMul", 1, |cx| two(cx, |a, b| a * b)).microsoft(),
    one("QLinearSigmoid", 1, |cx| map(cx, sigmoid)).microsoft(),
    one("QLinearLeakyRelu", 1, |cx| {
        let alpha = cx.float_or("alpha", 0.01);
        map(cx, |x| if x < 0.0 { alpha * x } else { x })
    })
    .microsoft(),
    one("QLinearSoftmax", 1, q_softmax).microsoft(),
    one("QLinearWhere", 1, q_where).microsoft(),
    one("QLinearConcat", 1, q_concat).microsoft(),
    one("QLinearAveragePool", 1, |cx| pooled(cx, pool::average_pool)).microsoft(),
    one("QLinearGlobalAveragePool", 1, |cx| {
        pooled(cx, pool::global_average_pool)
    })
    .microsoft(),
];

/// The number of an operand, or 0 if it is absent.
fn number(cx: &Cx<'_>, slot: usize) -> Result<f64, Fault> {
    Ok(cx.single(slot)?.unwrap_or(0.0))
}

/// The numbers that operand `slot` stands for; its scale and zero point lie behind it.
fn read(cx: &Cx<'_>, slot: usize) -> Result<Array, Fault> {
    plain(
        cx.operand(slot)?,
        number(cx, slot + 1)?,
        number(cx, slot + 2)?,
    )
}

/// The result, quantized as operands `scale` and the next say, in the type of operand `like`.
fn write(cx: &Cx<'_>, y: &Array, scale: usize, like: usize) -> Result<Array, Fault> {
    let dtype = cx.operand(like)?.dtype();
    coded(y, number(cx, scale)?, number(cx, scale + 1)?, dtype)
}

fn two(cx: &Cx<'_>, f: impl Fn(f64, f64) -> f64) -> Result<Array, Fault> {
    let (a, b) = (read(cx, 0)?, read(cx, 3)?);
    write(cx, &zip_floats(a.dtype(), &a, &b, f)?, 6, 0)
}

fn map(cx: &Cx<'_>, f: impl Fn(f64) -> f64) -> Result<Array, Fault> {
    write(cx, &read(cx, 0)?.map(f)?, 3, 0)
}

/// As the version of Softmax that the attribute `opset` names.
fn q_softmax(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = read(cx, 0)?;
    let axis = cx.axis_or("axis", -1, x.rank())?;
    let axes: Vec<usize> = match cx.int_or("opset", 13) {
        13.. => vec![axis],
        _ => (axis..x.rank()).collect(),
    };
    write(cx, &along(&x, &axes, softmax)?, 3, 0)
}

fn q_where(cx: &Cx<'_>) -> Result<Array, Fault> {
    let condition = cx.operand(0)?;
    let (a, b) = (read(cx, 1)?, read(cx, 4)?);
    let dims = sizes::broadcast(&sizes::broadcast(condition.dims(), a.dims())?, b.dims())?;
    let (a, b) = (stretch(&a, &dims)?, stretch(&b, &dims)?);
    let condition = stretch(condition, &dims)?;
    let pairs = a
        .as_floats()?
        .iter()
        .zip(b.as_floats()?)
        .zip(condition.as_ints()?);
    let data = pairs
        .map(|((a, b), c)| if *c != 0 { *a } else { *b })
        .collect();
    write(cx, &Array::floats(a.dtype(), &dims, data)?, 7, 1)
}

/// Scale and zero point of the result, then operands in threes.
fn q_concat(cx: &Cx<'_>) -> Result<Array, Fault> {
    let parts: Vec<Array> = (2..cx.count())
        .step_by(3)
        .map(|slot| read(cx, slot))
        .collect::<Result<_, _>>()?;
    let Some(first) = parts.first() else {
        return mismatch!("no operands");
    };
    let axis = cx.axis_or("axis", 0, first.rank())?;
    write(cx, &join(&parts.iter().collect::<Vec<_>>(), axis)?, 0, 2)
}

/// A pool over space, which lies before the channels with `channels_last`.
fn pooled(cx: &Cx<'_>, pool: impl Fn(&Cx<'_>) -> Result<Array, Fault>) -> Result<Array, Fault> {
    let x = read(cx, 0)?;
    let rank = x.rank();
    if !cx.flag("channels_last") || rank < 3 {
        return write(cx, &pool(&cx.with(&[Some(&x)]))?, 3, 0);
    }
    let mut first = vec![0, rank - 1];
    first.extend(1..rank - 1);
    let mut last = vec![0];
    last.extend(2..rank);
    last.push(1);
    let y = pool(&cx.with(&[Some(&permuted(&x, &first)?)]))?;
    write(cx, &permuted(&y, &last)?, 3, 0)
}
