//! Files below a folder.

use super::errors::cannot_read;
use crate::diag::Sink;
use std::io;
use std::path::{Path, PathBuf};

/// Every file below a folder whose name ends in `.ending`, in the order of the paths. Links are
/// not followed, and hidden files and folders are left out. A folder that cannot be read is
/// reported and does not hide the others.
pub fn find(folder: &Path, ending: &str, sink: &mut Sink) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if let Err(error) = list(&folder, ending, &mut folders, &mut found) {
            sink.emit(cannot_read(&folder, &error));
        }
    }
    found.sort();
    found
}

fn list(
    folder: &Path,
    ending: &str,
    folders: &mut Vec<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Of a link it is that of the link itself.
        let (kind, path) = (entry.file_type()?, entry.path());
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() {
            folders.push(path);
        } else if kind.is_file() && path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_found_in_order_links_and_hidden_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["b/c", ".git", "b.peft"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let files = ["z.peft", "b/c/a.peft", "b.peft/x.peft", "b/a.peft"];
        let others = [
            ".git/a.peft",
            "b/.a.peft",
            "b/peft",
            "b/a.peft~",
            "b/a.PEFT",
        ];
        for name in files.iter().chain(&others) {
            fs::write(at(name), b"").unwrap();
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("..", at("b/circle")).unwrap();
            std::os::unix::fs::symlink("z.peft", at("link.peft")).unwrap();
        }
        let mut sink = Sink::new();
        let found = find(folder.path(), "peft", &mut sink);
        let expected = ["b/a.peft", "b/c/a.peft", "b.peft/x.peft", "z.peft"];
        assert_eq!(found, expected.map(at));
        assert_eq!(sink.error_count(), 0);
        assert!(find(&at("absent"), "peft", &mut sink).is_empty());
        assert_eq!(sink.error_count(), 1);
    }
}
