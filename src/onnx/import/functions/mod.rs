//! Local functions, inlined: every call is replaced by the function's nodes.
//!
//! In: the serialized functions and the nodes of a graph. Out: the nodes without any call. What
//! comes out of call `c` is named `c/inner`, nodes and values alike; the values that the call
//! passes keep the names that they have outside. Before anything is expanded, the calls of the
//! whole model are counted ([`cost`]).
//!
//! Not here: what a function says about the types of its values; its dimensions have names of its
//! own, which are others in every call.

mod cost;
mod instance;
mod names;
mod survey;

use super::Cx;
use super::model::normalized;
use crate::diag::{Diagnostic, Reported};
use crate::graph::{AttributeValue, Graph, Origin};
use crate::onnx::errors::{self, NEWEST_OPSET};
use crate::onnx::proto::{FunctionProto, NodeProto};
use bytes::Bytes;
use cost::{Call, Cost, Costs, Limits};
use names::Names;
use prost::Message;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::rc::Rc;
use survey::Item;

/// A local function as the file has it.
struct Function {
    proto: FunctionProto,
    /// `domain::name`, as messages say it.
    shown: String,
    /// The domains of the nodes that are left of it.
    domains: BTreeSet<String>,
    own: Cost,
    calls: Vec<Call>,
}

/// Functions by name; a call must fit domain and overload, too.
#[derive(Default)]
struct Index(FxHashMap<String, Vec<Entry>>);

struct Entry {
    domain: String,
    overload: String,
    function: usize,
}

impl Index {
    /// The function that a node calls.
    fn called(&self, node: &NodeProto) -> Option<usize> {
        let same_name = self.0.get(node.op_type.as_deref()?)?;
        let overload = node.overload.as_deref().unwrap_or_default();
        same_name
            .iter()
            .find(|entry| entry.domain == domain(&node.domain) && entry.overload == overload)
            .map(|entry| entry.function)
    }

    fn call(&self, node: &NodeProto) -> Option<Call> {
        let function = self.called(node)?;
        let attributes = node.attribute.iter();
        Some(Call {
            function,
            name: (instance::name_of(node).len() + instance::scopes_len(node)) as u64,
            attributes: attributes.clone().map(|a| a.encoded_len() as u64).sum(),
            references: attributes.filter_map(instance::reference).count() as u64,
        })
    }

    /// Enters a function; `false` if there is one of the same name already.
    fn add(&mut self, proto: &FunctionProto, function: usize) -> bool {
        let entry = Entry {
            domain: domain(&proto.domain).to_owned(),
            overload: proto.overload.clone().unwrap_or_default(),
            function,
        };
        let same_name = self.0.entry(name(proto).to_owned()).or_default();
        let is_new = !same_name
            .iter()
            .any(|other| other.domain == entry.domain && other.overload == entry.overload);
        same_name.push(entry);
        is_new
    }
}

fn name(proto: &FunctionProto) -> &str {
    proto.name.as_deref().unwrap_or_default()
}

/// A domain; the default one has two names.
fn domain(name: &Option<String>) -> &str {
    match name.as_deref().unwrap_or_default() {
        "ai.onnx" => "",
        name => name,
    }
}

/// The functions of a model while its graphs are read.
#[derive(Default)]
pub(super) struct Functions {
    index: Index,
    all: Vec<Rc<Function>>,
    names: Names,
    limits: Limits,
    nodes: u64,
    bytes: u64,
}

impl Functions {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Reads the functions of a model, checks what inlining them will take, and adds the opsets that
/// only they import.
pub(super) fn read(
    cx: &mut Cx<'_>,
    serialized: &[Bytes],
    graph: &Bytes,
    opsets: &mut Vec<(String, i64)>,
) -> Result<Functions, Reported> {
    let mut functions = Functions::default();
    if serialized.is_empty() {
        return Ok(functions);
    }
    let size = graph.len() + serialized.iter().map(Bytes::len).sum::<usize>();
    let limits = Limits::of(size as u64);
    functions.limits = limits;
    let protos = protos(cx, serialized, &mut functions.index)?;
    let Functions {
        index, names, all, ..
    } = &mut functions;
    *all = protos
        .into_iter()
        .map(|proto| Rc::new(surveyed(index, proto)))
        .collect();
    let mut calls = Vec::new();
    survey::graph(graph, &mut |item| match item {
        Item::Value(name) => names.reserve_value(name),
        Item::Node(node) => {
            names.reserve_node(node.name.as_deref().unwrap_or_default());
            calls.extend(index.call(node));
        }
    });
    let mut costs = Costs::new(all);
    costs
        .check(&calls, limits)
        .map_err(|fault| cx.error(fault))?;
    for function in costs.called() {
        check(&function.proto, &function.shown).map_err(|fault| cx.error(fault))?;
        import(function, opsets).map_err(|fault| cx.error(fault))?;
    }
    Ok(functions)
}

fn protos(
    cx: &mut Cx<'_>,
    serialized: &[Bytes],
    index: &mut Index,
) -> Result<Vec<FunctionProto>, Reported> {
    let mut protos = Vec::with_capacity(serialized.len());
    for bytes in serialized {
        let proto: FunctionProto = cx.decode("a local function", bytes)?;
        cx.count(proto.node.len() + 1)?;
        if !index.add(&proto, protos.len()) {
            return Err(cx.error(errors::function(&shown(&proto), "is defined twice")));
        }
        protos.push(proto);
    }
    Ok(protos)
}

fn shown(proto: &FunctionProto) -> String {
    let overload = proto.overload.as_deref().unwrap_or_default();
    let dot = if overload.is_empty() { "" } else { ":" };
    format!("{}::{}{dot}{overload}", domain(&proto.domain), name(proto))
}

fn surveyed(index: &Index, proto: FunctionProto) -> Function {
    let mut function = Function {
        shown: shown(&proto),
        domains: BTreeSet::new(),
        own: Cost::default(),
        calls: Vec::new(),
        proto: FunctionProto::default(),
    };
    let own = &mut function.own;
    own.bytes = proto
        .node
        .iter()
        .map(|node| node.encoded_len() as u64)
        .sum();
    survey::nodes(&proto.node, &mut |item| match item {
        Item::Value(_) => own.names += 1,
        Item::Node(node) => {
            own.nodes += 1;
            // Its name and its scopes.
            own.names += 2 + node.input.len() as u64;
            let references = node.attribute.iter().filter_map(instance::reference);
            own.references += references.count() as u64;
            match index.call(node) {
                Some(call) => function.calls.push(call),
                None => {
                    function.domains.insert(domain(&node.domain).to_owned());
                }
            }
        }
    });
    function.proto = proto;
    function
}

/// Checks what every call relies on.
fn check(proto: &FunctionProto, shown: &str) -> Result<(), Diagnostic> {
    let mut inputs = FxHashSet::default();
    for input in &proto.input {
        if input.is_empty() || !inputs.insert(input) {
            let why = format!("has an input `{input}` without a name of its own");
            return Err(errors::function(shown, &why));
        }
    }
    let computed: FxHashSet<&String> = proto.node.iter().flat_map(|node| &node.output).collect();
    let missing = |output: &&String| !computed.contains(output) && !inputs.contains(output);
    match proto.output.iter().find(missing) {
        Some(output) => {
            let why = format!("has the output `{output}`, which no node of it computes");
            Err(errors::function(shown, &why))
        }
        None => Ok(()),
    }
}

/// Adds the opsets that a function needs to the model's; what both have must be the same.
fn import(function: &Function, opsets: &mut Vec<(String, i64)>) -> Result<(), Diagnostic> {
    for (domain, version) in function.proto.opset_import.iter().map(normalized) {
        if !function.domains.contains(&domain) {
            continue;
        }
        match opsets.iter().find(|(name, _)| *name == domain) {
            Some((_, other)) if *other != version => {
                let shown = &function.shown;
                return Err(errors::function_opset(shown, &domain, version, *other));
            }
            Some(_) => {}
            None if domain.is_empty() && !(1..=NEWEST_OPSET).contains(&version) => {
                return Err(errors::opset_unknown(version));
            }
            None => opsets.push((domain, version)),
        }
    }
    Ok(())
}

/// A node with what it was read from, if that is what it still says.
type Found = (NodeProto, Option<Origin>);

/// Replaces the calls among a graph's nodes.
pub(super) fn inline(cx: &mut Cx<'_>, nodes: Vec<Found>) -> Result<Vec<Found>, Reported> {
    let called = |cx: &Cx<'_>, node: &NodeProto| cx.functions.index.called(node);
    if !nodes.iter().any(|(node, _)| called(cx, node).is_some()) {
        return Ok(nodes);
    }
    let before = nodes.len();
    let mut all = Vec::with_capacity(before);
    for (node, origin) in nodes {
        match called(cx, &node) {
            Some(function) => expand(cx, function, &node, &mut all)?,
            None => all.push((node, origin)),
        }
    }
    cx.count(all.len().saturating_sub(before))?;
    Ok(all)
}

/// Appends what a call stands for. Calls end: the functions form no circle.
fn expand(
    cx: &mut Cx<'_>,
    function: usize,
    call: &NodeProto,
    all: &mut Vec<Found>,
) -> Result<(), Reported> {
    let function = Rc::clone(&cx.functions.all[function]);
    let file = cx.file;
    let made = instance::nodes(&function, call, &mut cx.functions.names)
        .map_err(|fault| cx.error(fault.diagnostic(file)))?;
    // A node with a call in its subgraphs is not written as it was.
    cx.rewritten += 1;
    let functions = &mut cx.functions;
    // A graph that is passed as an attribute may be used, with its calls, more than once: that is
    // counted only now.
    functions.nodes += made.nodes.len() as u64;
    functions.bytes += made.subgraph_bytes;
    let checked = functions.limits.check(functions.nodes, functions.bytes);
    checked.map_err(|fault| cx.error(fault))?;
    for node in made.nodes {
        match cx.functions.index.called(&node) {
            Some(inner) => expand(cx, inner, &node, all)?,
            None => all.push((node, None)),
        }
    }
    Ok(())
}

/// Drops the imports of domains that held functions only.
pub(super) fn drop_imports(functions: &Functions, graph: &Graph, opsets: &mut Vec<(String, i64)>) {
    let mut used = FxHashSet::default();
    domains(graph, &mut used);
    let held: FxHashSet<&str> = functions
        .all
        .iter()
        .map(|function| domain(&function.proto.domain))
        .collect();
    opsets.retain(|(domain, _)| {
        domain.is_empty() || !held.contains(&**domain) || used.contains(&**domain)
    });
}

fn domains<'a>(graph: &'a Graph, used: &mut FxHashSet<&'a str>) {
    for id in graph.node_ids() {
        let node = graph.node(id);
        used.insert(&node.op.domain);
        for attribute in &node.attributes {
            match &attribute.value {
                AttributeValue::Graph(body) => domains(body, used),
                AttributeValue::Graphs(bodies) => {
                    bodies.iter().for_each(|body| domains(body, used));
                }
                _ => {}
            }
        }
    }
}
