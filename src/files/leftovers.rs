//! What processes have left that were killed while they wrote.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

const PREFIX: &str = ".peftc-";
const SUFFIX: &str = ".part";

/// The names of everything that is being written.
pub fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    builder
}

/// Removes from a folder what no process is writing any more. Who writes holds a lock, which ends with
/// the process however it ends. Where the system knows no such locks, what has not changed for a while
/// counts as left: whoever writes a file writes all the time. What cannot be removed stays.
pub fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_named = name.to_str().is_some_and(is_temporary);
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        // A link of such a name is not from here.
        if !is_named || !(kind.is_file() || kind.is_dir()) || !is_left(&path) {
            continue;
        }
        let _ = match kind.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        };
    }
}

/// Whether a name is one that [`builder`] makes.
fn is_temporary(name: &str) -> bool {
    let middle = name
        .strip_prefix(PREFIX)
        .and_then(|name| name.strip_suffix(SUFFIX));
    middle.is_some_and(|middle| {
        !middle.is_empty() && middle.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn is_left(path: &Path) -> bool {
    match File::open(path).and_then(|file| lock(&file, For::Removing)) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(_) => last_change(path).is_some_and(|changed| {
            SystemTime::now()
                .duration_since(changed)
                .is_ok_and(|age| age > OLD)
        }),
    }
}

/// No write pauses for so long.
const OLD: Duration = Duration::from_secs(15 * 60);

/// The latest change of a file, or of a folder and what is in it.
fn last_change(path: &Path) -> Option<SystemTime> {
    let own = fs::symlink_metadata(path).ok()?.modified().ok()?;
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    Some(
        inside
            .filter_map(|entry| last_change(&entry.path()))
            .fold(own, SystemTime::max),
    )
}

/// Why a file is locked.
#[derive(Clone, Copy)]
enum For {
    Writing,
    Removing,
}

/// What [`hold`] has come to.
#[derive(Debug)]
pub(super) enum Held {
    /// Nobody removes it until this is dropped; nothing where the system knows no locks.
    Safe(Option<File>),
    /// Somebody took it for left before it was held, and removes it.
    Lost,
}

/// Holds what is being written, a file or a folder.
pub(super) fn hold(path: &Path) -> Held {
    let held = File::open(path).and_then(|file| lock(&file, For::Writing).map(|()| file));
    match held {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Held::Lost,
        // It may be gone already, and what is gone can still be locked.
        _ if fs::symlink_metadata(path).is_err() => Held::Lost,
        held => Held::Safe(held.ok()),
    }
}

#[cfg(unix)]
fn lock(file: &File, why: For) -> io::Result<()> {
    use rustix::fs::{FlockOperation, flock};
    let operation = match why {
        // Shared, because it takes no right to write.
        For::Writing => FlockOperation::NonBlockingLockShared,
        For::Removing => FlockOperation::NonBlockingLockExclusive,
    };
    Ok(flock(file, operation)?)
}

#[cfg(not(unix))]
fn lock(_file: &File, _why: For) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    #[test]
    fn what_nobody_writes_any_more_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path(".peftc-folder.part/deep")).unwrap();
        let others = [
            ".peftc-.part",
            ".peftc-a.b.part",
            ".peftc-a",
            "a.part",
            "model.onnx",
        ];
        for name in [".peftc-Ab12cD.part"].iter().chain(&others) {
            fs::write(path(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(path("model.onnx"), path(".peftc-link.part")).unwrap();
        let written = builder().tempfile_in(folder.path()).unwrap();
        let staged = builder().tempdir_in(folder.path()).unwrap();
        let held = [written.path(), staged.path()].map(|path| match hold(path) {
            Held::Safe(Some(file)) => file,
            other => panic!("{other:?}"),
        });
        remove_leftovers(folder.path());
        let left = names(folder.path());
        let own = [written.path(), staged.path()].map(|path| path.file_name().unwrap().to_owned());
        for name in own
            .iter()
            .map(|name| name.to_str().unwrap())
            .chain(others)
            .chain([".peftc-link.part"])
        {
            assert!(left.iter().any(|left| left == name), "{name}: {left:?}");
        }
        assert_eq!(left.len(), 8, "{left:?}");
        // As when the process ends.
        drop(held);
        remove_leftovers(folder.path());
        assert_eq!(names(folder.path()).len(), 6);
    }
}
