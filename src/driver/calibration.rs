//! Calibration files: what data tells of the modules of a model, as safetensors.
//!
//! A tensor is named `<module path>.<statistic>`; the file says which model it was measured of.

use super::errors;
use crate::adapt::Calibration;
use crate::diag::{Reported, Sink};
use crate::files;
use crate::graph::Tensor;
use crate::hir::Statistic;
use crate::ty::DType;
use crate::weights::{NamedTensor, read_entry, read_tensors, write_tensors};
use std::path::Path;

/// Under which a file says what it is.
const KEY: &str = "peftc";

/// A calibration that has been read.
pub(super) struct Read {
    pub calibration: Calibration,
    /// `blake3:` and the hash of the file.
    pub digest: String,
}

/// Writes a file whose bytes depend on the statistics and on what the model is known by alone.
pub(super) fn write(
    path: &Path,
    found: &[(String, Statistic, Tensor)],
    fingerprint: &str,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let tensors = found.iter().map(|(module, statistic, tensor)| NamedTensor {
        name: format!("{module}.{}", statistic.name()),
        dtype: tensor.dtype,
        dims: tensor.dims.clone(),
        data: tensor.raw().cloned().unwrap_or_default(),
    });
    let tensors: Vec<NamedTensor> = tensors.collect();
    write_tensors(path, &tensors, (KEY, identity(fingerprint)), sink)
}

/// Reads a file that must be of the model that is known by this.
pub(super) fn read(path: &Path, fingerprint: &str, sink: &mut Sink) -> Result<Read, Reported> {
    let tensors = read_tensors(path, sink)?;
    match read_entry(path, KEY, sink)? {
        Some(said) if said == identity(fingerprint) => {}
        Some(said) if said.starts_with(PREFIX) => {
            return Err(sink.emit(errors::calibration_of_another_model(path)));
        }
        _ => return Err(sink.emit(errors::no_calibration_file(path))),
    }
    let mut calibration = Calibration::default();
    for tensor in tensors {
        let named = tensor.name.rsplit_once('.');
        let named = named.and_then(|(path, last)| Some((path, Statistic::named(last)?)));
        let Some((module, statistic)) = named.filter(|_| tensor.dtype == DType::F32) else {
            return Err(sink.emit(errors::no_calibration_file(path)));
        };
        let values = Tensor::from_raw(tensor.dtype, &tensor.dims, tensor.data);
        let is_finite = |values: Vec<f64>| values.iter().all(|value| value.is_finite());
        if !values.to_f64s().is_some_and(is_finite) {
            return Err(sink.emit(errors::calibration_not_finite(path, &tensor.name)));
        }
        calibration.insert(module, statistic, values);
    }
    let bytes = files::map(path).map_err(|error| sink.emit(files::cannot_read(path, &error)))?;
    Ok(Read {
        calibration,
        digest: format!("blake3:{}", blake3::hash(&bytes).to_hex()),
    })
}

const PREFIX: &str = "calibration of ";

fn identity(fingerprint: &str) -> String {
    format!("{PREFIX}{fingerprint}")
}
