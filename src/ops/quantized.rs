//! Quantization and products of quantized tensors.

use super::conv::conv_dims;
use super::cx::{InferCx, Outcome};
use super::grad::{self, help};
use super::matmul::product_dims;
use super::pool::pool_dims;
use super::registry::{Grad, OpDef, at_least, between, exactly, microsoft, op};
use super::shapes;
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    op(
        "QuantizeLinear",
        10,
        between(2, 3),
        quantize,
        Grad::Missing(help::QUANTIZED),
    ),
    op(
        "DequantizeLinear",
        10,
        between(2, 3),
        dequantize,
        Grad::Missing(help::OTHER),
    ),
    op(
        "DynamicQuantizeLinear",
        11,
        exactly(1),
        dynamic_quantize,
        Grad::Missing(help::QUANTIZED),
    )
    .results(exactly(3)),
    op(
        "MatMulInteger",
        10,
        between(2, 4),
        |cx| product(cx, 0, 1, Some(DType::I32)),
        Grad::Missing(help::QUANTIZED),
    ),
    op(
        "ConvInteger",
        10,
        between(2, 4),
        |cx| convolution(cx, 0, 1, Some(DType::I32)),
        Grad::Missing(help::QUANTIZED),
    ),
    op(
        "QLinearMatMul",
        10,
        exactly(8),
        |cx| {
            let dtype = cx.dtype(7);
            product(cx, 0, 3, dtype)
        },
        Grad::Missing(help::QUANTIZED),
    ),
    op(
        "QLinearConv",
        10,
        between(8, 9),
        |cx| {
            let dtype = cx.dtype(7);
            convolution(cx, 0, 3, dtype)
        },
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QuantizeLinear",
        between(2, 3),
        quantize,
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "DequantizeLinear",
        between(2, 3),
        dequantize,
        Grad::Missing(help::OTHER),
    ),
    microsoft(
        "MatMulNBits",
        between(3, 6),
        matmul_nbits,
        Grad::Rule(grad::quantized::matmul_nbits),
    ),
    microsoft(
        "GatherBlockQuantized",
        between(3, 4),
        gather_block_quantized,
        Grad::Missing(help::OTHER),
    ),
    microsoft(
        "MatMulInteger16",
        exactly(2),
        |cx| product(cx, 0, 1, Some(DType::I32)),
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "MatMulIntegerToFloat",
        between(4, 7),
        |cx| {
            let dtype = cx.dtype(2);
            product(cx, 0, 1, dtype)
        },
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "DynamicQuantizeMatMul",
        between(3, 5),
        |cx| {
            let dtype = cx.dtype(0);
            product(cx, 0, 1, dtype)
        },
        Grad::Rule(grad::quantized::dynamic_quantize_matmul),
    ),
    microsoft(
        "QLinearAdd",
        between(7, 8),
        |cx| two(cx, 0, 3),
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearMul",
        between(7, 8),
        |cx| two(cx, 0, 3),
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearWhere",
        exactly(9),
        q_where,
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearSigmoid",
        between(4, 5),
        same,
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearLeakyRelu",
        between(4, 5),
        same,
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearSoftmax",
        exactly(5),
        same,
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearConcat",
        at_least(3),
        q_concat,
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearAveragePool",
        between(4, 5),
        q_average_pool,
        Grad::Missing(help::QUANTIZED),
    ),
    microsoft(
        "QLinearGlobalAveragePool",
        exactly(5),
        q_global_average_pool,
        Grad::Missing(help::QUANTIZED),
    ),
];

fn same(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// `y = clamp(round(x / scale) + zero)`: the operand's shape; the type of the zero point, else
/// `output_dtype`, else u8.
fn quantize(cx: &mut InferCx<'_>) -> Outcome {
    let dtype = match cx.has(2) {
        true => cx.dtype(2),
        false => Some(cx.dtype_attribute("output_dtype").unwrap_or(DType::U8)),
    };
    if let Some(dtype) = dtype {
        cx.same_shape_as(0, 0, dtype);
    }
    Ok(())
}

/// `y = (x - zero) · scale`: the operand's shape; `output_dtype`, else the type of the scale.
fn dequantize(cx: &mut InferCx<'_>) -> Outcome {
    if let Some(dtype) = cx.dtype_attribute("output_dtype").or(cx.dtype(1)) {
        cx.same_shape_as(0, 0, dtype);
    }
    Ok(())
}

/// `y, scale, zero = quantize(x)` to u8 with one scale.
fn dynamic_quantize(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_shape_as(0, 0, DType::U8);
    cx.set(1, DType::F32, Vec::new());
    cx.set(2, DType::U8, Vec::new());
    Ok(())
}

fn product(cx: &mut InferCx<'_>, a: usize, b: usize, dtype: Option<DType>) -> Outcome {
    let Some(dtype) = dtype else {
        return Ok(());
    };
    let dims = match (cx.shape(a), cx.shape(b)) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

fn convolution(cx: &mut InferCx<'_>, x: usize, w: usize, dtype: Option<DType>) -> Outcome {
    let Some(dtype) = dtype else {
        return Ok(());
    };
    let dims = conv_dims(cx, x, w)?;
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// `Y = A Ŵᵀ` with `Ŵ` the dequantized `[N, K]` weight: `[…, K] → […, N]`.
fn matmul_nbits(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some((k, outer)) = cx.shape(0).and_then(<[Dim]>::split_last) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    if let Some(stated) = cx.int("K") {
        shapes::same("the last axis and K", k, &Dim::from(stated))?;
    }
    let mut dims = outer.to_vec();
    dims.push(match cx.int("N") {
        Some(n) => Dim::from(n),
        None => cx.fresh(0, outer.len()),
    });
    cx.set(0, dtype, dims);
    Ok(())
}

/// `y = gather(dequantize(data), indices)`; bytes that hold several codes of fewer bits count as
/// that many elements of the last axis.
fn gather_block_quantized(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(2) else {
        return Ok(());
    };
    let (Some(data), Some(indices)) = (cx.shape(0), cx.shape(1)) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let axis = shapes::axis(cx.int_or("gather_axis", 0), data.len())?;
    let mut data = data.to_vec();
    if cx.dtype(0) == Some(DType::U8) {
        let bits = cx.int_or("bits", 4).clamp(1, 8);
        if let Some(last) = data.last_mut() {
            *last = last.clone() * Dim::from(8 / bits);
        }
    }
    let dims = [&data[..axis], indices, &data[axis + 1..]].concat();
    cx.set(0, dtype, dims);
    Ok(())
}

/// Two quantized operands that broadcast.
fn two(cx: &mut InferCx<'_>, a: usize, b: usize) -> Outcome {
    let Some(dtype) = cx.dtype(a) else {
        return Ok(());
    };
    let dims = match (cx.shape(a), cx.shape(b)) {
        (Some(a), Some(b)) => Some(shapes::broadcast(a, b)?),
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

fn q_where(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(1) else {
        return Ok(());
    };
    let dims = match (cx.shape(0), cx.shape(1), cx.shape(4)) {
        (Some(condition), Some(a), Some(b)) => {
            Some(shapes::broadcast(&shapes::broadcast(condition, a)?, b)?)
        }
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// Operands in threes: value, scale, zero point, after those of the result.
fn q_concat(cx: &mut InferCx<'_>) -> Outcome {
    let (Some(dtype), Some(first)) = (cx.dtype(1), cx.shape(2)) else {
        return Ok(());
    };
    let axis = shapes::axis(cx.int_or("axis", 0), first.len())?;
    let mut dims = first.to_vec();
    for operand in (5..cx.operand_count()).step_by(3) {
        match cx.shape(operand) {
            Some(shape) if shape.len() == dims.len() => {
                dims[axis] = dims[axis].clone() + shape[axis].clone();
            }
            _ => {
                cx.set_unranked(0, dtype);
                return Ok(());
            }
        }
    }
    cx.set(0, dtype, dims);
    Ok(())
}

fn q_average_pool(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = match cx.flag("channels_last") {
        true => cx.rank(0).map(|rank| cx.fresh_shape(0, rank)),
        false => pool_dims(cx)?,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

fn q_global_average_pool(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let last = cx.flag("channels_last");
    let dims = cx.shape(0).map(|x| {
        let channels = if last { x.len().saturating_sub(1) } else { 1 };
        let keeps = |axis: usize| axis == 0 || axis == channels;
        x.iter()
            .enumerate()
            .map(|(axis, dim)| {
                if keeps(axis) {
                    dim.clone()
                } else {
                    Dim::from(1)
                }
            })
            .collect()
    });
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn quantize_has_the_type_of_its_zero_point() {
        check_infer(
            "QuantizeLinear",
            13,
            &["f32[B, 8]", "f32[]", "i8[]"],
            &[],
            &["i8[B, 8]"],
        );
        check_infer(
            "QuantizeLinear",
            13,
            &["f32[B, 8]", "f32[]"],
            &[],
            &["u8[B, 8]"],
        );
        let dtype = [Attribute::int("output_dtype", 3)];
        check_infer(
            "QuantizeLinear",
            21,
            &["f32[B, 8]", "f32[]"],
            &dtype,
            &["i8[B, 8]"],
        );
    }

    #[test]
    fn dequantize_has_the_type_of_its_scale() {
        check_infer(
            "DequantizeLinear",
            21,
            &["i4[64, 32]", "f16[64, 2]"],
            &[],
            &["f16[64, 32]"],
        );
    }

    #[test]
    fn dynamic_quantization_chain() {
        check_infer(
            "DynamicQuantizeLinear",
            11,
            &["f32[B, S, 8]"],
            &[],
            &["u8[B, S, 8]", "f32[]", "u8[]"],
        );
        check_infer(
            "MatMulInteger",
            10,
            &["u8[B, S, 8]", "i8[8, 4]"],
            &[],
            &["i32[B, S, 4]"],
        );
        let operands = ["u8[N, 3, 9]", "u8[8, 3, 3]"];
        check_infer("ConvInteger", 10, &operands, &[], &["i32[N, 8, 7]"]);
    }

    #[test]
    fn static_quantization_has_the_type_of_the_result_zero_point() {
        let operands = [
            "u8[B, 8]", "f32[]", "u8[]", "i8[8, 4]", "f32[]", "i8[]", "f32[]", "i8[]",
        ];
        check_infer("QLinearMatMul", 10, &operands, &[], &["i8[B, 4]"]);
        let operands = [
            "u8[N, 3, 9]",
            "f32[]",
            "u8[]",
            "i8[8, 3, 3]",
            "f32[]",
            "i8[]",
            "f32[]",
            "u8[]",
        ];
        check_infer("QLinearConv", 10, &operands, &[], &["u8[N, 8, 7]"]);
    }

    #[test]
    fn four_bit_weights_are_read_by_their_attributes() {
        let attributes = [Attribute::int("K", 64), Attribute::int("N", 128)];
        let operands = ["f16[B, S, 64]", "u8[128, 2, 16]", "f16[128, 2]"];
        check_infer(
            "com.microsoft:MatMulNBits",
            1,
            &operands,
            &attributes,
            &["f16[B, S, 128]"],
        );
        let operands = ["f16[B, S, 32]", "u8[128, 2, 16]", "f16[128, 2]"];
        check_mismatch(
            "com.microsoft:MatMulNBits",
            1,
            &operands,
            &attributes,
            "32 and 64",
        );
    }

    #[test]
    fn packed_embeddings_have_two_codes_a_byte() {
        let name = "com.microsoft:GatherBlockQuantized";
        check_infer(
            name,
            1,
            &["u8[V, 32]", "i64[B, S]", "f32[V, 2]"],
            &[],
            &["f32[B, S, 64]"],
        );
        check_infer(
            name,
            1,
            &["u4[V, 64]", "i64[B, S]", "f32[V, 2]"],
            &[],
            &["f32[B, S, 64]"],
        );
    }
}
