//! Every code has a page, and its marked examples are true.

use crate::case::Case;
use crate::check::draw;
use crate::markdown::fences;
use crate::stage::run_stage;
use libtest_mimic::{Failed, Trial};
use peftc::diag::{Code, Sink, SourceMap};
use std::collections::BTreeSet;

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
