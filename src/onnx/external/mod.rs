//! External data: tensors whose bytes lie in files beside the model.
//!
//! In: the key/value pairs of a tensor, and the model's folder. Out: checked regions
//! ([`ExternalData`]) and [`ExternalFiles`], which maps a file when its bytes are first wanted.
//! What holds: a location is relative and stays inside the model's folder, or inside the folder
//! of the file that the model's name links to (hub caches are laid out so); a region has the
//! length of its tensor and lies inside its file. Checking looks at names and sizes only, never
//! at the weights. Not here: writing such files.

mod entries;
mod errors;
mod files;
mod location;

pub use files::ExternalFiles;

pub(super) use entries::{region, without_unknown_keys};

use crate::diag::Diagnostic;
use crate::graph::ExternalData;
use std::collections::BTreeMap;

/// What a model says about external data, gathered while it is imported.
#[derive(Default)]
pub(super) struct Seen {
    /// By location, the region that reaches furthest and the tensor that it belongs to.
    furthest: BTreeMap<String, (u64, String)>,
    checksums: BTreeMap<String, [u8; 20]>,
    /// Keys that ONNX does not define, with how often they occur.
    unknown_keys: BTreeMap<String, usize>,
    /// Checksums that are no SHA-1, with how often they occur.
    unknown_checksums: BTreeMap<String, usize>,
}

impl Seen {
    fn add(&mut self, region: &ExternalData, tensor: &str) {
        let end = region.offset + region.length;
        let entry = self
            .furthest
            .entry(region.location.clone())
            .or_insert_with(|| (end, tensor.to_owned()));
        if end > entry.0 {
            *entry = (end, tensor.to_owned());
        }
    }

    /// How many keys have been left out so far.
    pub fn dropped(&self) -> usize {
        self.unknown_keys.values().sum()
    }

    /// What has been left out, each kind once.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let keys = self.unknown_keys.iter();
        let keys = keys.map(|(key, count)| errors::unknown_key(key, *count));
        let checksums = self.unknown_checksums.iter();
        let checksums = checksums.map(|(text, count)| errors::unknown_checksum(text, *count));
        keys.chain(checksums).collect()
    }
}
