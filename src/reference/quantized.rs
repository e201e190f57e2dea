//! Quantization, and products of quantized tensors.

use super::array::{Array, Kind, kind, range};
use super::conv::convolution;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::matmul::{matmul, sum};
use super::minifloat::{self, Overflow};
use super::movement::by_axes;
use super::normalization::by_channel;
use super::rows::{stretch, zip_floats, zip_ints};
use super::table::{Entry, many, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("QuantizeLinear", 10, quantize),
    one("QuantizeLinear", 1, quantize).microsoft(),
    one("DequantizeLinear", 10, dequantize),
    one("DequantizeLinear", 1, dequantize).microsoft(),
    many("DynamicQuantizeLinear", 11, |cx| {
        dynamic_quantize(cx.operand(0)?)
    }),
    one("MatMulInteger", 10, |cx| {
        int_matmul(
            cx.operand(0)?,
            cx.operand(1)?,
            cx.optional(2),
            cx.optional(3),
        )
    }),
    one("MatMulInteger16", 1, |cx| {
        int_matmul(cx.operand(0)?, cx.operand(1)?, None, None)
    })
    .microsoft(),
    one("ConvInteger", 10, |cx| {
        let (x, w) = (cx.operand(0)?, cx.operand(1)?);
        let x = centred(x, cx.optional(2), |zero| Ok(zero.clone()))?;
        let w = centred(w, cx.optional(3), |zero| by_map(zero, w.rank()))?;
        convolution(cx, &x, &w)?.typed(DType::I32)
    }),
    one("QLinearMatMul", 10, q_matmul),
    one("QLinearConv", 10, q_conv),
    one("MatMulIntegerToFloat", 1, |cx| {
        let (scales, zeros) = (
            (cx.operand(2)?, cx.operand(3)?),
            (cx.optional(4), cx.optional(5)),
        );
        let y = int_matmul(cx.operand(0)?, cx.operand(1)?, zeros.0, zeros.1)?;
        to_float(&y, scales, cx.optional(6))
    })
    .microsoft(),
    one("DynamicQuantizeMatMul", 1, |cx| {
        let quantized = dynamic_quantize(cx.operand(0)?)?;
        let [a, scale, zero] = quantized.as_slice() else {
            return mismatch!("a dynamic quantization");
        };
        let y = int_matmul(a, cx.operand(1)?, Some(zero), cx.optional(3))?;
        to_float(&y, (scale, cx.operand(2)?), cx.optional(4))
    })
    .microsoft(),
];

/// Scales or zero points stretched to the shape of the data: one for all, one a slice of `axis`,
/// or one a block of `size` elements along it.
fn spread(
    parameter: &Array,
    dims: &[usize],
    axis: usize,
    size: Option<usize>,
) -> Result<Array, Fault> {
    if parameter.len() == 1 && parameter.rank() <= 1 {
        return stretch(&parameter.clone().reshaped(&[])?, dims);
    }
    if size.is_none() && parameter.rank() == 1 && dims.get(axis) == Some(&parameter.len()) {
        let mut own = vec![1; dims.len()];
        own[axis] = parameter.len();
        return stretch(&parameter.clone().reshaped(&own)?, dims);
    }
    let blocks = parameter.dims().get(axis).copied().unwrap_or(0);
    let natural = dims
        .get(axis)
        .map_or(0, |size| size.div_ceil(blocks.max(1)));
    by_block(parameter, dims, axis, size.unwrap_or(natural))
}

/// One number a block of `size` elements along an axis, stretched to the shape of the data; other
/// axes are of the data's size, or of size 1.
pub(super) fn by_block(
    parameter: &Array,
    dims: &[usize],
    axis: usize,
    size: usize,
) -> Result<Array, Fault> {
    let same =
        |(at, (own, data)): (usize, (&usize, &usize))| at == axis || own == data || *own == 1;
    let fits = parameter.rank() == dims.len()
        && size > 0
        && axis < dims.len()
        && parameter.dims().iter().zip(dims).enumerate().all(same)
        && dims[axis].div_ceil(size) <= parameter.dims()[axis];
    if !fits {
        return mismatch!("scales or zero points {:?} for {dims:?}", parameter.dims());
    }
    let source = |at: usize, index: usize| match parameter.dims()[at] {
        _ if at == axis => index / size,
        1 => 0,
        _ => index,
    };
    let maps: Vec<Vec<Option<usize>>> = dims
        .iter()
        .enumerate()
        .map(|(at, len)| (0..*len).map(|index| Some(source(at, index))).collect())
        .collect();
    by_axes(parameter, &maps, &Array::zeros(parameter.dtype(), &[])?)
}

/// The axis and the block size of a quantization.
fn layout(cx: &Cx<'_>, rank: usize) -> Result<(usize, Option<usize>), Fault> {
    // A scalar has no axis and needs none.
    let axis = match rank {
        0 => 0,
        _ => cx.axis_or("axis", 1.min(rank as i64 - 1), rank)?,
    };
    let size = match cx.int_or("block_size", 0) {
        0 => None,
        _ => Some(cx.positive("block_size")?),
    };
    Ok((axis, size))
}

/// `y = saturate(round(x / scale) + zero)`, ties to even; rounded to the type itself where it is a
/// small float.
fn quantize(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, scale) = (cx.operand(0)?, cx.operand(1)?);
    let (axis, size) = layout(cx, x.rank())?;
    let stated = cx.dtype("output_dtype")?;
    let dtype = cx
        .optional(2)
        .map(Array::dtype)
        .or(stated)
        .unwrap_or(DType::U8);
    let scale = spread(scale, x.dims(), axis, size)?;
    let zero = cx
        .optional(2)
        .map(|zero| spread(zero, x.dims(), axis, size))
        .transpose()?;
    let overflow = match cx.int_or("saturate", 1) {
        0 => Overflow::Special,
        _ => Overflow::Saturate,
    };
    let x = Array::floats(DType::F64, x.dims(), x.to_f64s())?;
    let ratio = zip_floats(DType::F64, &x, &scale, |x, scale| x / scale)?;
    rounded(&ratio, zero.as_ref(), dtype, overflow)
}

/// The numbers of a type that are nearest to `ratio + zero`.
fn rounded(
    ratio: &Array,
    zero: Option<&Array>,
    dtype: DType,
    overflow: Overflow,
) -> Result<Array, Fault> {
    let zeros = zero.map_or_else(|| vec![0.0; ratio.len()], Array::to_f64s);
    let pairs = ratio.as_floats()?.iter().zip(zeros);
    match kind(dtype)? {
        Kind::Int => {
            let (least, most) = range(dtype);
            let one = |(ratio, zero): (&f64, f64)| {
                // A float beyond the integers becomes the last of them; NaN becomes 0.
                ((ratio.round_ties_even() + zero) as i128).clamp(least, most)
            };
            Array::ints(dtype, ratio.dims(), pairs.map(one).collect())
        }
        Kind::Float => {
            let one = |(ratio, zero): (&f64, f64)| minifloat::round(dtype, ratio + zero, overflow);
            Array::floats(dtype, ratio.dims(), pairs.map(one).collect())
        }
    }
}

/// `y = (x - zero) · scale`.
fn dequantize(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, scale) = (cx.operand(0)?, cx.operand(1)?);
    let (axis, size) = layout(cx, x.rank())?;
    let dtype = cx.dtype("output_dtype")?.unwrap_or(scale.dtype());
    let scale = spread(scale, x.dims(), axis, size)?;
    let zero = cx
        .optional(2)
        .map(|zero| spread(zero, x.dims(), axis, size))
        .transpose()?;
    let zeros = zero.map_or_else(|| vec![0.0; x.len()], |zero| zero.to_f64s());
    let data = x.to_f64s().into_iter().zip(zeros).zip(scale.as_floats()?);
    let data = data.map(|((x, zero), scale)| (x - zero) * scale).collect();
    Array::floats(dtype, x.dims(), data)
}

/// One scale and one zero point for which u8 covers the tensor and 0.
fn dynamic_quantize(x: &Array) -> Result<Vec<Array>, Fault> {
    let data = x.as_floats()?;
    let least = data.iter().copied().fold(0.0, f64::min);
    let most = data.iter().copied().fold(0.0, f64::max);
    // The scale is a result in single precision, and codes are relative to it.
    let scale = match ((most - least) / 255.0) as f32 {
        0.0 => 1.0,
        scale => f64::from(scale),
    };
    let zero = (-least / scale).round_ties_even().clamp(0.0, 255.0);
    let zero = Array::ints(DType::U8, &[], vec![zero as i128])?;
    let ratio = x.map(|x| x / scale)?;
    let spread = stretch(&zero, x.dims())?;
    Ok(vec![
        rounded(&ratio, Some(&spread), DType::U8, Overflow::Saturate)?,
        Array::scalar(DType::F32, scale)?,
        zero,
    ])
}

/// `x - zero`, in a type that holds all differences; `shape` says how the zero points broadcast.
fn centred(
    x: &Array,
    zero: Option<&Array>,
    shape: impl Fn(&Array) -> Result<Array, Fault>,
) -> Result<Array, Fault> {
    let wide = x.clone().typed(DType::I64)?;
    let Some(zero) = zero else {
        return Ok(wide);
    };
    let zero = shape(zero)?;
    let y = zip_ints(DType::I64, &wide, &zero, |x, zero| Ok(x - zero))?;
    match y.dims() == x.dims() {
        true => Ok(y),
        false => mismatch!("zero points {:?} for {:?}", zero.dims(), x.dims()),
    }
}

/// One number a row: a column vector.
fn by_row(array: &Array) -> Result<Array, Fault> {
    match array.dims() {
        [1] => array.clone().reshaped(&[]),
        [rows] => array.clone().reshaped(&[*rows, 1]),
        _ => Ok(array.clone()),
    }
}

/// One number an output channel of a weight.
fn by_map(array: &Array, rank: usize) -> Result<Array, Fault> {
    match array.dims() {
        [] | [1] => array.clone().reshaped(&[]),
        [maps] if rank > 0 => {
            let mut dims = vec![1; rank];
            dims[0] = *maps;
            array.clone().reshaped(&dims)
        }
        dims => mismatch!("{dims:?} for a weight"),
    }
}

/// `y = (a - zero) (b - zero)` in i32; zero points are one a tensor, one a row of `a`, or one a
/// column of `b`.
fn int_matmul(
    a: &Array,
    b: &Array,
    a_zero: Option<&Array>,
    b_zero: Option<&Array>,
) -> Result<Array, Fault> {
    let a = centred(a, a_zero, by_row)?;
    let b = centred(b, b_zero, |zero| Ok(zero.clone()))?;
    matmul(&a, &b)?.typed(DType::I32)
}

/// An integer product times the scales of its operands, plus a bias.
fn to_float(
    product: &Array,
    (a, b): (&Array, &Array),
    bias: Option<&Array>,
) -> Result<Array, Fault> {
    let y = Array::floats(a.dtype(), product.dims(), product.to_f64s())?;
    let y = zip_floats(a.dtype(), &y, &by_row(a)?, |y, scale| y * scale)?;
    let y = zip_floats(a.dtype(), &y, b, |y, scale| y * scale)?;
    match bias {
        Some(bias) => sum(&y, bias),
        None => Ok(y),
    }
}

/// Operands in threes: value, scale, zero point; then scale and zero point of the result.
fn q_matmul(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (a, b) = (cx.operand(0)?, cx.operand(3)?);
    let y = int_matmul(a, b, cx.optional(2), cx.optional(5))?;
    let y = Array::floats(DType::F64, y.dims(), y.to_f64s())?;
    let y = zip_floats(DType::F64, &y, &by_row(cx.operand(1)?)?, |y, scale| {
        y * scale
    })?;
    let y = zip_floats(DType::F64, &y, cx.operand(4)?, |y, scale| y * scale)?;
    let ratio = zip_floats(DType::F64, &y, &by_row(cx.operand(6)?)?, |y, scale| {
        y / scale
    })?;
    let zero = cx.operand(7)?;
    let spread = stretch(&by_row(zero)?, ratio.dims())?;
    rounded(&ratio, Some(&spread), zero.dtype(), Overflow::Saturate)
}

/// As a convolution of integers with a bias in i32, scaled to the result's quantization.
fn q_conv(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, w) = (cx.operand(0)?, cx.operand(3)?);
    let x = centred(x, cx.optional(2), |zero| zero.clone().reshaped(&[]))?;
    let w = centred(w, cx.optional(5), |zero| by_map(zero, w.rank()))?;
    let mut y = convolution(cx, &x, &w)?;
    if let Some(bias) = cx.optional(8) {
        y = sum(&y, &by_channel(&bias.clone().typed(DType::I64)?, y.rank())?)?;
    }
    let one = |slot| match cx.single(slot)? {
        Some(value) => Ok(value),
        None => mismatch!("operand {slot} is absent"),
    };
    let factor = one(1)? / one(6)?;
    let scales = match cx.operand(4)? {
        scale if scale.len() == 1 => scale.clone().reshaped(&[])?,
        scales => by_channel(scales, y.rank())?,
    };
    let y = Array::floats(DType::F64, y.dims(), y.to_f64s())?;
    let ratio = zip_floats(DType::F64, &y, &scales, |y, scale| y * scale * factor)?;
    let zero = cx.operand(7)?;
    let spread = stretch(&zero.clone().reshaped(&[])?, ratio.dims())?;
    rounded(&ratio, Some(&spread), zero.dtype(), Overflow::Saturate)
}

/// What a quantized tensor with one scale stands for.
pub(super) fn plain(x: &Array, scale: f64, zero: f64) -> Result<Array, Fault> {
    let data = x
        .to_f64s()
        .into_iter()
        .map(|x| (x - zero) * scale)
        .collect();
    Array::floats(DType::F64, x.dims(), data)
}

/// A tensor quantized with one scale.
pub(super) fn coded(x: &Array, scale: f64, zero: f64, dtype: DType) -> Result<Array, Fault> {
    let ratio = x.map(|x| x / scale)?;
    let zeros = Array::floats(DType::F64, x.dims(), vec![zero; x.len()])?;
    rounded(&ratio, Some(&zeros), dtype, Overflow::Saturate)
}
