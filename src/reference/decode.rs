//! Raw little-endian data to elements and back.

use super::array::{Array, Kind, kind};
use super::fault::{Fault, mismatch};
use super::{minifloat, sizes};
use crate::ty::DType;

/// The tensor of raw data in ONNX's layout: row-major, elements of less than a byte packed from
/// the low bits on.
pub fn decode(dtype: DType, dims: &[i64], raw: &[u8]) -> Result<Array, Fault> {
    let dims = sizes::sizes(dims)?;
    let elements = sizes::count(&dims)?;
    let kind = kind(dtype)?;
    if dtype.byte_len(elements as u64) != Some(raw.len() as u64) {
        return mismatch!(
            "{} bytes of data in a tensor of {dims:?} of type {dtype}",
            raw.len()
        );
    }
    let codes = (0..elements).map(|index| code(raw, index, dtype.bits() as usize));
    match kind {
        Kind::Float => Array::floats(dtype, &dims, codes.map(|c| float(dtype, c)).collect()),
        // The code of a negative number is cut to its width, as every number of the type is.
        Kind::Int => Array::ints(dtype, &dims, codes.map(i128::from).collect()),
    }
}

/// Raw data in ONNX's layout; floats are rounded to the width of their type.
pub fn encode(array: &Array) -> Vec<u8> {
    let dtype = array.dtype();
    let bits = dtype.bits() as usize;
    let codes: Vec<u64> = match array.elements() {
        super::Elements::Floats(data) => data.iter().map(|x| float_code(dtype, *x)).collect(),
        super::Elements::Ints(data) => data.iter().map(|x| *x as u64).collect(),
    };
    let mut raw = vec![0_u8; (codes.len() * bits).div_ceil(8)];
    for (index, code) in codes.into_iter().enumerate() {
        for bit in 0..bits {
            let at = index * bits + bit;
            raw[at / 8] |= ((code >> bit & 1) as u8) << (at % 8);
        }
    }
    raw
}

/// The bits of one element. The data is as long as its caller has checked.
fn code(raw: &[u8], index: usize, bits: usize) -> u64 {
    if bits.is_multiple_of(8) {
        let width = bits / 8;
        let bytes = &raw[index * width..][..width];
        return bytes
            .iter()
            .rev()
            .fold(0, |code, byte| code << 8 | u64::from(*byte));
    }
    let bit = |at: usize| u64::from(raw[at / 8] >> (at % 8) & 1);
    (0..bits).fold(0, |code, at| code | bit(index * bits + at) << at)
}

fn float(dtype: DType, code: u64) -> f64 {
    match dtype {
        DType::F64 => f64::from_bits(code),
        DType::F32 => f64::from(f32::from_bits(code as u32)),
        DType::F16 => half::f16::from_bits(code as u16).to_f64(),
        DType::BF16 => half::bf16::from_bits(code as u16).to_f64(),
        _ => minifloat::value(dtype, code as u8),
    }
}

fn float_code(dtype: DType, value: f64) -> u64 {
    match dtype {
        DType::F64 => value.to_bits(),
        DType::F32 => u64::from((value as f32).to_bits()),
        DType::F16 => u64::from(half::f16::from_f64(value).to_bits()),
        DType::BF16 => u64::from(half::bf16::from_f64(value).to_bits()),
        _ => u64::from(minifloat::code(dtype, value)),
    }
}
