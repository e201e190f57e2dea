//! A group of nodes as one node with a program.

use super::group::Group;
use super::node::{Form, Rowwise, Source, same};
use crate::graph::{Attribute, Graph, NewNode, OpName, Patch, ValueId, ValueKind};
use crate::kernels::{DOMAIN, Kind, OPERATOR, Op, PROGRAM, Program, Step};
use crate::ty::Dim;
use rustc_hash::{FxHashMap, FxHashSet};

/// More operands or results than this are not worth looking for in turn.
const MOST_OPERANDS: usize = 32;

/// Replaces a group; returns the values that the new node computes, or `None` where it stays as it is.
pub(super) fn group(graph: &Graph, group: &Group, patch: &mut Patch) -> Option<Vec<ValueId>> {
    let results = results(graph, group);
    let operands = operands(graph, group, &results);
    if results.is_empty() || operands.is_empty() || operands.len() > MOST_OPERANDS {
        return None;
    }
    let mut writing = Writing {
        program: Program {
            inputs: operands.iter().map(|(_, kind)| *kind).collect(),
            ..Program::default()
        },
        values: operands.iter().map(|(value, _)| *value).zip(0..).collect(),
        numbers: FxHashMap::default(),
    };
    for node in group {
        writing.node(graph, node)?;
    }
    let outputs = results
        .iter()
        .map(|value| writing.values.get(value).copied());
    writing.program.outputs = outputs.collect::<Option<Vec<u32>>>()?;
    let last = group.last()?;
    patch.behind(last.id);
    let node = NewNode {
        op: OpName::new(DOMAIN, OPERATOR),
        name: format!("{}/rows", graph.display_name(last.id)),
        attributes: vec![Attribute::ints(PROGRAM, writing.program.encode())],
        inputs: operands
            .iter()
            .map(|(value, _)| Some((*value).into()))
            .collect(),
        metadata: Vec::new(),
    };
    let described = results.iter().map(|value| {
        let value = graph.value(*value);
        (format!("{}/rows", value.name), value.ty.clone())
    });
    let made = patch.node_with_results(node, described.collect());
    for (value, operand) in results.iter().zip(made) {
        patch.take_over(*value, operand);
    }
    Some(results)
}

/// What others read of a group, the largest first.
fn results(graph: &Graph, group: &Group) -> Vec<ValueId> {
    let inside: FxHashSet<_> = group.iter().map(|node| node.id).collect();
    let all = group
        .iter()
        .flat_map(|node| graph.results(node.id))
        .flatten();
    all.filter(|value| {
        let uses = graph.uses(*value);
        let is_read = |(node, slot): &(_, Option<usize>)| slot.is_none() || !inside.contains(node);
        graph.is_output(*value) || uses.iter().any(is_read)
    })
    .collect()
}

/// What a group reads of others. A result may take the place of the operand with its number: those
/// come first whose shape a result has and that nobody reads afterwards.
fn operands(graph: &Graph, group: &Group, results: &[ValueId]) -> Vec<(ValueId, Kind)> {
    let inside: FxHashSet<_> = group.iter().map(|node| node.id).collect();
    let mut found: Vec<(ValueId, Kind)> = Vec::new();
    for source in group.iter().flat_map(|node| &node.operands) {
        let Source::Value(value, kind) = source else {
            continue;
        };
        let is_own = graph
            .producer(*value)
            .is_some_and(|node| inside.contains(&node));
        if !is_own && !found.contains(&(*value, *kind)) {
            found.push((*value, *kind));
        }
    }
    for (place, result) in results.iter().enumerate() {
        let may_go = |(value, kind): &(ValueId, Kind)| {
            let readers = graph.uses(*value);
            *kind == Kind::F32
                && matches!(graph.value(*value).kind, ValueKind::Computed)
                && !graph.is_output(*value)
                && readers.iter().all(|(node, _)| inside.contains(node))
                && same_shape(graph, *value, *result)
        };
        let open = found.iter().skip(place).position(may_go);
        match open {
            Some(at) => found.swap(place, place + at),
            None => break,
        }
    }
    found
}

fn same_shape(graph: &Graph, a: ValueId, b: ValueId) -> bool {
    let dims = |value: ValueId| -> Option<&[Dim]> {
        let shape = graph.value(value).ty.as_ref()?.shape.as_ref()?;
        Some(&shape.0)
    };
    match (dims(a), dims(b)) {
        (Some(a), Some(b)) => same(a, b),
        _ => false,
    }
}

/// A program as it is written.
struct Writing {
    program: Program,
    /// Values of the graph by those of the program.
    values: FxHashMap<ValueId, u32>,
    /// By bits.
    numbers: FxHashMap<u32, u32>,
}

impl Writing {
    fn push(&mut self, step: Step) -> u32 {
        self.program.steps.push(step);
        self.program.value_count() as u32 - 1
    }

    fn step(&mut self, op: Op, operands: &[u32]) -> u32 {
        self.push(Step::new(op, operands.to_vec()))
    }

    fn number(&mut self, number: f32) -> u32 {
        if let Some(found) = self.numbers.get(&number.to_bits()) {
            return *found;
        }
        let found = self.push(Step::number(number));
        self.numbers.insert(number.to_bits(), found);
        found
    }

    fn node(&mut self, graph: &Graph, node: &Rowwise) -> Option<()> {
        let mut operands = Vec::with_capacity(node.operands.len());
        for source in &node.operands {
            operands.push(match source {
                Source::Number(number) => self.number(*number),
                Source::Value(value, _) => *self.values.get(value)?,
            });
        }
        let found = self.form(&node.form, &operands);
        for (value, own) in graph.results(node.id).into_iter().zip(found) {
            if let Some(value) = value {
                self.values.insert(value, own);
            }
        }
        Some(())
    }

    /// The results of a node by slot.
    fn form(&mut self, form: &Form, x: &[u32]) -> Vec<u32> {
        match form {
            Form::Step(op) => vec![self.step(*op, x)],
            Form::Cube => {
                let square = self.step(Op::Square, x);
                vec![self.step(Op::Mul, &[square, x[0]])]
            }
            Form::Parts(parts) => {
                let parts = parts.iter();
                let pushed = parts.map(|(start, end)| self.push(Step::slice(x[0], *start, *end)));
                pushed.collect()
            }
            Form::AddAt => vec![self.step(Op::AddAt, x)],
            Form::LayerNormalization { epsilon } => {
                let mean = self.step(Op::Mean, &x[..1]);
                let centred = self.step(Op::Sub, &[x[0], mean]);
                let inv = self.inverse_deviation(centred, *epsilon);
                let scaled = self.step(Op::Mul, &[centred, inv]);
                let mut y = self.step(Op::Mul, &[scaled, x[1]]);
                if let Some(bias) = x.get(2) {
                    y = self.step(Op::Add, &[y, *bias]);
                }
                vec![y, mean, inv]
            }
            Form::RmsNormalization { epsilon } => {
                let inv = self.inverse_deviation(x[0], *epsilon);
                let scaled = self.step(Op::Mul, &[x[0], inv]);
                vec![self.step(Op::Mul, &[scaled, x[1]]), inv]
            }
        }
    }

    /// 1 / √(mean x² + ε).
    fn inverse_deviation(&mut self, x: u32, epsilon: f32) -> u32 {
        let square = self.step(Op::Square, &[x]);
        let mean = self.step(Op::Mean, &[square]);
        let epsilon = self.number(epsilon);
        let sum = self.step(Op::Add, &[mean, epsilon]);
        let root = self.step(Op::Sqrt, &[sum]);
        self.step(Op::Reciprocal, &[root])
    }
}
