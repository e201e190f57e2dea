//! The diagnostics of this room.

use crate::diag::{Code, Diagnostic, Excerpt, counted};
use crate::graph::{Graph, Model, NodeId, ValueId};
use crate::ops::Refusal;
use crate::ty::TensorType;

/// How many values of a way are shown at each end of a gap.
const SHOWN: usize = 4;

/// `help` is `None` for an operator that peftc does not know.
pub(super) fn no_rule(
    model: &Model,
    node: NodeId,
    help: Option<&str>,
    way: &[ValueId],
    more: usize,
) -> Diagnostic {
    let graph = &model.graph;
    let op = &graph.node(node).op;
    let name = graph.display_name(node);
    let (message, help) = match help {
        Some(help) => (
            format!("`{op}` has no gradient, and `{name}` is between a parameter and the loss"),
            help,
        ),
        None => (
            format!("`{op}` is not known, and `{name}` is between a parameter and the loss"),
            "adapt only layers behind this node, or export the model with standard operators",
        ),
    };
    let mut diagnostic = Diagnostic::new(Code::E0701, message)
        .excerpt(excerpt(model, node, "no gradient"))
        .note(format!("the way is {}", shown(graph, way)))
        .help(help);
    if more > 0 {
        diagnostic = diagnostic.note(format!(
            "{} of this operator on the way",
            counted(more, "more node")
        ));
    }
    diagnostic
}

pub(super) fn cannot_derive(model: &Model, node: NodeId, refusal: &Refusal) -> Diagnostic {
    let name = model.graph.display_name(node);
    Diagnostic::new(
        Code::E0702,
        format!("the gradient of `{name}` cannot be derived: {refusal}"),
    )
    .excerpt(excerpt(model, node, "no gradient"))
    .help("adapt only layers behind this node, or export the model with fixed sizes and constants here")
}

/// The gradient that has arrived at a parameter cannot be given its shape.
pub(super) fn no_gradient_of(model: &Model, parameter: ValueId, refusal: &Refusal) -> Diagnostic {
    let name = &model.graph.value(parameter).name;
    Diagnostic::new(
        Code::E0702,
        format!("the gradient of `{name}` cannot be derived: {refusal}"),
    )
    .help("export the model with fixed sizes")
}

pub(super) fn does_not_reach(
    model: &Model,
    parameter: ValueId,
    more: usize,
    stop: Option<NodeId>,
) -> Diagnostic {
    let name = &model.graph.value(parameter).name;
    let others = match more {
        0 => String::new(),
        _ => format!(" (nor do {more} others)"),
    };
    let mut diagnostic = Diagnostic::new(
        Code::E0703,
        format!("the parameter `{name}` does not reach the loss{others}"),
    );
    if let Some(node) = stop {
        diagnostic = diagnostic.excerpt(excerpt(model, node, "no gradient passes"));
    }
    diagnostic.help("leave the layer out of the adapter, or choose a loss that depends on it")
}

pub(super) fn not_a_number(name: &str, ty: Option<&TensorType>) -> Diagnostic {
    Diagnostic::new(
        Code::E0704,
        format!("the loss `{name}` is {}, not one float", stated(ty)),
    )
    .help("choose a value of one element, or reduce it to one with a sum or a mean")
}

pub(super) fn not_a_float(name: &str, ty: Option<&TensorType>) -> Diagnostic {
    Diagnostic::new(
        Code::E0705,
        format!(
            "the parameter `{name}` is {}, not a float tensor",
            stated(ty)
        ),
    )
    .help("train float tensors: integers and values of unknown type have no gradient")
}

pub(super) fn opset_too_old(model: &str, opset: i64) -> Diagnostic {
    Diagnostic::new(
        Code::E0706,
        format!(
            "`{model}` is of opset {opset}, gradients need {}",
            super::OLDEST_OPSET
        ),
    )
    .help("export the model with opset 17 or later, or convert it with onnx.version_converter")
}

/// A patch that its own graph refuses: a fault of peftc.
pub(super) fn patch_refused(model: &str, why: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E9901,
        format!("the gradients of `{model}` cannot be inserted: {why}"),
    )
    .help("please report this with the model's graph")
}

fn stated(ty: Option<&TensorType>) -> String {
    ty.map_or_else(|| "of an unknown type".to_owned(), ToString::to_string)
}

/// A way in words: values and, between them, operators.
fn shown(graph: &Graph, way: &[ValueId]) -> String {
    let step = |value: &ValueId| {
        let name = &graph.value(*value).name;
        match graph.producer(*value) {
            Some(node) => format!("{} `{name}`", graph.node(node).op),
            None => format!("`{name}`"),
        }
    };
    let steps: Vec<String> = match way.len() {
        0..=9 => way.iter().map(step).collect(),
        count => {
            let first = way[..SHOWN].iter().map(step);
            let gap = format!("… {} more …", count - 2 * SHOWN);
            let last = way[count - SHOWN..].iter().map(step);
            first.chain([gap]).chain(last).collect()
        }
    };
    steps.join(" → ")
}

/// The node in text form, with a mark on its operator.
fn excerpt(model: &Model, node: NodeId, text: &str) -> Excerpt {
    let node = model.graph.node_text(node);
    Excerpt {
        title: model.name.clone(),
        labels: vec![(node.operator, text.to_owned())],
        text: node.text,
    }
}
