//! Reading and writing safetensors.

use super::errors;
use crate::diag::{Reported, Sink};
use crate::files;
use crate::ty::DType;
use bytes::Bytes;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// A tensor under its name in the file; little-endian, row-major.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<i64>,
    pub data: Bytes,
}

/// The element types that both formats have.
const TYPES: &[(DType, Dtype)] = &[
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

/// Writes tensors and one metadata entry. One, because the format's metadata has no order and the
/// same inputs must give the same bytes.
pub fn write_tensors(
    path: &Path,
    tensors: &[NamedTensor],
    metadata: (&str, String),
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut views = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let dtype = TYPES
            .iter()
            .find(|(own, _)| *own == tensor.dtype)
            .map(|(_, theirs)| *theirs);
        let dtype = dtype.unwrap_or_else(|| unreachable!("adapter tensors are of plain types"));
        let dims = tensor.dims.iter().map(|d| *d as usize).collect();
        let view = TensorView::new(dtype, dims, &tensor.data)
            .unwrap_or_else(|error| unreachable!("the tensor was made to fit: {error}"));
        views.push((tensor.name.as_str(), view));
    }
    let metadata = HashMap::from([(metadata.0.to_owned(), metadata.1)]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .unwrap_or_else(|error| unreachable!("names are unique: {error}"));
    files::write(path, sink, |out| out.write_all(&bytes))
}

/// An entry of a file's metadata.
pub fn read_entry(path: &Path, key: &str, sink: &mut Sink) -> Result<Option<String>, Reported> {
    let bytes = files::map(path).map_err(|error| sink.emit(files::cannot_read(path, &error)))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| sink.emit(errors::not_safetensors(path, &error.to_string())))?;
    let entries = metadata.metadata().as_ref();
    Ok(entries.and_then(|entries| entries.get(key).cloned()))
}

/// Reads every tensor of a file, in the order of their names, without copying the data.
pub fn read_tensors(path: &Path, sink: &mut Sink) -> Result<Vec<NamedTensor>, Reported> {
    let bytes = files::map(path).map_err(|error| sink.emit(files::cannot_read(path, &error)))?;
    let parsed = SafeTensors::deserialize(&bytes)
        .map_err(|error| sink.emit(errors::not_safetensors(path, &error.to_string())))?;
    let mut tensors = Vec::new();
    for (name, view) in parsed.iter() {
        let Some((dtype, _)) = TYPES.iter().find(|(_, theirs)| *theirs == view.dtype()) else {
            let why = format!("tensor `{name}` has the type {:?}", view.dtype());
            return Err(sink.emit(errors::not_safetensors(path, &why)));
        };
        tensors.push(NamedTensor {
            name: name.to_owned(),
            dtype: *dtype,
            dims: view.shape().iter().map(|d| *d as i64).collect(),
            data: bytes.slice_ref(view.data()),
        });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Code;

    fn tensor(name: &str, values: &[f32]) -> NamedTensor {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        NamedTensor {
            name: name.to_owned(),
            dtype: DType::F32,
            dims: vec![values.len() as i64],
            data: data.into(),
        }
    }

    #[test]
    fn tensors_come_back_as_written_and_twice_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let tensors = [tensor("m.B", &[1.0, 2.0]), tensor("m.A", &[3.0])];
        let mut sink = Sink::new();
        write_tensors(&a, &tensors, ("peftc", "x".to_owned()), &mut sink).unwrap();
        write_tensors(&b, &tensors, ("peftc", "x".to_owned()), &mut sink).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        let read = read_tensors(&a, &mut sink).unwrap();
        assert_eq!(
            read.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
            ["m.A", "m.B"]
        );
        assert_eq!(read[1].data, tensors[0].data);
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut sink = Sink::new();
        write_tensors(
            &path,
            &[tensor("m.A", &[3.0])],
            ("peftc", String::new()),
            &mut sink,
        )
        .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(read_tensors(&path, &mut sink).is_err());
        assert_eq!(sink.diagnostics()[0].code, Code::E0901);
    }
}
