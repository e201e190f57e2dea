//! Products with weights that stay quantized.

use super::{GradCx, GradOutcome};
use crate::graph::{Attribute, Operand, Tensor, TensorData};
use crate::ops::build::{Builder, Expr, Refusal, refuse};
use crate::ops::registry::MICROSOFT;
use crate::ty::{DType, Dim};

/// `Y = A Ŵᵀ + b` with `Ŵ[n, k] = (code - zero) · scale`: `dA = dY Ŵ`, `db = Σ dY`. The codes are
/// read as they are stored. The product itself is computed in the precision of `A`: with quantized
/// activations it would be another function than the one that is differentiated.
pub fn matmul_nbits(cx: &mut GradCx<'_>) -> GradOutcome {
    let dy = cx.dy()?;
    if cx.needs(2) || cx.needs(3) {
        return refuse!("its scales would be trained");
    }
    cx.compute_exactly();
    let weight = Packed::read(cx)?;
    let dims = cx.dims(0)?;
    let rows = dims[..dims.len().saturating_sub(1)].iter();
    let count = rows.fold(Dim::from(1), |n, dim| n * dim.clone());
    let flat = dy.reshape(&[count, Dim::from(weight.n)])?;
    cx.try_give(0, || flat.matmul(weight.plain(dy.dtype())?).reshape(&dims))?;
    cx.give(5, || flat.sum_dropping(&[0]));
    Ok(())
}

/// `Y = x̂ Ŵ + b` with `Ŵ[k, n] = code · scale[n]` and `x̂` the activations rounded to 8 bits: `dx =
/// (dY · scale) codesᵀ`, where rounding counts as the identity (straight-through), and `db = Σ dY`. The
/// product is of the same kind, so `dY · scale` is rounded to 8 bits, too.
pub fn dynamic_quantize_matmul(cx: &mut GradCx<'_>) -> GradOutcome {
    let dy = cx.dy()?;
    if cx.needs(1) || cx.needs(2) || cx.needs(3) {
        return refuse!("its weight or its scales would be trained");
    }
    if cx.maybe_x(3).is_some() {
        return refuse!("its weight has a zero point");
    }
    let (codes, scale) = (cx.x(1)?, cx.x(2)?);
    let build = cx.build;
    cx.give(0, || {
        let scaled = dy * scale;
        let one = build.scalar(1.0, DType::F32);
        let operands = [scaled, codes.transpose(&[1, 0]), one].map(|x| Some(x.operand));
        build.nodes(
            MICROSOFT,
            "DynamicQuantizeMatMul",
            operands.into(),
            Vec::new(),
            1,
        )[0]
    });
    let axes: Vec<usize> = (0..dy.rank()?.saturating_sub(1)).collect();
    cx.give(4, || dy.sum_dropping(&axes));
    Ok(())
}

/// A weight whose codes are packed several to a byte, in blocks of a row.
struct Packed<'b> {
    codes: Expr<'b>,
    scales: Expr<'b>,
    zeros: Option<Expr<'b>>,
    /// The block of each column, where they do not follow each other.
    groups: Option<Expr<'b>>,
    n: i64,
    k: i64,
    bits: i64,
    size: i64,
}

impl<'b> Packed<'b> {
    fn read(cx: &GradCx<'b>) -> Result<Self, Refusal> {
        let (n, k, size) = (cx.count("N")?, cx.count("K")?, cx.count("block_size")?);
        let bits = cx.int_or("bits", 4);
        if !matches!(bits, 2 | 4 | 8) {
            return refuse!("it has codes of {bits} bits");
        }
        Ok(Packed {
            codes: cx.x(1)?,
            scales: cx.x(2)?,
            zeros: cx.maybe_x(3),
            groups: cx.maybe_x(4),
            n,
            k,
            bits,
            size,
        })
    }

    fn blocks(&self) -> i64 {
        (self.k + self.size - 1) / self.size
    }

    /// `Ŵ`, `[n, k]`.
    fn plain(&self, dtype: DType) -> Result<Expr<'b>, Refusal> {
        match self.relabelled()? {
            Some(plain) => Ok(self.cut(plain).cast(dtype)),
            None => self.unpacked(dtype),
        }
    }

    /// Without what the last block has beyond the row.
    fn cut(&self, plain: Expr<'b>) -> Expr<'b> {
        match self.blocks() * self.size == self.k {
            true => plain,
            false => plain.slice(1, 0, self.k),
        }
    }

    /// ONNX's own blocked quantization of the same bytes, from opset 21 on; `None` where it has no
    /// form for them.
    fn relabelled(&self) -> Result<Option<Expr<'b>>, Refusal> {
        let build = self.codes.builder;
        let (n, blocks) = (self.n, self.blocks());
        let codes_type = match self.bits {
            4 => DType::U4,
            8 => DType::U8,
            _ => return Ok(None),
        };
        if build.opset() < 21 || self.groups.is_some() {
            return Ok(None);
        }
        let Some(codes) = relabel(build, self.codes, codes_type, &[n, blocks * self.size]) else {
            return Ok(None);
        };
        let zeros = match self.zeros {
            None => middle(build, codes_type, &[n, blocks]),
            // Rows of packed zero points end with a byte.
            Some(zeros) if zeros.dtype() == DType::U8 && (self.bits == 8 || blocks % 2 == 0) => {
                match relabel(build, zeros, codes_type, &[n, blocks]) {
                    Some(zeros) => zeros,
                    None => return Ok(None),
                }
            }
            Some(_) => return Ok(None),
        };
        let scales = self.scales.reshape(&[n, blocks].map(Dim::from))?;
        let attributes = vec![
            Attribute::int("axis", 1),
            Attribute::int("block_size", self.size),
        ];
        Ok(Some(build.node(
            "DequantizeLinear",
            &[codes, scales, zeros],
            attributes,
        )))
    }

    /// The codes taken apart with arithmetic.
    fn unpacked(&self, dtype: DType) -> Result<Expr<'b>, Refusal> {
        let (n, blocks) = (self.n, self.blocks());
        let codes = split_bytes(self.codes, self.bits, &[n, blocks * self.size])?.cast(dtype);
        let scales = self
            .scales
            .reshape(&[n, blocks].map(Dim::from))?
            .cast(dtype);
        let zeros = match self.zeros {
            None => codes.number(f64::from(1 << (self.bits - 1))),
            Some(zeros) if zeros.dtype() == DType::U8 => {
                let bytes = (blocks * self.bits + 7) / 8;
                let all = split_bytes(zeros, self.bits, &[n, bytes * 8 / self.bits])?;
                all.slice(1, 0, blocks).cast(dtype)
            }
            Some(zeros) => zeros.reshape(&[n, blocks].map(Dim::from))?.cast(dtype),
        };
        if let Some(groups) = self.groups {
            let columns = groups.slice(0, 0, self.k);
            let axis = || vec![Attribute::int("axis", 1)];
            let pick = |x: Expr<'b>| x.builder.node("Gather", &[x, columns], axis());
            let zeros = match zeros.rank()? {
                0 => zeros,
                _ => pick(zeros),
            };
            return Ok((codes.slice(1, 0, self.k) - zeros) * pick(scales));
        }
        let by_block = [n, blocks, self.size].map(Dim::from);
        let lifted = |x: Expr<'b>| match x.rank() {
            Ok(2) => x.unsqueeze(&[2]),
            _ => x,
        };
        let plain = (codes.reshape(&by_block)? - lifted(zeros)) * lifted(scales);
        let whole = plain.reshape(&[n, blocks * self.size].map(Dim::from))?;
        Ok(self.cut(whole))
    }
}

/// A constant of bytes under another type and shape of the same length.
fn relabel<'b>(
    build: &'b Builder<'b>,
    bytes: Expr<'b>,
    dtype: DType,
    dims: &[i64],
) -> Option<Expr<'b>> {
    let (Operand::Existing(id) | Operand::Original(id)) = bytes.operand else {
        return None;
    };
    let value = build.graph().value(id);
    let found = value.constant()?;
    let elements = dims.iter().product::<i64>() as u64;
    if dtype.byte_len(elements)? != found.byte_len() || matches!(found.data, TensorData::Strings(_))
    {
        return None;
    }
    let tensor = Tensor {
        dtype,
        dims: dims.to_vec(),
        data: found.data.clone(),
    };
    Some(build.constant(&format!("{}.{dtype}", value.name), tensor))
}

/// The middle of all codes, everywhere.
fn middle<'b>(build: &'b Builder<'b>, dtype: DType, dims: &[i64]) -> Expr<'b> {
    let elements = dims.iter().product::<i64>() as u64;
    let byte = match dtype {
        DType::U4 => 0x88,
        _ => 0x80_u8,
    };
    let bytes = vec![byte; dtype.byte_len(elements).unwrap_or(0) as usize];
    build.constant("peftc.middle", Tensor::from_raw(dtype, dims, bytes))
}

/// The codes of bytes, the first in the low bits, as integers in these dimensions.
fn split_bytes<'b>(bytes: Expr<'b>, bits: i64, dims: &[i64]) -> Result<Expr<'b>, Refusal> {
    let build = bytes.builder;
    let bytes = bytes.cast(DType::I32);
    let number = |value: i64| build.scalar(value as f64, DType::I32);
    let axis = bytes.rank()?;
    let parts: Vec<Expr<'b>> = (0..8 / bits)
        .map(|at| {
            let shifted = if at == 0 {
                bytes
            } else {
                bytes / number(1 << (bits * at))
            };
            shifted.apply2("Mod", number(1 << bits)).unsqueeze(&[axis])
        })
        .collect();
    let dims: Vec<Dim> = dims.iter().map(|size| Dim::from(*size)).collect();
    build.concat(&parts, axis).reshape(&dims)
}
