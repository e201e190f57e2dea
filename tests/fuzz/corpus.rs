//! Where inputs start from: files of this repository.

use crate::targets::Target;
use std::path::{Path, PathBuf};

/// How much of what behaves in a new way is kept.
const MOST_ADDED: usize = 256 << 20;

pub struct Corpus {
    pub inputs: Vec<Vec<u8>>,
    added: usize,
}

impl Corpus {
    pub fn add(&mut self, input: Vec<u8>) {
        if self.added < MOST_ADDED {
            self.added += input.len();
            self.inputs.push(input);
        }
    }
}

/// The inputs of a target, in the order of the names of their files.
pub fn of(target: &Target) -> Corpus {
    let mut inputs = (target.seeds)();
    let regressions = files(&root().join("tests/fuzz/regressions").join(target.name));
    inputs.extend(regressions.into_iter().map(|(_, bytes)| bytes));
    assert!(!inputs.is_empty(), "{} has a seed", target.name);
    Corpus { inputs, added: 0 }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The contents of the files below a folder of the repository whose names end so.
pub fn below(folder: &str, ending: &str) -> impl Iterator<Item = Vec<u8>> {
    let found = files(&root().join(folder)).into_iter();
    found
        .filter(move |(path, _)| path.to_string_lossy().ends_with(ending))
        .map(|(_, bytes)| bytes)
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}
