//! Every code has a case, and a page whose marked examples are true.

use crate::case::Case;
use crate::command::code_of;
use crate::documents::check_codes;
use crate::markdown::fences;
use crate::stage::Files;
use libtest_mimic::{Failed, Trial};
use peftc::diag::Code;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Why some codes of gradients have no case.
const INSIDE: &str = "commands make losses and parameters that cannot bring it about; `autodiff/tests.rs` and \
                      `train/tests.rs` raise it";

/// Why some codes of training have no case.
const RUN: &str = "they need a language model and ONNX Runtime; `it/train_command.rs` raises them";

/// Codes without a case, with the reason.
const WITHOUT_CASE: &[(Code, &str)] = &[
    (
        Code::E0515,
        "exporters do not write what provokes it; `passes/tests.rs` raises it",
    ),
    (Code::E0702, INSIDE),
    (Code::E0704, INSIDE),
    (Code::E0705, INSIDE),
    (Code::E0753, INSIDE),
    (Code::E1103, RUN),
    (Code::E1104, RUN),
    (Code::W1101, RUN),
    (
        Code::W1102,
        "it depends on the machine; `it/train_inputs.rs` raises it",
    ),
    (
        Code::E9901,
        "a bug of peftc: whatever provokes it is mended; `cli/frame.rs` tests what comes of a panic",
    ),
];

/// One test: every code of the catalogue is the subject of some case.
pub fn every_code_has_a_case(specs: &[PathBuf], commands: &[PathBuf]) -> Trial {
    let (specs, commands) = (specs.to_vec(), commands.to_vec());
    Trial::test("every_code_has_a_case", move || {
        let mut covered = BTreeSet::new();
        for path in specs {
            let case = Case::read(&std::fs::read_to_string(path)?)?;
            covered.extend(case.marks.into_iter().map(|mark| mark.code));
        }
        for path in commands {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            covered.insert(code_of(&name).to_owned());
        }
        let mut missing = Vec::new();
        for code in Code::ALL {
            let exempt = WITHOUT_CASE.iter().any(|(other, _)| other == code);
            if exempt == covered.contains(code.name()) {
                missing.push(code.name());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "without a case, or with one and exempt: {}",
            missing.join(", ")
        )
        .into())
    })
}

/// One test a page.
pub fn trials() -> Vec<Trial> {
    Code::ALL
        .iter()
        .map(|code| Trial::test(format!("page/{}", code.name()), || check_page(*code)))
        .collect()
}

/// The title of a page, and its examples.
fn check_page(code: Code) -> Result<(), Failed> {
    let page = code.page();
    let title = format!("# {}: {}\n\n", code.name(), code.title());
    if !page.starts_with(&title) {
        return Err(format!("the page does not start with {title:?}").into());
    }
    for fence in fences(page) {
        let expected: &[&str] = match fence.tag("fails") {
            Some(code) => &[code],
            None => &[],
        };
        if fence.language == "peft" && !fence.tags.is_empty() {
            check_codes(&fence.text, expected, &Files::new())
                .map_err(|complaint| format!("example at line {}: {complaint}", fence.line))?;
        }
    }
    Ok(())
}
