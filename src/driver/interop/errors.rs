//! Diagnostics of adapters of other tools (E0909, E0910).

use super::{CONFIG, WEIGHTS};
use crate::diag::{Code, Diagnostic, Span, nearest};
use std::path::Path;

/// How many faults of a kind are listed.
const LISTED: usize = 5;

fn unreadable(message: String) -> Diagnostic {
    Diagnostic::new(Code::E0909, message)
}

pub(super) fn no_config(path: &Path, why: &str) -> Diagnostic {
    unreadable(format!(
        "`{}` is no configuration of an adapter: {why}",
        path.display()
    ))
    .help(format!(
        "name a folder that `save_pretrained` has written: `{CONFIG}` and `{WEIGHTS}`"
    ))
}

pub(super) fn pickled(folder: &Path) -> Diagnostic {
    unreadable(format!("the adapter in `{}` is a pickle", folder.display()))
        .note("a pickle is a program; peftc runs none")
        .help("save it anew: `model.save_pretrained(folder, safe_serialization = True)`")
}

pub(super) fn unknown_kind(kind: &str, known: &[&str]) -> Diagnostic {
    let list: Vec<String> = known.iter().map(|kind| format!("`{kind}`")).collect();
    unreadable(format!("no method of the library is PEFT's `{kind}`"))
        .note(format!("there are {}", list.join(", ")))
        .help("merge it in PEFT (`merge_and_unload`) and export that model")
}

/// `reasons` are what the method that comes nearest does not do.
pub(super) fn settings(path: &Path, method: &str, reasons: &[String]) -> Diagnostic {
    let mut diagnostic = unreadable(format!(
        "`{}` asks for what no method of the library does",
        path.display()
    ));
    for reason in reasons.iter().take(LISTED) {
        diagnostic = diagnostic.note(format!("{reason}, which `{method}` does not know"));
    }
    diagnostic.help("merge it in PEFT (`merge_and_unload`) and export that model")
}

pub(super) fn no_module<'a>(path: &str, known: impl IntoIterator<Item = &'a str>) -> Diagnostic {
    let near: Vec<String> = nearest(path, known, 3)
        .iter()
        .map(|near| format!("`{near}`"))
        .collect();
    let diagnostic = unreadable(format!("the model has no module `{path}`"));
    match near.as_slice() {
        [] => diagnostic.help("`peftc inspect` shows its modules; `--names` and `--weights` name those without a name"),
        near => diagnostic.help(format!("the nearest are {}; `peftc inspect` shows all", near.join(", "))),
    }
}

/// A tensor of an attention that the model does not have there.
pub(super) fn no_reader(name: &str, path: &str) -> Diagnostic {
    unreadable(format!(
        "`{name}` is of an attention, and no single layer in `{path}` reads one in the model"
    ))
    .help("give the model that the adapter was trained on, in an export that has the attention as operators")
}

pub(super) fn unknown_tensor(name: &str, method: &str) -> Diagnostic {
    unreadable(format!(
        "`{WEIGHTS}` has a tensor `{name}` that `{method}` does not have"
    ))
    .help("embeddings that were saved, too, are left out with `save_embedding_layers = False`")
}

pub(super) fn missing(name: &str) -> Diagnostic {
    unreadable(format!("`{WEIGHTS}` lacks the tensor `{name}`")).help(
        "save the adapter anew; tensors drawn at random are saved with `save_projection = True`",
    )
}

pub(super) fn misfit(name: &str, found: &[i64], wanted: &[i64]) -> Diagnostic {
    unreadable(format!(
        "`{name}` of `{WEIGHTS}` has the shape {found:?}, the model wants {wanted:?}"
    ))
    .help("give the model that the adapter was trained on")
}

pub(super) fn not_numbers(name: &str) -> Diagnostic {
    unreadable(format!(
        "`{name}` of `{WEIGHTS}` holds no floating-point numbers"
    ))
    .help("save the adapter anew")
}

pub(super) fn not_positions(name: &str) -> Diagnostic {
    unreadable(format!(
        "`{name}` of `{WEIGHTS}` holds no positions: whole numbers from 0 to 16777216"
    ))
    .help("save the adapter anew")
}

pub(super) fn not_one(name: &str) -> Diagnostic {
    unreadable(format!(
        "`{name}` of `{WEIGHTS}` is another tensor than that of the modules before it"
    ))
    .note("modules share it")
    .help("save the adapter anew")
}

/// Two tensors of a module that has two paths.
pub(super) fn twice(first: &str, second: &str) -> Diagnostic {
    unreadable(format!(
        "`{first}` and `{second}` of `{WEIGHTS}` are one tensor of one module"
    ))
    .note("the module has both paths in the model")
    .help("adapt it under one of them, and save the adapter anew")
}

pub(super) fn nothing() -> Diagnostic {
    unreadable(format!("`{WEIGHTS}` holds no tensor")).help("save the adapter anew")
}

fn unsayable(message: String, span: Span, label: &str) -> Diagnostic {
    Diagnostic::new(Code::E0910, message)
        .label(span, label.to_owned())
        .help("make it LoRA first, which PEFT has: `peftc convert … --to lora`")
}

pub(super) fn no_interchange(span: Span, method: &str) -> Diagnostic {
    unsayable(
        format!("it is not known what `{method}` is in PEFT"),
        span,
        "asked for here",
    )
    .note("a rule `interchange` of the method would say it")
}

pub(super) fn unsaved(span: Span, method: &str, parameter: &str) -> Diagnostic {
    unsayable(
        format!("it is not known what `{parameter}` of `{method}` is in PEFT"),
        span,
        "asked for here",
    )
}

/// PEFT says how many modules there are, and takes the last ones.
pub(super) fn not_last(span: Span, target: &str, all: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0910,
        format!("PEFT has this method at the last layers alone: of {all} modules called `{target}`, others are the last"),
    )
    .label(span, "asked for here")
    .help("adapt the last layers")
}

/// A tensor that PEFT makes from the base model is another one here.
pub(super) fn not_derived(span: Span, name: &str) -> Diagnostic {
    unsayable(
        format!("`{name}` is not what the base model gives, which is what PEFT takes for it"),
        span,
        "asked for here",
    )
    .help("or give the model that the adapter was made for")
}

pub(super) fn no_positions(span: Span, name: &str) -> Diagnostic {
    unsayable(
        format!("`{name}` holds no positions, whole numbers from 0 on, and PEFT has it as such"),
        span,
        "asked for here",
    )
}

pub(super) fn several_methods(span: Span, path: &str) -> Diagnostic {
    unsayable(
        format!("PEFT has one method a module, and `{path}` has several"),
        span,
        "one of them",
    )
}

pub(super) fn several_kinds(span: Span, first: &str, second: &str) -> Diagnostic {
    unsayable(
        format!("PEFT has one method an adapter, and this has `{first}` and `{second}`"),
        span,
        "the second",
    )
    .help("or make two adapters of it")
}

pub(super) fn part(span: Span, path: &str) -> Diagnostic {
    unsayable(
        format!("PEFT adapts whole modules, and this a part of `{path}`"),
        span,
        "asked for here",
    )
}

/// Tensors that belong to no module, one of each statement.
pub(super) fn several_tensors(span: Span, name: &str) -> Diagnostic {
    unsayable(
        format!("PEFT has one tensor `{name}` for all modules, and this has several"),
        span,
        "the second is asked for here",
    )
    .help("or adapt all modules in one statement")
}

pub(super) fn differs(span: Span, key: &str, first: &str, second: &str) -> Diagnostic {
    unsayable(
        format!("PEFT has one `{key}` for all modules, and this has {first} and {second}"),
        span,
        "the second",
    )
    .help("or make two adapters of it")
}

/// PEFT would take a module for one of a list, by the last word of its path.
pub(super) fn same_word(span: Span, key: &str, path: &str) -> Diagnostic {
    unsayable(
        format!("PEFT's `{key}` lists modules by parts of their last words, and has `{path}`, too"),
        span,
        "this one is not to be in it",
    )
}

/// A method whose rule says nothing about layers in a sequence of their own.
pub(super) fn layers(span: Span, method: &str) -> Diagnostic {
    unsayable(
        format!("it is not known what `layers` with `{method}` is in PEFT"),
        span,
        "asked for here",
    )
}

pub(super) fn no_list_of_layers(key: &str) -> Diagnostic {
    unreadable(format!(
        "which layers of the model `{key}` of `{CONFIG}` is about, its tensors do not tell"
    ))
    .help("give the model that the adapter was trained on, with its names")
}

pub(super) fn only_in_full(span: Span) -> Diagnostic {
    unsayable(
        "PEFT has no adapter that only trains modules in full".to_owned(),
        span,
        "asked for here",
    )
    .help("or merge it: `peftc merge`")
}
