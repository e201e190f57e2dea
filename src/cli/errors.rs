//! Diagnostics about the command line itself.

use crate::diag::{Code, Diagnostic, nearest};
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
