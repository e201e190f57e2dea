//! Constant tensors: initializers and tensor attributes.

use crate::ty::{DType, Dim, Shape, TensorType};
use bytes::Bytes;

/// A constant tensor. Its data may lie in a memory map or in a file beside the model; nothing here
/// reads a file.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub dtype: DType,
    pub dims: Vec<i64>,
    pub data: TensorData,
}

/// Where the elements are.
#[derive(Clone, Debug)]
pub enum TensorData {
    /// Little-endian, row-major; sub-byte types packed with the first element in the low bits;
    /// booleans one byte each.
    Raw(Bytes),
    /// In a file named relative to the model's folder.
    External(ExternalData),
    /// String elements.
    Strings(Vec<Bytes>),
}

/// ONNX external data: a region of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalData {
    /// Relative to the folder of the model file, with `/` as separator.
    pub location: String,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes; always equal to what type and dimensions ask for.
    pub length: u64,
}

impl Tensor {
    /// A tensor from raw little-endian bytes. Panics if the length does not fit: the caller made
    /// the bytes.
    pub fn from_raw(dtype: DType, dims: &[i64], raw: impl Into<Bytes>) -> Self {
        let raw = raw.into();
        let elements: i64 = dims.iter().product();
        assert_eq!(
            Some(raw.len() as u64),
            dtype.byte_len(elements as u64),
            "raw data has the length of its type and dimensions"
        );
        Tensor {
            dtype,
            dims: dims.to_vec(),
            data: TensorData::Raw(raw),
        }
    }

    pub fn from_f32(dims: &[i64], values: &[f32]) -> Self {
        let raw: Vec<_> = values.iter().map(|v| v.to_le_bytes()).collect();
        Self::from_raw(DType::F32, dims, raw.into_flattened())
    }

    pub fn from_i64(dims: &[i64], values: &[i64]) -> Self {
        let raw: Vec<_> = values.iter().map(|v| v.to_le_bytes()).collect();
        Self::from_raw(DType::I64, dims, raw.into_flattened())
    }

    pub fn ty(&self) -> TensorType {
        TensorType::new(
            self.dtype,
            Shape(self.dims.iter().map(|d| Dim::from(*d)).collect()),
        )
    }

    /// The number of elements; import has checked that it does not overflow.
    pub fn elements(&self) -> u64 {
        self.dims.iter().map(|d| *d as u64).product()
    }

    /// Size of the data in bytes (0 for strings).
    pub fn byte_len(&self) -> u64 {
        self.dtype.byte_len(self.elements()).unwrap_or(0)
    }

    /// The raw bytes if they are at hand without opening a file.
    pub fn raw(&self) -> Option<&Bytes> {
        match &self.data {
            TensorData::Raw(raw) => Some(raw),
            _ => None,
        }
    }

    /// The elements of an inline integer or boolean tensor as numbers; the way shape constants
    /// are read. `None` for other types and for external data.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        let raw = self.raw()?;
        Some(match self.dtype {
            DType::I64 => raw
                .chunks_exact(8)
                .map(|c| i64::from_le_bytes(c.try_into().expect("8 bytes")))
                .collect(),
            DType::I32 => raw
                .chunks_exact(4)
                .map(|c| i64::from(i32::from_le_bytes(c.try_into().expect("4 bytes"))))
                .collect(),
            DType::Bool | DType::U8 => raw.iter().map(|b| i64::from(*b)).collect(),
            DType::I8 => raw.iter().map(|b| i64::from(*b as i8)).collect(),
            _ => return None,
        })
    }

    /// The elements of an inline float tensor (f32, f64, f16, bf16), widened. `None` for other
    /// types and for external data.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        decode_floats(self.dtype, self.raw()?)
    }
}

/// Little-endian float elements, widened; `None` if the type is no float.
pub fn decode_floats(dtype: DType, raw: &[u8]) -> Option<Vec<f64>> {
    Some(match dtype {
        DType::F32 => raw
            .chunks_exact(4)
            .map(|c| f64::from(f32::from_le_bytes(c.try_into().expect("4 bytes"))))
            .collect(),
        DType::F64 => raw
            .chunks_exact(8)
            .map(|c| f64::from_le_bytes(c.try_into().expect("8 bytes")))
            .collect(),
        DType::F16 => raw
            .chunks_exact(2)
            .map(|c| half::f16::from_le_bytes(c.try_into().expect("2 bytes")).to_f64())
            .collect(),
        DType::BF16 => raw
            .chunks_exact(2)
            .map(|c| half::bf16::from_le_bytes(c.try_into().expect("2 bytes")).to_f64())
            .collect(),
        _ => return None,
    })
}
