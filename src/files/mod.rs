//! Files: reading whole, mapping, and writing so that nothing half-written is ever seen.
//!
//! In: paths that the user named. Out: bytes, or a diagnostic that says which file and why. What
//! holds: a read never takes more memory than its cap; a write replaces the name only when the
//! whole content has reached the disk, and never goes through a symbolic or hard link to change
//! the file behind it, unless the file is there to be changed (`rewrite`). Not here: which files
//! may be opened (see `onnx`'s rules for external data) and what is in them.

mod atomic;
mod errors;
mod find;
mod leftovers;
mod map;
mod staging;
mod unfinished;

pub use atomic::{copy, replace, rewrite, write};
pub use errors::{cannot_read, cannot_write, reason};
pub use find::find;
pub use leftovers::{builder as temporary, remove_leftovers};
pub use map::map;
pub use staging::Staging;
pub use unfinished::{Unfinished, discard_unfinished, unfinished};

use crate::diag::{Reported, Sink};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads a file of at most `cap` bytes.
pub fn read(path: &Path, cap: u64, sink: &mut Sink) -> Result<Vec<u8>, Reported> {
    let file = File::open(path).map_err(|error| sink.emit(cannot_read(path, &error)))?;
    read_from(file, path, cap, sink)
}

/// [`read`] of a file that is open, such as stdin; `path` is its name in messages.
pub fn read_from(
    source: impl Read,
    path: &Path,
    cap: u64,
    sink: &mut Sink,
) -> Result<Vec<u8>, Reported> {
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that grows while it is read is noticed too.
    source
        .take(cap.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| sink.emit(cannot_read(path, &error)))?;
    if bytes.len() as u64 > cap {
        return Err(sink.emit(errors::too_large(path, cap)));
    }
    Ok(bytes)
}

/// Reads a UTF-8 text of at most `cap` bytes.
pub fn read_text(path: &Path, cap: u64, sink: &mut Sink) -> Result<String, Reported> {
    let bytes = read(path, cap, sink)?;
    text(path, bytes, sink)
}

/// The bytes of a file as UTF-8 text.
pub fn text(path: &Path, bytes: Vec<u8>, sink: &mut Sink) -> Result<String, Reported> {
    String::from_utf8(bytes).map_err(|error| {
        sink.emit(errors::not_utf8(
            path,
            error.utf8_error().valid_up_to() as u64,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Code;

    #[test]
    fn a_file_above_the_cap_is_refused_and_one_at_the_cap_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"12345").unwrap();
        let mut sink = Sink::new();
        assert_eq!(read(&path, 5, &mut sink).unwrap(), b"12345");
        assert!(read(&path, 4, &mut sink).is_err());
        assert_eq!(sink.diagnostics()[0].code, Code::E0003);
    }

    #[test]
    fn a_missing_file_and_a_folder_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Sink::new();
        assert!(read(&folder.path().join("none"), 5, &mut sink).is_err());
        assert!(read(folder.path(), 5, &mut sink).is_err());
        assert!(sink.diagnostics()[0].message.contains("none"));
        assert_eq!(sink.diagnostics()[1].code, Code::E0001);
    }

    #[test]
    fn text_that_is_not_utf8_names_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"ab\xff").unwrap();
        let mut sink = Sink::new();
        assert!(read_text(&path, 5, &mut sink).is_err());
        assert!(sink.diagnostics()[0].message.contains("byte 2"));
    }
}
