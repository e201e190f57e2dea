//! Tests of what users read: diagnostics, their pages, and the language reference.
//!
//! Each `.peft` file below `tests/ui` is a case: comments in it mark the lines on which diagnostics
//! are expected, and the file `.stderr` beside it holds them as drawn. With `PEFTC_UI=update` the `.stderr` files are written instead of compared.

#[path = "ui/case.rs"]
mod case;
#[path = "ui/check.rs"]
mod check;
#[path = "ui/codes.rs"]
mod codes;
#[path = "ui/markdown.rs"]
mod markdown;
#[path = "ui/stage.rs"]
mod stage;

use libtest_mimic::{Arguments, Trial};
use std::path::{Path, PathBuf};

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/ui");
    let cases = case_files(&folder);
    let mut trials: Vec<Trial> = cases
        .iter()
        .map(|path| {
            let (folder, path) = (folder.clone(), path.clone());
            let name = check::shown_name(&folder, &path);
            Trial::test(name, move || check::check_ui(&folder, &path))
        })
        .collect();
    trials.extend(codes::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// Every `.peft` file below `folder`, in order.
fn case_files(folder: &Path) -> Vec<PathBuf> {
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
            } else if path
                .extension()
                .is_some_and(|extension| extension == "peft")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
