//! Diagnostics of this room: data (E10).

use super::encoder::EncoderOptions;
use super::row::{Fault, Row};
use super::source::Format;
use super::task::Role;
use super::tokenizer::TokenName;
use super::value::Value;
use crate::diag::{Code, Diagnostic, counted, nearest};
use std::ops::Range;
use std::path::Path;
use std::str::Utf8Error;

pub(super) fn unknown_format(path: &Path) -> Diagnostic {
    let names: Vec<&str> = Format::names().collect();
    Diagnostic::new(
        Code::E1009,
        format!(
            "the name `{}` does not say how its rows are written",
            path.display()
        ),
    )
    .help(format!("name the format: {}", names.join(", ")))
}

// Rows.

pub(super) fn no_json(words: &str, at: Range<usize>) -> Fault {
    let diagnostic = Diagnostic::new(Code::E1001, format!("row is not JSON: {words}"))
        .help("write every row as one JSON object on a line of its own");
    Fault::new(diagnostic, "here").at(at)
}

pub(super) fn no_object(kind: &str) -> Fault {
    let diagnostic = Diagnostic::new(Code::E1001, format!("row is {kind}, not a JSON object"))
        .help("a row names its columns, such as `{\"prompt\": \"…\", \"completion\": \"…\"}`");
    Fault::new(diagnostic, "this row")
}

pub(super) fn not_utf8(error: Utf8Error) -> Fault {
    let at = error.valid_up_to();
    let diagnostic = Diagnostic::new(Code::E1001, format!("byte {at} of the row is not UTF-8"))
        .help("save the file as UTF-8 text");
    Fault::new(diagnostic, "in this row")
}

/// The row lacks what the task needs; `wanted` names the choices.
pub(super) fn no_columns(row: &Row, wanted: &str) -> Fault {
    let message = format!("row has neither {wanted}");
    let diagnostic = Diagnostic::new(Code::E1002, message).note(columns(row));
    let diagnostic = diagnostic.help("say which column is which, such as `prompt=question`");
    Fault::new(diagnostic, "this row")
}

pub(super) fn no_column(row: &Row, name: &str) -> Fault {
    let diagnostic = Diagnostic::new(Code::E1002, format!("row has no column `{name}`"));
    let diagnostic = match nearest(name, row.columns(), 2).as_slice() {
        [] => diagnostic.note(columns(row)),
        [one] => diagnostic.help(format!("near it is `{one}`")),
        near => diagnostic.help(format!("near it are {}", quoted(near))),
    };
    Fault::new(diagnostic, "this row")
}

fn columns(row: &Row) -> String {
    let names: Vec<&str> = row.columns().collect();
    match names.as_slice() {
        [] => "the row is empty".to_owned(),
        names => format!("columns of the row: {}", quoted(names)),
    }
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

pub(super) fn wrong_kind(column: &str, found: &Value, wanted: &str) -> Fault {
    let message = format!(
        "`{column}` holds {} where {wanted} is expected",
        shown(found)
    );
    Fault::new(Diagnostic::new(Code::E1003, message), "in this row")
}

/// A short value itself, and of others what they are.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(value) => format!("{value}"),
        Value::Int(value) => format!("{value}"),
        Value::Float(value) => format!("{value}"),
        other => other.kind().to_owned(),
    }
}

pub(super) fn lengths_differ(ids: usize, labels: usize) -> Fault {
    let message = format!(
        "row has {} and {}",
        counted(ids, "token"),
        counted(labels, "label")
    );
    let diagnostic = Diagnostic::new(Code::E1003, message)
        .help("give one label a token, -100 where none counts");
    Fault::new(diagnostic, "this row")
}

pub(super) fn empty(column: &str) -> Fault {
    let diagnostic = Diagnostic::new(Code::E1006, format!("`{column}` is empty"))
        .help("leave the row out, or say what is to be learned from it");
    Fault::new(diagnostic, "in this row")
}

pub(super) fn nothing_counts(tokens: usize) -> Fault {
    let message = match tokens {
        0 => "row has no token".to_owned(),
        1 => "row has only one token, and the first one is never predicted".to_owned(),
        _ => format!("none of the row's {tokens} tokens counts"),
    };
    let diagnostic = Diagnostic::new(Code::E1006, message)
        .help("leave the row out, or allow longer rows if what counts has been cut off");
    Fault::new(diagnostic, "this row")
}

pub(super) fn too_long(length: usize, longest: usize, options: &EncoderOptions) -> Fault {
    let by_model = options.limits.positions == Some(longest);
    let limit = match by_model {
        true => format!("the model takes {longest}"),
        false => format!("at most {longest} are allowed"),
    };
    let diagnostic = Diagnostic::new(Code::E1007, format!("row has {length} tokens, {limit}"));
    let diagnostic = diagnostic.help(match by_model {
        true => "shorten the row, or let long rows be cut",
        false => "allow longer rows, shorten the row, or let long rows be cut",
    });
    Fault::new(diagnostic, "this row")
}

// Tokens.

pub(super) fn no_tokenizer(path: &Path, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1010,
        format!("`{}` cannot be used as a tokenizer: {why}", path.display()),
    )
    .help("give the `tokenizer.json` that belongs to the model")
}

pub(super) fn cannot_encode(path: &Path, why: &str) -> Fault {
    let message = format!(
        "the tokenizer `{}` fails on this text: {why}",
        path.display()
    );
    Fault::new(Diagnostic::new(Code::E1010, message), "in this row")
}

pub(super) fn ids_expected() -> Fault {
    let message = format!(
        "row holds text, not `{}`, and there is no tokenizer",
        Role::InputIds.name()
    );
    let diagnostic = Diagnostic::new(Code::E1002, message).help("name a `tokenizer.json`");
    Fault::new(diagnostic, "this row")
}

pub(super) fn no_token(path: &Path, name: &TokenName, role: &str) -> Diagnostic {
    let message = match name {
        TokenName::Id(id) => format!("the tokenizer `{}` has no token {id}", path.display()),
        TokenName::Text(text) => {
            format!(
                "{text:?} is not one token of the tokenizer `{}`",
                path.display()
            )
        }
    };
    Diagnostic::new(Code::E1014, message).help(format!(
        "name the {role} token as the tokenizer writes it, or by its number as `id:2`"
    ))
}

pub(super) fn token_without_tokenizer(name: &TokenName, role: &str) -> Diagnostic {
    let name = match name {
        TokenName::Id(id) => id.to_string(),
        TokenName::Text(text) => format!("{text:?}"),
    };
    let message = format!("the {role} token {name} has no number without a tokenizer");
    Diagnostic::new(Code::E1014, message).help("give its number, such as `id:2`")
}

pub(super) fn special_outside(id: u32, role: &str, vocabulary: usize) -> Diagnostic {
    let message = format!("the {role} token is {id}, the model's tokens are below {vocabulary}");
    Diagnostic::new(Code::E1008, message).help("take the tokenizer that belongs to the model")
}

pub(super) fn outside_vocabulary(id: u32, token: Option<&str>, vocabulary: usize) -> Fault {
    let token = token.map_or(String::new(), |token| format!(" (`{token}`)"));
    let message =
        format!("row has the token {id}{token}, the model's tokens are below {vocabulary}");
    let diagnostic =
        Diagnostic::new(Code::E1008, message).help("take the tokenizer that belongs to the model");
    Fault::new(diagnostic, "this row")
}

// Data sets.

pub(super) fn no_rows(names: &[String]) -> Diagnostic {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = match names.as_slice() {
        [] => "no data is given".to_owned(),
        names => format!("there is no row in {}", quoted(names)),
    };
    Diagnostic::new(Code::E1005, message).help("check that it is the file that you mean")
}

pub(super) fn all_broken(rows: u64, kinds: &[String]) -> Diagnostic {
    let message = format!("nothing is left of {rows} rows, all of them are broken");
    let diagnostic = Diagnostic::new(Code::E1005, message);
    kinds.iter().fold(diagnostic, Diagnostic::note)
}

/// More rows are broken than are shown.
pub(super) fn broken(broken: u64, rows: u64, shown: u64, kinds: &[String]) -> Diagnostic {
    let message = format!("{broken} of {rows} rows are broken, {shown} of them are shown");
    let diagnostic = Diagnostic::new(Code::E1015, message);
    let diagnostic = kinds.iter().fold(diagnostic, Diagnostic::note);
    diagnostic.help("mend them, or let broken rows be left out")
}

pub(super) fn skipped(broken: u64, rows: u64, kinds: &[String]) -> Diagnostic {
    let message = format!("{broken} of {rows} rows are left out");
    let diagnostic = Diagnostic::new(Code::W1001, message);
    let diagnostic = kinds.iter().fold(diagnostic, Diagnostic::note);
    diagnostic.help("mend them; without leaving them out each is shown")
}

pub(super) fn cut(examples: u64, of: u64, longest: usize) -> Diagnostic {
    let message = format!("{examples} of {of} examples are cut to {longest} tokens");
    Diagnostic::new(Code::W1002, message).help("allow longer ones if what is cut off matters")
}

pub(super) fn seams(rows: u64, of: u64) -> Diagnostic {
    let message = format!(
        "in {rows} of {of} rows the prompt alone has other tokens than in front of its completion"
    );
    Diagnostic::new(Code::W1003, message).help(
        "end prompts where a token ends: move the blank at their end into the completion, say",
    )
}

pub(super) fn no_end() -> Diagnostic {
    let message = "no token ends a text: the model does not learn to stop";
    Diagnostic::new(Code::W1004, message).help("name the token that ends a text of this model")
}

/// A row of a batch is shorter than an example.
pub(super) fn no_room(length: u32, room: usize, place: &str) -> Diagnostic {
    let message =
        format!("the example of {place} has {length} tokens, rows of batches have {room}");
    Diagnostic::new(Code::E1007, message).help("make the rows longer, or let long examples be cut")
}
