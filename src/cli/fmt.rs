//! `peftc fmt`: specs in the style of the standard library.

use super::errors;
use super::frame::{Context, Outcome, Payload};
use crate::diag::{Reported, Sink, Span};
use crate::driver::{Formatted, Session};
use crate::files;
use crate::report::{first_change, unified_diff};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Format specs: indentation, blanks and columns; lines and comments stay
#[derive(Debug, clap::Args)]
#[command(override_usage = "peftc fmt [OPTIONS] <PATH>...")]
pub(super) struct Args {
    /// Specs; folders, searched for .peft files without following links; or `-`: stdin to stdout
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Write nothing; a spec that is not formatted is an error
    #[arg(long)]
    check: bool,
    /// Write nothing; print what would change as a unified diff
    #[arg(long)]
    diff: bool,
}

/// A spec with its formatted text.
struct Spec<'a> {
    /// How the user names it.
    argument: &'a Path,
    name: String,
    before: &'a str,
    formatted: &'a Formatted,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let stdin = Path::new("-");
    let (mut human, mut rows) = (String::new(), Vec::new());
    let targets = match args.paths.as_slice() {
        [] => return Err(cx.sink.emit(errors::no_path())),
        [path] if path == stdin => vec![path.clone()],
        paths if paths.iter().any(|path| path == stdin) => {
            return Err(cx.sink.emit(errors::stdin_among_paths()));
        }
        paths => specs(paths, &mut cx.sink),
    };
    for path in targets {
        // Faults of one spec do not hide those of the next.
        if let Ok((text, row)) = one(args, &path, path == stdin, cx) {
            human.push_str(&text);
            rows.push(row);
        }
    }
    Ok(Payload::new(human, json!({ "files": rows })))
}

/// Every file that is meant, once.
fn specs(paths: &[PathBuf], sink: &mut Sink) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = sink.error_count();
        let below = files::find(path, "peft", sink);
        if below.is_empty() && sink.error_count() == before {
            sink.emit(errors::no_specs(path));
        }
        let is_named = |part: &Component<'_>| *part != Component::CurDir;
        let below = below.iter();
        found.extend(below.map(|path| path.components().filter(is_named).collect::<PathBuf>()));
    }
    let mut seen = BTreeSet::new();
    // What has no real path is reported when it is read.
    found.retain(|path| path.canonicalize().map_or(true, |real| seen.insert(real)));
    found
}

/// Formats one spec; answers with what goes to stdout, for people and as JSON.
fn one(
    args: &Args,
    path: &Path,
    is_stdin: bool,
    cx: &mut Context,
) -> Result<(String, Value), Reported> {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let formatted = match is_stdin {
        true => session.formatted_from(std::io::stdin().lock(), Path::new("<stdin>"))?,
        false => session.formatted(path)?,
    };
    let before = cx.sources.text(formatted.file).clone();
    let spec = Spec {
        argument: path,
        name: cx.sources.name(formatted.file).to_owned(),
        before: &before,
        formatted: &formatted,
    };
    if args.check {
        report_change(&spec, &mut cx.sink);
    }
    let name = &spec.name;
    let is_formatted = *before == *formatted.text;
    let mut row = json!({ "path": name, "formatted": is_formatted, "written": false });
    let text = if args.diff {
        let diff = unified_diff(name, &before, &formatted.text);
        row["diff"] = diff.clone().into();
        diff
    } else if is_stdin && !args.check {
        row["text"] = formatted.text.clone().into();
        formatted.text
    } else if is_formatted {
        format!("{name}: ok\n")
    } else if args.check {
        String::new()
    } else {
        files::rewrite(path, formatted.text.as_bytes(), &mut cx.sink)?;
        row["written"] = true.into();
        format!("{name}: formatted\n")
    };
    Ok((text, row))
}

/// Reports the first line that formatting changes, if there is one.
fn report_change(spec: &Spec<'_>, sink: &mut Sink) {
    if let Some(change) = first_change(spec.before, &spec.formatted.text) {
        let content = change.before.trim_end_matches(['\n', '\r']);
        let end = change.offset + content.len();
        let span = Span::new(spec.formatted.file, change.offset, end);
        sink.emit(errors::not_formatted(
            span,
            &spec.name,
            spec.argument,
            &change,
        ));
    }
}
