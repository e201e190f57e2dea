//! Constant tensors: from any of ONNX's seven data fields to little-endian bytes.

use super::Cx;
use crate::diag::Reported;
use crate::graph::{Tensor, TensorData};
use crate::onnx::proto::{EXTERNAL, TensorProto};
use crate::onnx::{errors, external};
use crate::ty::DType;
use bytes::Bytes;

/// Converts a tensor; `what` names it in a report.
pub(super) fn tensor(cx: &mut Cx<'_>, what: &str, proto: TensorProto) -> Result<Tensor, Reported> {
    let checked = checked(&proto).map_err(|why| cx.error(errors::tensor(what, &why)))?;
    let data = match checked {
        Checked::Inline(data) => data,
        Checked::External { needed } => {
            let region = external::region(&mut cx.external, what, &proto, needed);
            TensorData::External(region.map_err(|diagnostic| cx.error(*diagnostic))?)
        }
    };
    Ok(Tensor {
        dtype: dtype(&proto).expect("it has been checked"),
        dims: proto.dims,
        data,
    })
}

/// A tensor that does not contradict itself.
enum Checked {
    Inline(TensorData),
    External { needed: u64 },
}

/// `Err` says what is wrong with the tensor, as the rest of a sentence.
fn checked(proto: &TensorProto) -> Result<Checked, String> {
    let dtype = dtype(proto)?;
    let elements = elements(&proto.dims)?;
    if proto.segment.is_some() {
        return Err("is a segment of a larger tensor, which ONNX does not use any more".to_owned());
    }
    if proto.data_location != Some(EXTERNAL) {
        return inline(proto, dtype, elements).map(Checked::Inline);
    }
    if typed_count(proto) > 0 || proto.raw_data.as_ref().is_some_and(|raw| !raw.is_empty()) {
        return Err("holds its data twice, in the model and outside".to_owned());
    }
    match dtype.byte_len(elements) {
        Some(needed) => Ok(Checked::External { needed }),
        None => Err("holds strings outside of the model, where ONNX has none".to_owned()),
    }
}

fn dtype(proto: &TensorProto) -> Result<DType, String> {
    let number = proto.data_type.unwrap_or_default();
    DType::from_number(number).ok_or_else(|| format!("has the unknown element type {number}"))
}

/// The number of elements. Refuses negative sizes and products that do not fit, even where
/// another dimension is 0, so that no later multiplication can overflow.
pub(super) fn elements(dims: &[i64]) -> Result<u64, String> {
    if let Some(dim) = dims.iter().find(|dim| **dim < 0) {
        return Err(format!("has the negative dimension {dim}"));
    }
    let size = dims
        .iter()
        .filter(|dim| **dim != 0)
        .try_fold(1i64, |product, dim| product.checked_mul(*dim))
        .filter(|size| *size < 1 << 56)
        .ok_or_else(|| format!("has more elements than any machine holds: {dims:?}"))?;
    Ok(if dims.contains(&0) { 0 } else { size as u64 })
}

fn inline(proto: &TensorProto, dtype: DType, elements: u64) -> Result<TensorData, String> {
    if dtype == DType::String {
        check_count(proto, dtype, proto.string_data.len() as u64, elements)?;
        return Ok(TensorData::Strings(proto.string_data.clone()));
    }
    let needed = dtype
        .byte_len(elements)
        .expect("a fixed size times under 2^56 elements fits");
    let typed = typed_count(proto);
    if let Some(raw) = &proto.raw_data
        && !(raw.is_empty() && typed > 0)
    {
        if typed > 0 {
            return Err("holds its data twice, raw and typed".to_owned());
        }
        if raw.len() as u64 != needed {
            return Err(format!(
                "has {} bytes of data, its type {} needs {needed}",
                raw.len(),
                described(proto, dtype)
            ));
        }
        return Ok(TensorData::Raw(raw.clone()));
    }
    typed_data(proto, dtype, elements).map(|raw| TensorData::Raw(Bytes::from(raw)))
}

/// How many entries the typed fields hold together.
fn typed_count(proto: &TensorProto) -> usize {
    proto.float_data.len()
        + proto.int32_data.len()
        + proto.int64_data.len()
        + proto.double_data.len()
        + proto.uint64_data.len()
        + proto.string_data.len()
}

/// The typed field that ONNX prescribes for the type, as little-endian bytes.
fn typed_data(proto: &TensorProto, dtype: DType, elements: u64) -> Result<Vec<u8>, String> {
    let count = |entries: usize, needed: u64| -> Result<(), String> {
        if entries != typed_count(proto) {
            return Err(format!(
                "holds its data in a field that is not for {}",
                dtype.name()
            ));
        }
        check_count(proto, dtype, entries as u64, needed)
    };
    match dtype {
        DType::F32 | DType::Complex64 => {
            let parts = if dtype == DType::F32 { 1 } else { 2 };
            count(proto.float_data.len(), elements * parts)?;
            Ok(proto
                .float_data
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect())
        }
        DType::F64 | DType::Complex128 => {
            let parts = if dtype == DType::F64 { 1 } else { 2 };
            count(proto.double_data.len(), elements * parts)?;
            Ok(proto
                .double_data
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect())
        }
        DType::I64 => {
            count(proto.int64_data.len(), elements)?;
            Ok(proto
                .int64_data
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect())
        }
        DType::U64 => {
            count(proto.uint64_data.len(), elements)?;
            Ok(proto
                .uint64_data
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect())
        }
        DType::U32 => {
            count(proto.uint64_data.len(), elements)?;
            narrow(
                proto
                    .uint64_data
                    .iter()
                    .map(|v| u32::try_from(*v).ok().map(u32::to_le_bytes)),
            )
        }
        _ => {
            // Types under a byte are packed several to an entry, 6-bit floats excepted.
            let entries = match dtype.bits() {
                2 | 4 => elements.div_ceil(8 / dtype.bits()),
                _ => elements,
            };
            count(proto.int32_data.len(), entries)?;
            small_integers(&proto.int32_data, dtype)
        }
    }
}

/// `int32_data` of the types that share that field.
fn small_integers(entries: &[i32], dtype: DType) -> Result<Vec<u8>, String> {
    match dtype {
        DType::I32 => Ok(entries.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::I16 => narrow(
            entries
                .iter()
                .map(|v| i16::try_from(*v).ok().map(i16::to_le_bytes)),
        ),
        DType::U16 | DType::F16 | DType::BF16 => narrow(
            entries
                .iter()
                .map(|v| u16::try_from(*v).ok().map(u16::to_le_bytes)),
        ),
        DType::Bool => narrow(
            entries
                .iter()
                .map(|v| (*v == 0 || *v == 1).then_some([*v as u8])),
        ),
        DType::F6E2M3 | DType::F6E3M2 => pack_six(entries),
        // Signed and packed entries are met both as the byte and as its signed reading.
        DType::I8 | DType::I4 | DType::I2 => narrow(
            entries
                .iter()
                .map(|v| (-128..256).contains(v).then_some([*v as u8])),
        ),
        _ => narrow(entries.iter().map(|v| u8::try_from(*v).ok().map(|v| [v]))),
    }
}

/// Joins converted entries; `None` is one that does not fit.
fn narrow<const N: usize>(
    entries: impl Iterator<Item = Option<[u8; N]>>,
) -> Result<Vec<u8>, String> {
    let mut raw = Vec::with_capacity(entries.size_hint().0 * N);
    for (index, entry) in entries.enumerate() {
        let bytes = entry.ok_or_else(|| format!("has an element out of range, the {index}th"))?;
        raw.extend_from_slice(&bytes);
    }
    Ok(raw)
}

/// Four 6-bit elements to three bytes, the first in the lowest bits.
fn pack_six(entries: &[i32]) -> Result<Vec<u8>, String> {
    let mut raw = Vec::with_capacity((entries.len() * 6).div_ceil(8));
    let (mut held, mut bits) = (0u32, 0);
    for (index, entry) in entries.iter().enumerate() {
        if !(0..64).contains(entry) {
            return Err(format!("has an element out of range, the {index}th"));
        }
        held |= (*entry as u32) << bits;
        bits += 6;
        while bits >= 8 {
            raw.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        raw.push(held as u8);
    }
    Ok(raw)
}

fn check_count(proto: &TensorProto, dtype: DType, has: u64, needed: u64) -> Result<(), String> {
    if has == needed {
        return Ok(());
    }
    Err(format!(
        "has {has} entries of data, its type {} needs {needed}",
        described(proto, dtype)
    ))
}

fn described(proto: &TensorProto, dtype: DType) -> String {
    format!("{dtype}{:?}", proto.dims)
}
