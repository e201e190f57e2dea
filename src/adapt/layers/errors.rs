//! Diagnostics about layers of a model (E0415 to E0417).

use super::borders::Obstacle;
use crate::diag::{Code, Diagnostic, Span, nearest};
use crate::graph::{Graph, ValueId};

/// How many values or lists are shown.
const SHOWN: usize = 5;

const EXPORT: &str = "export the model with its layers as they are to be: PyTorch repeats modules with shared weights, \
                      and the file holds each weight once";

/// `known` are the lists that there are, with how many layers each has.
pub(super) fn no_such_list<'a>(
    span: Span,
    wanted: &str,
    known: impl Iterator<Item = (&'a str, usize)>,
    unnamed: usize,
) -> Diagnostic {
    let known: Vec<(&str, usize)> = known.collect();
    let near = nearest(wanted, known.iter().map(|(path, _)| *path), 3);
    let shown = |path: &&str| {
        let count = known.iter().find(|(other, _)| other == path);
        format!(
            "`{path}` ({})",
            count_of(count.map_or(0, |(_, count)| *count))
        )
    };
    let diagnostic = Diagnostic::new(
        Code::E0415,
        format!("the model has no list of layers `{wanted}`"),
    )
    .label(span, "no module is below a number of it");
    let diagnostic = match (near.is_empty(), known.is_empty()) {
        (false, _) => diagnostic.help(format!(
            "the nearest lists are {}",
            joined(near.iter().map(shown))
        )),
        (true, false) => diagnostic.help(format!(
            "the lists of the model are {}",
            joined(known.iter().take(SHOWN).map(|(path, _)| shown(path)))
        )),
        (true, true) => diagnostic.note("no path of a module has a number in it"),
    };
    let diagnostic = match unnamed {
        0 => diagnostic,
        _ => diagnostic.help(
            "modules without a name are in no list: `--weights` takes names from the checkpoint that the \
             model was made from",
        ),
    };
    diagnostic.note("`peftc inspect MODEL` lists every module")
}

pub(super) fn several_lists(span: Span, wanted: &str, lists: &[&str]) -> Diagnostic {
    let shown = joined(lists.iter().take(SHOWN).map(|path| format!("`{path}`")));
    Diagnostic::new(
        Code::E0415,
        format!("`{wanted}` is the end of {} lists of layers", lists.len()),
    )
    .label(span, "which one?")
    .help(format!("say the whole path of one of them: {shown}"))
}

pub(super) fn layer_without_a_module(span: Span, list: &str, number: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0417,
        format!("layer {number} of `{list}` has no module in the model"),
    )
    .label(span, "its numbers do not run on")
    .note("a layer is known by the modules in it, and `peftc inspect MODEL` lists these")
    .help(EXPORT)
}

pub(super) fn no_such_layers(
    span: Span,
    (start, end): (usize, usize),
    list: &str,
    count: usize,
) -> Diagnostic {
    let message = match end > count {
        true => format!("`{list}` has no layer {}", end - 1),
        false => format!("`{list}` has no layer {start}"),
    };
    let diagnostic = Diagnostic::new(Code::E0416, message).label(
        span,
        match end > count {
            true => "beyond the last layer",
            false => "nothing is left from there on",
        },
    );
    diagnostic.help(match count {
        1 => "its only layer is 0".to_owned(),
        _ => format!(
            "its layers are 0 to {}, all of them `0..{count}` or `0..`",
            count - 1
        ),
    })
}

pub(super) fn too_many_layers(span: Span, most: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0416,
        format!("more than {most} layers are asked for"),
    )
    .label(span, "too many with these")
    .help(format!("a model has at most {most} layers"))
}

pub(super) fn with_caches(span: Span, first: &str, count: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0417,
        "layers with caches of earlier tokens cannot be repeated",
    )
    .label(span, format!("`{first}` is an input of one of them"))
    .note(format!(
        "the model has {count} caches, and every further layer would need some of its own"
    ))
    .help("export the model without caches (`use_cache=False`) and repeat its layers")
    .help(EXPORT)
}

pub(super) fn in_a_body(span: Span, path: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0417,
        "layers in a branch or a loop of the model cannot be repeated",
    )
    .label(span, format!("`{path}` lies in the body of a node"))
    .help("export the model without the branch, as a file of its own")
}

/// A node of a layer has a body that reads values of the layer.
pub(super) fn with_a_body(span: Span, layer: usize, node: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0417,
        "layers with branches or loops of their own cannot be repeated",
    )
    .label(
        span,
        format!("in layer {layer}, the body of the node `{node}` reads values of the layer"),
    )
    .help(EXPORT)
}

pub(super) fn module_outside_of_its_layer(span: Span, path: &str, layer: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0417,
        format!(
            "`{path}` does not lie between what leads into layer {layer} and what leads out of it"
        ),
    )
    .label(span, "the layers cannot be told apart")
    .help(EXPORT)
}

/// The layers of a list that are no blocks of the graph.
pub(super) fn no_borders(span: Span, list: &str, obstacle: &Obstacle, graph: &Graph) -> Diagnostic {
    let names = |values: &[ValueId]| {
        let shown = values.iter().take(SHOWN).map(|value| {
            let name = &graph.value(*value).name;
            match graph.is_output(*value) {
                true => format!("`{name}` (an output of the model)"),
                false => format!("`{name}`"),
            }
        });
        let more = values.len().saturating_sub(SHOWN);
        match more {
            0 => joined(shown),
            _ => format!("{}, and {more} more", joined(shown)),
        }
    };
    let name = |value: ValueId| format!("`{}`", graph.value(value).name);
    let (label, note) = match obstacle {
        Obstacle::Crossing(layer, values) => (
            format!(
                "it takes one value that leads from layer {} to what follows",
                layer - 1
            ),
            format!("what leads there is {}", names(values)),
        ),
        Obstacle::NoEntry => (
            "it takes one value that leads into layer 0".to_owned(),
            "neither embeddings nor inputs lead into the first layer through one value alone"
                .to_owned(),
        ),
        Obstacle::Between(layer, value) => (
            format!("layers {} and {layer} do not touch", layer - 1),
            format!(
                "whether what computes {} belongs to the one or to the other is not to be told from the \
                 first and the last layer",
                name(*value)
            ),
        ),
        Obstacle::Types(first, other) => (
            "what leads into a layer and out of it must have one type".to_owned(),
            format!(
                "{} and {} differ in type or shape",
                name(*first),
                name(*other)
            ),
        ),
        Obstacle::Leaks(layer, values) => (
            format!("values in layer {layer} are read outside of it"),
            format!("these are {}", names(values)),
        ),
    };
    Diagnostic::new(
        Code::E0417,
        format!("the layers of `{list}` cannot be repeated"),
    )
    .label(span, label)
    .note(note)
    .help(EXPORT)
}

fn count_of(layers: usize) -> String {
    match layers {
        1 => "1 layer".to_owned(),
        _ => format!("{layers} layers"),
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
