//! The diagnostics of this room, one function per code.

use super::ast::Ident;
use crate::diag::{Code, Diagnostic, Span};

/// `expected` and `found` in the user's words.
pub(super) fn unexpected_text(span: Span, expected: &str, found: &str) -> Diagnostic {
    Diagnostic::new(Code::E0101, format!("expected {expected}, found {found}"))
        .label(span, format!("expected {expected}"))
}

pub(super) fn nested_too_deeply(span: Span, limit: usize) -> Diagnostic {
    Diagnostic::new(Code::E0107, format!("nested more than {limit} levels deep"))
        .label(span, "goes too deep")
        .help("give a part of it a name with `name = …` or `let name = …`")
}

pub(super) fn file_too_large(span: Span, size: usize, limit: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0108,
        format!("file has {size} bytes, at most {limit} are read"),
    )
    .label(span, "")
    .help("split it into several files and join them with `use`")
}

pub(super) fn number_out_of_range(span: Span, limit: &str) -> Diagnostic {
    Diagnostic::new(Code::E0109, "number is out of range").label(span, limit)
}

pub(super) fn unknown_escape(span: Span, escaped: char) -> Diagnostic {
    Diagnostic::new(Code::E0110, format!("`\\{escaped}` is not an escape"))
        .label(span, "not an escape")
        .help("escapes are `\\\"`, `\\\\`, `\\n` and `\\t`; write `\\\\` for a backslash")
        .help("after `regex`, backslashes need no escape")
}

pub(super) fn two_on_one_line(previous: Span, next: Span) -> Diagnostic {
    Diagnostic::new(Code::E0111, "two statements on one line")
        .label(next, "a new statement starts here")
        .label(previous, "this one ends before it")
        .help("put an operator or a comma between them if they belong together, else a line break or `;`")
}

pub(super) fn comparisons_in_a_row(first: Span, second: Span) -> Diagnostic {
    Diagnostic::new(Code::E0113, "comparisons do not chain")
        .label(second, "compares the result of the first comparison")
        .label(first, "first comparison")
        .help("join two comparisons with `and`, as in `0 < p and p < 1`")
}

pub(super) fn value_without_use(span: Span, place: &str) -> Diagnostic {
    Diagnostic::new(Code::E0114, format!("value {place} is not used"))
        .label(span, "computed and dropped")
        .help("only the last line of a block is its value; keep this one with `name = …`")
}

pub(super) fn positional_after_named(span: Span, named: &Ident) -> Diagnostic {
    Diagnostic::new(
        Code::E0115,
        "argument without a name follows one with a name",
    )
    .label(span, "which parameter is meant?")
    .label(named.span, "named arguments start here")
    .help("give it a name or move it to the front")
}

pub(super) fn clause_twice(first: Span, second: Span, word: &str) -> Diagnostic {
    Diagnostic::new(Code::E0116, format!("`{word}` is written twice"))
        .label(second, "second one")
        .label(first, "first one")
        .help(match word {
            "except" => "list all exclusions behind one `except`, with commas between them",
            _ => "join the conditions with `and`",
        })
}
