//! Diagnostics of training runs: E11.

use super::finite::Bad;
use super::identity::Change;
use super::numerics::Culprit;
use crate::diag::{Code, Diagnostic, Severity, Sink, Span};
use crate::train::{Base, BatchSizes, Estimate, TaskKind, show_bytes};
use std::path::Path;

pub(super) fn bad_config(error: &serde_yaml::Error, span: Span) -> Diagnostic {
    let words = error.to_string();
    // The place is shown, not said.
    let words = plain(words.split(" at line ").next().unwrap_or(&words));
    let diagnostic = Diagnostic::new(
        Code::E1101,
        format!("the configuration cannot be read: {words}"),
    )
    .label(span, "here");
    // As YAML reads a `-` that stands alone.
    match words.contains("block sequence entries are not allowed") {
        true => diagnostic.help("standard input is written in quotes: `\"-\"`"),
        false => diagnostic.help("`peftc explain E1101` lists the keys"),
    }
}

pub(super) fn bad_change(key: &str, value: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        format!(
            "`--with {key}={value}` does not fit the configuration: {}",
            plain(why)
        ),
    )
    .help("`peftc explain E1101` lists the keys")
}

/// What is expected, without the names of Rust's types.
fn plain(words: &str) -> String {
    let Some((found, expected)) = words.rsplit_once("expected ") else {
        return words.to_owned();
    };
    let expected = match expected {
        "a nonzero u64" | "a nonzero usize" | "a nonzero u32" => "a whole number above 0",
        "u64" | "usize" | "u32" => "a whole number, 0 or above",
        "f64" => "a number",
        other => other,
    };
    format!("{found}expected {expected}")
}

pub(super) fn bad_number(key: &str, value: f64, wanted: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        format!("`{key}` is {value}, which must be {wanted}"),
    )
    .help("change it in the configuration")
}

pub(super) fn no_place_for_calibration() -> Diagnostic {
    Diagnostic::new(Code::E1101, "nothing says where the calibration goes")
        .help("name a file with `-o FILE`, or with `calibration: FILE` in the configuration")
}

pub(super) fn nothing_to_calibrate(adapter: &str) -> Diagnostic {
    let message = format!("no method of `{adapter}` starts from data");
    Diagnostic::new(Code::E1107, message).help("compile or train it without a calibration")
}

pub(super) fn not_measured(path: &str, statistic: &str) -> Diagnostic {
    let message = format!("`{statistic}` of `{path}` is not a finite number on this data");
    Diagnostic::new(Code::E1107, message)
        .help("look at the model's outputs on this data: `peftc run` shows them")
}

pub(super) fn no_end() -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        "the configuration says neither `steps` nor `epochs`",
    )
    .help("say how long to train: `steps: 300`, or `epochs: 3`")
}

pub(super) fn two_ends() -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        "the configuration says both `steps` and `epochs`, which contradict each other",
    )
    .help("leave one of them out; on the command line with `--with epochs=null` or `--with steps=null`")
}

pub(super) fn best_of_nothing() -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        "`keep_best` needs held-out examples to measure on",
    )
    .help("name some with `data.eval`, and measure now and then with `eval_every`")
}

pub(super) fn no_state() -> Diagnostic {
    Diagnostic::new(
        Code::E1101,
        "`optimizer.state: int8` has no meaning for `sgd`",
    )
    .help("leave it out, or choose `adamw` or `adam`, which keep two means of every gradient")
}

pub(super) fn auto_without_budget() -> Diagnostic {
    Diagnostic::new(Code::E1101, "`recompute: auto` needs a budget that decides")
        .help("say how much memory training may take: `memory: 8GiB`")
}

/// A setting that the CPU has nothing for.
pub(super) fn needs_gpu(setting: &str) -> Diagnostic {
    let message = format!("`{setting}` is for GPUs, and `provider` is `cpu`");
    Diagnostic::new(Code::E1101, message)
        .help("leave it out, or compute on a GPU with `provider: cuda`")
        .help("on a CPU `base: int8` makes products with frozen weights faster")
}

/// A base whose products no GPU computes. `asked` is how it was asked for, `base: ` or `--base `, and
/// `place` where a configuration says so.
pub(super) fn base_without_kernels(base: Base, asked: &str, place: Option<Span>) -> Diagnostic {
    let message = format!(
        "`{asked}{}` has no kernels for the provider `cuda`",
        base.name()
    );
    let diagnostic = Diagnostic::new(Code::E1108, message);
    let diagnostic = match place {
        Some(place) => diagnostic.label(
            place,
            format!("only CPUs have the products of `{}`", base.name()),
        ),
        None => diagnostic,
    };
    diagnostic
        .note("ONNX Runtime would copy what goes into each of its products to the CPU, and back what comes out")
        .help(format!(
            "keep weights in 8 bits and compute in 32, for the same quarter of the memory: `{asked}int8_weights`"
        ))
        .help(format!("or compute in half precision: `{asked}bf16`"))
}

/// `given` is what data has.
pub(super) fn no_data_for(input: &str, model: &str, given: &[String]) -> Diagnostic {
    let given: Vec<String> = given.iter().map(|name| format!("`{name}`")).collect();
    let help = match input.starts_with("decoder_")
        && !given.iter().any(|name| name.contains("decoder_"))
    {
        true => "the task `seq2seq` gives what a decoder reads: `task: seq2seq`",
        false => {
            "export the model with inputs of these names, or give arrays of its inputs' names in an `.npz`"
        }
    };
    Diagnostic::new(
        Code::E1102,
        format!("`{model}` takes `{input}`, which data of this task does not give"),
    )
    .note(format!("data gives {}", given.join(", ")))
    .help(help)
}

/// A key that the task has no use for.
pub(super) fn no_meaning(key: &str, task: TaskKind) -> Diagnostic {
    let message = format!("`{key}` has no meaning for the task `{}`", task.name());
    Diagnostic::new(Code::E1101, message).help("leave it out, or choose another task")
}

/// `wanted` and `found` are types; there may be nothing.
pub(super) fn batch_does_not_fit(input: &str, wanted: &str, found: Option<&str>) -> Diagnostic {
    let found = found.unwrap_or("nothing");
    let message = format!("data gives {found} for `{input}`, which takes {wanted}");
    let help = match input {
        "labels" => {
            "look at the labels with `peftc data`: the task, the model's output and the data must agree on how many numbers or classes there are"
        }
        _ => "give arrays of the types and sizes that the model's inputs have",
    };
    Diagnostic::new(Code::E1105, message).help(help)
}

pub(super) fn no_scores(place: &str) -> Diagnostic {
    let message = format!("{place} has no `score`, which the task `cosine` learns");
    Diagnostic::new(Code::E1105, message)
        .help("give every pair a score from -1 to 1, or learn with `task: contrastive` from pairs that belong together")
}

pub(super) fn negatives_with_scores(place: &str) -> Diagnostic {
    let message = format!("{place} has a `negative` and a `score`, which belongs to a pair alone");
    Diagnostic::new(Code::E1105, message)
        .help("make a row of its own of every pair, or leave the scores out and learn with `task: contrastive`")
}

pub(super) fn scores_unused(place: &str) -> Diagnostic {
    let message = format!("{place} has a `score`, which the task `contrastive` does not learn");
    Diagnostic::new(Code::E1105, message)
        .help("learn with `task: cosine`, or leave the scores out of pairs that belong together")
}

pub(super) fn not_finite(step: u64, bad: Bad, batches: &[Vec<String>]) -> Diagnostic {
    let (what, value) = bad.words();
    let message = format!("the {what} of step {step} is {value}");
    let help = match bad {
        Bad::Loss { .. } => {
            "lower `optimizer.learning_rate`, lengthen `optimizer.warmup_steps`, or limit gradients with `optimizer.max_grad_norm`"
        }
        Bad::Gradient { .. } => {
            "look at these rows: an operator may have no gradient at what it gets of them, as `Sqrt` has none at 0; if it is none of them, lower `optimizer.learning_rate`"
        }
    };
    let shown = batches.iter().take(SHOWN);
    let notes = shown.map(|rows| format!("its batch is {}", listed(rows)));
    let mut diagnostic = notes.fold(Diagnostic::new(Code::E1103, message), Diagnostic::note);
    if batches.len() > SHOWN {
        let more = format!("and {} batches more", batches.len() - SHOWN);
        diagnostic = diagnostic.note(more);
    }
    diagnostic.help(help)
}

/// How many batches of many are shown.
const SHOWN: usize = 8;

/// How many places of many are shown: one of them is to blame.
const PLACES: usize = 64;

/// Places such as `d.npz:7`, in order; three and more in a row are `d.npz:17 to 24`.
fn listed(rows: &[String]) -> String {
    let mut places: Vec<(&str, u64)> = rows
        .iter()
        .map(|row| match row.rsplit_once(':') {
            Some((file, line)) => (file, line.parse().unwrap_or(0)),
            None => (row.as_str(), 0),
        })
        .collect();
    places.sort_unstable();
    // Examples that one row was split into have one place.
    places.dedup();
    let follows = |a: &(&str, u64), b: &(&str, u64)| a.0 == b.0 && a.1.checked_add(1) == Some(b.1);
    let shown = &places[..places.len().min(PLACES)];
    let stretches = shown.chunk_by(follows).flat_map(|stretch| match stretch {
        [(file, first), _, .., (_, last)] => vec![format!("{file}:{first} to {last}")],
        few => few
            .iter()
            .map(|(file, line)| format!("{file}:{line}"))
            .collect(),
    });
    let more = match places.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", stretches.collect::<Vec<_>>().join(", "))
}

/// A parameter that is no number behind a step whose loss and gradients are.
pub(super) fn parameter_not_finite(step: u64, parameter: &str) -> Diagnostic {
    if step == 0 {
        let message = format!("`{parameter}` is not finite before the first step");
        return Diagnostic::new(Code::E1103, message).help(
            "look at what it starts from: the base's weights, a calibration or a file of `start`",
        );
    }
    let message = format!("`{parameter}` is not finite behind step {step}");
    Diagnostic::new(Code::E1103, message).note("the loss and the gradients of this step are finite; its update is not, or that of a step before")
    .help("lower `optimizer.learning_rate`, or lengthen `optimizer.warmup_steps`")
}

/// How to see where a value became no number; from a checkpoint, if the run has one.
pub(super) fn look_closer(diagnostic: Diagnostic, resume: Option<&str>) -> Diagnostic {
    let help = match resume {
        Some(resume) => format!(
            "to see the first value that is no number, go on from the last checkpoint with `{resume} --debug-numerics`"
        ),
        None => "to see the first value that is no number, train again with `--debug-numerics`"
            .to_owned(),
    };
    diagnostic.help(help)
}

/// Examples to measure on that have no loss.
pub(super) fn held_out_not_finite(of: &str, loss: f64, rows: &[String]) -> Diagnostic {
    let message = format!("the held-out loss {of} is {loss}");
    Diagnostic::new(Code::W1101, message)
        .note(format!("the first batch with such a loss is {}", listed(rows)))
        .help("look at these rows and their labels with `peftc data`; no step of training depends on them")
}

/// What a search for the first value that is not finite has found.
pub(super) fn with_culprit(diagnostic: Diagnostic, culprit: Option<&Culprit>) -> Diagnostic {
    let Some(culprit) = culprit else {
        return diagnostic.note(
            "computed node by node, every value of the step is finite: ONNX Runtime's optimizations differ here",
        );
    };
    let node = &culprit.node;
    let first = format!(
        "the first is `{}`, of `{}` ({node}): {}",
        culprit.value, culprit.op_type, culprit.what
    );
    let diagnostic = diagnostic.note(first);
    culprit
        .operands
        .iter()
        .fold(diagnostic, |diagnostic, operand| diagnostic.note(operand))
}

pub(super) fn internal(why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E9901,
        format!("a training graph cannot be changed: {why}"),
    )
    .help("please report this with the spec and the model's graph")
}

/// Keys of the configuration have changed since the checkpoint was made.
pub(super) fn changed_run(path: &Path, changes: &[Change]) -> Diagnostic {
    let keys: Vec<String> = changes.iter().map(|c| format!("`{}`", c.key)).collect();
    let what = match keys.as_slice() {
        [one] => format!("{one} has changed"),
        several => format!("{} have changed", several.join(", ")),
    };
    let diagnostic = other_checkpoint(path, &what);
    changes
        .iter()
        .fold(diagnostic, |diagnostic, change| match &change.values {
            Some((was, is)) => diagnostic.note(format!("`{}` was {was} and is {is}", change.key)),
            None => diagnostic,
        })
}

pub(super) fn tensor_lacks(path: &Path, name: &str) -> Diagnostic {
    other_checkpoint(path, &format!("it lacks `{name}`"))
}

pub(super) fn no_state_in(path: &Path) -> Diagnostic {
    other_checkpoint(
        path,
        "it does not say where it stands, or another version of peftc wrote it",
    )
}

fn other_checkpoint(path: &Path, what: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E1104,
        format!("the checkpoint {} is of another run: {what}", path.display()),
    )
    .help("resume with the configuration, spec, model and data that it was made with, or start anew without `--resume`")
}

/// The schedule goes to the end of the run, which is another one now.
pub(super) fn other_length(path: &Path, was: u64, is: u64) -> Diagnostic {
    let message = format!(
        "the checkpoint {} is of a run of {was} steps, not of {is}",
        path.display()
    );
    Diagnostic::new(Code::E1104, message)
        .note("`optimizer.schedule` lowers the learning rate until the last step, so that every step of a run of another length is another one")
        .help("a run with `optimizer.schedule: constant` can be made longer")
        .help("to train on, start a new run from what this one has learned: `start: adapter.safetensors` with the file of its output folder")
}

pub(super) fn too_few_steps(path: &Path, done: u64, steps: u64) -> Diagnostic {
    let message = format!(
        "the checkpoint {} has done {done} steps, and the run has {steps}",
        path.display()
    );
    Diagnostic::new(Code::E1104, message)
        .help("raise `steps` or `epochs`, or start anew without `--resume`")
}

/// What reading it has said, with what to do about a checkpoint.
pub(super) fn damaged_checkpoint(path: &Path, found: Sink) -> Diagnostic {
    let why = found
        .diagnostics()
        .iter()
        .find(|d| d.severity() == Severity::Error);
    let mut diagnostic = match why {
        Some(why) if why.code != Code::E0901 => return why.clone(),
        Some(why) => why.clone(),
        None => Diagnostic::new(Code::E0901, format!("{} cannot be read", path.display())),
    };
    diagnostic.help.clear();
    diagnostic
        .help("go on from an earlier checkpoint with `--resume=FILE`, such as a `checkpoint-STEP.safetensors` that `keep_checkpoints` has left, or start anew without `--resume`")
}

/// `earlier` is what a run before has left.
pub(super) fn no_checkpoint(path: &Path, earlier: Option<&Path>) -> Diagnostic {
    let message = format!("there is no checkpoint {}", path.display());
    let diagnostic = Diagnostic::new(Code::E1104, message).help("start without `--resume`");
    match earlier {
        None => diagnostic,
        Some(earlier) => diagnostic.help(format!(
            "a run before the last one has left one: `--resume={}`",
            earlier.display()
        )),
    }
}

pub(super) fn not_trained(folder: &Path) -> Diagnostic {
    let message = format!("`{}` holds no trained adapter", folder.display());
    Diagnostic::new(Code::E1106, message)
        .help("train it first: `peftc train` with the same configuration")
}

pub(super) fn nothing_held_out(spec: &Path) -> Diagnostic {
    let spec = spec.file_name().unwrap_or_default().to_string_lossy();
    let message = format!("the configuration of `{spec}` says nothing to measure on");
    Diagnostic::new(Code::E1106, message)
        .help("name held-out examples with `data.eval`, or with `--with data.eval=FILE`")
}

/// `what` are the models or the tasks.
pub(super) fn not_comparable(what: &str) -> Diagnostic {
    let message = format!("the configurations have different {what}");
    Diagnostic::new(Code::E1106, message)
        .help("measure them one by one: side by side stand adapters of one model and one task")
}

pub(super) fn several_adapters(names: &[&str]) -> Diagnostic {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    Diagnostic::new(
        Code::E1101,
        format!("the spec has several adapters: {}", names.join(", ")),
    )
    .help("say which one to train with `adapter:`")
}

/// What a step takes is more than the machine can give.
pub(super) fn larger_than_machine(estimate: &Estimate, available: u64) -> Diagnostic {
    let BatchSizes { rows, tokens } = estimate.batch;
    let message = format!(
        "a step on {rows} × {tokens} tokens takes about {}, this machine has {} left",
        show_bytes(estimate.total()),
        show_bytes(available)
    );
    let mut diagnostic = Diagnostic::new(Code::W1102, message);
    if let Some((name, ty, bytes)) = estimate.largest.first() {
        let bytes = show_bytes(*bytes);
        diagnostic = diagnostic.note(format!(
            "the largest tensor is `{name}`, {ty}, with {bytes}"
        ));
    }
    diagnostic
        .help("lower `batch_size` with `accumulate` raised, or cut texts with `data.max_length`")
        .help("compute activations again in place of keeping them: `recompute: true`, or as a budget needs it: `memory: 8GiB`")
        .help("`base: int8` or `base: int8_weights` quarters the weights")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shown_in_order_and_stretches_by_their_ends() {
        let places = |lines: &[u64]| -> Vec<String> {
            lines
                .iter()
                .map(|line| format!("a:b.jsonl:{line}"))
                .collect()
        };
        assert_eq!(
            listed(&places(&[9, 2, 1])),
            "a:b.jsonl:1, a:b.jsonl:2, a:b.jsonl:9"
        );
        assert_eq!(listed(&places(&[4, 5, 4])), "a:b.jsonl:4, a:b.jsonl:5");
        let mut rows = places(&[7, 4, 5, 6]);
        rows.push("c.npz:8".to_owned());
        assert_eq!(listed(&rows), "a:b.jsonl:4 to 7, c.npz:8");
        let many: Vec<u64> = (1..=70).map(|line| 2 * line).collect();
        assert!(listed(&places(&many)).ends_with("a:b.jsonl:128 and 6 more"));
    }
}
