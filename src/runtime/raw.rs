//! The only unsafe code of the room: bytes of ONNX Runtime's tensors and the version of a library
//! file. Everything here is checked by its callers' safe types.
#![allow(unsafe_code)]

use crate::ty::DType;
use ort::memory::Allocator;
use ort::value::{DynTensor, DynTensorRef, TensorElementType};
use std::ffi::{CStr, c_char};
use std::path::Path;

/// The version that a library file states, such as `1.32.0`. The library must be loaded already:
/// this only looks it up again.
pub(super) fn library_version(path: &Path) -> Option<String> {
    type BaseOf = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: the library has been loaded before, so that its initialisers have run; the symbol is
    // ONNX Runtime's documented entry point, its result a static table or null.
    unsafe {
        let library = libloading::Library::new(path).ok()?;
        let base = library.get::<BaseOf>(b"OrtGetApiBase").ok()?();
        let text: *const c_char = (base.as_ref()?.GetVersionString)();
        if text.is_null() {
            return None;
        }
        Some(CStr::from_ptr(text).to_str().ok()?.to_owned())
    }
}

/// A CPU tensor with a copy of `bytes`, which must have the length that type and dimensions ask
/// for; the type is one that a port has.
pub(super) fn tensor(dtype: DType, dims: &[i64], bytes: &[u8]) -> ort::Result<DynTensor> {
    let element = element_type(dtype).expect("a port has types of ONNX Runtime");
    let mut tensor = DynTensor::new(&Allocator::default(), element, dims.to_vec())?;
    assert_eq!(
        tensor.size(),
        Some(bytes.len()),
        "the host tensor was checked"
    );
    if !bytes.is_empty() {
        let target = tensor.data_ptr_mut().cast::<u8>();
        // SAFETY: the tensor was just made by the CPU allocator with `bytes.len()` bytes, and
        // nothing else refers to it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
    Ok(tensor)
}

/// A copy of a tensor's bytes; `None` when they are not in host memory or are strings.
pub(super) fn tensor_bytes(tensor: &DynTensorRef<'_>) -> Option<Vec<u8>> {
    if !tensor.memory_info().is_cpu_accessible() {
        return None;
    }
    let size = tensor.size()?;
    if size == 0 {
        return Some(Vec::new());
    }
    let source = tensor.data_ptr().cast::<u8>();
    // SAFETY: the tensor holds `size` bytes in host memory for as long as it is borrowed.
    Some(unsafe { std::slice::from_raw_parts(source, size) }.to_vec())
}

/// ONNX Runtime's name for an element type, if it has the type.
fn element_type(dtype: DType) -> Option<TensorElementType> {
    use TensorElementType as T;
    Some(match dtype {
        DType::F32 => T::Float32,
        DType::U8 => T::Uint8,
        DType::I8 => T::Int8,
        DType::U16 => T::Uint16,
        DType::I16 => T::Int16,
        DType::I32 => T::Int32,
        DType::I64 => T::Int64,
        DType::String => T::String,
        DType::Bool => T::Bool,
        DType::F16 => T::Float16,
        DType::F64 => T::Float64,
        DType::U32 => T::Uint32,
        DType::U64 => T::Uint64,
        DType::Complex64 => T::Complex64,
        DType::Complex128 => T::Complex128,
        DType::BF16 => T::Bfloat16,
        DType::F8E4M3FN => T::Float8E4M3FN,
        DType::F8E4M3FNUZ => T::Float8E4M3FNUZ,
        DType::F8E5M2 => T::Float8E5M2,
        DType::F8E5M2FNUZ => T::Float8E5M2FNUZ,
        DType::U4 => T::Uint4,
        DType::I4 => T::Int4,
        DType::F4E2M1 => T::Float4E2M1,
        DType::F8E8M0 => T::Float8E8M0,
        DType::U2 => T::Uint2,
        DType::I2 => T::Int2,
        DType::F6E2M3 | DType::F6E3M2 => return None,
    })
}

/// The element type of ONNX Runtime's name; `None` for a type that ONNX does not have.
pub(super) fn dtype(element: TensorElementType) -> Option<DType> {
    DType::ALL
        .iter()
        .copied()
        .find(|dtype| element_type(*dtype) == Some(element))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_has_one_name_in_onnx_runtime() {
        let known = |ours: &DType| Some((*ours, element_type(*ours)?));
        for (ours, theirs) in DType::ALL.iter().filter_map(known) {
            assert_eq!(dtype(theirs), Some(ours));
        }
        assert_eq!(dtype(TensorElementType::Undefined), None);
    }
}
