//! Python with packages, for tests that compare with what is written in it.
//!
//! Packages are put once into `target/python` with pip. Without Python, pip or a registry the test
//! fails: it never passes without them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Python that finds these packages.
pub(crate) fn with(packages: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", folder(packages));
    python
}

/// The folder with the packages, filled now if it is not there.
fn folder(packages: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let folder = target.join("python").join(packages.join("+"));
    if folder.exists() {
        return folder;
    }
    eprintln!("installing {packages:?} into {}", folder.display());
    std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
    // Beside its place, then renamed: an interrupted installation is no installation.
    let unfinished = tempfile::tempdir_in(&target).unwrap();
    let status = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--target"])
        .arg(unfinished.path())
        .args(packages)
        .status()
        .expect("python3 is there");
    assert!(status.success(), "pip installs {packages:?}");
    let made = unfinished.keep();
    if std::fs::rename(&made, &folder).is_err() {
        // Another test was faster.
        assert!(folder.exists());
        std::fs::remove_dir_all(made).unwrap();
    }
    folder
}
