//! `peftc docs`: what a file of methods says about itself, and what follows from it.

use super::frame::{Context, Outcome, Payload};
use crate::driver::{Session, Spec};
use crate::prove::{Case, Facts, cases_of, facts};
use crate::syntax::ast::MethodItem;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// Describe methods in Markdown: formula, parameters, and what follows from them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The spec, or `std` for the library
    spec: PathBuf,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let is_library = args.spec.as_os_str() == "std";
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let spec = match is_library {
        true => session.library()?,
        false => session.spec(&args.spec)?,
    };
    let hidden: Vec<_> = spec.program.train.values().collect();
    let mut cases = cases_of(&spec.program, |method| {
        is_library || method.name.span.file == spec.file
    });
    cases.retain(|case| !hidden.contains(&&case.method));
    let mut text = match is_library {
        true => LIBRARY_HEAD.to_owned(),
        false => String::new(),
    };
    let mut rows = Vec::new();
    let mut rest = cases.as_slice();
    while let Some(first) = rest.first() {
        let same = |case: &&Case| case.method == first.method;
        let count = rest.iter().take_while(same).count();
        let (own, others) = rest.split_at(count);
        let source = {
            let file = spec.program.method(first.method).name.span.file;
            cx.sources.text(file).to_string()
        };
        text.push_str(&section(&spec, own, &source));
        rows.extend(own.iter().filter_map(|case| row(&spec, case)));
        rest = others;
    }
    Ok(Payload::new(text, json!({ "methods": rows })))
}

const LIBRARY_HEAD: &str = "# The methods of the library

This page is made by `peftc docs std` from the texts in `src/stdlib/`, and a test holds it equal to them. What it says of a method
follows from its `forward` (`README.md` says how); `peftc test` measures it. Elements are those of one module with the defaults, and
`in`, `out` and `features` the sizes of its weight.
";

/// Lines that document the whole file.
fn file_doc(source: &str) -> String {
    let lines = source.lines().take_while(|line| line.starts_with("//!"));
    let lines = lines.map(|line| line.trim_start_matches("//!").trim());
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn section(spec: &Spec, cases: &[Case], source: &str) -> String {
    let method = spec.program.method(cases[0].method);
    let mut text = format!("\n## `{}`\n", method.name.node);
    for part in [file_doc(source), method.doc.trim().to_owned()] {
        if !part.is_empty() {
            let _ = write!(text, "\n{part}\n");
        }
    }
    if !method.hypers.is_empty() {
        text.push_str("\n| hyper-parameter | type | default | |\n|---|---|---|---|\n");
        for (hyper, written) in method.hypers.iter().zip(&method.body.hypers) {
            let default = hyper.default.as_ref().map(|value| format!("`{value}`"));
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {} | {} |",
                hyper.name.node,
                hyper.kind.describe(),
                default.unwrap_or_default(),
                one_line(&written.doc)
            );
        }
    }
    let plain: Vec<(&Case, Facts)> = kinds(spec, cases);
    if let Some((_, first)) = plain.first() {
        text.push_str("\n| tensor | shape | | |\n|---|---|---|---|\n");
        for tensor in &first.tensors {
            let what = match (tensor.trained, tensor.shared) {
                (true, false) => "trained",
                (true, true) => "trained, one for all modules",
                (false, false) => "frozen",
                (false, true) => "frozen, one for all modules",
            };
            let (name, shape) = (&tensor.name, &tensor.shape);
            let _ = writeln!(
                text,
                "| `{name}` | `{shape}` | {what} | {} |",
                one_line(&tensor.doc)
            );
        }
    }
    let hooks = method.body.body.iter().filter_map(|item| match item {
        MethodItem::Hook(hook) => Some(format!("`{}`", hook.event.written())),
        MethodItem::Loss(_) => Some("a term of the `loss`".to_owned()),
        _ => None,
    });
    let hooks: Vec<String> = hooks.collect();
    if !hooks.is_empty() {
        let _ = write!(text, "\nIn training it has {}.\n", hooks.join(" and "));
    }
    text.push_str(&facts_table(spec, cases, &plain));
    text
}

/// The facts with the defaults, for every kind of layer.
fn kinds<'c>(spec: &Spec, cases: &'c [Case]) -> Vec<(&'c Case, Facts)> {
    let first = &cases[0].label;
    let plain = cases.iter().filter(|case| case.label == *first);
    plain
        .filter_map(|case| Some((case, facts(&spec.program, case)?)))
        .collect()
}

fn facts_table(spec: &Spec, cases: &[Case], plain: &[(&Case, Facts)]) -> String {
    let mut text = String::from(
        "\n| at | identity at start | mergeable | pad_invariant | cache_safe | trained | frozen |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (case, found) in plain {
        line(&mut text, kind(case), found);
    }
    // What a truth value or a choice changes about the first kind.
    let Some((first, default)) = plain.first() else {
        return text;
    };
    for case in cases.iter().filter(|case| kind(case) == kind(first)) {
        let Some(found) = facts(&spec.program, case) else {
            continue;
        };
        let shown = |facts: &Facts| Facts {
            tensors: Vec::new(),
            ..facts.clone()
        };
        if shown(&found) != shown(default) {
            line(&mut text, &format!("`{}`", case.label), &found);
        }
    }
    text
}

fn line(text: &mut String, at: &str, facts: &Facts) {
    let yes = |holds: bool| if holds { "yes" } else { "no" };
    let merges = match facts.merges {
        Ok(()) => "yes".to_owned(),
        Err(why) => format!("no: {why}"),
    };
    let _ = writeln!(
        text,
        "| {at} | {} | {merges} | {} | {} | {} | {} |",
        yes(facts.identity),
        yes(facts.pad_invariant),
        yes(facts.cache_safe),
        facts.trained,
        facts.frozen
    );
}

fn kind(case: &Case) -> &'static str {
    case.layouts.first().map_or("", |layout| layout.kind.name())
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn row(spec: &Spec, case: &Case) -> Option<Value> {
    let facts = facts(&spec.program, case)?;
    Some(json!({
        "method": case.label,
        "kind": kind(case),
        "identity_at_start": facts.identity,
        "mergeable": facts.merges.is_ok(),
        "pad_invariant": facts.pad_invariant,
        "cache_safe": facts.cache_safe,
        "trained": facts.trained,
        "frozen": facts.frozen,
    }))
}
