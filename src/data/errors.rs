//! Diagnostics of this room: data (E10).

use super::encode::{Encoder, EncoderOptions};
use super::row::{Fault, Row};
use super::source::Format;
use super::task::{Role, Task};
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

pub(super) fn arrays_not_rows(name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1009,
        format!("`{name}` holds arrays, and rows are expected"),
    )
    .help("learn from arrays with the task `arrays`")
}

pub(super) fn arrays_expected(name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1009,
        format!("`{name}` holds rows, and arrays are expected"),
    )
    .help("save the arrays with `numpy.savez`, each under the name of the model's input")
}

pub(super) fn damaged(name: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1017,
        format!("`{name}` cannot be read to its end: {why}"),
    )
    .help("write the file again; nothing of it is used")
}

/// An archive of arrays is damaged, or one of them is of no use.
pub(super) fn arrays_unusable(name: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E1017, format!("`{name}` cannot be used: {why}"))
        .help("save it again with `numpy.savez`, numbers or truth values row by row; nothing of it is used")
}

pub(super) fn row_counts_differ(
    file: &str,
    one: (&str, usize),
    other: (&str, usize),
) -> Diagnostic {
    let ((one, ones), (other, others)) = (one, other);
    let message = format!(
        "`{file}`: `{one}` has {} and `{other}` {others}",
        counted(ones, "row")
    );
    Diagnostic::new(Code::E1003, message)
        .help("the first dimension of every array counts the rows: make them the same")
}

pub(super) fn other_arrays(name: &str, file: &str) -> Diagnostic {
    let message =
        format!("`{file}` and the files before it have not the same arrays, such as `{name}`");
    Diagnostic::new(Code::E1002, message).help("give every file the same arrays")
}

pub(super) fn array_differs(name: &str, file: &str, why: &str) -> Diagnostic {
    let message = format!("`{name}` of `{file}` has {why}");
    Diagnostic::new(Code::E1003, message).help("give the array the same form in every file")
}

pub(super) fn array_outside(
    name: &str,
    place: &str,
    id: i64,
    vocabulary: Option<usize>,
) -> Diagnostic {
    let known = match vocabulary {
        Some(vocabulary) => format!("the model's tokens are below {vocabulary}"),
        None => "tokens are 0 or above".to_owned(),
    };
    let message = format!("`{name}` of {place} has the token {id}, {known}");
    Diagnostic::new(Code::E1008, message).help("take the tokenizer that belongs to the model")
}

pub(super) fn array_too_long(
    name: &str,
    file: &str,
    tokens: usize,
    longest: usize,
    encoder: &Encoder,
) -> Diagnostic {
    let limit = match encoder.options().limits.positions == Some(longest) {
        true => format!("the model takes {longest}"),
        false => format!("at most {longest} are allowed"),
    };
    let message = format!("rows of `{name}` in `{file}` have {tokens} tokens, {limit}");
    Diagnostic::new(Code::E1007, message)
        .help("make arrays of shorter rows: arrays are taken as they are")
}

pub(super) fn array_place_outside(place: &str, at: i64, positions: Option<usize>) -> Diagnostic {
    let known = match positions {
        Some(positions) => format!("the model's are below {positions}"),
        None => "positions are 0 or above".to_owned(),
    };
    let message = format!("`position_ids` of {place} has the position {at}, {known}");
    Diagnostic::new(Code::E1007, message).help("count positions from 0 in every row")
}

// Rows.

pub(super) fn other_columns(found: usize, columns: usize) -> Fault {
    let message = format!(
        "row has {}, the first line names {}",
        counted(found, "cell"),
        counted(columns, "column")
    );
    let diagnostic = Diagnostic::new(Code::E1001, message)
        .help("put cells with a separator or line break in them into double quotes");
    Fault::new(diagnostic, "this row")
}

pub(super) fn quote_open() -> Fault {
    let diagnostic = Diagnostic::new(Code::E1001, "a quote that opens a cell is not closed")
        .note("everything up to the end of the file would be in that cell")
        .help("close it, or write a quote inside quotes twice");
    Fault::new(diagnostic, "this row")
}

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
    if row.columns().any(|column| column == name) {
        let diagnostic = Diagnostic::new(Code::E1002, format!("`{name}` holds nothing"));
        return Fault::new(
            diagnostic.help("fill it in, or leave the row out"),
            "this row",
        );
    }
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

pub(super) fn lengths_differ(one: &str, ones: usize, other: &str, others: usize) -> Fault {
    let message = format!(
        "row has {} and {}",
        counted(ones, one),
        counted(others, other)
    );
    let diagnostic = Diagnostic::new(Code::E1003, message)
        .help(format!("give one {other} a {one}, -100 where none counts"));
    Fault::new(diagnostic, "this row")
}

pub(super) fn not_one_a_class(column: &str, shares: usize, classes: usize) -> Fault {
    let shares = counted(shares, "value");
    let message = format!("`{column}` holds {shares}, and there are {classes} classes");
    let diagnostic = Diagnostic::new(Code::E1003, message)
        .help("say of every class whether it holds, or list those that do by name or number");
    Fault::new(diagnostic, "in this row")
}

pub(super) fn class_twice(column: &str) -> Fault {
    let diagnostic = Diagnostic::new(Code::E1004, format!("`{column}` lists a class twice"))
        .help("to say of every class whether it holds, write `true` or `false`, or 1.0 or 0.0");
    Fault::new(diagnostic, "in this row")
}

/// An example is not like those before it; `what` such as `parts`.
pub(super) fn another_form(what: &str, found: usize, expected: usize) -> Fault {
    let message = format!("row has {found} {what}, those before it have {expected}");
    let diagnostic = Diagnostic::new(Code::E1003, message).help("give every row the same");
    Fault::new(diagnostic, "this row")
}

// Classes.

pub(super) fn unknown_class(name: &str, column: &str, names: &[String], count: usize) -> Fault {
    let diagnostic = Diagnostic::new(
        Code::E1004,
        format!("`{column}` holds {name:?}, which is no class"),
    );
    let diagnostic = match nearest(name, names.iter().map(String::as_str), 3).as_slice() {
        [] => diagnostic.note(classes(names, count)),
        [one] => diagnostic.help(format!("near it is `{one}`")),
        near => diagnostic.help(format!("near it are {}", quoted(near))),
    };
    Fault::new(diagnostic, "in this row")
}

pub(super) fn class_outside(number: i64, column: &str, count: usize) -> Fault {
    let message = format!("`{column}` holds the class {number}");
    let diagnostic = Diagnostic::new(Code::E1004, message).note(classes(&[], count));
    Fault::new(diagnostic, "in this row")
}

/// `place` is a file with a row, such as `train.npz:3`.
pub(super) fn array_label_outside(place: &str, label: i64, classes: Option<usize>) -> Diagnostic {
    let message = format!("`labels` of {place} has the label {label}");
    Diagnostic::new(Code::E1004, message)
        .note(labels(classes))
        .help("write -100 where nothing counts")
}

/// A label of a token is none that a model can give.
pub(super) fn label_outside(label: i32, column: &str, classes: Option<usize>) -> Fault {
    let message = format!("`{column}` has the label {label}");
    let diagnostic = Diagnostic::new(Code::E1004, message)
        .note(labels(classes))
        .help("write -100 where nothing counts");
    Fault::new(diagnostic, "in this row")
}

fn labels(classes: Option<usize>) -> String {
    match classes {
        Some(count) if count > 0 => format!("labels are 0 to {}", count - 1),
        _ => "labels are 0 or above".to_owned(),
    }
}

pub(super) fn number_among_names(number: i64, column: &str, names: &[String]) -> Fault {
    let message = format!("`{column}` holds the number {number}, other rows have names of classes");
    let diagnostic = Diagnostic::new(Code::E1004, message).note(classes(names, names.len()));
    Fault::new(
        diagnostic.help("write names in every row, or numbers"),
        "in this row",
    )
}

pub(super) fn too_many_classes(names: &[String], limit: usize) -> Diagnostic {
    let message = format!(
        "the data has {} classes, the model tells {limit} apart",
        names.len()
    );
    Diagnostic::new(Code::E1004, message)
        .note(classes(names, names.len()))
        .help("look for names that mean the same, or take a model with more outputs")
}

/// What classes there are; not all of many.
fn classes(names: &[String], count: usize) -> String {
    const MOST: usize = 20;
    let names: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    match (names.as_slice(), count) {
        ([], 0) => "there are no classes".to_owned(),
        ([], count) => format!("classes are 0 to {}", count - 1),
        (names, count) if count > MOST => format!("among {count} classes are {}", quoted(names)),
        (names, _) => format!("classes are {}", quoted(names)),
    }
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

pub(super) fn cannot_cut(longest: usize, why: &str) -> Diagnostic {
    let message = format!(
        "examples cannot be cut to {}: {why}",
        counted(longest, "token")
    );
    Diagnostic::new(Code::E1007, message).help("allow longer examples")
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

pub(super) fn no_end(texts: u64, of: u64) -> Diagnostic {
    let message =
        format!("no token ends the text of {texts} of {of} rows: the model does not learn to stop");
    Diagnostic::new(Code::W1004, message).help("name the token that ends a text of this model")
}

/// A row of a batch is shorter than an example.
pub(super) fn no_room(length: u32, room: usize, place: &str) -> Diagnostic {
    let message =
        format!("the example of {place} has {length} tokens, rows of batches have {room}");
    Diagnostic::new(Code::E1007, message).help("make the rows longer, or let long examples be cut")
}

pub(super) fn cannot_pack(task: Task) -> Diagnostic {
    let message = format!("examples of `{}` cannot share a row", task.name());
    Diagnostic::new(Code::E1016, message)
        .note(match task {
            Task::Seq2Seq => "a decoder would read what was said before it",
            _ => "their labels are of whole rows",
        })
        .help("do not pack; batches of similar lengths waste little, too")
}

pub(super) fn class_named_twice(name: &str) -> Diagnostic {
    let message = format!("the class `{name}` is named twice");
    Diagnostic::new(Code::E1004, message).help("name every class once, in the order of the model")
}

// Templates.

pub(super) fn template_not_read(name: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1011,
        format!("the template `{name}` cannot be read: {why}"),
    )
}

pub(super) fn template_fails(name: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E1011, format!("the template `{name}` fails: {why}"))
}

pub(super) fn template_refuses(name: &str, message: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1011,
        format!("the template `{name}` refuses the row: {message}"),
    )
}

pub(super) fn no_template() -> Fault {
    let message = "row is a conversation, and there is no template for it";
    let diagnostic = Diagnostic::new(Code::E1011, message)
        .note("neither the tokenizer nor a `tokenizer_config.json` or `chat_template.jinja` beside it has one")
        .help("give the template of the model");
    Fault::new(diagnostic, "this row")
}

pub(super) fn no_message(column: &str, number: usize) -> Fault {
    let message = format!("message {number} of `{column}` has no `role`");
    let diagnostic = Diagnostic::new(Code::E1003, message)
        .help("a message is an object such as `{\"role\": \"user\", \"content\": \"…\"}`");
    Fault::new(diagnostic, "in this row")
}

pub(super) fn no_answer(column: &str) -> Fault {
    let message = format!("`{column}` holds no message of the assistant");
    let diagnostic = Diagnostic::new(Code::E1012, message)
        .help("leave the row out: there is nothing to learn from it");
    Fault::new(diagnostic, "in this row")
}

/// The text before an answer is another one when the answer is there.
pub(super) fn answers_not_found(name: &str, number: usize) -> Fault {
    let message =
        format!("where message {number} begins cannot be told from the template `{name}`");
    let diagnostic = Diagnostic::new(Code::E1012, message)
        .note("the text of the messages before it changes when it is added")
        .help("put `{% generation %}` and `{% endgeneration %}` around what the assistant says in the template");
    Fault::new(diagnostic, "in this row")
}
