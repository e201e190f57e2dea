//! The diagnostics of this room.

use crate::diag::{Code, Diagnostic, Excerpt};
use crate::graph::{Graph, NodeId, NodeText};
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
