//! Diagnostics of this room: E075x.

use super::bytes::show_bytes;
use super::memory::Estimate;
use super::{Base, BatchSizes, Task};
use crate::diag::{Code, Diagnostic};
use crate::graph::Value;
use crate::ops::Refusal;

pub(super) fn nothing_to_train() -> Diagnostic {
    Diagnostic::new(Code::E0751, "the adapter has nothing to train").help(
        "a method trains its `param`s: adapt a module with one that has some, or `train` a module",
    )
}

/// A module that a calibration cannot measure.
pub(super) fn cannot_measure(path: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E1107, format!("`{path}` cannot be measured: {why}"))
        .help("leave the module out, or start it from something else than data")
}

/// `recomputes` is whether it is so with activations computed again.
pub(super) fn does_not_fit(estimate: &Estimate, budget: u64, recomputes: bool) -> Diagnostic {
    let BatchSizes { rows, tokens } = estimate.batch;
    let message = format!(
        "a step on {rows} × {tokens} tokens takes about {}, and `memory` is {}",
        show_bytes(estimate.total()),
        show_bytes(budget)
    );
    let parts = format!(
        "weights take {}, parameters and optimizer {}, activations {}, the process {}",
        show_bytes(estimate.weights),
        show_bytes(estimate.state),
        show_bytes(estimate.activations),
        show_bytes(estimate.process)
    );
    let mut diagnostic = Diagnostic::new(Code::E0757, message).note(parts);
    if let Some((name, ty, bytes)) = estimate.largest.first() {
        let largest = format!(
            "the largest tensor is `{name}`, {ty}, with {}",
            show_bytes(*bytes)
        );
        diagnostic = diagnostic.note(largest);
    }
    if !recomputes {
        let help = "compute activations again in place of keeping them: `recompute: auto`";
        diagnostic = diagnostic.help(help);
    }
    diagnostic.help(
        "lower `batch_size` with `accumulate` raised, or cut texts with `data.max_length`; `base: int8` or `base: int8_weights` quarters the weights",
    )
}

pub(super) fn nothing_to_round(model: &str, base: Base) -> Diagnostic {
    let bits = match base {
        Base::Own | Base::Int8 | Base::Int8Weights => "8 bits",
        Base::Bf16 => "bfloat16",
        Base::F16 => "float16",
    };
    let message = format!("`{model}` has no weight that could be rounded to {bits}");
    Diagnostic::new(Code::E0754, message).help(format!(
        "train without `--base {}`: it is for products with constant f32 matrices",
        base.name()
    ))
}

pub(super) fn opset_without(model: &str, base: Base, opset: i64, least: i64) -> Diagnostic {
    let lacks = match base {
        Base::Int8Weights => "whose weights cannot have a scale for every column",
        _ => "whose products cannot be in bfloat16",
    };
    let message = format!("`{model}` has opset {opset}, {lacks}");
    Diagnostic::new(Code::E0754, message).help(format!(
        "export the model with opset {least} or later, or train without `--base {}`",
        base.name()
    ))
}

/// `wanted` is the name that was asked for.
pub(super) fn no_output<'m>(
    model: &str,
    wanted: Option<&str>,
    known: impl Iterator<Item = &'m str>,
) -> Diagnostic {
    let Some(wanted) = wanted else {
        let message = format!("`{model}` has no output to compute a loss of");
        let diagnostic = Diagnostic::new(Code::E0752, message);
        return diagnostic.help("export the model with its logits as an output");
    };
    let message = format!("`{model}` has no output `{wanted}`");
    let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    Diagnostic::new(Code::E0752, message).help(format!("its outputs are {}", known.join(", ")))
}

/// `others` are outputs that do fit.
pub(super) fn output_does_not_fit(
    model: &str,
    output: &Value,
    task: Task,
    others: &[&str],
) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0752,
        format!(
            "the output `{}` of `{model}` is {}; the task `{}` needs {}",
            output.name,
            stated(output),
            task.name(),
            task.needs()
        ),
    );
    match (others, task) {
        ([other, ..], _) => diagnostic.help(format!(
            "compute the loss of `{other}`: `--model-output {other}`, or `model_output:` in a configuration"
        )),
        ([], Task::CausalLm { .. } | Task::Seq2Seq { .. }) => diagnostic
            .help("choose the task that the model was exported for, or export it with its logits"),
        ([], _) => diagnostic.help(
            "choose the task that the model was exported for, or add a head: `--pool mean --head CLASSES`, or `head:` in a configuration",
        ),
    }
}

fn stated(value: &Value) -> String {
    match &value.ty {
        Some(ty) => ty.to_string(),
        None => "of an unknown type".to_owned(),
    }
}

/// `wanted` is what the head needs of the output.
pub(super) fn head_does_not_fit(model: &str, output: &Value, wanted: &str) -> Diagnostic {
    let message = format!(
        "a head does not fit the output `{}` of `{model}`, which is {}: {wanted}",
        output.name,
        stated(output)
    );
    Diagnostic::new(Code::E0755, message)
        .help("choose another output with `--model-output`, or `model_output:` in a configuration")
}

pub(super) fn no_head(refusal: &Refusal) -> Diagnostic {
    Diagnostic::new(
        Code::E0755,
        format!("the head cannot be computed: {refusal}"),
    )
    .help("export the model with opset 13 or later, and with sizes that its inputs have")
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

/// Logits that were to be computed in so many pieces.
pub(super) fn not_in_pieces(wanted: usize) -> Diagnostic {
    Diagnostic::new(
        Code::W0701,
        format!("logits are computed at once, not in {wanted} pieces"),
    )
    .note("behind the last value that is differentiated, only products with frozen weights and elementwise operators can be repeated")
    .help("leave `loss_pieces` out, or train neither the head nor on its rounded weights")
}
