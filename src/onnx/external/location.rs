//! Where a data file may be.

use super::errors;
use crate::diag::Diagnostic;
use crate::files::cannot_read;
use std::io;
use std::path::{Path, PathBuf};

/// Checks a location by its text alone; `Err` says what is wrong, as the rest of a sentence.
pub(super) fn check(location: &str) -> Result<(), &'static str> {
    if location.is_empty() {
        return Err("is no name");
    }
    if location.contains('\0') {
        return Err("has a zero byte in its name");
    }
    if location.contains('\\') {
        return Err("has a backslash in its name");
    }
    let has_drive =
        matches!(location.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if location.starts_with('/') || has_drive {
        return Err("is an absolute path");
    }
    let mut depth = 0i64;
    for part in location.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err("leads out of the model's folder");
        }
    }
    if depth == 0 {
        return Err("is the model's folder itself");
    }
    Ok(())
}

/// The folders in which a model's data files may be.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    /// The folder of the model's name, from which locations count.
    base: PathBuf,
    /// The real folders that a location may lead to.
    allowed: Vec<PathBuf>,
}

impl Folder {
    pub fn of(model: &Path) -> io::Result<Folder> {
        let base = model.parent().map(Path::to_owned).unwrap_or_default();
        let mut allowed = vec![Path::new(".").join(&base).canonicalize()?];
        if let Some(real) = model.canonicalize()?.parent() {
            allowed.push(real.to_owned());
        }
        Ok(Folder { base, allowed })
    }

    /// The real path of a location whose text has been checked; `tensor` names who asks.
    pub fn resolve(&self, location: &str, tensor: &str) -> Result<PathBuf, Box<Diagnostic>> {
        let path = self.base.join(location);
        let real = path.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => errors::missing(tensor, location, &path),
            _ => cannot_read(&path, &error),
        })?;
        if !self.allowed.iter().any(|folder| real.starts_with(folder)) {
            return Err(Box::new(errors::escapes(tensor, location, &real)));
        }
        Ok(real)
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_names_inside_the_folder_are_accepted() {
        for good in [
            "w.bin",
            "sub/w.bin",
            "sub/../w.bin",
            "./w",
            "a b,c",
            "..w",
            "w..",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "sub/..",
            "..",
            "../w.bin",
            "sub/../../w.bin",
            "/etc/passwd",
            "//server/share",
            "C:/w.bin",
            "c:w.bin",
            "sub\\w.bin",
            "..\\w.bin",
            "w\0.bin",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
