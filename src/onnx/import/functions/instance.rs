//! One call's copy of a function's nodes.

use super::Function;
use super::names::Names;
use crate::diag::Diagnostic;
use crate::onnx::errors;
use crate::onnx::import::DEEPEST;
use crate::onnx::proto::{
    AttributeProto, DimensionValue, FunctionProto, GraphProto, NodeProto, StringStringEntryProto,
    TypeProto, ValueInfoProto, attribute_type, type_proto,
};
use bytes::Bytes;
use prost::Message;
use rustc_hash::FxHashMap;

/// Where a node belongs among the modules of the exported program.
const NAME_SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// What a call becomes; calls among it are not yet replaced.
pub(super) struct Made {
    pub nodes: Vec<NodeProto>,
    /// The size of all subgraphs in it.
    pub subgraph_bytes: u64,
}

/// What is wrong with a node, as the rest of a sentence.
pub(super) struct Fault {
    node: Box<NodeProto>,
    why: String,
}

impl Fault {
    pub fn diagnostic(&self, file: &str) -> Diagnostic {
        errors::node(file, &self.node, &self.why)
    }
}

/// A node's name, or what stands for it.
pub(super) fn name_of(node: &NodeProto) -> &str {
    match node.name.as_deref() {
        None | Some("") => node.op_type.as_deref().unwrap_or_default(),
        Some(name) => name,
    }
}

/// The attribute of the function that stands for this one's value.
pub(super) fn reference(attribute: &AttributeProto) -> Option<&str> {
    let name = attribute.ref_attr_name.as_deref();
    name.filter(|name| !name.is_empty())
}

/// The bytes of what a call says about its module.
pub(super) fn scopes_len(call: &NodeProto) -> usize {
    scopes(call).map_or(0, Message::encoded_len)
}

fn scopes(node: &NodeProto) -> Option<&StringStringEntryProto> {
    let mut entries = node.metadata_props.iter();
    entries.find(|entry| entry.key.as_deref() == Some(NAME_SCOPES))
}

/// The nodes that a call stands for.
pub(super) fn nodes(
    function: &Function,
    call: &NodeProto,
    names: &mut Names,
) -> Result<Made, Fault> {
    let proto = &function.proto;
    for (kind, passed, taken) in [
        ("inputs", call.input.len(), proto.input.len()),
        ("outputs", call.output.len(), proto.output.len()),
    ] {
        if passed > taken {
            let node = call.clone();
            let why = format!(
                "has {passed} {kind}, local function `{}` has {taken}",
                function.shown
            );
            return Err(Fault {
                node: Box::new(node),
                why,
            });
        }
    }
    let site = names.site(name_of(call));
    let mut instance = Instance {
        proto,
        call,
        names,
        site,
        scopes: vec![FxHashMap::default()],
        subgraph_bytes: 0,
    };
    let copies = instance.bind()?;
    let mut nodes = Vec::with_capacity(proto.node.len() + copies.len());
    for node in &proto.node {
        nodes.push(instance.node(node)?);
    }
    nodes.extend(copies);
    Ok(Made {
        nodes,
        subgraph_bytes: instance.subgraph_bytes,
    })
}

struct Instance<'a> {
    proto: &'a FunctionProto,
    call: &'a NodeProto,
    names: &'a mut Names,
    site: String,
    /// What the names of the function, and of the subgraphs around what is read, have become.
    scopes: Vec<FxHashMap<String, String>>,
    subgraph_bytes: u64,
}

impl<'a> Instance<'a> {
    /// Gives every value of the function its name. Outputs that are no results of their own, such
    /// as inputs that are handed through, are returned as copies.
    fn bind(&mut self) -> Result<Vec<NodeProto>, Fault> {
        for (at, name) in self.proto.input.iter().enumerate() {
            let passed = self.call.input.get(at).cloned().unwrap_or_default();
            self.scopes[0].insert(name.clone(), passed);
        }
        let mut copied = Vec::new();
        for (name, result) in self.proto.output.iter().zip(&self.call.output) {
            if result.is_empty() {
                continue;
            }
            match self.scopes[0].contains_key(name) {
                true => copied.push((name, result)),
                false => {
                    self.scopes[0].insert(name.clone(), result.clone());
                }
            }
        }
        for node in &self.proto.node {
            node.output.iter().for_each(|name| self.define(name));
        }
        copied
            .into_iter()
            .map(|(name, result)| self.copy(name, result))
            .collect()
    }

    /// A node that hands a value of the function to a result of the call.
    fn copy(&mut self, name: &str, result: &str) -> Result<NodeProto, Fault> {
        let value = self.value(name);
        if value.is_empty() {
            let node = self.call.clone();
            let why =
                format!("takes the result `{result}` from the input `{name}`, which is absent");
            return Err(Fault {
                node: Box::new(node),
                why,
            });
        }
        Ok(NodeProto {
            input: vec![value],
            output: vec![result.to_owned()],
            name: Some(self.names.node(&self.site, name)),
            op_type: Some("Identity".to_owned()),
            ..NodeProto::default()
        })
    }

    /// Gives a value of the innermost scope its name.
    fn define(&mut self, name: &str) {
        let last = self.scopes.len() - 1;
        if !name.is_empty() && !self.scopes[last].contains_key(name) {
            let fresh = self.names.value(&self.site, name);
            self.scopes[last].insert(name.to_owned(), fresh);
        }
    }

    /// What a name has become. One that nothing defines gets a name that nothing defines.
    fn value(&mut self, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        let found = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        if let Some(found) = found {
            return found.clone();
        }
        let fresh = self.names.value(&self.site, name);
        self.scopes[0].insert(name.to_owned(), fresh.clone());
        fresh
    }

    fn node(&mut self, node: &NodeProto) -> Result<NodeProto, Fault> {
        let mut copy = node.clone();
        copy.name = Some(self.names.node(&self.site, name_of(node)));
        for name in copy.input.iter_mut().chain(&mut copy.output) {
            *name = self.value(name);
        }
        copy.attribute.clear();
        for attribute in &node.attribute {
            let attribute = self.attribute(&copy, attribute)?;
            copy.attribute.extend(attribute);
        }
        if scopes(node).is_none() {
            copy.metadata_props.extend(scopes(self.call).cloned());
        }
        Ok(copy)
    }

    /// An attribute with its value; `None` for one that the call leaves out.
    fn attribute(
        &mut self,
        owner: &NodeProto,
        attribute: &AttributeProto,
    ) -> Result<Option<AttributeProto>, Fault> {
        let Some(name) = reference(attribute) else {
            return self.with_subgraphs(attribute.clone()).map(Some);
        };
        let of = |all: &'a [AttributeProto]| {
            all.iter().find(|other| other.name.as_deref() == Some(name))
        };
        // What the call passes speaks of the values around the call.
        let found = match of(&self.call.attribute) {
            Some(passed) => passed.clone(),
            None => match of(&self.proto.attribute_proto) {
                Some(default) => self.with_subgraphs(default.clone())?,
                None => return Ok(None),
            },
        };
        let types = [attribute.r#type, found.r#type].map(Option::unwrap_or_default);
        if types[0] != types[1] && !types.contains(&attribute_type::UNDEFINED) {
            let own = attribute.name.as_deref().unwrap_or_default();
            let why = format!(
                "has an attribute `{own}` of type {} that takes its value from `{name}` of type {}",
                types[0], types[1]
            );
            let node = owner.clone();
            return Err(Fault {
                node: Box::new(node),
                why,
            });
        }
        Ok(Some(AttributeProto {
            name: attribute.name.clone(),
            ..found
        }))
    }

    fn with_subgraphs(&mut self, mut attribute: AttributeProto) -> Result<AttributeProto, Fault> {
        for bytes in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            // What cannot be read is left for the reader to say so.
            if self.scopes.len() <= DEEPEST
                && let Ok(graph) = GraphProto::decode(bytes.clone())
            {
                self.scopes.push(FxHashMap::default());
                let graph = self.subgraph(graph);
                self.scopes.pop();
                *bytes = Bytes::from(graph?.encode_to_vec());
                self.subgraph_bytes += bytes.len() as u64;
            }
        }
        Ok(attribute)
    }

    /// A subgraph of the function, whose own names are in the innermost scope.
    fn subgraph(&mut self, mut graph: GraphProto) -> Result<GraphProto, Fault> {
        self.define_all(&graph);
        for info in graph.input.iter_mut().chain(&mut graph.output) {
            self.info(info);
        }
        graph.value_info.retain_mut(|info| {
            let is_here = self.is_innermost(info.name.as_deref().unwrap_or_default());
            if is_here {
                self.info(info);
            }
            is_here
        });
        let sparse = graph.sparse_initializer.iter_mut();
        let sparse = sparse.filter_map(|tensor| tensor.values.as_mut());
        for tensor in graph.initializer.iter_mut().chain(sparse) {
            self.rename(&mut tensor.name);
        }
        for annotation in &mut graph.quantization_annotation {
            self.rename(&mut annotation.tensor_name);
            for entry in &mut annotation.quant_parameter_tensor_names {
                self.rename(&mut entry.value);
            }
        }
        for node in &mut graph.node {
            *node = self.node(node)?;
        }
        Ok(graph)
    }

    fn define_all(&mut self, graph: &GraphProto) {
        let inputs = graph.input.iter().filter_map(|info| info.name.as_ref());
        let sparse = graph.sparse_initializer.iter();
        let sparse = sparse.filter_map(|tensor| tensor.values.as_ref());
        let tensors = graph.initializer.iter().chain(sparse);
        let tensors = tensors.filter_map(|tensor| tensor.name.as_ref());
        let results = graph.node.iter().flat_map(|node| &node.output);
        for name in inputs.chain(tensors).chain(results) {
            self.define(name);
        }
    }

    fn is_innermost(&self, name: &str) -> bool {
        let innermost = self.scopes.last();
        innermost.is_some_and(|scope| scope.contains_key(name))
    }

    fn rename(&mut self, name: &mut Option<String>) {
        if let Some(name) = name {
            *name = self.value(name);
        }
    }

    /// Renames a value. The names of its dimensions hold inside the function only.
    fn info(&mut self, info: &mut ValueInfoProto) {
        self.rename(&mut info.name);
        if let Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..
        }) = &mut info.r#type
        {
            for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
                if matches!(dim.value, Some(DimensionValue::DimParam(_))) {
                    dim.value = None;
                }
            }
        }
    }
}
