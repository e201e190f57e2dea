//! Checks the invariants of the IR.
//!
//! A graph verifies when: it has no cycle; every operand is an input, an initializer, captured or
//! computed; every result is computed by that node alone; every name leads to its value; every
//! captured value of a subgraph exists in the enclosing graph, is linked to the owning node and is
//! named the same; every graph output is defined.

use super::ir::{Graph, NodeId, ValueId, ValueKind};

/// A broken invariant: what, and the node and values to show.
#[derive(Clone, Debug)]
pub struct Fault {
    pub message: String,
    pub node: Option<NodeId>,
    pub values: Vec<ValueId>,
}

impl Graph {
    /// Every broken invariant, in the order of the graph; empty when it is well formed.
    pub fn verify(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Err(stuck) = self.order() {
            let names: Vec<String> = stuck
                .iter()
                .take(8)
                .map(|id| format!("`{}`", self.display_name(*id)))
                .collect();
            faults.push(Fault {
                message: format!(
                    "nodes depend on each other in a cycle: {}",
                    names.join(", ")
                ),
                node: stuck.first().copied(),
                values: Vec::new(),
            });
        }
        for id in self.value_ids() {
            self.verify_value(id, &mut faults);
        }
        for id in self.node_ids() {
            self.verify_subgraphs(id, &mut faults);
        }
        for id in &self.outputs {
            if !self.is_defined(*id) {
                faults.push(Fault {
                    message: format!(
                        "graph output `{}` is not computed by any node",
                        self.value(*id).name
                    ),
                    node: None,
                    values: vec![*id],
                });
            }
        }
        faults
    }

    fn is_defined(&self, id: ValueId) -> bool {
        self.producer(id).is_some() || !matches!(self.value(id).kind, ValueKind::Computed)
    }

    fn verify_value(&self, id: ValueId, faults: &mut Vec<Fault>) {
        let value = self.value(id);
        if self.names.get(&value.name) != Some(&id) {
            faults.push(Fault {
                message: format!("value name `{}` leads to another value", value.name),
                node: None,
                values: vec![id],
            });
        }
        let producers = self
            .wires
            .neighbors_directed(id.0, petgraph::Direction::Incoming)
            .count();
        let computed = matches!(value.kind, ValueKind::Computed);
        if producers > 1 || (producers == 1 && !computed) {
            faults.push(Fault {
                message: format!("value `{}` is defined more than once", value.name),
                node: self.producer(id),
                values: vec![id],
            });
        }
        if producers == 0 && computed && self.use_count(id) > 0 {
            faults.push(Fault {
                message: format!("value `{}` is read but not defined", value.name),
                node: self.uses(id).first().map(|(node, _)| *node),
                values: vec![id],
            });
        }
    }

    fn verify_subgraphs(&self, id: NodeId, faults: &mut Vec<Fault>) {
        let captured = self.captures(id);
        for body in self
            .node(id)
            .attributes
            .iter()
            .flat_map(|a| a.value.graphs())
        {
            for inner in body.value_ids() {
                let value = body.value(inner);
                if !matches!(value.kind, ValueKind::Captured) {
                    continue;
                }
                let linked = self
                    .find_value(&value.name)
                    .is_some_and(|outer| captured.contains(&outer));
                if !linked {
                    faults.push(Fault {
                        message: format!(
                            "subgraph reads `{}`, which the enclosing graph does not pass",
                            value.name
                        ),
                        node: Some(id),
                        values: Vec::new(),
                    });
                }
            }
            faults.extend(body.verify().into_iter().map(|fault| Fault {
                message: format!("in a subgraph: {}", fault.message),
                node: Some(id),
                values: Vec::new(),
            }));
        }
    }
}
