//! The diagnostics of external data.

use crate::diag::{Code, Diagnostic, counted};
use std::path::Path;

pub(super) fn location(tensor: &str, location: &str, why: &str) -> Diagnostic {
    let shown = location.escape_debug();
    Diagnostic::new(
        Code::E0608,
        format!("{tensor} has its data in `{shown}`, which {why}"),
    )
    .help("keep data files in the model's folder, named relative to it with `/`")
}

pub(super) fn escapes(tensor: &str, location: &str, target: &Path) -> Diagnostic {
    self::location(
        tensor,
        location,
        "leads out of the model's folder through a symbolic link",
    )
    .note(format!("it leads to `{}`", target.display()))
}

pub(super) fn missing(tensor: &str, location: &str, path: &Path) -> Diagnostic {
    Diagnostic::new(
        Code::E0609,
        format!(
            "{tensor} has its data in `{location}`, but there is no file `{}`",
            path.display()
        ),
    )
    .help("put the data file beside the model: most exporters write both into one folder")
}

pub(super) fn not_a_file(tensor: &str, location: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0609,
        format!("{tensor} has its data in `{location}`, which is no regular file"),
    )
    .help("put the data file beside the model: most exporters write both into one folder")
}

pub(super) fn no_folder(location: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0609,
        format!("the data in `{location}` cannot be read, the model was not opened as a file"),
    )
    .help("give the model as a path")
}

pub(super) fn region(tensor: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0610, format!("{tensor} has external data {why}"))
        .help("the model has been wrongly written, or the data file belongs to another model")
}

pub(super) fn beyond_end(tensor: &str, location: &str, end: u64, size: u64) -> Diagnostic {
    region(
        tensor,
        &format!("up to byte {end} of `{location}`, which has {size} bytes"),
    )
    .note("a data file that has been cut off is often a download that did not finish")
}

pub(super) fn checksum(location: &str, stated: &str, found: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0614,
        format!("`{location}` has the SHA-1 {found}, the model says {stated}"),
    )
    .help("the data file has been changed or belongs to another model: get both from one source")
}

pub(super) fn two_checksums(location: &str, tensor: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0614,
        format!("the model states two SHA-1 for `{location}`, the second one with {tensor}"),
    )
    .help("export the model again")
}

pub(super) fn unknown_key(key: &str, count: usize) -> Diagnostic {
    let key = key.escape_debug();
    Diagnostic::new(
        Code::W0603,
        format!(
            "external data of {} has the key `{key}`, which is not ONNX's",
            counted(count, "tensor")
        ),
    )
    .note("it is left out of what is written: ONNX Runtime refuses a model with such a key")
}

pub(super) fn unknown_checksum(checksum: &str, count: usize) -> Diagnostic {
    let checksum = checksum.escape_debug();
    Diagnostic::new(
        Code::W0604,
        format!(
            "the checksum `{checksum}` of {} is no SHA-1 and is not verified",
            counted(count, "tensor")
        ),
    )
    .note("ONNX defines it as the SHA-1 of the data file, 40 hexadecimal digits")
}
