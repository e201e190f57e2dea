//! What is being written at the moment, so that an interrupted process can take it away.

use super::leftovers::{Held, hold};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// In the order in which they were made.
static UNFINISHED: Mutex<Vec<(PathBuf, Kind)>> = Mutex::new(Vec::new());

/// What may be removed.
#[derive(Clone, Copy)]
enum Kind {
    /// A temporary file, or a temporary folder with all that is in it.
    Temporary,
    /// A folder made for files that are not there yet: only while it is empty.
    MadeFor,
}

/// What [`discard_unfinished`] would remove; finished when dropped.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    /// Tells other processes that somebody still writes it.
    _held: Option<File>,
}

/// How often another one is made in place of one that somebody took for left.
const TRIES: usize = 16;

/// Makes a temporary file or folder and notes its path. An interrupt sees it either noted or not
/// made yet. `make` gives another one every time: between making one and holding it, another process
/// may take it for left.
pub fn unfinished<T>(
    make: impl Fn() -> io::Result<T>,
    path: impl Fn(&T) -> &Path,
) -> io::Result<(T, Unfinished)> {
    let mut all = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES {
        let made = make()?;
        let path = path(&made).to_owned();
        if let Held::Safe(_held) = hold(&path) {
            all.push((path.clone(), Kind::Temporary));
            return Ok((made, Unfinished { path, _held }));
        }
    }
    Err(io::Error::other(
        "other processes remove what is being written",
    ))
}

/// Makes a folder for files to come, and notes it likewise; nothing if it is there.
pub(super) fn folder(path: &Path) -> io::Result<Option<Unfinished>> {
    let mut all = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(_) if path.is_dir() => return Ok(None),
        Err(error) => return Err(error),
    }
    all.push((path.to_owned(), Kind::MadeFor));
    let path = path.to_owned();
    Ok(Some(Unfinished { path, _held: None }))
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut all = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(path, _)| *path != self.path);
    }
}

/// Removes everything unfinished. For a process that is about to end: from now on nothing new can
/// be begun, the call that tries waits for the end.
pub fn discard_unfinished() {
    let all = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    // What is inside of another was made after it.
    for (path, kind) in all.iter().rev() {
        // What cannot be removed cannot be helped either.
        let _ = match kind {
            Kind::MadeFor => fs::remove_dir(path),
            Kind::Temporary if path.is_dir() => fs::remove_dir_all(path),
            Kind::Temporary => fs::remove_file(path),
        };
    }
    std::mem::forget(all);
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};
    use std::cell::RefCell;
    use tempfile::NamedTempFile;

    /// The first is locked by a remover before it is held, the second is gone, the third stays.
    #[test]
    fn what_a_remover_was_faster_to_take_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let taken = RefCell::new(Vec::new());
        let make = || {
            let made = super::super::temporary().tempfile_in(folder.path())?;
            let mut taken = taken.borrow_mut();
            let file = File::open(made.path())?;
            match taken.len() {
                0 => flock(&file, FlockOperation::NonBlockingLockExclusive)?,
                1 => fs::remove_file(made.path())?,
                _ => {}
            }
            taken.push(file);
            Ok(made)
        };
        let (made, held) = unfinished(make, NamedTempFile::path).unwrap();
        assert_eq!((taken.borrow().len(), made.path().exists()), (3, true));
        assert_eq!(held.path, made.path());
        // Nothing is done for ever.
        let make = || {
            let made = NamedTempFile::new_in(folder.path())?;
            fs::remove_file(made.path())?;
            Ok(made)
        };
        assert!(unfinished(make, NamedTempFile::path).is_err());
    }
}
