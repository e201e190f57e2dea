//! Choices made before a run: flags of a model become constants, and branches that a constant
//! decides become part of the graph.
//!
//! Requires: a graph that verifies. Ensures: the flag is a constant and no input any more; no `If`
//! of the top graph has a condition that follows from constants; inputs that only a branch not taken
//! read are gone. Values keep their names.

use super::errors;
use super::infer::{Values, infer_values};
use crate::diag::{Reported, Sink};
use crate::graph::{
    Graph, Model, NewNode, NodeId, OpName, Operand, Patch, Tensor, ValueId, ValueKind,
};
use crate::ty::DType;
use rustc_hash::FxHashMap;

/// Gives boolean inputs of the model a value once and for all, and inlines the branches that are then
/// decided, or were before.
pub fn specialize(
    model: &mut Model,
    flags: &[(String, bool)],
    sink: &mut Sink,
) -> Result<(), Reported> {
    let mut patch = Patch::new();
    let mut reported = None;
    for (name, value) in flags {
        match flag(&model.graph, name) {
            Some((id, dims)) => {
                let count = dims.iter().product::<i64>() as usize;
                let tensor = Tensor::from_raw(DType::Bool, &dims, vec![u8::from(*value); count]);
                patch.fix_input(id, tensor);
            }
            None => reported = Some(sink.emit(errors::no_flag(model, name))),
        }
    }
    if let Some(reported) = reported {
        return Err(reported);
    }
    apply(model, patch, sink)?;
    inline_branches(model, sink)
}

/// A boolean input of one element.
fn flag(graph: &Graph, name: &str) -> Option<(ValueId, Vec<i64>)> {
    let id = graph.find_value(name)?;
    let value = graph.value(id);
    let ty = value.ty.as_ref().filter(|ty| ty.dtype == DType::Bool)?;
    let dims = ty.shape.as_ref()?.known()?;
    let is_flag = matches!(value.kind, ValueKind::Input { .. }) && dims.iter().all(|n| *n == 1);
    is_flag.then_some((id, dims))
}

/// The names of a model's flags.
pub(super) fn flags(graph: &Graph) -> Vec<&str> {
    let inputs = graph.inputs().iter().map(|id| &*graph.value(*id).name);
    inputs.filter(|name| flag(graph, name).is_some()).collect()
}

/// Replaces every `If` of the top graph whose condition is known by the branch that is taken.
fn inline_branches(model: &mut Model, sink: &mut Sink) -> Result<(), Reported> {
    // One at a time: what a branch brings may decide the next, and every round has fewer branches.
    loop {
        let values = infer_values(model, sink)?;
        let Some((node, taken)) = decided(&model.graph, &values) else {
            return Ok(());
        };
        let read_before: Vec<ValueId> = read_inputs(&model.graph);
        let patch = match inline(&model.graph, node, taken) {
            Ok(patch) => patch,
            Err(why) => return Err(sink.emit(errors::branch_not_inlined(model, node, &why))),
        };
        apply(model, patch, sink)?;
        let mut patch = Patch::new();
        let graph = &model.graph;
        for id in read_before {
            if graph.use_count(id) == 0 && !graph.is_output(id) {
                patch.drop_input(id);
            }
        }
        apply(model, patch, sink)?;
    }
}

fn apply(model: &mut Model, patch: Patch, sink: &mut Sink) -> Result<(), Reported> {
    match model.graph.apply(patch) {
        Ok(_) => Ok(()),
        Err(why) => Err(sink.emit(errors::patch_refused(&model.name, &why))),
    }
}

fn read_inputs(graph: &Graph) -> Vec<ValueId> {
    let inputs = graph.inputs().iter().copied();
    inputs.filter(|id| graph.use_count(*id) > 0).collect()
}

/// The first `If` whose condition is known, and the condition.
fn decided(graph: &Graph, values: &Values) -> Option<(NodeId, bool)> {
    let order = graph.order().ok()?;
    order.into_iter().find_map(|node| {
        // Without a result it computes nothing, and would stay.
        if !graph.node(node).op.is("If") || graph.results(node).iter().all(Option::is_none) {
            return None;
        }
        let condition = graph.operand(node, 0)?;
        let known = match graph.value(condition).constant() {
            Some(tensor) => tensor.to_i64s()?.first().copied(),
            None => values.get(condition)?.single()?.number(),
        };
        known.map(|condition| (node, condition != 0))
    })
}

/// The nodes of the branch in place of the node; `Err` says what stands against it.
fn inline(graph: &Graph, node: NodeId, taken: bool) -> Result<Patch, String> {
    let name = if taken { "then_branch" } else { "else_branch" };
    let branch = graph.node(node).attribute(name);
    let Some([branch]) = branch.map(|attribute| attribute.graphs()) else {
        return Err(format!("it has no `{name}`"));
    };
    let mut inlined = Inlined {
        graph,
        branch,
        patch: Patch::new(),
        operands: FxHashMap::default(),
    };
    inlined.patch.behind(node);
    inlined.constants()?;
    let order = branch
        .order()
        .map_err(|_| "its branch has a cycle".to_owned())?;
    for inner in order {
        inlined.node(inner)?;
    }
    inlined.results(node)?;
    Ok(inlined.patch)
}

struct Inlined<'g> {
    graph: &'g Graph,
    branch: &'g Graph,
    patch: Patch,
    /// What stands for the values of the branch.
    operands: FxHashMap<ValueId, Operand>,
}

impl Inlined<'_> {
    /// Values that no node of the branch computes.
    fn constants(&mut self) -> Result<(), String> {
        for id in self.branch.value_ids() {
            let value = self.branch.value(id);
            let operand = match &value.kind {
                ValueKind::Computed => continue,
                ValueKind::Initializer(tensor) => self.patch.constant(&value.name, tensor.clone()),
                ValueKind::Captured | ValueKind::Input { .. } => {
                    match self.graph.find_value(&value.name) {
                        Some(outer) => Operand::Existing(outer),
                        None => return Err(format!("`{}` is not there", value.name)),
                    }
                }
            };
            self.operands.insert(id, operand);
        }
        Ok(())
    }

    fn node(&mut self, inner: NodeId) -> Result<(), String> {
        let node = self.branch.node(inner);
        let operand = |value: Option<ValueId>| match value {
            None => Ok(None),
            Some(value) => match self.operands.get(&value) {
                Some(operand) => Ok(Some(*operand)),
                None => Err(format!(
                    "`{}` is not computed",
                    self.branch.value(value).name
                )),
            },
        };
        let operands = self.branch.operands(inner);
        let inputs = operands
            .into_iter()
            .map(operand)
            .collect::<Result<_, _>>()?;
        let mut captures = Vec::new();
        for value in self.branch.captures(inner) {
            captures.extend(operand(Some(value))?);
            let name = &self.branch.value(value).name;
            let is_own = !matches!(self.branch.value(value).kind, ValueKind::Captured);
            // Bodies read by name, and a name that is taken would become another.
            if is_own && self.graph.find_value(name).is_some() {
                return Err(format!("`{name}` is the name of two values"));
            }
        }
        let results = self.branch.results(inner);
        let named = results.iter().map(|result| match result {
            Some(value) => {
                let value = self.branch.value(*value);
                Some((value.name.to_string(), value.ty.clone()))
            }
            None => None,
        });
        let new = NewNode {
            op: node.op.clone(),
            name: node.name.clone(),
            attributes: node.attributes.clone(),
            inputs,
            metadata: node.metadata.clone(),
        };
        let named: Vec<_> = named.collect();
        let found = self.patch.node_with_some_results(new, named);
        self.patch.captures(captures);
        for (result, operand) in results.into_iter().zip(found) {
            if let (Some(value), Some(operand)) = (result, operand) {
                self.operands.insert(value, operand);
            }
        }
        Ok(())
    }

    /// The branch's outputs become what the node's results were.
    fn results(&mut self, node: NodeId) -> Result<(), String> {
        let outputs = self.branch.outputs();
        let mut taken = Vec::new();
        for (slot, result) in self.graph.results(node).into_iter().enumerate() {
            let Some(result) = result else {
                continue;
            };
            let output = outputs.get(slot).and_then(|value| self.operands.get(value));
            let Some(mut output) = output.copied() else {
                return Err(format!("its branch has no output {slot}"));
            };
            let is_computed = outputs
                .get(slot)
                .is_some_and(|value| self.branch.producer(*value).is_some());
            if !is_computed || taken.contains(&output) {
                let name = self.graph.value(result).name.to_string();
                output = self.patch.node(identity(&name, output), None);
            }
            taken.push(output);
            self.patch.take_over(result, output);
        }
        Ok(())
    }
}

fn identity(name: &str, value: Operand) -> NewNode {
    NewNode {
        op: OpName::new("", "Identity"),
        name: name.to_owned(),
        attributes: Vec::new(),
        inputs: vec![Some(value)],
        metadata: Vec::new(),
    }
}
