//! The diagnostics of this room, one function per code.

use super::ast::Ident;
use super::words::Level;
use crate::diag::{Code, Diagnostic, Span};

/// `expected` and `found` in the user's words.
pub(super) fn unexpected_text(span: Span, expected: &str, found: &str) -> Diagnostic {
    Diagnostic::new(Code::E0101, format!("expected {expected}, found {found}"))
        .label(span, format!("expected {expected}"))
}

/// A known word where it starts nothing: `level` is where it stands, `elsewhere` where it may.
pub(super) fn misplaced_starter(
    span: Span,
    word: &str,
    level: Level,
    elsewhere: Level,
) -> Diagnostic {
    let (here, there) = (level.place(), elsewhere.place());
    let diagnostic = Diagnostic::new(Code::E0102, format!("`{word}` does not stand {here}"))
        .label(span, format!("stands {there}"));
    match (word, level) {
        ("let", Level::Block) => diagnostic.help("in a block, `name = …` suffices"),
        _ => diagnostic.help(format!("{here} stand {}", starter_list(level))),
    }
}

/// A word that starts nothing anywhere; `meant` is the one it resembles.
pub(super) fn unknown_starter(
    span: Span,
    word: &str,
    level: Level,
    meant: Option<&str>,
) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::E0102, format!("`{word}` starts no statement"))
        .label(span, "not a keyword");
    match meant {
        Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
        None => diagnostic.help(format!("{} stand {}", level.place(), starter_list(level))),
    }
}

fn starter_list(level: Level) -> String {
    let words: Vec<String> = level
        .starters()
        .iter()
        .map(|word| format!("`{word}`"))
        .collect();
    match level {
        Level::Block => "`name = …`, `for` and, as the last line, a value".to_owned(),
        _ => words.join(", "),
    }
}

/// `noticed` is the place, with its text, at which it should have been closed at the latest.
pub(super) fn unclosed(span: Span, mark: &str, noticed: Option<(Span, &str)>) -> Diagnostic {
    let diagnostic =
        Diagnostic::new(Code::E0103, format!("`{mark}` is not closed")).label(span, "opened here");
    let partner = match mark {
        "(" => ")",
        "[" => "]",
        _ => "}",
    };
    match noticed {
        Some((place, _)) => {
            diagnostic.label(place, format!("a `{partner}` is missing before this"))
        }
        None => diagnostic.help(format!("add a `{partner}`")),
    }
}

pub(super) fn stray_closing(span: Span, mark: &str) -> Diagnostic {
    Diagnostic::new(Code::E0103, format!("`{mark}` closes nothing"))
        .label(span, "nothing is open here that it could close")
        .help("remove it, or open its partner before it")
}

pub(super) fn wrong_closing(opening: Span, closing: Span, open: &str, close: &str) -> Diagnostic {
    Diagnostic::new(Code::E0103, format!("`{open}` is closed by `{close}`"))
        .label(closing, "not its partner")
        .label(opening, "opened here")
}

pub(super) fn open_string(span: Span) -> Diagnostic {
    Diagnostic::new(Code::E0104, "string is not closed")
        .label(span, "runs to the end of the line")
        .help("add a `\"`; a string ends on the line on which it starts")
}

pub(super) fn unknown_character(span: Span, text: &str) -> Diagnostic {
    let c = text.chars().next().unwrap_or(' ');
    let shown = if c.is_control() || c.is_whitespace() || c == '\u{FEFF}' {
        format!("U+{:04X}", u32::from(c))
    } else {
        format!("`{c}`")
    };
    let diagnostic = Diagnostic::new(Code::E0105, format!("{shown} is not part of the language"))
        .label(span, "not part of the language");
    match instead_of(c) {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

/// What the language has in place of a character that people write elsewhere or that editors and
/// documents put in.
fn instead_of(c: char) -> Option<&'static str> {
    Some(match c {
        '\'' | '‘' | '’' | '“' | '”' | '„' | '«' | '»' => {
            "strings stand in straight double quotes: `\"`"
        }
        '&' => "write `and`",
        '|' => "write `or`",
        '!' => "write `not`, or `!=` to compare",
        '#' => "comments start with `//`",
        '^' => "the power is written `**`",
        '×' | '·' | '∙' | '⋅' | '⊙' | '∗' => "the product of elements is written `*`",
        '÷' | '∕' => "the quotient is written `/`",
        '−' | '–' | '—' => "minus is written `-`",
        '≤' => "write `<=`",
        '≥' => "write `>=`",
        '≠' => "write `!=`",
        '…' => "a range is written `0..3`",
        'ᵀ' | '⊤' => "the transpose of `A` is written `A.T`",
        '\u{FEFF}' => "a byte order mark may stand at the start of the file only",
        c if c.is_whitespace() => "use an ordinary blank",
        c if c.is_alphabetic() => "names consist of ASCII letters, digits and `_`",
        _ => return None,
    })
}

pub(super) fn reserved_word(span: Span, word: &str) -> Diagnostic {
    Diagnostic::new(Code::E0106, format!("`{word}` is a reserved word"))
        .label(span, "cannot be a name")
        .help(format!("choose another name, such as `{word}_`"))
}

pub(super) fn not_a_number(span: Span, text: &str) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::E0109, format!("`{text}` is not a number"))
        .label(span, "not a number");
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("0x") || lower.starts_with("0b") || lower.starts_with("0o") {
        diagnostic.help("numbers are decimal")
    } else if lower.ends_with('_') {
        diagnostic.help("`_` stands between digits")
    } else if lower.ends_with('e') {
        diagnostic.help("an exponent has digits, as in `1e-3`")
    } else {
        diagnostic.help("names start with a letter or `_`; a product is written `2 * x`")
    }
}

pub(super) fn stray_documentation(span: Span, reason: &str) -> Diagnostic {
    Diagnostic::new(Code::E0112, "documentation belongs to nothing")
        .label(span, reason)
        .help(
            "`///` stands on lines of its own above a `method`, `fn`, `adapter`, parameter or \
             hyper-parameter, `//!` at the start of the file",
        )
        .help("an ordinary comment starts with `//`")
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

/// The text that formatting gives is larger than what is read.
pub(super) fn formatted_too_large(span: Span, size: usize, limit: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0108,
        format!("file has {size} bytes when formatted, at most {limit} are read"),
    )
    .label(span, "")
    .help("split it into several files and join them with `use`")
}

/// Formatting has gone wrong, which was noticed before anything came of it.
pub(super) fn formatting_changes_meaning(name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E9901,
        format!("formatting `{name}` would change what it says"),
    )
    .note(format!("version {}", env!("CARGO_PKG_VERSION")))
    .help("please report this with the file, if you may share it")
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

/// The texts decide which slip is likely.
pub(super) fn two_on_one_line(previous: Span, next: Span, before: &str, after: &str) -> Diagnostic {
    Diagnostic::new(Code::E0111, "two statements on one line")
        .label(next, "a new statement starts here")
        .label(previous, "this one ends before it")
        .help(if before == "return" {
            "the last line of a block is its value, without `return`"
        } else if after.starts_with('(') {
            "only a name can be called, and a product needs its `*`"
        } else {
            "put an operator or a comma between them if they belong together, else a line break \
             or `;`"
        })
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

/// A slice behind a pattern that does not say what is adapted.
pub(super) fn slice_out_of_place(span: Span, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0101, format!("a slice does not stand here: {why}"))
        .label(span, "only the targets of `adapt` have slices")
        .help("remove it")
}

/// Layers are counted.
pub(super) fn layer_number_is_no_integer(span: Span) -> Diagnostic {
    Diagnostic::new(Code::E0109, "the number of a layer is an integer")
        .label(span, "not an integer")
        .help("a range runs from a layer to before another one: `0..4` is the first four")
}

/// Arguments and parameters are told apart by their names.
pub(super) fn named_twice(first: Span, second: &Ident, what: &str) -> Diagnostic {
    let name = &second.node;
    Diagnostic::new(Code::E0202, format!("{what} `{name}` is named twice"))
        .label(second.span, "named again here")
        .label(first, "first named here")
        .help("rename or remove one of them")
}

pub(super) fn clause_twice(first: Span, second: Span, word: &str) -> Diagnostic {
    Diagnostic::new(Code::E0116, format!("`{word}` is written twice"))
        .label(second, "second one")
        .label(first, "first one")
        .help(match word {
            "layers" => "list all ranges in one: `layers \"model.layers\" = [0..4, 2..5]`",
            "except" => "list all exclusions behind one `except`, with commas between them",
            _ => "join the conditions with `and`",
        })
}
