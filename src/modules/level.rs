//! The graphs of a model as one space of values: subgraphs with the graphs around them.

use super::site::Scope;
use crate::graph::{Graph, Model, Node, NodeId, Tensor, ValueId, ValueKind};

/// A value in one of the graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At {
    pub level: usize,
    pub value: ValueId,
}

/// One graph with its place in the model.
pub(super) struct Level<'m> {
    pub graph: &'m Graph,
    pub scope: Scope,
    /// The enclosing graph.
    parent: Option<usize>,
}

/// Every graph of a model, enclosing ones first.
pub(super) struct Levels<'m>(pub Vec<Level<'m>>);

impl<'m> Levels<'m> {
    pub fn new(model: &'m Model) -> Self {
        let mut levels = Levels(vec![Level {
            graph: &model.graph,
            scope: Scope::default(),
            parent: None,
        }]);
        let mut next = 0;
        while next < levels.0.len() {
            levels.enter_subgraphs(next);
            next += 1;
        }
        levels
    }

    fn enter_subgraphs(&mut self, parent: usize) {
        let graph = self.0[parent].graph;
        for node in graph.node_ids() {
            for (attribute, held) in graph.node(node).attributes.iter().enumerate() {
                for (index, body) in held.value.graphs().iter().enumerate() {
                    let mut scope = self.0[parent].scope.clone();
                    scope.0.push((node, attribute, index));
                    self.0.push(Level {
                        graph: body,
                        scope,
                        parent: Some(parent),
                    });
                }
            }
        }
    }

    pub fn graph(&self, level: usize) -> &'m Graph {
        self.0[level].graph
    }

    /// The value itself, in the graph that defines it, instead of the capture of it.
    pub fn resolve(&self, mut at: At) -> At {
        while let ValueKind::Captured = self.graph(at.level).value(at.value).kind {
            let name = &self.graph(at.level).value(at.value).name;
            let outer = self.0[at.level].parent.and_then(|parent| {
                let value = self.graph(parent).find_value(name)?;
                Some(At {
                    level: parent,
                    value,
                })
            });
            match outer {
                Some(outer) => at = outer,
                None => break,
            }
        }
        at
    }

    /// The node that computes a value, captures resolved.
    pub fn producer(&self, at: At) -> Option<(usize, NodeId, &'m Node)> {
        let at = self.resolve(at);
        let graph = self.graph(at.level);
        let node = graph.producer(at.value)?;
        Some((at.level, node, graph.node(node)))
    }

    pub fn name(&self, at: At) -> &'m str {
        &self.graph(at.level).value(at.value).name
    }

    /// The initializer or default behind a value, captures resolved, computed constants not.
    pub fn tensor(&self, at: At) -> Option<&'m Tensor> {
        let at = self.resolve(at);
        self.graph(at.level).value(at.value).tensor()
    }

    /// The integers of a constant: an initializer or a `Constant` node.
    pub fn integers(&self, at: At) -> Option<Vec<i64>> {
        use crate::graph::AttributeValue;
        if let Some(tensor) = self.tensor(at) {
            return tensor.to_i64s();
        }
        let (_, _, node) = self.producer(at)?;
        if !node.op.is("Constant") {
            return None;
        }
        match node.attributes.first().map(|a| &a.value)? {
            AttributeValue::Tensor(tensor) => tensor.to_i64s(),
            AttributeValue::Int(value) => Some(vec![*value]),
            AttributeValue::Ints(values) => Some(values.clone()),
            _ => None,
        }
    }

    /// The size of a value's last axis, where its type or the Reshape that makes it says so.
    pub fn last_dim(&self, at: At) -> Option<i64> {
        let resolved = self.resolve(at);
        let value = self.graph(resolved.level).value(resolved.value);
        if let Some(shape) = value.ty.as_ref().and_then(|ty| ty.shape.as_ref())
            && let Some(known) = shape.0.last().and_then(|dim| dim.known())
        {
            return Some(known);
        }
        let (level, node, data) = self.producer(resolved)?;
        if !data.op.is("Reshape") {
            return None;
        }
        let target = self.graph(level).operand(node, 1)?;
        let target = At {
            level,
            value: target,
        };
        self.last_element(target).filter(|size| *size > 0)
    }

    /// The last element of a shape that is a constant or a Concat with a constant tail.
    fn last_element(&self, shape: At) -> Option<i64> {
        if let Some(values) = self.integers(shape) {
            return values.last().copied();
        }
        let (level, node, data) = self.producer(shape)?;
        if !data.op.is("Concat") {
            return None;
        }
        let tail = self.graph(level).operands(node).last().copied().flatten()?;
        self.integers(At { level, value: tail })?.last().copied()
    }
}
