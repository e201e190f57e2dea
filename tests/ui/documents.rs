//! The `peft` examples of the README and of the language reference are true.
//!
//! A fence says in its tags what holds for it; without a tag it is a whole file that checks without
//! findings.
//!
//! * `fails(E0101 W0301)`: it yields exactly these codes.
//! * `plan(NAME)`: it is also planned against the fixture of that name, and its `expect` lines hold.
//! * `proved`: `peftc test` has nothing against its methods; `unproved(CHECK)`: it fails that check, and
//!   no other.
//! * `file(PATH)`: the fences behind it may import it by that path.
//! * `in(method)`: statements of a method; `in(forward)`: lines of a `forward`, which see `rank`,
//!   `A : [rank, in]` and `B : [out, rank]`; `in(adapter)`: statements of an adapter, which see the
//!   library. The declarations around a part need not be used by it (W0301).

use crate::case::Case;
use crate::check::draw;
use crate::markdown::{Fence, fences};
use crate::stage::{Files, run_stage};
use libtest_mimic::{Failed, Trial};
use peftc::diag::{Sink, SourceMap};
use peftc::driver::Session;
use peftc::prove::{CHECKS, Options, Verdict, cases_of, prove};
use peftc::stdlib::LIBRARY;
use std::collections::BTreeSet;
use std::path::Path;

/// The documents, from the root of the repository.
pub const DOCUMENTS: &[&str] = &["README.md", "grammar/README.md", "grammar/METHOD.md"];

/// Tags that mean something.
const TAGS: &[&str] = &["fails", "plan", "file", "in", "proved", "unproved"];

/// One test for every `peft` fence. A document that is missing or has none fails.
pub fn trials() -> Vec<Trial> {
    DOCUMENTS
        .iter()
        .flat_map(|document| match examples(document) {
            Ok(examples) => examples,
            Err(complaint) => vec![Trial::test(format!("document/{document}"), || {
                Err(complaint.into())
            })],
        })
        .collect()
}

/// The text of a document.
pub fn read(document: &str) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    std::fs::read_to_string(path).map_err(|error| format!("{document} cannot be read: {error}"))
}

fn examples(document: &str) -> Result<Vec<Trial>, String> {
    let mut files = Files::new();
    let mut trials = Vec::new();
    for fence in fences(&read(document)?) {
        if fence.language != "peft" {
            continue;
        }
        let visible = files.clone();
        if let Some(path) = fence.tag("file") {
            files.insert(path.to_owned(), fence.text.clone());
        }
        let name = format!("document/{document}:{}", fence.line);
        trials.push(Trial::test(name, move || {
            check_fence(&fence, &visible).map_err(Failed::from)
        }));
    }
    if trials.is_empty() {
        return Err(format!("{document} has no `peft` example"));
    }
    Ok(trials)
}

fn check_fence(fence: &Fence, files: &Files) -> Result<(), String> {
    let unknown = fence.tags.iter().find(|(tag, _)| !TAGS.contains(&&**tag));
    if let Some((tag, _)) = unknown {
        return Err(format!("no tag is called `{tag}`"));
    }
    let part = fence.tag("in");
    let stage = match fence.tag("plan") {
        Some(model) => format!("//# stage = plan\n//# model = {model}\n"),
        None => "//# stage = check\n".to_owned(),
    };
    let text = format!("{}\n{stage}", whole(part, &fence.text)?);
    let mut expected: Vec<&str> = fence.tag("fails").unwrap_or("").split(' ').collect();
    expected.retain(|code| !code.is_empty());
    let found = codes_of(&text, files)?;
    let mut codes = found.codes;
    if part.is_some() && !expected.contains(&"W0301") {
        codes.remove("W0301");
    }
    compare(&expected, &codes, &found.drawn)?;
    let wanted = match (fence.tag("proved"), fence.tag("unproved")) {
        (None, None) => return Ok(()),
        (_, unproved) => unproved,
    };
    let failed = failed_proofs(&fence.text)?;
    match failed.iter().eq(wanted.iter()) {
        true => Ok(()),
        false => Err(format!("the proofs that fail are {failed:?}")),
    }
}

/// The checks that methods of a text fail, in the reference alone.
fn failed_proofs(text: &str) -> Result<Vec<&'static str>, String> {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let spec = session.spec_of("document.peft", text);
    let spec = spec.map_err(|_| "the text does not check".to_owned())?;
    let own = |file| file == spec.file;
    let cases = cases_of(&spec.program, |method| own(method.name.span.file));
    let options = Options {
        seed: 0,
        library: None,
    };
    let table = prove(&spec.program, &cases, &options, &mut sink);
    let table = table.map_err(|_| "nothing is proved".to_owned())?;
    let verdicts = table
        .rows
        .iter()
        .flat_map(|row| CHECKS.iter().zip(&row.verdicts));
    let failed = verdicts.filter(|(_, found)| matches!(found, Verdict::Fails { .. }));
    match table.count(|found| matches!(found, Verdict::Holds(_))) {
        0 => Err("no proof holds".to_owned()),
        _ => Ok(failed.map(|(check, _)| check.name).collect()),
    }
}

/// The part with what stands around it.
fn whole(part: Option<&str>, text: &str) -> Result<String, String> {
    match part {
        None => Ok(text.to_owned()),
        Some("method") if text.contains("forward(") => {
            Ok(format!("method example() on linear {{\n{text}}}\n"))
        }
        Some("method") => Ok(format!(
            "method example(rank: int = 4) on linear {{\n{text}\nforward(x, y) {{ y }}\n}}\n"
        )),
        Some("forward") => Ok(format!(
            "method example(rank: int = 4) on linear {{
             param A : [rank, in] = kaiming_uniform()
             param B : [out, rank] = zeros
             forward(x, y) {{\n{text}}}\n}}\n"
        )),
        Some("adapter") => {
            let library: Vec<&str> = LIBRARY.iter().map(|file| file.name).collect();
            let library = library.join(", ");
            Ok(format!(
                "use std::{{{library}}}\nadapter example {{\n{text}}}\n"
            ))
        }
        Some(other) => Err(format!("nothing is put around `in({other})`")),
    }
}

/// Asserts which codes a text yields.
pub fn check_codes(text: &str, expected: &[&str], files: &Files) -> Result<(), String> {
    let found = codes_of(text, files)?;
    compare(expected, &found.codes, &found.drawn)
}

fn compare(expected: &[&str], codes: &BTreeSet<String>, drawn: &str) -> Result<(), String> {
    let wanted: BTreeSet<String> = expected.iter().map(|code| (*code).to_owned()).collect();
    if *codes == wanted {
        return Ok(());
    }
    Err(format!("expected {expected:?}, found {codes:?}\n{drawn}"))
}

struct Found {
    codes: BTreeSet<String>,
    drawn: String,
}

fn codes_of(text: &str, files: &Files) -> Result<Found, String> {
    let mut sources = SourceMap::new();
    let file = sources.add("example.peft", text);
    let mut sink = Sink::new();
    run_stage(&Case::read(text)?, files, &mut sources, file, &mut sink)?;
    Ok(Found {
        codes: sink
            .diagnostics()
            .iter()
            .map(|d| d.code.name().to_owned())
            .collect(),
        drawn: draw(sink.diagnostics(), &sources),
    })
}
