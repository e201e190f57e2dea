//! Weights whose codes are packed several to a byte, in blocks with a scale each.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::gather::take;
use super::matmul::{matmul, sum, transposed};
use super::sizes::count;
use super::table::{Entry, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("MatMulNBits", 1, matmul_nbits).microsoft(),
    one("GatherBlockQuantized", 1, gather_block_quantized).microsoft(),
];

/// The codes of a row of bytes, the first in the low bits.
fn codes(bytes: &[i128], bits: usize) -> impl Iterator<Item = i128> + '_ {
    let mask = (1_i128 << bits) - 1;
    let split = move |byte: &i128| {
        let byte = *byte;
        (0..8 / bits).map(move |at| byte >> (at * bits) & mask)
    };
    bytes.iter().flat_map(split)
}

fn code_bits(cx: &Cx<'_>) -> Result<usize, Fault> {
    match cx.int_or("bits", 4) {
        bits @ (1 | 2 | 4 | 8) => Ok(bits as usize),
        bits => unsupported!("codes of {bits} bits"),
    }
}

/// `Y = A Ŵᵀ + bias` with `Ŵ[n, k] = (code - zero) · scale`, one scale and zero point for each
/// block of a row.
fn matmul_nbits(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (k, n, size) = (
        cx.positive("K")?,
        cx.positive("N")?,
        cx.positive("block_size")?,
    );
    let bits = code_bits(cx)?;
    count(&[n, k])?;
    let blocks = k.div_ceil(size);
    let bytes = cx.operand(1)?.as_ints()?;
    let block_bytes = size.saturating_mul(bits).div_ceil(8);
    if bytes.len() != count(&[n, blocks, block_bytes])? {
        return mismatch!("{} bytes of codes for {n} rows of {k}", bytes.len());
    }
    let scales = cx.operand(2)?.as_floats()?;
    if scales.len() != n * blocks {
        return mismatch!("{} scales for {n} rows of {blocks} blocks", scales.len());
    }
    let zeros = zero_points(cx, n, blocks, bits)?;
    let groups = groups(cx, k, size, blocks)?;
    let mut weight = Vec::with_capacity(n * k);
    for row in 0..n {
        let row_bytes = &bytes[row * blocks * block_bytes..][..blocks * block_bytes];
        let row_codes = row_bytes.chunks_exact(block_bytes);
        let row_codes = row_codes.flat_map(|block| codes(block, bits).take(size));
        for (code, group) in row_codes.zip(&groups) {
            let at = row * blocks + group;
            weight.push((code as f64 - zeros[at]) * scales[at]);
        }
    }
    let weight = Array::floats(DType::F64, &[n, k], weight)?;
    let a = cx.operand(0)?;
    let y = matmul(a, &transposed(&weight, true)?)?.typed(a.dtype())?;
    match cx.optional(5) {
        Some(bias) => sum(&y, bias),
        None => Ok(y),
    }
}

/// The zero point of each block: packed as the codes are, a float each, or the middle.
fn zero_points(cx: &Cx<'_>, n: usize, blocks: usize, bits: usize) -> Result<Vec<f64>, Fault> {
    let Some(zeros) = cx.optional(3) else {
        return Ok(vec![2_f64.powi(bits as i32 - 1); n * blocks]);
    };
    match zeros.elements() {
        Elements::Floats(data) if data.len() == n * blocks => Ok(data.clone()),
        Elements::Ints(bytes) => {
            let row_bytes = (blocks * bits).div_ceil(8);
            if bytes.len() != n * row_bytes {
                return mismatch!("{} bytes of zero points for {n} rows", bytes.len());
            }
            let rows = bytes.chunks_exact(row_bytes.max(1));
            let row = |row| codes(row, bits).take(blocks).map(|code| code as f64);
            Ok(rows.flat_map(row).collect())
        }
        Elements::Floats(data) => mismatch!("{} zero points for {n} rows", data.len()),
    }
}

/// The block of each input: those that follow each other, unless operand 4 says otherwise.
fn groups(cx: &Cx<'_>, k: usize, size: usize, blocks: usize) -> Result<Vec<usize>, Fault> {
    let Some(stated) = cx.optional_numbers(4)? else {
        return Ok((0..k).map(|index| index / size).collect());
    };
    let one = |group: &i64| super::sizes::index(*group, blocks);
    let groups: Vec<usize> = stated.iter().map(one).collect::<Result<_, _>>()?;
    match groups.len() >= k {
        true => Ok(groups[..k].to_vec()),
        false => mismatch!("{} groups of {k} inputs", groups.len()),
    }
}

/// `y = dequantize(data)[…, indices, …]`.
fn gather_block_quantized(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (data, scales) = (cx.operand(0)?, cx.operand(2)?);
    let is_packed = data.dtype() == DType::U8;
    let bits = code_bits(cx)?;
    let unpacked = |array: &Array, last: Option<usize>| match is_packed {
        true => unpack(array, bits, last),
        false => Ok(array.clone()),
    };
    let data = unpacked(data, None)?;
    let axis = cx.axis_or("quantize_axis", 1, data.rank())?;
    let size = match cx.int_or("block_size", 128) {
        0 => data.dims()[axis].max(1),
        _ => cx.positive("block_size").unwrap_or(128),
    };
    let zeros = match cx.optional(3) {
        Some(zeros) => unpacked(zeros, scales.dims().last().copied())?.to_f64s(),
        None if is_packed => vec![2_f64.powi(bits as i32 - 1); scales.len()],
        None => vec![0.0; scales.len()],
    };
    let zeros = Array::floats(DType::F64, scales.dims(), zeros)?;
    let blocks = |parameter: &Array| super::quantized::by_block(parameter, data.dims(), axis, size);
    let (scale, zero) = (blocks(scales)?, blocks(&zeros)?);
    let numbers = data
        .to_f64s()
        .into_iter()
        .zip(zero.as_floats()?)
        .zip(scale.as_floats()?);
    let numbers = numbers
        .map(|((x, zero), scale)| (x - zero) * scale)
        .collect();
    let table = Array::floats(scales.dtype(), data.dims(), numbers)?;
    take(
        &table,
        cx.operand(1)?,
        cx.axis_or("gather_axis", 0, table.rank())?,
    )
}

/// The codes of bytes along the last axis, cut to so many.
fn unpack(array: &Array, bits: usize, last: Option<usize>) -> Result<Array, Fault> {
    let Some((bytes, outer)) = array.dims().split_last() else {
        return mismatch!("packed codes without axes");
    };
    let len = count(&[*bytes, 8 / bits])?;
    let kept = last.unwrap_or(len).min(len);
    count(&[count(outer)?, len])?;
    let rows = array.as_ints()?.chunks_exact((*bytes).max(1));
    let data = rows.flat_map(|row| codes(row, bits).take(kept)).collect();
    Array::ints(DType::U8, &[outer, &[kept]].concat(), data)
}
