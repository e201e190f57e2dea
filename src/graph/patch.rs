//! The only way to change a finished graph.
//!
//! A patch is made from a graph that it does not touch: new nodes, new constants, and values whose
//! uses move to another value. [`Graph::apply`] checks the whole patch first and then changes the
//! graph, so a refused patch leaves no trace. Inserted nodes read replacements as all others do, but
//! where they ask for the original. What a replacement leaves without a reader is removed, with its
//! constants; what had no reader before stays.

use super::attribute::Attribute;
use super::ir::{Graph, NodeId, OpName, Position, Slot, Value, ValueId, ValueKind};
use super::names::Unique;
use super::tensor::Tensor;
use crate::ty::{Proof, TensorType};
use petgraph::Direction::Outgoing;
use petgraph::visit::EdgeRef;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

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
enum NewValue {
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
struct Insertion {
    anchor: Anchor,
    node: NewNode,
    outputs: Vec<u32>,
}

/// Where inserted nodes go when their operands leave a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchor {
    Behind(NodeId),
    Front,
}

/// A set of changes to one graph.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    values: Vec<NewValue>,
    insertions: Vec<Insertion>,
    /// Nodes of the graph that give one more result: the slot, and the new value.
    further: Vec<(NodeId, u32, u32)>,
    replacements: Vec<(ValueId, Operand)>,
    outputs: Vec<Operand>,
    /// New names of computed values.
    names: Vec<(Operand, String)>,
    /// Whether the outputs that the graph had are outputs no more.
    drops_outputs: bool,
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
        let outputs: Vec<u32> = results
            .into_iter()
            .map(|(name, ty)| self.push(NewValue::Result { name, ty }))
            .collect();
        let operands = outputs.iter().map(|index| Operand::New(*index)).collect();
        self.insertions.push(Insertion {
            anchor: self.anchor.map_or(Anchor::Front, Anchor::Behind),
            node,
            outputs,
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

impl Graph {
    /// Applies a patch, or says why it is refused and leaves the graph as it was.
    pub fn apply(&mut self, patch: Patch) -> Result<Applied, String> {
        self.check(&patch)?;
        let mut names = Unique::new(self);
        let values: Vec<ValueId> = patch
            .values
            .into_iter()
            .map(|value| self.add_new_value(value, &mut names))
            .collect();
        let resolve = |operand: &Operand| match operand {
            Operand::Existing(id) | Operand::Original(id) => *id,
            Operand::New(index) => values[*index as usize],
        };
        let mut sequences: FxHashMap<u32, u32> = self.last_sequences();
        let mut nodes = Vec::new();
        let mut originals: FxHashSet<(NodeId, u32)> = FxHashSet::default();
        for insertion in patch.insertions {
            let anchor = match insertion.anchor {
                Anchor::Behind(node) => self.node(node).position.anchor,
                Anchor::Front => 0,
            };
            let sequence = sequences.entry(anchor).or_insert(0);
            *sequence += 1;
            let inputs: Vec<Option<ValueId>> = insertion
                .node
                .inputs
                .iter()
                .map(|o| o.as_ref().map(resolve))
                .collect();
            let outputs: Vec<Option<ValueId>> = insertion
                .outputs
                .iter()
                .map(|o| Some(values[*o as usize]))
                .collect();
            let name = names.node(&insertion.node.name);
            let node = self.add_node_at(
                Position {
                    anchor,
                    sequence: *sequence,
                },
                insertion.node.op,
                &name,
                insertion.node.attributes,
                &inputs,
                &outputs,
            );
            self.node_mut(node).metadata = insertion.node.metadata;
            for (slot, operand) in insertion.node.inputs.iter().enumerate() {
                if matches!(operand, Some(Operand::Original(_))) {
                    originals.insert((node, slot as u32));
                }
            }
            nodes.push(node);
        }
        for (node, slot, value) in patch.further {
            self.add_result(node, slot, values[value as usize]);
        }
        // Before anything moves: a value may be replaced by one that is replaced, too.
        let uses: Vec<_> = patch
            .replacements
            .iter()
            .map(|(old, _)| self.use_edges(*old, &originals))
            .collect();
        for ((old, new), edges) in patch.replacements.iter().zip(uses) {
            self.move_uses(*old, resolve(new), edges, &mut names);
        }
        let mut left: Vec<ValueId> = patch.replacements.iter().map(|(old, _)| *old).collect();
        if patch.drops_outputs {
            left.append(&mut self.outputs);
        }
        for output in &patch.outputs {
            let id = resolve(output);
            self.outputs.push(id);
        }
        for (value, name) in &patch.names {
            self.give_name(resolve(value), name);
        }
        // Last, because ids of what is removed may be given out again.
        self.prune(left);
        debug_assert!(self.verify().is_empty(), "{:?}", self.verify());
        Ok(Applied { values, nodes })
    }

    fn check(&self, patch: &Patch) -> Result<(), String> {
        for (index, (old, new)) in patch.replacements.iter().enumerate() {
            if patch.replacements[..index]
                .iter()
                .any(|(other, _)| other == old)
            {
                return Err(format!("`{}` is replaced twice", self.value(*old).name));
            }
            let new_type = match new {
                Operand::Existing(id) | Operand::Original(id) => self.value(*id).ty.clone(),
                Operand::New(_) => patch.type_of_new(*new),
            };
            if let (Some(old_type), Some(new_type)) = (&self.value(*old).ty, &new_type)
                && old_type.compare(new_type) == Proof::Different
            {
                return Err(format!(
                    "`{}` has type {old_type}, its replacement has type {new_type}",
                    self.value(*old).name
                ));
            }
        }
        for (node, slot, _) in &patch.further {
            if self.result(*node, *slot as usize).is_some() {
                return Err(format!(
                    "`{}` has a result {slot} already",
                    self.display_name(*node)
                ));
            }
        }
        let inputs = patch.values.iter().filter_map(|value| match value {
            NewValue::Input { name, .. } => Some(name),
            _ => None,
        });
        let outputs = patch.names.iter().map(|(_, name)| name);
        for name in inputs.chain(outputs) {
            if self.find_value(name).is_some() {
                return Err(format!("the graph already has a value named `{name}`"));
            }
        }
        Ok(())
    }

    /// The edges to the readers of a value, less those that ask for the original.
    fn use_edges(
        &self,
        id: ValueId,
        originals: &FxHashSet<(NodeId, u32)>,
    ) -> Vec<petgraph::stable_graph::EdgeIndex> {
        self.wires
            .edges_directed(id.0, Outgoing)
            .filter(|edge| match edge.weight() {
                Slot::Input(slot) => !originals.contains(&(NodeId(edge.target()), *slot)),
                Slot::Output(_) | Slot::Capture(_) => true,
            })
            .map(|edge| edge.id())
            .collect()
    }

    fn last_sequences(&self) -> FxHashMap<u32, u32> {
        let mut last = FxHashMap::default();
        for id in self.node_ids() {
            let position = self.node(id).position;
            let entry = last.entry(position.anchor).or_insert(0);
            *entry = (*entry).max(position.sequence);
        }
        last
    }

    fn add_result(&mut self, node: NodeId, slot: u32, value: ValueId) {
        let owner = self.node_mut(node);
        owner.outputs = owner.outputs.max(slot + 1);
        owner.is_changed = true;
        self.wires.add_edge(node.0, value.0, Slot::Output(slot));
    }

    fn add_new_value(&mut self, value: NewValue, names: &mut Unique) -> ValueId {
        let value = match value {
            NewValue::Result { name, ty } => Value::computed(&names.value(self, &name), ty),
            NewValue::Constant { name, tensor } => {
                Value::initializer(&names.value(self, &name), tensor)
            }
            NewValue::Input { name, ty, default } => {
                Value::with_kind(&name, Some(ty), ValueKind::Input { default })
            }
            NewValue::Capture { name, ty } => {
                if let Some(existing) = self.find_value(&name) {
                    return existing;
                }
                Value::with_kind(&name, ty, ValueKind::Captured)
            }
        };
        self.add_value(value)
            .unwrap_or_else(|_| unreachable!("the name was made unique"))
    }

    /// Moves the given use edges and the graph outputs from `old` to `new` and swaps the names, so
    /// that every reader, subgraph bodies included, still reads the name it had.
    fn move_uses(
        &mut self,
        old: ValueId,
        new: ValueId,
        edges: Vec<petgraph::stable_graph::EdgeIndex>,
        names: &mut Unique,
    ) {
        for edge in edges {
            let (_, target) = self.wires.edge_endpoints(edge).expect("the edge exists");
            let slot = self.wires.remove_edge(edge).expect("the edge exists");
            self.wires.add_edge(new.0, target, slot);
        }
        for output in &mut self.outputs {
            if *output == old {
                *output = new;
            }
        }
        let public = self.value(old).name.clone();
        let private = names.value(self, &format!("{public}.base"));
        self.names.remove(&self.value(new).name.clone());
        self.rename(old, Arc::from(private));
        self.rename(new, public);
        let origin = self.value_vertex(old).origin.take();
        self.value_vertex(new).origin = origin;
        for owner in self.producer(old).into_iter().chain(self.producer(new)) {
            self.node_mut(owner).is_changed = true;
        }
        // The patch's own readers of the original were written with the name it had.
        let readers: Vec<NodeId> = self.uses(old).into_iter().map(|(node, _)| node).collect();
        for reader in readers {
            self.node_mut(reader).is_changed = true;
        }
    }

    /// Renames a computed value for everyone who reads it.
    fn give_name(&mut self, id: ValueId, name: &str) {
        self.rename(id, Arc::from(name));
        self.value_vertex(id).origin = None;
        let readers = self.uses(id).into_iter().map(|(node, _)| node);
        let touched: Vec<NodeId> = readers.chain(self.producer(id)).collect();
        for node in touched {
            self.node_mut(node).is_changed = true;
        }
    }

    fn rename(&mut self, id: ValueId, name: Arc<str>) {
        if self.names.get(&self.value(id).name) == Some(&id) {
            let old = self.value(id).name.clone();
            self.names.remove(&old);
        }
        self.names.insert(name.clone(), id);
        self.value_vertex(id).name = name;
    }

    /// Edits a subgraph of a node: the node is written anew. Values captured by the
    /// edit must be linked with [`Graph::add_capture`] by the caller.
    pub fn edit_subgraph<T>(
        &mut self,
        node: NodeId,
        attribute: usize,
        graph: usize,
        edit: impl FnOnce(&mut Graph) -> T,
    ) -> T {
        let owner = self.node_mut(node);
        owner.is_changed = true;
        edit(&mut owner.attributes[attribute].value.graphs_mut()[graph])
    }
}

impl Graph {
    /// Puts back a body whose values have been typed; nothing else may have changed, so the node's
    /// serialized form stays.
    pub fn put_typed_body(&mut self, node: NodeId, attribute: usize, graph: usize, body: Graph) {
        self.node_mut(node).attributes[attribute].value.graphs_mut()[graph] = body;
    }
}
