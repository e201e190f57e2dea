//! Diagnostics about the command line itself.

use crate::diag::{Code, Diagnostic, Span, nearest};
use crate::report::ChangedLine;
use std::path::Path;

/// `text` is what clap writes: the message, then paragraphs of help.
pub(super) fn usage(text: &str) -> Diagnostic {
    let text = text.trim().strip_prefix("error: ").unwrap_or(text).trim();
    let mut paragraphs = text.split("\n\n").map(str::trim);
    let message = paragraphs.next().unwrap_or_default();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let diagnostic = Diagnostic::new(Code::E0010, message);
    paragraphs.fold(diagnostic, |diagnostic, paragraph| {
        // What clap says in full sentences.
        let paragraph = match paragraph {
            "For more information, try '--help'." => "`--help` says more",
            other => other.strip_prefix("tip: ").unwrap_or(other),
        };
        diagnostic.help(paragraph)
    })
}

pub(super) fn several_on_stdout() -> Diagnostic {
    Diagnostic::new(Code::E0010, "more than one `--format` goes to stdout")
        .help("give all but one a file, such as `--format human,sarif=out.sarif`")
}

/// A spec where a model to draw is expected.
pub(super) fn no_model(spec: &Path) -> Diagnostic {
    let spec = spec.display();
    Diagnostic::new(
        Code::E0010,
        format!("`{spec}` is a spec, and no model is given"),
    )
    .help("add `--model MODEL`, or give a model alone to draw it as it is")
}

/// An option that the task has no use for.
pub(super) fn no_meaning(option: &str, task: &str) -> Diagnostic {
    let message = format!("`{option}` has no meaning for the task `{task}`");
    Diagnostic::new(Code::E0010, message).help("leave it out, or choose another task")
}

pub(super) fn number_out_of_range(option: &str, value: f64, wanted: &str) -> Diagnostic {
    let message = format!("`{option}` is {value}, which must be {wanted}");
    Diagnostic::new(Code::E0010, message).help("give another number")
}

pub(super) fn unknown_code(name: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::E0010, format!("there is no code `{name}`"));
    let near = nearest(
        &name.to_uppercase(),
        Code::ALL.iter().map(|code| code.name()),
        3,
    );
    match near.as_slice() {
        [] => diagnostic,
        near => diagnostic.help(format!("near it are {}", near.join(", "))),
    }
    .help("`peftc explain --list` shows every code")
}

pub(super) fn no_path() -> Diagnostic {
    Diagnostic::new(Code::E0010, "no path is given")
        .help("name specs or folders, such as `peftc fmt .`; `peftc fmt -` formats stdin")
}

pub(super) fn stdin_among_paths() -> Diagnostic {
    Diagnostic::new(Code::E0010, "`-` stands among other paths")
        .help("give it alone: it reads a spec from stdin and prints it to stdout")
}

/// A folder in which there is nothing to do.
pub(super) fn no_specs(folder: &Path) -> Diagnostic {
    let folder = folder.display();
    Diagnostic::new(Code::E0010, format!("no `.peft` file below `{folder}`"))
        .help("name the specs, or a folder that has some; hidden files and links are left out")
}

/// `change` is the first one of the spec, which the command line names by `argument`.
pub(super) fn not_formatted(
    span: Span,
    name: &str,
    argument: &Path,
    change: &ChangedLine<'_>,
) -> Diagnostic {
    let argument = argument.display();
    Diagnostic::new(Code::E0117, format!("`{name}` is not formatted"))
        .label(span, becomes(change))
        .help(format!(
            "`peftc fmt {argument}` formats it, `--diff` shows all that changes"
        ))
}

/// What becomes of a line, in words where it cannot be seen.
fn becomes(change: &ChangedLine<'_>) -> String {
    const MOST: usize = 80;
    let Some(after) = change.after else {
        return "this blank line goes".to_owned();
    };
    let (before, after) = (change.before, after.trim_end());
    let content = before.trim_end_matches(['\n', '\r']);
    if content == after {
        return match before.len() > content.len() {
            true => "ends in a line feed alone".to_owned(),
            false => "ends in a line feed".to_owned(),
        };
    }
    if before.trim_end() == after {
        return "has no blanks at its end".to_owned();
    }
    if before.starts_with('\u{FEFF}') {
        return "has no byte order mark".to_owned();
    }
    let short: String = after.chars().take(MOST).collect();
    let more = if short.len() < after.len() { "…" } else { "" };
    format!("becomes `{short}{more}`")
}

/// Outputs that differ from what `--expect` holds.
pub(super) fn outputs_differ(name: &str, reason: &str) -> Diagnostic {
    Diagnostic::new(Code::E0809, format!("output `{name}` differs: {reason}"))
}

pub(super) fn nothing_expected(path: &Path, outputs: &[&str]) -> Diagnostic {
    Diagnostic::new(
        Code::E0809,
        format!("`{}` holds none of the model's outputs", path.display()),
    )
    .note(format!("outputs of the model: {}", outputs.join(", ")))
}

/// What an option may hold, for one that holds something else.
pub(super) fn choices<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    format!("{what} are {}", names.collect::<Vec<_>>().join(", "))
}

/// A method that is asked for by name, and is not there.
pub(super) fn no_such_method(name: &str, known: &[String]) -> Diagnostic {
    let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
    names.dedup();
    let list: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    Diagnostic::new(
        Code::E0201,
        format!("the spec has no method `{name}` to prove"),
    )
    .help(format!("its methods are {}", list.join(", ")))
}
