//! Graphs and subgraphs.
//!
//! All definitions of a graph are entered first and its nodes are wired afterwards, so that the
//! order of the file does not matter. A name that a graph does not define is captured from the
//! graphs around it, and every graph on the way hands it through.

use super::node::attributes;
use super::sections::{Sections, sections};
use super::{Cx, DEEPEST};
use super::{functions, sparse, tensor, types};
use crate::diag::{Reported, nearest};
use crate::graph::{Graph, NodeId, OpName, Origin, Tensor, Value, ValueId, ValueKind};
use crate::onnx::errors;
use crate::onnx::external::without_unknown_keys;
use crate::onnx::import::model::{metadata, pair};
use crate::onnx::proto::{NodeProto, SparseTensorProto, TensorProto, ValueInfoProto};
use crate::onnx::schema::SPARSE_TENSOR;
use crate::ty::TensorType;
use bytes::Bytes;
use prost::{DecodeError, Message};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// An imported graph with the names that it reads from the graphs around it.
#[derive(Default)]
pub(super) struct Body {
    pub graph: Graph,
    pub captured: Vec<Arc<str>>,
}

/// The graphs around a subgraph, innermost first.
pub(super) struct Scope<'a> {
    graph: &'a Graph,
    parent: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<&Value> {
        match self.graph.find_value(name) {
            Some(id) => Some(self.graph.value(id)),
            None => self.parent?.find(name),
        }
    }
}

/// Imports a graph; faults are reported to `cx`, and what could be read is returned.
pub(super) fn graph(cx: &mut Cx<'_>, bytes: &Bytes, scope: Option<&Scope<'_>>) -> Body {
    if cx.depth >= DEEPEST {
        cx.error(errors::too_deep(DEEPEST));
        return Body::default();
    }
    cx.depth += 1;
    let body = read(cx, bytes, scope).unwrap_or_default();
    cx.depth -= 1;
    body
}

fn read(cx: &mut Cx<'_>, bytes: &Bytes, scope: Option<&Scope<'_>>) -> Result<Body, Reported> {
    let mut sections = sections(cx, bytes)?;
    cx.count(sections.nodes.len() + sections.value_infos.len())?;
    cx.count(sections.initializers.len() + sections.sparse_initializers.len())?;
    let nodes = decode_nodes(cx, std::mem::take(&mut sections.nodes))?;
    let mut nodes = functions::inline(cx, nodes)?;
    let results: usize = nodes.iter().map(|(node, _)| node.output.len()).sum();
    cx.count(results)?;
    let mut building = Building {
        graph: Graph::with_capacity(nodes.len(), results + sections.initializers.len()),
        scope,
        captured: Vec::new(),
        unsorted: None,
    };
    building.graph.name = std::mem::take(&mut sections.name);
    building.graph.doc = std::mem::take(&mut sections.doc);
    building.inputs_and_initializers(cx, &sections)?;
    building.results(cx, &nodes);
    let renamed = unique_names(cx, &mut nodes);
    for (index, (node, origin)) in nodes.into_iter().enumerate() {
        if cx.is_hopeless() {
            break;
        }
        if let Some(id) = building.node(cx, node, origin)
            && renamed.contains(&index)
        {
            building.graph.node_mut(id).is_changed = true;
        }
    }
    building.outputs(cx, &sections)?;
    building.value_infos(cx, &sections)?;
    building.check_order(cx);
    building.graph.metadata = metadata("graph metadata", &sections.metadata, cx);
    building.graph.carried = sections.carried;
    Ok(Body {
        graph: building.graph,
        captured: building.captured,
    })
}

/// From this many nodes on a second thread costs less than it brings.
const MANY_NODES: usize = 2048;

/// Decodes the nodes, the second half of many on a thread of its own.
fn decode_nodes(
    cx: &mut Cx<'_>,
    nodes: Vec<Bytes>,
) -> Result<Vec<(NodeProto, Option<Origin>)>, Reported> {
    let decode = |bytes: &Bytes| NodeProto::decode(bytes.clone());
    let decoded: Vec<Result<NodeProto, DecodeError>> = if nodes.len() < MANY_NODES {
        nodes.iter().map(decode).collect()
    } else {
        let (first, second) = nodes.split_at(nodes.len() / 2);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| second.iter().map(decode).collect::<Vec<_>>());
            let mut decoded: Vec<_> = first.iter().map(decode).collect();
            decoded.extend(second.join().expect("decoding does not panic"));
            decoded
        })
    };
    let mut found = Vec::with_capacity(nodes.len());
    for (proto, bytes) in decoded.into_iter().zip(nodes) {
        match proto {
            Ok(proto) => found.push((proto, Some(Origin(bytes)))),
            Err(error) => return Err(cx.error(errors::damaged("a node", &error.to_string()))),
        }
    }
    Ok(found)
}

/// An initializer, before it is known whether it is an input, too.
struct Initializer {
    tensor: Tensor,
    /// Absent for one that was sparse.
    origin: Option<Origin>,
    metadata: Vec<(String, String)>,
}

/// A graph on its way into the IR.
struct Building<'a> {
    graph: Graph,
    scope: Option<&'a Scope<'a>>,
    captured: Vec<Arc<str>>,
    /// The first node that reads a value before it is computed.
    unsorted: Option<(NodeProto, String)>,
}

impl Building<'_> {
    fn inputs_and_initializers(
        &mut self,
        cx: &mut Cx<'_>,
        sections: &Sections,
    ) -> Result<(), Reported> {
        let Initializers {
            names,
            found: mut initializers,
        } = initializers(cx, sections)?;
        let mut seen: FxHashMap<String, &Bytes> = FxHashMap::default();
        for bytes in &sections.inputs {
            let info: ValueInfoProto = cx.decode("a graph input", bytes)?;
            let name = info.name.clone().unwrap_or_default();
            if name.is_empty() {
                cx.error(errors::item("a graph input", "has no name"));
                continue;
            }
            match seen.insert(name.clone(), bytes) {
                Some(first) if first == bytes => {
                    cx.rewritten += 1;
                    cx.warn(errors::input_twice(&name));
                    continue;
                }
                Some(_) => {
                    let what = "a graph input";
                    cx.error(errors::defined_twice(cx.file, &name, what, what, &[]));
                    continue;
                }
                None => {}
            }
            // Before IR version 4 every initializer had to be listed as an input and was a
            // constant all the same.
            if cx.ir_version < 4 && initializers.contains_key(name.as_str()) {
                continue;
            }
            self.input(cx, info, bytes, initializers.remove(name.as_str()));
        }
        for name in &names {
            if let Some(initializer) = initializers.remove(name) {
                let mut value = Value::initializer(name, initializer.tensor);
                value.metadata = initializer.metadata;
                value.initializer_origin = initializer.origin;
                let added = self.graph.add_value(value);
                debug_assert!(added.is_ok(), "initializers have different names");
            }
        }
        let order = names
            .iter()
            .filter_map(|name| self.graph.find_value(name))
            .collect();
        self.graph.set_initializer_order(order);
        Ok(())
    }

    fn input(
        &mut self,
        cx: &mut Cx<'_>,
        info: ValueInfoProto,
        bytes: &Bytes,
        default: Option<Initializer>,
    ) {
        let name = info.name.as_deref().unwrap_or_default();
        if default.is_some() {
            cx.defaults.push(name.to_owned());
        }
        let ty = stated_type(&info);
        let (tensor, initializer_origin, mut metadata) = match default {
            Some(default) => (Some(default.tensor), default.origin, default.metadata),
            None => (None, None, Vec::new()),
        };
        metadata.extend(info.metadata_props.iter().cloned().map(pair));
        let mut value = Value::with_kind(name, ty, ValueKind::Input { default: tensor });
        value.metadata = metadata;
        value.origin = Some(Origin(bytes.clone()));
        value.initializer_origin = initializer_origin;
        let added = self.graph.add_value(value);
        debug_assert!(added.is_ok(), "inputs have different names");
    }

    /// Enters every value that a node computes.
    fn results(&mut self, cx: &mut Cx<'_>, nodes: &[(NodeProto, Option<Origin>)]) {
        for (node, _) in nodes {
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                if let Err(existing) = self.graph.add_value(Value::computed(name, None)) {
                    let first = nodes.iter().find(|(first, _)| first.output.contains(name));
                    self.report_second(cx, existing, first.map(|(first, _)| first), node);
                }
            }
            if cx.is_hopeless() {
                break;
            }
        }
    }

    fn report_second(
        &self,
        cx: &mut Cx<'_>,
        existing: ValueId,
        first: Option<&NodeProto>,
        second: &NodeProto,
    ) {
        let value = self.graph.value(existing);
        let by = |node: &NodeProto| errors::describe(node);
        let (first_text, nodes) = match (&value.kind, first) {
            (ValueKind::Input { .. }, _) => ("a graph input".to_owned(), vec![second]),
            (ValueKind::Initializer(_), _) => ("an initializer".to_owned(), vec![second]),
            (_, Some(first)) if !std::ptr::eq(first, second) => (by(first), vec![first, second]),
            _ => (by(second), vec![second]),
        };
        cx.error(errors::defined_twice(
            cx.file,
            &value.name,
            &first_text,
            &by(second),
            &nodes,
        ));
    }

    fn node(
        &mut self,
        cx: &mut Cx<'_>,
        mut node: NodeProto,
        origin: Option<Origin>,
    ) -> Option<NodeId> {
        if node.op_type.as_deref().unwrap_or_default().is_empty() {
            cx.error(errors::node(cx.file, &node, "has no operator"));
            return None;
        }
        let protos = std::mem::take(&mut node.attribute);
        let scope = Scope {
            graph: &self.graph,
            parent: self.scope,
        };
        let changes = cx.changes();
        let attributes = attributes(cx, &node, protos, &scope);
        // What has been left out of a tensor or a body must not come back with the node's own bytes.
        let is_changed = cx.changes() != changes;
        let operands: Vec<Option<ValueId>> = node
            .input
            .iter()
            .map(|name| self.operand(cx, name, &node))
            .collect();
        let captures: Vec<ValueId> = attributes
            .captured
            .iter()
            .filter_map(|name| self.operand(cx, name, &node))
            .collect();
        let mut results: Vec<Option<ValueId>> = Vec::with_capacity(node.output.len());
        for name in &node.output {
            let result = self.undefined_result(name);
            // One that the node lists twice has been reported.
            results.push(result.filter(|_| !results.contains(&result)));
        }
        let op = OpName::new(domain(&node), node.op_type.as_deref().unwrap_or_default());
        cx.uses_default_domain |= op.domain.is_empty();
        let name = node.name.as_deref().unwrap_or_default();
        let id = self
            .graph
            .add_node(op, name, attributes.list, &operands, &results);
        for capture in captures {
            self.graph.add_capture(id, capture);
        }
        let added = self.graph.node_mut(id);
        added.metadata = node.metadata_props.into_iter().map(pair).collect();
        added.doc = node.doc_string.unwrap_or_default();
        added.overload = node.overload.unwrap_or_default();
        added.origin = origin;
        added.is_changed = is_changed;
        Some(id)
    }

    /// The value that a node computes; `None` for an absent result and for one that has been
    /// reported as defined elsewhere.
    fn undefined_result(&self, name: &str) -> Option<ValueId> {
        self.graph.find_value(name).filter(|id| {
            matches!(self.graph.value(*id).kind, ValueKind::Computed)
                && self.graph.producer(*id).is_none()
        })
    }

    /// The value that a node reads; `None` for an absent operand and, after a report, for a name
    /// that nothing defines.
    fn operand(&mut self, cx: &mut Cx<'_>, name: &str, reader: &NodeProto) -> Option<ValueId> {
        if name.is_empty() {
            return None;
        }
        let Some(id) = self.resolve(name) else {
            let near = self.similar(name);
            cx.error(errors::not_defined(cx.file, name, reader, &near));
            return None;
        };
        let is_computed = matches!(self.graph.value(id).kind, ValueKind::Computed);
        if self.unsorted.is_none() && is_computed && self.graph.producer(id).is_none() {
            self.unsorted = Some((reader.clone(), name.to_owned()));
        }
        Some(id)
    }

    /// A value of this graph, or one of the graphs around it, which is captured.
    fn resolve(&mut self, name: &str) -> Option<ValueId> {
        if let Some(id) = self.graph.find_value(name) {
            return Some(id);
        }
        let outer = self.scope?.find(name)?;
        let value = Value::with_kind(name, outer.ty.clone(), ValueKind::Captured);
        self.captured.push(value.name.clone());
        self.graph.add_value(value).ok()
    }

    fn similar(&self, name: &str) -> Vec<&str> {
        let names = self.graph.value_ids().map(|id| &*self.graph.value(id).name);
        nearest(name, names, 3)
    }

    fn outputs(&mut self, cx: &mut Cx<'_>, sections: &Sections) -> Result<(), Reported> {
        for bytes in &sections.outputs {
            let info: ValueInfoProto = cx.decode("a graph output", bytes)?;
            let name = info.name.as_deref().unwrap_or_default();
            match self.resolve(name) {
                Some(id) => {
                    self.graph.add_output(id);
                    self.describe(id, &info, bytes);
                }
                None => {
                    let near = self.similar(name);
                    cx.error(errors::output_not_defined(cx.file, name, &near));
                }
            }
        }
        Ok(())
    }

    fn value_infos(&mut self, cx: &mut Cx<'_>, sections: &Sections) -> Result<(), Reported> {
        for bytes in &sections.value_infos {
            let info: ValueInfoProto = cx.decode("a value's info", bytes)?;
            if let Some(id) = self
                .graph
                .find_value(info.name.as_deref().unwrap_or_default())
            {
                self.describe(id, &info, bytes);
            }
        }
        Ok(())
    }

    /// Attaches what the file says about a value. What is known for certain is kept: an
    /// initializer's own type, and the first of two statements.
    fn describe(&mut self, id: ValueId, info: &ValueInfoProto, bytes: &Bytes) {
        if self.graph.value(id).ty.is_none()
            && let Some(ty) = stated_type(info)
        {
            self.graph.set_type(id, ty);
        }
        let origin = match &self.graph.value(id).origin {
            Some(first) => first.clone(),
            None => Origin(bytes.clone()),
        };
        let metadata = info.metadata_props.iter().cloned().map(pair).collect();
        self.graph.set_value_origin(id, origin, metadata);
    }

    /// A graph in which no node reads ahead has no cycle.
    fn check_order(&mut self, cx: &mut Cx<'_>) {
        let Some((reader, name)) = &self.unsorted else {
            return;
        };
        match self.graph.order() {
            Ok(_) => {
                cx.rewritten += 1;
                cx.warn(errors::not_sorted(cx.file, reader, name));
            }
            Err(stuck) => {
                let nodes = one_cycle(&self.graph, &stuck);
                cx.error(errors::cycle(cx.file, &self.graph, &nodes));
            }
        }
    }
}

/// Gives nodes with the name of an earlier one a number behind it; says which.
fn unique_names(cx: &mut Cx<'_>, nodes: &mut [(NodeProto, Option<Origin>)]) -> FxHashSet<usize> {
    let name = |node: &NodeProto| node.name.clone().unwrap_or_default();
    let mut first = FxHashSet::default();
    let again: Vec<usize> = (0..nodes.len())
        .filter(|index| {
            let name = nodes[*index].0.name.as_deref().unwrap_or_default();
            !name.is_empty() && !first.insert(name)
        })
        .collect();
    if again.is_empty() {
        return FxHashSet::default();
    }
    let mut taken: FxHashSet<String> = nodes.iter().map(|(node, _)| name(node)).collect();
    let mut last: FxHashMap<String, usize> = FxHashMap::default();
    for index in &again {
        let name = name(&nodes[*index].0);
        cx.same_names.get_or_insert_with(|| (0, name.clone())).0 += 1;
        let number = last.entry(name.clone()).or_insert(1);
        let free = loop {
            *number += 1;
            let wish = format!("{name}_{number}");
            if taken.insert(wish.clone()) {
                break wish;
            }
        };
        nodes[*index].0.name = Some(free);
    }
    cx.rewritten += again.len();
    again.into_iter().collect()
}

/// The default domain is met as "" and as `ai.onnx`.
fn domain(node: &NodeProto) -> &str {
    match node.domain.as_deref().unwrap_or_default() {
        "ai.onnx" => "",
        domain => domain,
    }
}

fn stated_type(info: &ValueInfoProto) -> Option<TensorType> {
    let name = info.name.as_deref().unwrap_or_default();
    types::tensor_type(name, info.r#type.as_ref()?)
}

/// The initializers of a graph.
#[derive(Default)]
struct Initializers {
    /// In the order of the file, sparse ones last.
    names: Vec<String>,
    found: FxHashMap<String, Initializer>,
}

impl Initializers {
    fn add(&mut self, cx: &mut Cx<'_>, name: String, initializer: Initializer) {
        if self.found.insert(name.clone(), initializer).is_some() {
            let what = "an initializer";
            cx.error(errors::defined_twice(cx.file, &name, what, what, &[]));
        } else {
            self.names.push(name);
        }
    }
}

/// Every initializer by name, and the names in the order of the file.
fn initializers(cx: &mut Cx<'_>, sections: &Sections) -> Result<Initializers, Reported> {
    let mut all = Initializers::default();
    let before = cx.errors;
    for bytes in &sections.initializers {
        initializer(cx, bytes, &mut all)?;
    }
    for bytes in &sections.sparse_initializers {
        sparse_initializer(cx, bytes, &mut all)?;
    }
    // A missing initializer would be reported once more by every node that reads it.
    match cx.failure {
        Some(reported) if cx.errors > before => Err(reported),
        _ => Ok(all),
    }
}

fn initializer(cx: &mut Cx<'_>, bytes: &Bytes, all: &mut Initializers) -> Result<(), Reported> {
    let mut proto: TensorProto = cx.decode("an initializer", bytes)?;
    let name = proto.name.take().unwrap_or_default();
    if name.is_empty() {
        cx.error(errors::item("an initializer", "has no name"));
        return Ok(());
    }
    let metadata = proto.metadata_props.drain(..).map(pair).collect();
    let dropped = cx.external.dropped();
    let Ok(tensor) = tensor::tensor(cx, &format!("initializer `{name}`"), proto) else {
        return Ok(());
    };
    let origin = match cx.external.dropped() {
        more if more > dropped => without_unknown_keys(bytes),
        _ => bytes.clone(),
    };
    let initializer = Initializer {
        tensor,
        origin: Some(Origin(origin)),
        metadata,
    };
    all.add(cx, name, initializer);
    Ok(())
}

fn sparse_initializer(
    cx: &mut Cx<'_>,
    bytes: &Bytes,
    all: &mut Initializers,
) -> Result<(), Reported> {
    let mut proto: SparseTensorProto = cx.decode("a sparse initializer", bytes)?;
    let values = proto.values.get_or_insert_default();
    let name = values.name.take().unwrap_or_default();
    let metadata = values.metadata_props.drain(..).map(pair).collect();
    if name.is_empty() {
        cx.error(errors::item("a sparse initializer", "has no name"));
        return Ok(());
    }
    cx.lost.count(&SPARSE_TENSOR, bytes);
    let Ok(tensor) = sparse::dense(cx, &format!("sparse initializer `{name}`"), proto) else {
        return Ok(());
    };
    cx.rewritten += 1;
    cx.sparse.get_or_insert_with(|| (0, name.clone())).0 += 1;
    let initializer = Initializer {
        tensor,
        origin: None,
        metadata,
    };
    all.add(cx, name, initializer);
    Ok(())
}

/// The nodes of one cycle, in the order in which each waits for the next.
fn one_cycle(graph: &Graph, stuck: &[NodeId]) -> Vec<NodeId> {
    let mut path = Vec::new();
    let mut at = stuck.first().copied();
    while let Some(id) = at {
        if let Some(start) = path.iter().position(|seen| *seen == id) {
            return path.split_off(start);
        }
        path.push(id);
        at = graph
            .operands(id)
            .into_iter()
            .flatten()
            .chain(graph.captures(id))
            .filter_map(|value| graph.producer(value))
            .find(|producer| stuck.contains(producer));
    }
    Vec::new()
}
