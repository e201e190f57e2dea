//! The diagnostics of this room.

use super::proto::NodeProto;
use super::schema::Unknown;
use super::sniff::Lookalike;
use crate::diag::{Code, Diagnostic, Excerpt};
use crate::graph::{Graph, NodeId};

/// The newest ONNX that is read; the versions that ONNX Runtime 1.32 reads.
pub(super) const NEWEST_IR: i64 = 14;
pub(super) const NEWEST_OPSET: i64 = 28;

// --- the file ---------------------------------------------------------------------------------

pub(super) fn lookalike(file: &str, found: &Lookalike) -> Diagnostic {
    Diagnostic::new(Code::E0601, format!("`{file}` is {}", found.what)).help(found.help)
}

pub(super) fn not_onnx(file: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0601, format!("`{file}` is not an ONNX model: {why}"))
        .help("check the path; an ONNX model is a protobuf file that usually ends in `.onnx`")
}

pub(super) fn truncated(file: &str, has: u64, missing: u64) -> Diagnostic {
    Diagnostic::new(
        Code::E0602,
        format!("`{file}` is cut off: it has {has} bytes and should have {missing} more at least"),
    )
    .help("the download or export that made it did not finish: make it again")
}

pub(super) fn damaged(what: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0602, format!("{what} cannot be read: {why}"))
        .help("the file has been damaged: make or download it again")
}

pub(super) fn ir_version(version: i64) -> Diagnostic {
    Diagnostic::new(
        Code::E0603,
        format!("the model has IR version {version}, versions 1 to {NEWEST_IR} are known"),
    )
    .help("export the model for an older version of ONNX")
}

pub(super) fn opset_unknown(version: i64) -> Diagnostic {
    Diagnostic::new(
        Code::E0604,
        format!("the model uses opset {version}, opsets 1 to {NEWEST_OPSET} are known"),
    )
    .help("export the model with an older opset, such as `opset_version=20`")
}

pub(super) fn opset_missing() -> Diagnostic {
    Diagnostic::new(
        Code::E0604,
        "the model does not say which opset its nodes use",
    )
    .help("export the model again; its `opset_import` has no entry for the default domain")
}

pub(super) fn opset_twice(domain: &str, first: i64, second: i64) -> Diagnostic {
    Diagnostic::new(
        Code::E0604,
        format!(
            "the model imports domain `{domain}` as version {first} and as version {second}",
            domain = if domain.is_empty() { "ai.onnx" } else { domain }
        ),
    )
    .help("export the model again: only one version of a domain can hold")
}

// --- tensors, nodes and types -------------------------------------------------------------------

pub(super) fn tensor(what: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0605, format!("{what} {why}"))
        .help("the model has been damaged or wrongly written: export it again")
}

pub(super) fn sparse(what: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0616, format!("{what} {why}"))
        .help("store the initializer dense: in Python, write its elements into a `TensorProto` with `onnx.numpy_helper.from_array`")
}

pub(super) fn node(file: &str, node: &NodeProto, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0606, format!("{} {why}", describe(node)))
        .excerpt(excerpt(file, node, None, "this node"))
        .help("the model has been wrongly written: export it again")
}

pub(super) fn item(what: &str, why: &str) -> Diagnostic {
    Diagnostic::new(Code::E0606, format!("{what} {why}"))
        .help("the model has been wrongly written: export it again")
}

pub(super) fn too_deep(limit: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0607,
        format!("subgraphs are nested more than {limit} levels deep"),
    )
    .help("no exporter writes such a model: check where the file comes from")
}

pub(super) fn too_many(limit: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0607,
        format!("the model has more than {limit} nodes and values"),
    )
    .help("no exporter writes such a model: check where the file comes from")
}

// --- local functions ------------------------------------------------------------------------------

pub(super) fn function(shown: &str, why: &str) -> Diagnostic {
    item(&format!("local function `{shown}`"), why)
}

/// `names` call each other in this order, the last one the first.
pub(super) fn functions_call_each_other(names: &[&str]) -> Diagnostic {
    let circle = names.iter().chain(names.first());
    let circle: Vec<String> = circle.map(|name| format!("`{name}`")).collect();
    Diagnostic::new(
        Code::E0620,
        format!(
            "local functions call each other in a circle: {}",
            circle.join(" → ")
        ),
    )
    .help("an ONNX function cannot call itself, loops are `Loop` nodes: export the model again")
}

pub(super) fn function_opset(shown: &str, domain: &str, its: i64, other: i64) -> Diagnostic {
    let domain = if domain.is_empty() { "ai.onnx" } else { domain };
    Diagnostic::new(
        Code::E0621,
        format!(
            "local function `{shown}` uses version {its} of domain `{domain}`, the model uses \
             version {other}"
        ),
    )
    .note("functions are inlined, and the nodes of a model have one version of a domain")
    .help(
        "convert it with Python's `onnx` first: \
         `onnx.inliner.inline_local_functions(model, convert_version=True)`",
    )
}

pub(super) fn functions_too_large(limit: u64, unit: &str) -> Diagnostic {
    Diagnostic::new(
        Code::E0607,
        format!("the local functions would become more than {limit} {unit} when they are inlined"),
    )
    .help("no exporter writes such a model: check where the file comes from")
}

pub(super) fn calls_too_deep(limit: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0607,
        format!("local functions call each other more than {limit} levels deep"),
    )
    .help("no exporter writes such a model: check where the file comes from")
}

// --- the graph --------------------------------------------------------------------------------

/// What defines a value, as messages say it.
pub(super) fn defined_twice(
    file: &str,
    name: &str,
    first: &str,
    second: &str,
    nodes: &[&NodeProto],
) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0502,
        format!("value `{name}` is defined more than once: by {first} and by {second}"),
    )
    .help("every value of an ONNX graph has one definition: export the model again");
    nodes.iter().fold(diagnostic, |diagnostic, node| {
        diagnostic.excerpt(excerpt(
            file,
            node,
            Some(Mark::Output(name)),
            "defined here",
        ))
    })
}

pub(super) fn not_defined(
    file: &str,
    name: &str,
    reader: &NodeProto,
    candidates: &[&str],
) -> Diagnostic {
    let diagnostic = Diagnostic::new(
        Code::E0503,
        format!("{} reads `{name}`, which nothing defines", describe(reader)),
    )
    .excerpt(excerpt(
        file,
        reader,
        Some(Mark::Input(name)),
        "not defined",
    ));
    with_candidates(diagnostic, candidates)
}

pub(super) fn output_not_defined(file: &str, name: &str, candidates: &[&str]) -> Diagnostic {
    let text = format!("output %{name}");
    let diagnostic = Diagnostic::new(
        Code::E0503,
        format!("graph output `{name}` is computed by no node"),
    )
    .excerpt(Excerpt {
        title: file.to_owned(),
        labels: vec![("output ".len()..text.len(), "not defined".to_owned())],
        text,
    });
    with_candidates(diagnostic, candidates)
}

fn with_candidates(diagnostic: Diagnostic, candidates: &[&str]) -> Diagnostic {
    let diagnostic = diagnostic
        .help("the model has been cut or edited by a tool that left it incomplete: make it again");
    if candidates.is_empty() {
        return diagnostic;
    }
    let names: Vec<String> = candidates.iter().map(|name| format!("`{name}`")).collect();
    diagnostic.note(format!("values with similar names: {}", names.join(", ")))
}

/// `nodes` wait for each other in this order, the last one for the first.
pub(super) fn cycle(file: &str, graph: &Graph, nodes: &[NodeId]) -> Diagnostic {
    const SHOWN: usize = 8;
    let shown = &nodes[..nodes.len().min(SHOWN)];
    let mut names: Vec<String> = shown
        .iter()
        .chain(nodes.first())
        .map(|id| format!("`{}`", graph.display_name(*id)))
        .collect();
    if nodes.len() > SHOWN {
        names.insert(SHOWN, format!("{} more", nodes.len() - SHOWN));
    }
    let mut text = String::new();
    let mut labels = Vec::new();
    for (index, id) in shown.iter().enumerate() {
        let line = graph.node_text(*id);
        let waits = match index + 1 == nodes.len() {
            true => "waits for the first line",
            false => "waits for the next line",
        };
        let start = text.len();
        labels.push((
            start + line.operator.start..start + line.operator.end,
            waits.to_owned(),
        ));
        text.push_str(&line.text);
        text.push('\n');
    }
    Diagnostic::new(
        Code::E0504,
        format!(
            "nodes wait for each other in a cycle: {}",
            names.join(" → ")
        ),
    )
    .excerpt(Excerpt {
        title: file.to_owned(),
        text,
        labels,
    })
    .help("an ONNX graph has no cycles, loops are `Loop` nodes: export the model again")
}

pub(super) fn not_sorted(file: &str, reader: &NodeProto, name: &str) -> Diagnostic {
    Diagnostic::new(
        Code::W0501,
        format!(
            "nodes are not in topological order: {} reads `{name}` before it is computed",
            describe(reader)
        ),
    )
    .excerpt(excerpt(
        file,
        reader,
        Some(Mark::Input(name)),
        "computed by a later node",
    ))
    .note("the nodes are sorted in what is written")
}

// --- warnings -----------------------------------------------------------------------------------

pub(super) fn defaults(count: usize, example: &str) -> Diagnostic {
    let who = match count {
        1 => format!("initializer `{example}` is an input"),
        _ => format!("{count} initializers, such as `{example}`, are inputs"),
    };
    Diagnostic::new(
        Code::W0602,
        format!("{who}, too, and can be overridden by a caller"),
    )
    .note("what the file says is taken as a frozen default, and stays an input in what is written")
}

pub(super) fn was_sparse(count: usize, example: &str) -> Diagnostic {
    let who = match count {
        1 => format!("initializer `{example}` is sparse"),
        _ => format!("{count} initializers, such as `{example}`, are sparse"),
    };
    let they = if count == 1 { "it is" } else { "they are" };
    Diagnostic::new(Code::W0606, who).note(format!("{they} written dense"))
}

pub(super) fn same_names(count: usize, example: &str) -> Diagnostic {
    let who = match count {
        1 => format!("another node has the name `{example}`"),
        _ => format!("{count} nodes have names of others, such as `{example}`"),
    };
    Diagnostic::new(Code::W0609, who).note("they get a number in what is written")
}

pub(super) fn input_twice(name: &str) -> Diagnostic {
    Diagnostic::new(Code::W0605, format!("graph input `{name}` is listed twice"))
        .note("both entries are the same; it is written once")
}

pub(super) fn unknown_fields(unknown: &Unknown) -> Diagnostic {
    Diagnostic::new(
        Code::W0607,
        format!(
            "the model has fields that ONNX does not define: {}",
            listed(unknown)
        ),
    )
    .note("they are carried into what is written")
}

pub(super) fn lost_fields(unknown: &Unknown) -> Diagnostic {
    Diagnostic::new(
        Code::W0608,
        format!(
            "fields that ONNX does not define are not written again: {}",
            listed(unknown)
        ),
    )
    .note("they stand in items that are written anew, where nothing says what they would mean")
}

fn listed(Unknown(fields): &Unknown) -> String {
    const SHOWN: usize = 8;
    let mut texts: Vec<String> = fields
        .iter()
        .take(SHOWN)
        .map(|((message, field), count)| match count {
            1 => format!("{field} of `{message}`"),
            _ => format!("{field} of `{message}` ({count} times)"),
        })
        .collect();
    if fields.len() > SHOWN {
        texts.push(format!("{} more", fields.len() - SHOWN));
    }
    texts.join(", ")
}

// --- writing ------------------------------------------------------------------------------------

pub(super) fn too_large(model: &str, bytes: u64) -> Diagnostic {
    Diagnostic::new(
        Code::E0615,
        format!("`{model}` would take {bytes} bytes, a protobuf file holds under 2147483648"),
    )
    .help("keep the weights in a file of their own (external data)")
}

// --- drawing --------------------------------------------------------------------------------------

/// What messages call a node.
pub(super) fn describe(node: &NodeProto) -> String {
    let op = node.op_type.as_deref().unwrap_or_default();
    match (
        node.name.as_deref().unwrap_or_default(),
        node.output.first(),
    ) {
        ("", None) if op.is_empty() => "a node without a name".to_owned(),
        ("", Some(output)) if op.is_empty() => format!("the node that computes `{output}`"),
        (name, _) if op.is_empty() => format!("node `{name}`"),
        ("", None) => format!("a `{op}` node"),
        ("", Some(output)) => format!("the `{op}` node that computes `{output}`"),
        (name, _) => format!("node `{name}` ({op})"),
    }
}

/// What to mark in a node's line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark<'a> {
    Output(&'a str),
    Input(&'a str),
}

/// The node's line with a mark on a value's name, or on the whole line.
fn excerpt(file: &str, node: &NodeProto, marked: Option<Mark<'_>>, text: &str) -> Excerpt {
    let mut line = String::new();
    let mut marks = Vec::new();
    let mut list = |line: &mut String, names: &[String], outputs: bool| {
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                line.push_str(", ");
            }
            let start = line.len();
            line.push('%');
            line.push_str(name);
            let this = match outputs {
                true => Mark::Output(name),
                false => Mark::Input(name),
            };
            if marked == Some(this) {
                marks.push((start..line.len(), text.to_owned()));
            }
        }
    };
    list(&mut line, &node.output, true);
    line.push_str(" = ");
    line.push_str(node.op_type.as_deref().unwrap_or_default());
    line.push('(');
    list(&mut line, &node.input, false);
    line.push(')');
    if marks.is_empty() {
        marks.push((0..line.len(), text.to_owned()));
    }
    Excerpt {
        title: file.to_owned(),
        text: line,
        labels: marks,
    }
}
