//! Diagnostics of this room: E075x.

use super::Task;
use crate::diag::{Code, Diagnostic};
use crate::graph::Value;
use crate::ops::Refusal;

pub(super) fn nothing_to_train() -> Diagnostic {
    Diagnostic::new(Code::E0751, "the adapter has nothing to train").help(
        "a method trains its `param`s: adapt a module with one that has some, or `train` a module",
    )
}

pub(super) fn nothing_to_round(model: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0754,
        format!("`{model}` has no weight that could be rounded to 8 bits"),
    )
    .help("train without `--base int8`: it is for products with constant f32 matrices")
}

pub(super) fn no_output(model: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0752,
        format!("`{model}` has no output to compute a loss of"),
    )
    .help("export the model with its logits as the first output")
}

pub(super) fn output_does_not_fit(model: &str, output: &Value, task: Task) -> Diagnostic {
    let stated = match &output.ty {
        Some(ty) => ty.to_string(),
        None => "of an unknown type".to_owned(),
    };
    let wanted = match task {
        Task::CausalLm { .. } => "logits of every token, `f32[batch, sequence, vocabulary]`",
        Task::TokenClassification { .. } => {
            "scores of every token, `f32[batch, sequence, classes]`"
        }
        Task::Classification { .. } | Task::MultiLabel => {
            "scores of every row, `f32[batch, classes]`"
        }
        Task::Regression => "floats of a known shape",
    };
    Diagnostic::new(
        Code::E0752,
        format!(
            "the first output of `{model}`, `{}`, is {stated}; the task `{}` needs {wanted}",
            output.name,
            task.name()
        ),
    )
    .help("choose the task that the model was exported for, or export it with this output first")
}

pub(super) fn no_loss(task: Task, output: &str, refusal: &Refusal) -> Diagnostic {
    Diagnostic::new(
        Code::E0753,
        format!(
            "the loss of `{output}` for the task `{}` cannot be computed: {refusal}",
            task.name()
        ),
    )
    .help("export the model with a fixed number of classes, and with opset 13 or later")
}

pub(super) fn no_update(refusal: &Refusal) -> Diagnostic {
    Diagnostic::new(
        Code::E0753,
        format!("the update cannot be computed: {refusal}"),
    )
    .help("export the model with opset 13 or later")
}

/// What only a fault of peftc can bring about.
pub(super) fn internal(why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E9901,
        format!("a training graph cannot be made: {why}"),
    )
    .help("please report this with the spec and the model's graph")
}
