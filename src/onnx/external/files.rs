//! The data files of a model, mapped when they are first wanted.

use super::location::Folder;
use super::{Seen, errors};
use crate::diag::{Code, Diagnostic, Reported, Sink};
use crate::files::{cannot_read, map};
use crate::graph::{ExternalData, Tensor, TensorData};
use bytes::Bytes;
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Gives out the bytes of a model's tensors, wherever they lie. Files are mapped once, on the
/// first request, and stay mapped as long as any of their bytes are in use.
#[derive(Debug, Default)]
pub struct ExternalFiles {
    folder: Option<Folder>,
    checksums: BTreeMap<String, [u8; 20]>,
    locations: Vec<String>,
    mapped: Mutex<BTreeMap<String, Bytes>>,
}

impl ExternalFiles {
    /// The files of a model that was opened at a path, without looking for them.
    pub(in crate::onnx) fn unchecked(model: Option<&Path>, seen: Seen) -> Self {
        ExternalFiles {
            folder: model.and_then(|path| Folder::of(path).ok()),
            checksums: seen.checksums,
            locations: seen.furthest.into_keys().collect(),
            mapped: Mutex::default(),
        }
    }

    /// Whether every file is there and large enough; the faults go to the sink.
    pub(in crate::onnx) fn checked(model: &Path, seen: Seen, sink: &mut Sink) -> Self {
        let furthest = seen.furthest.clone();
        let files = ExternalFiles::unchecked(Some(model), seen);
        for (location, (end, tensor)) in &furthest {
            if let Err(diagnostic) = files.check(location, *end, tensor) {
                sink.emit(*diagnostic);
            }
        }
        files
    }

    /// The locations that the model's tensors name, sorted.
    pub fn locations(&self) -> &[String] {
        &self.locations
    }

    /// The real path of a data file, to copy or to fingerprint it.
    pub fn path(&self, location: &str) -> Result<PathBuf, Box<Diagnostic>> {
        self.resolve(location, "the model")
    }

    /// The raw bytes of a tensor: those at hand, or a slice of a mapped file. The first request
    /// for a file whose checksum the model states reads all of it to verify that.
    pub fn bytes(&self, tensor: &Tensor) -> Result<Bytes, Box<Diagnostic>> {
        match &tensor.data {
            TensorData::Raw(raw) => Ok(raw.clone()),
            TensorData::External(region) => self.region(region),
            TensorData::Strings(_) => Err(Box::new(Diagnostic::new(
                Code::E0605,
                "a tensor of strings has no raw data",
            ))),
        }
    }

    /// [`bytes`](Self::bytes), where what is wrong is reported.
    pub fn read(&self, tensor: &Tensor, sink: &mut Sink) -> Result<Bytes, Reported> {
        self.bytes(tensor)
            .map_err(|diagnostic| sink.emit(*diagnostic))
    }

    /// The bytes of a region of a data file.
    pub fn region(&self, region: &ExternalData) -> Result<Bytes, Box<Diagnostic>> {
        let file = self.file(&region.location)?;
        let end = region.offset.saturating_add(region.length);
        if end > file.len() as u64 {
            return Err(Box::new(errors::beyond_end(
                "the model",
                &region.location,
                end,
                file.len() as u64,
            )));
        }
        Ok(file.slice(region.offset as usize..end as usize))
    }

    fn resolve(&self, location: &str, tensor: &str) -> Result<PathBuf, Box<Diagnostic>> {
        match &self.folder {
            Some(folder) => folder.resolve(location, tensor),
            None => Err(Box::new(errors::no_folder(location))),
        }
    }

    fn check(&self, location: &str, end: u64, tensor: &str) -> Result<(), Box<Diagnostic>> {
        let path = self.resolve(location, tensor)?;
        let metadata = path
            .metadata()
            .map_err(|error| cannot_read(&path, &error))?;
        if !metadata.is_file() {
            return Err(Box::new(errors::not_a_file(tensor, location)));
        }
        if end > metadata.len() {
            return Err(Box::new(errors::beyond_end(
                tensor,
                location,
                end,
                metadata.len(),
            )));
        }
        Ok(())
    }

    fn file(&self, location: &str) -> Result<Bytes, Box<Diagnostic>> {
        // A map is inserted whole, so a poisoned lock still guards a good table.
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = mapped.get(location) {
            return Ok(bytes.clone());
        }
        self.check(location, 0, "the model")?;
        let path = self.resolve(location, "the model")?;
        let bytes = map(&path).map_err(|error| cannot_read(&path, &error))?;
        if let Some(stated) = self.checksums.get(location) {
            let found = Sha1::digest(&bytes);
            if found[..] != stated[..] {
                let diagnostic = errors::checksum(location, &hex(stated), &hex(&found));
                return Err(Box::new(diagnostic));
            }
        }
        mapped.insert(location.to_owned(), bytes.clone());
        Ok(bytes)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
