//! Where inputs start from: files of this repository.

use crate::targets::Target;
use std::path::{Path, PathBuf};

/// Models above this size are mostly weights, which say nothing to a reader of structure.
const LARGEST: u64 = 200_000;

/// The files of a target, in the order of their names.
pub fn of(target: &Target) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for (folder, extension) in target.corpus {
        for (path, bytes) in files(&root.join(folder)) {
            if path.to_string_lossy().ends_with(extension) {
                found.push(bytes);
            }
        }
    }
    assert!(!found.is_empty(), "{} has files to start from", target.name);
    found
}

/// Every file below a folder that is no larger than inputs may be.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry.unwrap();
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.metadata().unwrap().len() <= LARGEST {
                found.push((entry.path(), std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}
