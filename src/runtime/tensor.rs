//! Tensors in host memory, by name, and their `.safetensors` form.

use super::errors;
use crate::diag::Diagnostic;
use crate::files;
use crate::ty::{DType, Dim, Shape, TensorType};
use bytes::Bytes;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::Path;

/// A tensor in host memory. The bytes are little-endian and row-major and have exactly the length
/// that type and dimensions ask for; they may lie in a memory map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTensor {
    dtype: DType,
    dims: Vec<i64>,
    bytes: Bytes,
}

impl HostTensor {
    /// `None` when a dimension is negative, the type has no fixed size, or the length differs.
    pub fn new(dtype: DType, dims: &[i64], bytes: impl Into<Bytes>) -> Option<HostTensor> {
        let bytes = bytes.into();
        let elements = dims.iter().try_fold(1_u64, |product, dim| {
            product.checked_mul(u64::try_from(*dim).ok()?)
        })?;
        (dtype.byte_len(elements) == Some(bytes.len() as u64)).then(|| HostTensor {
            dtype,
            dims: dims.to_vec(),
            bytes,
        })
    }

    /// Panics if the dimensions do not ask for so many values: the caller has both.
    pub fn from_f32(dims: &[i64], values: &[f32]) -> HostTensor {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(DType::F32, dims, bytes).expect("as many values as the dimensions ask for")
    }

    /// Panics if the dimensions do not ask for so many values: the caller has both.
    pub fn from_i64(dims: &[i64], values: &[i64]) -> HostTensor {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(DType::I64, dims, bytes).expect("as many values as the dimensions ask for")
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn ty(&self) -> TensorType {
        let dims = self.dims.iter().map(|dim| Dim::from(*dim)).collect();
        TensorType::new(self.dtype, Shape(dims))
    }

    /// The elements of a float, integer or boolean tensor, widened; `None` for other types.
    /// Integers beyond 2^53 lose their last digits.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        macro_rules! widen {
            ($ty:ty) => {
                self.bytes
                    .chunks_exact(size_of::<$ty>())
                    .map(|c| <$ty>::from_le_bytes(c.try_into().expect("whole elements")) as f64)
                    .collect()
            };
        }
        Some(match self.dtype {
            DType::F32 => widen!(f32),
            DType::F64 => widen!(f64),
            DType::I64 => widen!(i64),
            DType::I32 => widen!(i32),
            DType::I16 => widen!(i16),
            DType::I8 => widen!(i8),
            DType::U64 => widen!(u64),
            DType::U32 => widen!(u32),
            DType::U16 => widen!(u16),
            DType::U8 | DType::Bool => widen!(u8),
            DType::F16 => self
                .bytes
                .chunks_exact(2)
                .map(|c| half::f16::from_le_bytes(c.try_into().expect("2 bytes")).to_f64())
                .collect(),
            DType::BF16 => self
                .bytes
                .chunks_exact(2)
                .map(|c| half::bf16::from_le_bytes(c.try_into().expect("2 bytes")).to_f64())
                .collect(),
            _ => return None,
        })
    }
}

/// Tensors by name, in a stable order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedTensors(pub Vec<(String, HostTensor)>);

impl NamedTensors {
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.iter().find(|(n, _)| *n == name).map(|(_, t)| t)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    pub fn push(&mut self, name: impl Into<String>, tensor: HostTensor) {
        self.0.push((name.into(), tensor));
    }

    /// Reads a `.safetensors` file; the data stays in the memory map. Sorted by name.
    pub fn read_safetensors(path: &Path) -> Result<NamedTensors, Diagnostic> {
        let file = files::map(path).map_err(|error| files::cannot_read(path, &error))?;
        let views = SafeTensors::deserialize(&file)
            .map_err(|error| errors::not_safetensors(path, &error.to_string()))?;
        let mut tensors = Vec::with_capacity(views.len());
        for (name, view) in views.iter() {
            let tensor = from_view(&file, &view).ok_or_else(|| {
                errors::not_safetensors(
                    path,
                    &format!(
                        "tensor `{name}` has the type {:?}, which ONNX lacks",
                        view.dtype()
                    ),
                )
            })?;
            tensors.push((name.to_owned(), tensor));
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(NamedTensors(tensors))
    }

    /// The bytes of a `.safetensors` file; the same tensors give the same bytes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, Diagnostic> {
        let mut views = Vec::with_capacity(self.0.len());
        for (name, tensor) in self.iter() {
            let dtype = to_safetensors_type(tensor.dtype)
                .ok_or_else(|| errors::not_storable(name, tensor.dtype))?;
            let dims = tensor.dims.iter().map(|dim| *dim as usize).collect();
            let view = TensorView::new(dtype, dims, &tensor.bytes)
                .expect("a host tensor has the length of its type and dimensions");
            views.push((name, view));
        }
        Ok(safetensors::serialize(views, None).expect("the views are valid"))
    }
}

fn from_view(file: &Bytes, view: &TensorView<'_>) -> Option<HostTensor> {
    let dtype = from_safetensors_type(view.dtype())?;
    let dims: Option<Vec<i64>> = view
        .shape()
        .iter()
        .map(|dim| i64::try_from(*dim).ok())
        .collect();
    let bytes = match view.data() {
        // `slice_ref` asks for a part of the buffer, which an empty slice need not be.
        [] => Bytes::new(),
        data => file.slice_ref(data),
    };
    HostTensor::new(dtype, &dims?, bytes)
}

/// safetensors' types that ONNX has too.
const TYPES: &[(Dtype, DType)] = &[
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::U16, DType::U16),
    (Dtype::I16, DType::I16),
    (Dtype::U32, DType::U32),
    (Dtype::I32, DType::I32),
    (Dtype::U64, DType::U64),
    (Dtype::I64, DType::I64),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
    (Dtype::C64, DType::Complex64),
    (Dtype::F8_E4M3, DType::F8E4M3FN),
    (Dtype::F8_E5M2, DType::F8E5M2),
    (Dtype::F8_E4M3FNUZ, DType::F8E4M3FNUZ),
    (Dtype::F8_E5M2FNUZ, DType::F8E5M2FNUZ),
    (Dtype::F8_E8M0, DType::F8E8M0),
    (Dtype::F6_E2M3, DType::F6E2M3),
    (Dtype::F6_E3M2, DType::F6E3M2),
];

fn from_safetensors_type(dtype: Dtype) -> Option<DType> {
    let (_, ours) = TYPES.iter().find(|(theirs, _)| *theirs == dtype)?;
    Some(*ours)
}

fn to_safetensors_type(dtype: DType) -> Option<Dtype> {
    let (theirs, _) = TYPES.iter().find(|(_, ours)| *ours == dtype)?;
    Some(*theirs)
}

#[cfg(test)]
#[path = "tensor_tests.rs"]
mod tests;
