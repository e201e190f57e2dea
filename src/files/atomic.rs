//! Writing that is either complete or has not happened.

use super::errors::cannot_write;
use super::leftovers;
use super::unfinished::unfinished;
use crate::diag::{Reported, Sink};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes a file through `content`: into a temporary file of the same folder, then renamed. A
/// symbolic or hard link of that name is replaced, the file behind it is not touched. On failure
/// nothing is left behind.
///
/// The file is complete for every process from the moment it has its name. That it also survives a
/// power cut is left to the system, as `cp` leaves it: what is written can be made again from the
/// same inputs, and waiting for the disk takes half the time of a compile.
pub fn write(
    path: &Path,
    sink: &mut Sink,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Reported> {
    replace(path, content).map_err(|error| sink.emit(cannot_write(path, &error)))
}

/// [`write`] for callers that report in their own way.
pub fn replace(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    // A pipe or a device, such as `/dev/stdout`, is written to and not replaced.
    if std::fs::metadata(path).is_ok_and(|target| !target.is_file() && !target.is_dir()) {
        let mut target = std::fs::OpenOptions::new().write(true).open(path)?;
        return content(&mut target).and_then(|()| target.flush());
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = leftovers::builder();
    // Without this a temporary file is readable by its owner alone; artifacts follow the umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let make = || builder.tempfile_in(folder);
    let (temporary, _unfinished) = unfinished(make, NamedTempFile::path)?;
    // The file itself, which takes several pieces at once.
    let mut writer = BufWriter::with_capacity(1 << 18, temporary.as_file());
    content(&mut writer)?;
    writer.flush()?;
    drop(writer);
    temporary.persist(path).map_err(|failure| failure.error)?;
    Ok(())
}

/// Gives a file that is there another content, and keeps its permissions. What is named by a
/// symbolic link is the file behind it. A file that is read-only stays as it is.
pub fn rewrite(path: &Path, content: &[u8], sink: &mut Sink) -> Result<(), Reported> {
    rewrite_existing(path, content).map_err(|error| sink.emit(cannot_write(path, &error)))
}

fn rewrite_existing(path: &Path, content: &[u8]) -> io::Result<()> {
    let target = path.canonicalize()?;
    let found = std::fs::metadata(&target)?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if found.permissions().readonly() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is read-only",
        ));
    }
    let folder = target.parent().unwrap_or(Path::new("."));
    let builder = leftovers::builder();
    let make = || builder.tempfile_in(folder);
    let (mut temporary, _unfinished) = unfinished(make, NamedTempFile::path)?;
    temporary.write_all(content)?;
    temporary.as_file().set_permissions(found.permissions())?;
    temporary
        .persist(&target)
        .map_err(|failure| failure.error)?;
    Ok(())
}

/// Copies a file of any size to a new name, complete or not at all; answers with its size. The
/// system does the copying where it can (a reflink or `copy_file_range`), so the content does not
/// pass through this process.
pub fn copy(source: &Path, target: &Path, sink: &mut Sink) -> Result<u64, Reported> {
    replace_by_copy(source, target).map_err(|error| sink.emit(cannot_write(target, &error)))
}

fn replace_by_copy(source: &Path, target: &Path) -> io::Result<u64> {
    let folder = target.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut source = std::fs::File::open(source)?;
    let builder = leftovers::builder();
    let make = || builder.tempfile_in(folder);
    let (mut temporary, _unfinished) = unfinished(make, NamedTempFile::path)?;
    // Into the file as it was made: one that is emptied first is written to the disk when closed.
    let size = io::copy(&mut source, temporary.as_file_mut())?;
    let permissions = source.metadata()?.permissions();
    temporary.as_file().set_permissions(permissions)?;
    temporary.persist(target).map_err(|failure| failure.error)?;
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"old").unwrap();
        let mut sink = Sink::new();
        let result = write(&path, &mut sink, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert!(result.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // A socket cannot be opened as a file, so nothing is written either.
        assert!(write(&path, &mut Sink::new(), |out| out.write_all(b"x")).is_err());
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_the_file_behind_them_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        fs::write(&base, b"base").unwrap();
        let (soft, hard) = (folder.path().join("soft"), folder.path().join("hard"));
        std::os::unix::fs::symlink(&base, &soft).unwrap();
        fs::hard_link(&base, &hard).unwrap();
        for link in [&soft, &hard] {
            write(link, &mut Sink::new(), |out| out.write_all(b"new")).unwrap();
            assert_eq!(fs::read(link).unwrap(), b"new");
        }
        assert_eq!(fs::read(&base).unwrap(), b"base");
        assert!(!fs::symlink_metadata(&soft).unwrap().is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_rewritten_file_stays_where_it_is_and_what_it_is() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let link = folder.path().join("link");
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        let mut sink = Sink::new();
        rewrite(&link, b"new", &mut sink).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o640);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        assert!(rewrite(&path, b"newer", &mut sink).is_err());
        assert!(rewrite(folder.path(), b"newer", &mut sink).is_err());
        assert!(rewrite(&folder.path().join("b"), b"newer", &mut sink).is_err());
        assert_eq!((&*fs::read(&path).unwrap(), mode()), (&b"new"[..], 0o440));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn written_files_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write(&ours, &mut Sink::new(), |out| out.write_all(b"x")).unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
