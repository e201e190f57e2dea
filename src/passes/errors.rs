//! The diagnostics of this room.

use crate::diag::{Code, Diagnostic, Excerpt, nearest};
use crate::graph::{Graph, Model, NodeId, NodeText};
use crate::ops::Mismatch;
use crate::ty::TensorType;
use std::ops::Range;

pub(super) fn element_types_contradict(
    model: &str,
    graph: &Graph,
    node: NodeId,
    value: &str,
    stated: &TensorType,
    inferred: &TensorType,
) -> Diagnostic {
    Diagnostic::new(
        Code::E0511,
        format!(
            "`{value}` is stated to be {}, its node computes {}",
            stated.dtype, inferred.dtype
        ),
    )
    .excerpt(excerpt(
        model,
        graph,
        node,
        |node| node.results.clone(),
        &format!("computes {inferred}"),
    ))
    .help("export the model again, or remove the wrong entry from its `value_info` or its outputs")
}

pub(super) fn shapes_contradict(
    model: &str,
    graph: &Graph,
    node: NodeId,
    value: &str,
    stated: &TensorType,
    inferred: &TensorType,
) -> Diagnostic {
    Diagnostic::new(
        Code::W0512,
        format!("the output `{value}` is stated to be {stated}, its node computes {inferred}"),
    )
    .excerpt(excerpt(
        model,
        graph,
        node,
        |node| node.results.clone(),
        &format!("computes {inferred}"),
    ))
    .note("the computed shape is used")
    .help("export the model again: callers of the model read the statement")
}

pub(super) fn operands_do_not_fit(
    model: &str,
    graph: &Graph,
    node: NodeId,
    mismatch: &Mismatch,
) -> Diagnostic {
    Diagnostic::new(
        Code::W0513,
        format!(
            "operands of `{}` do not fit: {mismatch}",
            graph.display_name(node)
        ),
    )
    .excerpt(excerpt(
        model,
        graph,
        node,
        |node| node.operator.clone(),
        "cannot run as it stands",
    ))
    .help("check the shapes that the model states for its inputs")
}

pub(super) fn no_flag(model: &Model, name: &str) -> Diagnostic {
    let flags = super::specialize::flags(&model.graph);
    let diagnostic = Diagnostic::new(
        Code::E0514,
        format!("`{}` has no flag `{name}`", model.name),
    );
    match nearest(name, flags.iter().copied(), 3)
        .first()
        .or(flags.first())
    {
        Some(near) => diagnostic.help(format!("write `{near}`, an input of one truth value")),
        None => diagnostic.help("only inputs of one truth value can be fixed: this model has none"),
    }
}

pub(super) fn branch_not_inlined(model: &Model, node: NodeId, why: &str) -> Diagnostic {
    let graph = &model.graph;
    Diagnostic::new(
        Code::E0515,
        format!(
            "the branch of `{}` cannot replace it: {why}",
            graph.display_name(node)
        ),
    )
    .excerpt(excerpt(
        &model.name,
        graph,
        node,
        |node| node.operator.clone(),
        "its condition is a constant",
    ))
    .help("export the part of the model that is needed without the branch")
}

/// A patch that its own graph refuses: a fault of peftc.
pub(super) fn patch_refused(model: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E9901, format!("`{model}` cannot be rewritten: {why}"))
        .help("please report this with the model's graph")
}

/// The node in text form, with a mark on a part of it.
fn excerpt(
    model: &str,
    graph: &Graph,
    node: NodeId,
    part: impl Fn(&NodeText) -> Range<usize>,
    text: &str,
) -> Excerpt {
    let node = graph.node_text(node);
    Excerpt {
        title: model.to_owned(),
        labels: vec![(part(&node), text.to_owned())],
        text: node.text,
    }
}
