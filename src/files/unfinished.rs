//! What is being written at the moment, so that an interrupted process can take it away.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A temporary file or folder that [`discard_unfinished`] would remove; finished when dropped.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

/// Makes a temporary file or folder and notes its path. An interrupt sees it either noted or not
/// made yet.
pub fn unfinished<T>(
    make: impl FnOnce() -> io::Result<T>,
    path: impl FnOnce(&T) -> &Path,
) -> io::Result<(T, Unfinished)> {
    let mut all = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    let made = make()?;
    let path = path(&made).to_owned();
    all.insert(path.clone());
    Ok((made, Unfinished(path)))
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut all = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.0);
    }
}

/// Removes everything unfinished. For a process that is about to end: from now on nothing new can
/// be begun, the call that tries waits for the end.
pub fn discard_unfinished() {
    let all = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for path in all.iter() {
        // What cannot be removed cannot be helped either.
        let _ = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    }
    std::mem::forget(all);
}
