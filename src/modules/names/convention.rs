//! Paths that a file does not write, but that follow from what it writes and from how the tool that
//! wrote it is known to work.
//!
//! In: answers of the exporter's rungs. Out: the same answers, with the paths of call sites where
//! the exporter wrote another path of the same module, and with those other paths as aliases.
//! Everything here asks for evidence in the file; without it the answers stay as they are.

use super::super::call::Call;
use super::super::level::Levels;
use super::super::site::{NameSource, SiteKind};
use super::Answer;
use super::parameter::{self, Parameter};
use crate::graph::{Graph, ValueId};

/// Completes the answers of the exporter's rungs.
pub(super) fn complete(levels: &Levels<'_>, calls: &[Call<'_>], answers: &mut [Answer]) {
    join_calls_from_other_scopes(levels, calls, answers);
    restore_prefix(levels, answers);
    list_shared_tables(levels, calls, answers);
}

/// TorchScript writes a module that other modules call, such as T5's `shared`, behind the scope of
/// the caller: `encoder.shared`. The name of its weight says where it belongs. Norms and
/// convolutions are left alone: tools keep equal weights once, and untrained norms are equal.
fn join_calls_from_other_scopes(levels: &Levels<'_>, calls: &[Call<'_>], answers: &mut [Answer]) {
    for (call, answer) in calls.iter().zip(answers) {
        let may_be_called_elsewhere = matches!(call.kind, SiteKind::Linear | SiteKind::Embedding);
        if answer.source != Some(NameSource::NodePath) || !may_be_called_elsewhere {
            continue;
        }
        let Some(owner) = owner(levels, call) else {
            continue;
        };
        let (path, source) = match table_of_caller(&answer.path, &owner) {
            Some(path) => (path, NameSource::Alias),
            None if answer.path.ends_with(&format!(".{owner}")) => {
                (owner.clone(), NameSource::WeightName)
            }
            None => continue,
        };
        answer.disagreements.retain(|(_, path)| *path != owner);
        if path != owner {
            answer.aliases.push(owner);
        }
        let seen = std::mem::replace(&mut answer.path, path);
        answer.disagreements.push((NameSource::NodePath, seen));
        answer.source = Some(source);
    }
}

/// The module that the stored weight's own name says.
fn owner(levels: &Levels<'_>, call: &Call<'_>) -> Option<String> {
    let root = call.weight.root;
    match parameter::named(levels.graph(root.level).value(root.value))? {
        Parameter::OfModule(owner) => Some(owner),
        Parameter::Other(_) => None,
    }
}

/// Encoders and decoders of `transformers` hold the model's `shared` table as their
/// `embed_tokens`: the path of the call that TorchScript writes as `encoder.shared`.
fn table_of_caller(seen: &str, owner: &str) -> Option<String> {
    let caller = seen.strip_suffix(".shared")?;
    let (prefix, half) = caller.rsplit_once('.').unwrap_or(("", caller));
    let table = below(prefix, "shared");
    (is_half(half) && owner == table).then(|| format!("{caller}.embed_tokens"))
}

/// `<prefix>shared` is another path of every `<prefix>encoder.embed_tokens` and
/// `<prefix>decoder.embed_tokens`, if the file says that there is such a parameter: by the name of
/// the stored table, or in the signature of the exported program, without values of its own.
fn list_shared_tables(levels: &Levels<'_>, calls: &[Call<'_>], answers: &mut [Answer]) {
    for (call, answer) in calls.iter().zip(answers) {
        let caller = answer.path.strip_suffix(".embed_tokens");
        let Some(caller) = caller.filter(|_| call.kind == SiteKind::Embedding) else {
            continue;
        };
        let (prefix, half) = caller.rsplit_once('.').unwrap_or(("", caller));
        let shared = below(prefix, "shared");
        let stored = owner(levels, call).is_some_and(|owner| owner == shared);
        let known = stored || has_only_signature(levels.graph(0), &format!("{shared}.weight"));
        if is_half(half) && known && !answer.aliases.contains(&shared) {
            answer.aliases.push(shared);
        }
    }
}

fn is_half(segment: &str) -> bool {
    matches!(segment, "encoder" | "decoder")
}

fn below(prefix: &str, segment: &str) -> String {
    match prefix {
        "" => segment.to_owned(),
        _ => format!("{prefix}.{segment}"),
    }
}

/// Whether the exported program had a parameter of this name and the graph has no value of it.
fn has_only_signature(graph: &Graph, parameter: &str) -> bool {
    const SIGNATURE: &str = "pkg.torch.export.ExportedProgram.graph_signature";
    graph.find_value(parameter).is_none()
        && graph
            .metadata(SIGNATURE)
            .is_some_and(|text| text.contains(&format!(": PARAMETER target='{parameter}'\n")))
}

/// A family of encoders that Optimum exports without the model around them.
struct LoneEncoder {
    /// What its paths begin with in the file; together they cover every one.
    roots: &'static [&'static str],
    /// What the path of an attention layer has before and behind the number of its block.
    block: (&'static str, &'static str),
    /// Where the encoder lies in the torch model.
    prefix: &'static str,
    /// Other paths of its modules in the torch model.
    aliases: &'static [(&'static str, &'static str)],
}

const LONE_ENCODERS: &[LoneEncoder] = &[
    // T5 and its relatives.
    LoneEncoder {
        roots: &["block.", "embed_tokens", "final_layer_norm"],
        block: ("block.", "layer.0.SelfAttention."),
        prefix: "encoder",
        aliases: &[("embed_tokens", "shared")],
    },
    // BART, Whisper and their relatives.
    LoneEncoder {
        roots: &[
            "layers.",
            "embed_tokens",
            "embed_positions",
            "layernorm_embedding",
            "layer_norm",
            "conv1",
            "conv2",
        ],
        block: ("layers.", "self_attn."),
        prefix: "model.encoder",
        aliases: &[],
    },
];

/// Optimum exports the encoder of an encoder-decoder as a model of its own, so that no name in the
/// file has the encoder's prefix. That it is one is written in its axes.
fn restore_prefix(levels: &Levels<'_>, answers: &mut [Answer]) {
    if !is_half_of_optimum(levels.graph(0)) {
        return;
    }
    let paths: Vec<&str> = answers
        .iter()
        .map(|answer| &*answer.path)
        .filter(|path| !path.is_empty())
        .collect();
    let Some(family) = LONE_ENCODERS.iter().find(|family| family.has(&paths)) else {
        return;
    };
    for answer in answers.iter_mut().filter(|answer| !answer.path.is_empty()) {
        let written = std::mem::take(&mut answer.path);
        let others = family.aliases.iter().filter(|(path, _)| *path == written);
        let others = others.map(|(_, other)| (*other).to_owned());
        answer.path = format!("{}.{written}", family.prefix);
        answer.aliases.extend(others);
        answer.aliases.push(written);
        answer.source = Some(NameSource::Alias);
    }
}

impl LoneEncoder {
    fn has(&self, paths: &[&str]) -> bool {
        let in_block = |path: &str| {
            let Some((number, rest)) = path
                .strip_prefix(self.block.0)
                .and_then(|rest| rest.split_once('.'))
            else {
                return false;
            };
            number.bytes().all(|byte| byte.is_ascii_digit()) && rest.starts_with(self.block.1)
        };
        let rooted = |path: &str| self.roots.iter().any(|root| path.starts_with(root));
        paths.iter().any(|path| in_block(path)) && paths.iter().all(|path| rooted(path))
    }
}

/// Whether the axes are named as Optimum names those of an encoder's input and output.
fn is_half_of_optimum(graph: &Graph) -> bool {
    const AXIS: &str = "encoder_sequence_length";
    let has_axis = |value: &ValueId| {
        let ty = graph.value(*value).ty.as_ref();
        ty.and_then(|ty| ty.shape.as_ref()).is_some_and(|shape| {
            let mut dims = shape.0.iter();
            dims.any(|dim| dim.as_symbol().is_some_and(|symbol| symbol.name() == AXIS))
        })
    };
    let hidden = |value: &&ValueId| &*graph.value(**value).name == "last_hidden_state";
    graph.inputs().iter().any(has_axis) && graph.outputs().iter().find(hidden).is_some_and(has_axis)
}
