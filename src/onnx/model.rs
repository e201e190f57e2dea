//! The ways in: a file, a file without its weights, and bytes.

use super::external::ExternalFiles;
use super::import::Read;
use crate::diag::{Reported, Sink};
use crate::files;
use crate::graph::Model;
use bytes::Bytes;
use std::path::Path;

/// A model with the place of its weights.
#[derive(Debug)]
pub struct Imported {
    pub model: Model,
    /// Gives out the bytes of tensors, external ones included.
    pub weights: ExternalFiles,
}

/// Imports a model file. The file is mapped; tensors inside it are read only when used. Files
/// with external data must be there and large enough; they are not opened.
pub fn import(path: &Path, sink: &mut Sink) -> Result<Imported, Reported> {
    let Read { model, external } = read(path, sink)?;
    let before = sink.error_count();
    let weights = ExternalFiles::checked(path, external, sink);
    if sink.error_count() > before {
        sink.failed()?;
    }
    Ok(Imported { model, weights })
}

/// Imports a model file whose weights may be absent: for checks where only the graph is at hand.
/// External data is checked for where it says to be, not for being there.
pub fn import_without_weights(path: &Path, sink: &mut Sink) -> Result<Imported, Reported> {
    let Read { model, external } = read(path, sink)?;
    let weights = ExternalFiles::unchecked(Some(path), external);
    Ok(Imported { model, weights })
}

/// Imports a model from memory. External data is not looked for and cannot be read.
pub fn import_bytes(name: &str, bytes: Bytes, sink: &mut Sink) -> Result<Imported, Reported> {
    let Read { model, external } = super::import::model(name, &bytes, sink)?;
    let weights = ExternalFiles::unchecked(None, external);
    Ok(Imported { model, weights })
}

fn read(path: &Path, sink: &mut Sink) -> Result<Read, Reported> {
    let bytes = files::map(path).map_err(|error| sink.emit(files::cannot_read(path, &error)))?;
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    super::import::model(&name, &bytes, sink)
}
