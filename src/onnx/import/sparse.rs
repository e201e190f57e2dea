//! Sparse initializers: taken, and written, as the dense tensors that they stand for.
//!
//! Both layouts of indices are read: places in the flattened tensor, and one row of coordinates
//! for each value. What a small file can claim is bounded.

use super::Cx;
use super::tensor::{elements, tensor};
use crate::diag::Reported;
use crate::graph::{Tensor, TensorData};
use crate::onnx::errors;
use crate::onnx::proto::SparseTensorProto;
use crate::ty::DType;
use bytes::Bytes;

/// Bytes that the sparse initializers of a model may take together.
const MOST_BYTES: u64 = 128 << 20;

/// Makes a sparse tensor dense; `what` names it in a report. The name of its values is its own.
pub(super) fn dense(
    cx: &mut Cx<'_>,
    what: &str,
    proto: SparseTensorProto,
) -> Result<Tensor, Reported> {
    let SparseTensorProto {
        values,
        indices,
        dims,
    } = proto;
    let values = tensor(
        cx,
        &format!("the values of {what}"),
        values.unwrap_or_default(),
    )?;
    let indices = match indices {
        Some(indices) => Some(tensor(cx, &format!("the indices of {what}"), indices)?),
        None => None,
    };
    let size = size(&dims, &values).map_err(|why| cx.error(errors::tensor(what, &why)))?;
    let values_bytes = whole(&values).map_err(|why| cx.error(errors::sparse(what, &why)))?;
    let needed = values.dtype.byte_len(size).unwrap_or(u64::MAX);
    cx.dense_bytes = cx.dense_bytes.saturating_add(needed);
    if cx.dense_bytes > MOST_BYTES {
        let why = format!(
            "takes {needed} bytes when dense, sparse initializers may take {MOST_BYTES} together"
        );
        return Err(cx.error(errors::sparse(what, &why)));
    }
    let places = match &indices {
        Some(indices) => places(indices, &dims, size, values.dims[0]),
        None if values.dims[0] == 0 => Ok(Vec::new()),
        None => Err("has values but no indices".to_owned()),
    };
    let places = places.map_err(|why| cx.error(errors::tensor(what, &why)))?;
    let width = (values.dtype.bits() / 8) as usize;
    let mut raw = vec![0; needed as usize];
    for (place, value) in places.iter().zip(values_bytes.chunks_exact(width)) {
        let start = *place as usize * width;
        raw[start..start + width].copy_from_slice(value);
    }
    Ok(Tensor {
        dtype: values.dtype,
        dims,
        data: TensorData::Raw(Bytes::from(raw)),
    })
}

/// The number of elements of the dense tensor.
fn size(dims: &[i64], values: &Tensor) -> Result<u64, String> {
    if dims.is_empty() {
        return Err("is sparse and has no dimension".to_owned());
    }
    if values.dims.len() != 1 {
        return Err(format!("has values of shape {:?}, not a list", values.dims));
    }
    elements(dims)
}

/// The bytes of values that can be put at any place.
fn whole(values: &Tensor) -> Result<&Bytes, String> {
    match &values.data {
        TensorData::Raw(bytes) if values.dtype.bits().is_multiple_of(8) => Ok(bytes),
        TensorData::External(_) => Err("holds its values outside of the model".to_owned()),
        _ => Err(format!("has values of type {}", values.dtype)),
    }
}

/// Places in the flattened tensor, each above the one before.
fn places(indices: &Tensor, dims: &[i64], size: u64, count: i64) -> Result<Vec<u64>, String> {
    let TensorData::Raw(bytes) = &indices.data else {
        return Err("holds its indices outside of the model".to_owned());
    };
    if indices.dtype != DType::I64 {
        return Err(format!("has indices of type {}, not i64", indices.dtype));
    }
    let rank = dims.len();
    let numbers: Vec<i64> = bytes
        .chunks_exact(8)
        .map(|chunk| i64::from_le_bytes(chunk.try_into().expect("chunks of eight")))
        .collect();
    let places: Vec<u64> = match indices.dims[..] {
        [length] if length == count => within(&numbers, &[size as i64])?,
        [length, width] if length == count && width == rank as i64 => within(&numbers, dims)?,
        _ => {
            return Err(format!(
                "has {count} values and indices of shape {:?}, not [{count}] or [{count}, {rank}]",
                indices.dims
            ));
        }
    };
    match places.windows(2).position(|pair| pair[0] >= pair[1]) {
        Some(at) if places[at] == places[at + 1] => {
            Err(format!("has the same index twice, at {at} and {}", at + 1))
        }
        Some(at) => Err(format!("has indices that do not ascend, at {}", at + 1)),
        None => Ok(places),
    }
}

/// Rows of coordinates as places; every coordinate has to lie inside its dimension.
fn within(numbers: &[i64], dims: &[i64]) -> Result<Vec<u64>, String> {
    numbers
        .chunks_exact(dims.len())
        .enumerate()
        .map(|(row, coordinates)| {
            let mut place = 0;
            for (number, dim) in coordinates.iter().zip(dims) {
                if !(0..*dim).contains(number) {
                    return Err(format!(
                        "has an index out of range, the {row}th: {number}, the dimension is {dim}"
                    ));
                }
                place = place * *dim as u64 + *number as u64;
            }
            Ok(place)
        })
        .collect()
}
