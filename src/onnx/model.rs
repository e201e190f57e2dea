//! The two ways in: a file and bytes.

use crate::diag::{Reported, Sink};
use crate::files;
use crate::graph::Model;
use bytes::Bytes;
use std::path::Path;

/// A model with the place of its weights.
#[derive(Debug)]
pub struct Imported {
    pub model: Model,
}

/// Imports a model file. The file is mapped; tensors inside it are read only when used.
pub fn import(path: &Path, sink: &mut Sink) -> Result<Imported, Reported> {
    let bytes = files::map(path).map_err(|error| sink.emit(files::cannot_read(path, &error)))?;
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    import_bytes(&name, bytes, sink)
}

/// Imports a model from memory. External data is not looked for.
pub fn import_bytes(name: &str, bytes: Bytes, sink: &mut Sink) -> Result<Imported, Reported> {
    let model = super::import::model(name, &bytes, sink)?;
    Ok(Imported { model })
}
