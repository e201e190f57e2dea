//! Several files that appear together or not at all.

use super::errors::cannot_write;
use super::leftovers;
use super::unfinished::{self, Unfinished, unfinished};
use crate::diag::{Reported, Sink};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A temporary folder inside the folder that files are for. They are made ready in it, and moved
/// to their places when all of them are complete. Dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    // Dropped in this order: a folder can be removed when what is in it is gone.
    folder: TempDir,
    _unfinished: Unfinished,
    _made: MadeFolders,
}

impl Staging {
    /// Makes the target with the folders around it, where they are not there yet; an empty path is
    /// the working folder.
    pub fn new(target: &Path, sink: &mut Sink) -> Result<Staging, Reported> {
        let target = match target.as_os_str().is_empty() {
            true => Path::new("."),
            false => target,
        };
        let mut failed = |error: io::Error| sink.emit(cannot_write(target, &error));
        let made = MadeFolders::up_to(target).map_err(&mut failed)?;
        let builder = leftovers::builder();
        let make = || builder.tempdir_in(target);
        let (folder, unfinished) = unfinished(make, TempDir::path).map_err(&mut failed)?;
        Ok(Staging {
            target: target.to_owned(),
            folder,
            _unfinished: unfinished,
            _made: made,
        })
    }

    /// Where to write the file that will have this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Moves the files to their places, in this order. What stands in the way of one of them is
    /// noticed before the first is moved.
    pub fn publish(self, names: &[String], sink: &mut Sink) -> Result<(), Reported> {
        for name in names {
            let target = self.target.join(name);
            if let Some(error) = obstacle(&target) {
                return Err(sink.emit(cannot_write(&target, &error)));
            }
        }
        for name in names {
            let target = self.target.join(name);
            let folder = target.parent().unwrap_or(&self.target);
            fs::create_dir_all(folder)
                .and_then(|()| put(&self.path(name), &target))
                .map_err(|error| sink.emit(cannot_write(&target, &error)))?;
        }
        Ok(())
    }
}

/// Gives a finished file its name. What had the name before changes places with it, if the system
/// can do that, and goes with the temporary folder. A rename onto a file does the same, but ext4
/// then starts to write all of the new one to the disk, which takes longer than making it did; that
/// guards against a power cut, and what is put here can be made again from the same inputs.
fn put(made: &Path, target: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, made, CWD, target, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    fs::rename(made, target)
}

/// Only files are replaced, and links, which are not followed.
fn obstacle(target: &Path) -> Option<io::Error> {
    let found = fs::symlink_metadata(target).ok()?;
    if found.is_dir() {
        Some(io::ErrorKind::IsADirectory.into())
    } else if found.is_file() || found.is_symlink() {
        None
    } else {
        Some(io::Error::other("it is no regular file"))
    }
}

/// Folders that were not there before, the innermost first; those that are empty in the end, or
/// when the process is interrupted, are removed.
#[derive(Debug)]
struct MadeFolders(Vec<(PathBuf, Unfinished)>);

impl MadeFolders {
    fn up_to(target: &Path) -> io::Result<MadeFolders> {
        let missing: Vec<&Path> = target
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.is_dir())
            .collect();
        let mut made = MadeFolders(Vec::new());
        for path in missing.into_iter().rev() {
            if let Some(noted) = unfinished::folder(path)? {
                made.0.insert(0, (path.to_owned(), noted));
            }
        }
        Ok(made)
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        // From the inside out; the first one with content ends it.
        for (folder, _) in &self.0 {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn staged(target: &Path) -> Staging {
        let staging = Staging::new(target, &mut Sink::new()).unwrap();
        for name in ["a", "b"] {
            fs::write(staging.path(name), name).unwrap();
        }
        staging
    }

    #[test]
    fn files_appear_together() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/er");
        let staging = staged(&target);
        fs::create_dir(staging.path("sub")).unwrap();
        fs::write(staging.path("sub/c"), "c").unwrap();
        let names = ["a", "b", "sub/c"].map(str::to_owned);
        staging.publish(&names, &mut Sink::new()).unwrap();
        assert_eq!(entries(&target), ["a", "b", "sub"]);
        assert_eq!(fs::read(target.join("sub/c")).unwrap(), b"c");
    }

    #[cfg(unix)]
    #[test]
    fn what_was_there_is_gone_and_what_a_link_names_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (target, other) = (folder.path().join("to"), folder.path().join("other"));
        fs::create_dir(&target).unwrap();
        fs::write(&other, "other").unwrap();
        fs::write(target.join("a"), "a longer one").unwrap();
        std::os::unix::fs::symlink(&other, target.join("b")).unwrap();
        let names = ["a", "b"].map(str::to_owned);
        staged(&target).publish(&names, &mut Sink::new()).unwrap();
        assert_eq!(entries(&target), ["a", "b"]);
        assert_eq!(fs::read(target.join("a")).unwrap(), b"a");
        let found = fs::symlink_metadata(target.join("b")).unwrap();
        assert!(found.is_file());
        assert_eq!(fs::read(other).unwrap(), b"other");
    }

    #[test]
    fn an_obstacle_of_one_keeps_the_others_back() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "old").unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        let names = ["a", "b"].map(str::to_owned);
        let mut sink = Sink::new();
        assert!(staged(folder.path()).publish(&names, &mut sink).is_err());
        assert_eq!(entries(folder.path()), ["a", "b"]);
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"old");
        assert!(sink.diagnostics()[0].message.contains('b'));
    }

    #[test]
    fn what_is_not_published_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        drop(staged(&folder.path().join("deep/er")));
        assert_eq!(entries(folder.path()), [""; 0]);
    }
}
