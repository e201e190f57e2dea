//! Diagnostics of this room: weights (E09).

use crate::diag::{Code, Diagnostic};
use std::path::Path;

pub(super) fn not_safetensors(path: &Path, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0901,
        format!("`{}` is not a safetensors file: {why}", path.display()),
    )
    .help("adapter weights are written by `peftc compile` as `.safetensors`")
}
