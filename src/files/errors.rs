//! The diagnostics of this room.

use crate::diag::{Code, Diagnostic};
use std::io;
use std::path::Path;

/// A file could not be opened, mapped or read.
pub fn cannot_read(path: &Path, error: &io::Error) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0001,
        format!("cannot read `{}`: {}", path.display(), reason(error)),
    );
    match error.kind() {
        io::ErrorKind::NotFound => diagnostic.help("check the path"),
        io::ErrorKind::PermissionDenied => diagnostic.help("check the file's permissions"),
        io::ErrorKind::IsADirectory => diagnostic.help("name the file itself, not its folder"),
        // Such as a pipe: what is mapped must lie on a disk.
        io::ErrorKind::Other => diagnostic.help("save it as a file first"),
        _ => diagnostic,
    }
}

/// A file could not be written; what was there before is still there.
pub fn cannot_write(path: &Path, error: &io::Error) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0002,
        format!("cannot write `{}`: {}", path.display(), reason(error)),
    );
    let help = match error.kind() {
        io::ErrorKind::NotFound => Some("make its folder first"),
        io::ErrorKind::PermissionDenied => Some("check its permissions and those of its folder"),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Some("name a folder: there is a file of this name")
        }
        io::ErrorKind::IsADirectory => Some("name a file: there is a folder of this name"),
        io::ErrorKind::StorageFull => Some("make room on the disk"),
        _ => None,
    };
    help.into_iter()
        .fold(diagnostic, Diagnostic::help)
        .note("a file that was there before has not been changed")
}

pub(super) fn too_large(path: &Path, cap: u64) -> Diagnostic {
    Diagnostic::new(
        Code::E0003,
        format!(
            "`{}` has more than {cap} bytes, the most that is read of such a file",
            path.display()
        ),
    )
    .help("check that the path names the file that you mean")
}

pub(super) fn not_utf8(path: &Path, at: u64) -> Diagnostic {
    Diagnostic::new(
        Code::E0001,
        format!("cannot read `{}`: byte {at} is not UTF-8", path.display()),
    )
    .help("save the file as UTF-8 text")
}

/// The operating system's words without the error number, which says nothing to most people.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().collect::<String>() + letters.as_str()
    })
}
