//! Memory maps.

use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Maps a whole file. The bytes stay valid as long as any slice of them lives; memory is taken
/// only for the pages that are read. An empty file gives empty bytes.
pub fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "is a directory",
        ));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private to this process. Another process that truncates
    // the file while it is mapped ends this one with SIGBUS, and one that writes to it changes
    // what is read; every tool that maps weights accepts that, and peftc itself never writes into
    // a file in place (see `write`).
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_outlive_the_first_handle_and_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"weights").unwrap();
        let slice = map(&path).unwrap().slice(1..4);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&slice[..], b"eig");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_not_an_empty_file() {
        assert!(map(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn an_empty_file_is_empty_and_a_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"").unwrap();
        assert!(map(&path).unwrap().is_empty());
        assert!(map(folder.path()).is_err());
    }
}
