//! Tests of what users read: diagnostics, their pages, and the language reference.
//!
//! Each `.peft` file below `tests/ui` is a case: comments in it mark the lines on which diagnostics
//! are expected, and the file `.stderr` beside it holds them as drawn. Each `.case` file is one of
//! the command line. With `PEFTC_UI=update` the `.stderr` files are written instead of compared.

// In a test, `unwrap` is an assertion.
#![allow(clippy::unwrap_used)]

#[path = "ui/case.rs"]
mod case;
#[path = "ui/check.rs"]
mod check;
#[path = "ui/codes.rs"]
mod codes;
#[path = "ui/command/mod.rs"]
mod command;
#[path = "ui/documents.rs"]
mod documents;
#[path = "ui/markdown.rs"]
mod markdown;
#[path = "ui/reference.rs"]
mod reference;
#[path = "ui/stage.rs"]
mod stage;

use libtest_mimic::{Arguments, Trial};
use std::path::{Path, PathBuf};

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/ui");
    let (specs, commands) = (cases(&folder, "peft"), cases(&folder, "case"));
    let mut trials = vec![codes::every_code_has_a_case(&specs, &commands)];
    for path in specs {
        let folder = folder.clone();
        let name = check::shown_name(&folder, &path);
        trials.push(Trial::test(name, move || check::check_ui(&folder, &path)));
    }
    for path in commands {
        let name = check::shown_name(&folder, &path);
        trials.push(Trial::test(name, move || command::check_case(&path)));
    }
    trials.extend(codes::trials());
    trials.extend(documents::trials());
    trials.extend(reference::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// Every file below `folder` with this ending, in order.
fn cases(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("the folder of the UI tests can be read");
        for entry in entries {
            let path = entry
                .expect("the folder of the UI tests can be read")
                .path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
