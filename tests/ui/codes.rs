//! Every code has a case, and a page whose marked examples are true.

use crate::case::Case;
use crate::check::draw;
use crate::command::code_of;
use crate::markdown::fences;
use crate::stage::run_stage;
use libtest_mimic::{Failed, Trial};
use peftc::diag::{Code, Sink, SourceMap};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Codes without a case, with the reason.
const WITHOUT_CASE: &[(Code, &str)] = &[(
    Code::E9901,
    "a bug of peftc: whatever provokes it is mended; `cli/frame.rs` tests what comes of a panic",
)];

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
            check_example(&fence.text, expected)
                .map_err(|complaint| format!("example at line {}: {complaint}", fence.line))?;
        }
    }
    Ok(())
}

/// Asserts which codes a text yields.
fn check_example(text: &str, expected: &[&str]) -> Result<(), String> {
    let mut sources = SourceMap::new();
    let file = sources.add("example.peft", text);
    let mut sink = Sink::new();
    run_stage(&Case::read(text)?, &mut sources, file, &mut sink)?;
    let found: BTreeSet<&str> = sink.diagnostics().iter().map(|d| d.code.name()).collect();
    if found == expected.iter().copied().collect() {
        return Ok(());
    }
    let drawn = draw(sink.diagnostics(), &sources);
    Err(format!("expected {expected:?}, found {found:?}\n{drawn}"))
}

/// One test for every `peft` fence of the reference and the README. A fence is checked whole unless
/// its tag says which code it fails with.
pub fn documents() -> Vec<Trial> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut trials = Vec::new();
    for document in ["README.md", "grammar/README.md"] {
        let text = std::fs::read_to_string(root.join(document)).unwrap_or_default();
        let found = fences(&text).into_iter().filter(|f| f.language == "peft");
        for fence in found {
            let name = format!("document/{document}:{}", fence.line);
            trials.push(Trial::test(name, move || {
                let expected: Vec<&str> = fence.tag("fails").into_iter().collect();
                let text = format!("{}\n//# stage = check\n", fence.text);
                check_example(&text, &expected).map_err(Failed::from)
            }));
        }
    }
    trials
}
