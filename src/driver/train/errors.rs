//! Diagnostics of training runs: E11.

use crate::diag::{Code, Diagnostic, Span};
use std::path::Path;

pub(super) fn bad_config(error: &serde_yaml::Error, span: Span) -> Diagnostic {
    let words = error.to_string();
    // The place is shown, not said.
    let words = words.split(" at line ").next().unwrap_or(&words).to_owned();
    Diagnostic::new(
        Code::E1101,
        format!("the configuration cannot be read: {words}"),
    )
    .label(span, "here")
    .help("`peftc explain E1101` lists the keys")
}

pub(super) fn bad_change(key: &str, value: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        format!("`--with {key}={value}` does not fit the configuration: {why}"),
    )
    .help("`peftc explain E1101` lists the keys")
}

pub(super) fn bad_number(key: &str, value: f64, wanted: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        format!("`{key}` is {value}, which must be {wanted}"),
    )
    .help("change it in the configuration")
}

pub(super) fn no_end() -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        "the configuration says neither `steps` nor `epochs`",
    )
    .help("say how long to train: `steps: 300`, or `epochs: 3`")
}

pub(super) fn no_data_for(input: &str, model: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1102,
        format!("`{model}` takes `{input}`, which data of this task does not give"),
    )
    .help("export the model with `input_ids`, `attention_mask` and, if it needs them, `position_ids` and `token_type_ids`")
}

pub(super) fn not_finite(step: u64, loss: f64, examples: &[String]) -> Diagnostic {
    let shown: Vec<&str> = examples.iter().take(8).map(String::as_str).collect();
    let more = match examples.len().saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Diagnostic::new(Code::E1103, format!("the loss of step {step} is {loss}"))
        .note(format!("its batch is {}{more}", shown.join(", ")))
        .help("lower `optimizer.learning_rate`, lengthen `optimizer.warmup_steps`, or limit gradients with `optimizer.max_grad_norm`")
}

pub(super) fn other_checkpoint(path: &Path, what: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1104,
        format!("the checkpoint {} is of another run: {what}", path.display()),
    )
    .help("resume with the configuration, spec, model and data that it was made with, or start anew without `--resume`")
}

pub(super) fn no_checkpoint(path: &Path) -> Diagnostic {
    Diagnostic::new(
        Code::E1104,
        format!("there is no checkpoint {}", path.display()),
    )
    .help("start without `--resume`")
}

pub(super) fn several_adapters(names: &[&str]) -> Diagnostic {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    Diagnostic::new(
        Code::E1101,
        format!("the spec has several adapters: {}", names.join(", ")),
    )
    .help("say which one to train with `adapter:`")
}
