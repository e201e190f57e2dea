//! The only way to change a finished graph.
//!
//! A patch is made from a graph that it does not touch: new nodes, new constants, and values whose
//! uses move to another value. [`Graph::apply`] checks the whole patch first and then changes the
//! graph, so a refused patch leaves no trace. Inserted nodes read replacements as all others do, but
//! where they ask for the original. What a replacement leaves without a reader is removed, with its
//! constants; what had no reader before stays.

use super::attribute::Attribute;
use super::ir::{NodeId, OpName, ValueId};
use super::tensor::Tensor;
use crate::ty::TensorType;

/// A value of the graph or one that the patch brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A value of the graph, or what replaces it.
    Existing(ValueId),
    /// A value of the graph itself, though the patch replaces it.
    Original(ValueId),
    /// An index into the patch's own values.
    New(u32),
}

impl From<ValueId> for Operand {
    fn from(id: ValueId) -> Self {
        Operand::Existing(id)
    }
}

/// A node to insert.
#[derive(Clone, Debug)]
pub struct NewNode {
    pub op: OpName,
    /// A wish: made unique among node names by a suffix.
    pub name: String,
    pub attributes: Vec<Attribute>,
    pub inputs: Vec<Option<Operand>>,
    /// `metadata_props` of the node.
    pub metadata: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(super) enum NewValue {
    Result {
        name: String,
        ty: Option<TensorType>,
    },
    Constant {
        name: String,
        tensor: Tensor,
    },
    Input {
        name: String,
        ty: TensorType,
        default: Option<Tensor>,
    },
    Capture {
        name: String,
        ty: Option<TensorType>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Insertion {
    pub anchor: Anchor,
    pub node: NewNode,
    pub outputs: Vec<Option<u32>>,
    /// What the node's subgraphs read.
    pub captures: Vec<Operand>,
}

/// Where inserted nodes go when their operands leave a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Behind(NodeId),
    Front,
}

/// A set of changes to one graph.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    pub(super) values: Vec<NewValue>,
    pub(super) insertions: Vec<Insertion>,
    /// Nodes of the graph that give one more result: the slot, and the new value.
    pub(super) further: Vec<(NodeId, u32, u32)>,
    pub(super) replacements: Vec<(ValueId, Operand)>,
    pub(super) fixed: Vec<(ValueId, Tensor)>,
    pub(super) dropped_inputs: Vec<ValueId>,
    /// Operands that become another value: the node, the slot, and the value.
    pub(super) redirected: Vec<(NodeId, u32, Operand)>,
    /// Values that a new node computes instead.
    pub(super) takeovers: Vec<(ValueId, u32)>,
    /// Attributes that nodes of the graph lose.
    pub(super) dropped_attributes: Vec<(NodeId, String)>,
    pub(super) outputs: Vec<Operand>,
    /// New names of computed values.
    pub(super) names: Vec<(Operand, String)>,
    /// Whether the outputs that the graph had are outputs no more.
    pub(super) drops_outputs: bool,
    anchor: Option<NodeId>,
}

/// What an applied patch has made: the ids of its new values, by [`Operand::New`] index.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub values: Vec<ValueId>,
    pub nodes: Vec<NodeId>,
}

impl Patch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.insertions.is_empty()
            && self.replacements.is_empty()
            && self.values.is_empty()
            && self.outputs.is_empty()
    }

    /// Nodes inserted from now on stand directly behind this one, in the order of insertion.
    pub fn behind(&mut self, node: NodeId) -> &mut Self {
        self.anchor = Some(node);
        self
    }

    /// Nodes inserted from now on stand at the front of the graph.
    pub fn front(&mut self) -> &mut Self {
        self.anchor = None;
        self
    }

    /// Inserts a node with one result and returns it. `name` is the wish for both the node and its
    /// result.
    pub fn node(&mut self, node: NewNode, ty: Option<TensorType>) -> Operand {
        let name = format!("{}_output", node.name);
        self.node_with_results(node, vec![(name, ty)])[0]
    }

    /// Inserts a node with several results.
    pub fn node_with_results(
        &mut self,
        node: NewNode,
        results: Vec<(String, Option<TensorType>)>,
    ) -> Vec<Operand> {
        let results = results.into_iter().map(Some).collect();
        let found = self.node_with_some_results(node, results);
        found.into_iter().flatten().collect()
    }

    /// Inserts a node of which some results may be absent.
    pub fn node_with_some_results(
        &mut self,
        node: NewNode,
        results: Vec<Option<(String, Option<TensorType>)>>,
    ) -> Vec<Option<Operand>> {
        let outputs: Vec<Option<u32>> = results
            .into_iter()
            .map(|result| result.map(|(name, ty)| self.push(NewValue::Result { name, ty })))
            .collect();
        let operands = outputs
            .iter()
            .map(|index| index.map(Operand::New))
            .collect();
        self.insertions.push(Insertion {
            anchor: self.anchor.map_or(Anchor::Front, Anchor::Behind),
            node,
            outputs,
            captures: Vec::new(),
        });
        operands
    }

    /// Makes a node of the graph give one more result, in a slot that it leaves empty.
    pub fn further_result(
        &mut self,
        node: NodeId,
        slot: usize,
        name: &str,
        ty: Option<TensorType>,
    ) -> Operand {
        let name = name.to_owned();
        let value = self.push(NewValue::Result { name, ty });
        self.further.push((node, slot as u32, value));
        Operand::New(value)
    }

    /// States the type of a node's new result more precisely.
    pub fn set_type_of_new(&mut self, operand: Operand, stated: TensorType) {
        if let Operand::New(index) = operand
            && let NewValue::Result { ty, .. } = &mut self.values[index as usize]
        {
            *ty = Some(stated);
        }
    }

    /// Says what the subgraphs of the node that was inserted last read: under the same name.
    pub fn captures(&mut self, values: Vec<Operand>) {
        if let Some(insertion) = self.insertions.last_mut() {
            insertion.captures = values;
        }
    }

    /// Makes a graph input a constant.
    pub fn fix_input(&mut self, input: ValueId, tensor: Tensor) {
        self.fixed.push((input, tensor));
    }

    /// Removes a graph input that nothing reads.
    pub fn drop_input(&mut self, input: ValueId) {
        self.dropped_inputs.push(input);
    }

    /// Adds an initializer; the name is made unique by a suffix.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> Operand {
        Operand::New(self.push(NewValue::Constant {
            name: name.to_owned(),
            tensor,
        }))
    }

    /// Adds a graph input, with a default if there is one. The name must be free: it is an interface.
    pub fn input(&mut self, name: &str, ty: TensorType, default: Option<Tensor>) -> Operand {
        Operand::New(self.push(NewValue::Input {
            name: name.to_owned(),
            ty,
            default,
        }))
    }

    /// Names a value of the enclosing graph; for patches to subgraphs. The caller links it there
    /// with [`Graph::add_capture`].
    pub fn capture(&mut self, name: &str, ty: Option<TensorType>) -> Operand {
        Operand::New(self.push(NewValue::Capture {
            name: name.to_owned(),
            ty,
        }))
    }

    /// Moves every use of `old` (operands, captures, graph outputs) to `new`, with its name.
    pub fn replace_uses(&mut self, old: ValueId, new: Operand) {
        self.replacements.push((old, new));
    }

    /// Has the value of the graph computed by the node whose result `new` is, instead of its own:
    /// the value keeps its id, its name and its readers. Nodes without a read result are removed.
    pub fn take_over(&mut self, old: ValueId, new: Operand) {
        if let Operand::New(index) = new {
            self.takeovers.push((old, index));
        }
    }

    /// Makes one operand of a node of the graph another value. The caller answers for it that no
    /// cycle comes of it.
    pub fn redirect(&mut self, node: NodeId, slot: usize, to: Operand) {
        self.redirected.push((node, slot as u32, to));
    }

    /// Removes an attribute of a node of the graph, if it has it.
    pub fn drop_attribute(&mut self, node: NodeId, name: &str) {
        self.dropped_attributes.push((node, name.to_owned()));
    }

    /// Adds a graph output.
    pub fn output(&mut self, value: Operand) {
        self.outputs.push(value);
    }

    /// Adds a graph output under a name, which must be free: it is an interface. The value is
    /// computed by a node, and its readers read it by its new name.
    pub fn named_output(&mut self, value: Operand, name: &str) {
        self.output(value);
        self.names.push((value, name.to_owned()));
    }

    /// Leaves no output of the graph but those that the patch adds; what was computed for the others
    /// alone is removed.
    pub fn drop_outputs(&mut self) {
        self.drops_outputs = true;
    }

    /// The declared type of a new value; `None` for unknown and for existing values.
    pub fn type_of_new(&self, operand: Operand) -> Option<TensorType> {
        match operand {
            Operand::Existing(_) | Operand::Original(_) => None,
            Operand::New(index) => match &self.values[index as usize] {
                NewValue::Result { ty, .. } | NewValue::Capture { ty, .. } => ty.clone(),
                NewValue::Constant { tensor, .. } => Some(tensor.ty()),
                NewValue::Input { ty, .. } => Some(ty.clone()),
            },
        }
    }

    fn push(&mut self, value: NewValue) -> u32 {
        self.values.push(value);
        self.values.len() as u32 - 1
    }
}
