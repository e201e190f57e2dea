//! Graphs and subgraphs.
//!
//! All definitions of a graph are entered first and its nodes are wired afterwards, so that the
//! order of the file does not matter. A name that a graph does not define is captured from the
//! graphs around it, and every graph on the way hands it through.

use super::node::{Owner, attributes};
use super::nodes::{FoundAttribute, FoundNode, Nodes};
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
    let serialized = std::mem::take(&mut sections.nodes);
    let mut decoded;
    let mut nodes = match Nodes::read(&serialized) {
        Some(nodes) if cx.functions.is_empty() => nodes,
        _ => {
            decoded = decode(cx, &serialized)?;
            decoded = functions::inline(cx, decoded)?;
            Nodes::of(&mut decoded)
        }
    };
    let results = nodes.result_count();
    cx.count(results)?;
    let mut building = Building {
        graph: Graph::with_capacity(nodes.len(), results + sections.initializers.len()),
        scope,
        captured: Vec::new(),
        ops: FxHashMap::default(),
        unsorted: None,
        compared: 0,
    };
    building.graph.name = std::mem::take(&mut sections.name);
    building.graph.doc = std::mem::take(&mut sections.doc);
    building.inputs_and_initializers(cx, &sections)?;
    building.results(cx, &nodes);
    let renamed = unique_names(cx, &nodes);
    let mut attributes = nodes.take_attributes();
    for (index, node) in nodes.iter().enumerate() {
        if cx.is_hopeless() {
            break;
        }
        let own = attributes.by_ref().take(node.attributes).collect();
        if let Some(id) = building.node(cx, &nodes, node, own)
            && let Some(name) = renamed.get(&index)
        {
            let added = building.graph.node_mut(id);
            added.name.clone_from(name);
            added.is_changed = true;
        }
    }
    building.outputs(cx, &sections)?;
    building.value_infos(cx, &sections)?;
    building.check_order(cx, &nodes);
    building.graph.metadata = metadata("graph metadata", &sections.metadata, cx);
    building.graph.carried = sections.carried;
    Ok(Body {
        graph: building.graph,
        captured: building.captured,
    })
}

/// Decodes the nodes with prost.
fn decode(cx: &mut Cx<'_>, nodes: &[Bytes]) -> Result<Vec<(NodeProto, Option<Origin>)>, Reported> {
    let decode = |bytes: &Bytes| Ok((cx.decode("a node", bytes)?, Some(Origin(bytes.clone()))));
    nodes.iter().map(decode).collect()
}

/// An initializer, before it is known whether it is an input, too.
struct Initializer {
    tensor: Tensor,
    /// Absent for one that was sparse.
    origin: Option<Origin>,
    metadata: Vec<(String, String)>,
}

/// A graph on its way into the IR.
struct Building<'s, 'a> {
    graph: Graph,
    scope: Option<&'s Scope<'s>>,
    captured: Vec<Arc<str>>,
    /// Operators by domain and name: a graph has few.
    ops: FxHashMap<(&'a str, &'a str), OpName>,
    /// The first node that reads a value before it is computed, with the value's name.
    unsorted: Option<(FoundNode<'a>, String)>,
    /// How many unknown names have been compared with all others.
    compared: usize,
}

/// Comparing a name with all others takes a while, and a graph that lacks many of them has lost a part:
/// what else is called alike is no help then.
const MOST_COMPARED: usize = 8;

impl<'a> Building<'_, 'a> {
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
    fn results(&mut self, cx: &mut Cx<'_>, nodes: &Nodes<'a>) {
        for node in nodes.iter() {
            for name in nodes.outputs(node).iter().filter(|name| !name.is_empty()) {
                if let Err(existing) = self.graph.add_value(Value::computed(name, None)) {
                    self.report_second(cx, existing, nodes, node);
                }
            }
            if cx.is_hopeless() {
                break;
            }
        }
    }

    /// Says that a value which is defined already is one of the results of `second`, too.
    fn report_second(
        &self,
        cx: &mut Cx<'_>,
        existing: ValueId,
        nodes: &Nodes<'a>,
        second: &FoundNode<'a>,
    ) {
        let value = self.graph.value(existing);
        let mut all = nodes.iter();
        let first = all.find(|node| nodes.outputs(node).contains(&&*value.name));
        let by = errors::describe;
        let shown = nodes.shown(second);
        let earlier = first.filter(|first| !std::ptr::eq(*first, second));
        let earlier = earlier.map(|first| nodes.shown(first));
        let (first_text, nodes) = match (&value.kind, &earlier) {
            (ValueKind::Input { .. }, _) => ("a graph input".to_owned(), vec![&shown]),
            (ValueKind::Initializer(_), _) => ("an initializer".to_owned(), vec![&shown]),
            (_, Some(earlier)) => (by(earlier), vec![earlier, &shown]),
            _ => (by(&shown), vec![&shown]),
        };
        cx.error(errors::defined_twice(
            cx.file,
            &value.name,
            &first_text,
            &by(&shown),
            &nodes,
        ));
    }

    fn node(
        &mut self,
        cx: &mut Cx<'_>,
        nodes: &Nodes<'a>,
        node: &FoundNode<'a>,
        own: Vec<FoundAttribute>,
    ) -> Option<NodeId> {
        if node.op_type.is_empty() {
            cx.error(errors::node(cx.file, &nodes.shown(node), "has no operator"));
            return None;
        }
        let scope = Scope {
            graph: &self.graph,
            parent: self.scope,
        };
        let changes = cx.changes();
        let owner = Owner { nodes, node };
        let attributes = attributes(cx, owner, own.into_iter(), &scope);
        // What has been left out of a tensor or a body must not come back with the node's own bytes.
        let is_changed = cx.changes() != changes;
        let operands: Vec<Option<ValueId>> = nodes
            .inputs(node)
            .iter()
            .map(|name| self.operand(cx, name, nodes, node))
            .collect();
        let captures: Vec<ValueId> = attributes
            .captured
            .iter()
            .filter_map(|name| self.operand(cx, name, nodes, node))
            .collect();
        let outputs = nodes.outputs(node);
        let mut results: Vec<Option<ValueId>> = Vec::with_capacity(outputs.len());
        for name in outputs {
            let result = self.undefined_result(name);
            // One that the node lists twice has been reported.
            results.push(result.filter(|_| !results.contains(&result)));
        }
        let op = self.op(node);
        cx.uses_default_domain |= op.domain.is_empty();
        let id = self
            .graph
            .add_node(op, node.name, attributes.list, &operands, &results);
        for capture in captures {
            self.graph.add_capture(id, capture);
        }
        let added = self.graph.node_mut(id);
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        added.metadata = nodes.metadata(node).iter().map(owned).collect();
        added.doc = node.doc.to_owned();
        added.overload = node.overload.to_owned();
        added.origin = node.origin.map(|bytes| Origin(bytes.clone()));
        added.is_changed = is_changed;
        Some(id)
    }

    fn op(&mut self, node: &FoundNode<'a>) -> OpName {
        // The default domain is met as "" and as `ai.onnx`.
        let domain = match node.domain {
            "ai.onnx" => "",
            domain => domain,
        };
        let name = (domain, node.op_type);
        let op = self.ops.entry(name);
        op.or_insert_with(|| OpName::new(name.0, name.1)).clone()
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
    fn operand(
        &mut self,
        cx: &mut Cx<'_>,
        name: &str,
        nodes: &Nodes<'a>,
        reader: &FoundNode<'a>,
    ) -> Option<ValueId> {
        if name.is_empty() {
            return None;
        }
        let Some(id) = self.resolve(name) else {
            let near = self.similar(name);
            let shown = nodes.shown(reader);
            cx.error(errors::not_defined(cx.file, name, &shown, &near));
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

    fn similar(&mut self, name: &str) -> Vec<&str> {
        self.compared += 1;
        if self.compared > MOST_COMPARED {
            return Vec::new();
        }
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
    fn check_order(&mut self, cx: &mut Cx<'_>, nodes: &Nodes<'a>) {
        let Some((reader, name)) = &self.unsorted else {
            return;
        };
        match self.graph.order() {
            Ok(_) => {
                cx.rewritten += 1;
                cx.warn(errors::not_sorted(cx.file, &nodes.shown(reader), name));
            }
            Err(stuck) => {
                let nodes = one_cycle(&self.graph, &stuck);
                cx.error(errors::cycle(cx.file, &self.graph, &nodes));
            }
        }
    }
}

/// New names for nodes with the name of an earlier one, a number behind it, by index.
fn unique_names(cx: &mut Cx<'_>, nodes: &Nodes<'_>) -> FxHashMap<usize, String> {
    let mut first = FxHashSet::with_capacity_and_hasher(nodes.len(), Default::default());
    let again: Vec<(usize, &str)> = nodes
        .iter()
        .map(|node| node.name)
        .enumerate()
        .filter(|(_, name)| !name.is_empty() && !first.insert(*name))
        .collect();
    if again.is_empty() {
        return FxHashMap::default();
    }
    let mut taken: FxHashSet<String> = first.into_iter().map(str::to_owned).collect();
    let mut last: FxHashMap<&str, usize> = FxHashMap::default();
    let mut renamed = FxHashMap::default();
    for (index, name) in again {
        cx.same_names.get_or_insert_with(|| (0, name.to_owned())).0 += 1;
        let number = last.entry(name).or_insert(1);
        let free = loop {
            *number += 1;
            let wish = format!("{name}_{number}");
            if taken.insert(wish.clone()) {
                break wish;
            }
        };
        renamed.insert(index, free);
    }
    cx.rewritten += renamed.len();
    renamed
}

fn stated_type(info: &ValueInfoProto) -> Option<TensorType> {
    let name = info.name.as_deref().unwrap_or_default();
    types::tensor_type(name, info.r#type.as_ref()?)
}

/// The initializers of a graph.
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
    let count = sections.initializers.len();
    let mut all = Initializers {
        names: Vec::with_capacity(count),
        found: FxHashMap::with_capacity_and_hasher(count, Default::default()),
    };
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
