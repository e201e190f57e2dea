//! Which nodes work row by row, and the steps that do the same.

use super::super::infer::Values;
use crate::graph::{Graph, Model, Node, NodeId, ValueId};
use crate::kernels::{Kind, Op};
use crate::ops::Known;
use crate::ty::{DType, Dim, Proof};

/// What a node does with rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// One step on all operands.
    Step(Op),
    /// x · x · x.
    Cube,
    /// Parts of a row, each a result.
    Parts(Vec<(i64, i64)>),
    /// A row with a number added at an index: operands are the row, the index and the number.
    AddAt,
    /// (x - mean) · inv · γ + β with mean and inv as further results.
    LayerNormalization { epsilon: f32 },
    /// x · inv · γ with inv as a further result.
    RmsNormalization { epsilon: f32 },
}

impl Form {
    /// Whether it only moves elements.
    pub fn moves(&self) -> bool {
        matches!(self, Form::Parts(_) | Form::Step(Op::Concat | Op::Neg))
    }
}

/// A node that works row by row.
#[derive(Clone, Debug)]
pub(super) struct Rowwise {
    pub id: NodeId,
    pub form: Form,
    pub operands: Vec<Source>,
    /// Sizes of the axes before the rows.
    pub lead: Vec<Dim>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Source {
    Value(ValueId, Kind),
    Number(f32),
}

/// Nodes with what is known of constants.
pub(super) struct Reader<'m> {
    pub graph: &'m Graph,
    opset: i64,
    values: &'m Values,
}

impl<'m> Reader<'m> {
    pub fn new(model: &'m Model, values: &'m Values) -> Self {
        Reader {
            graph: &model.graph,
            opset: model.opset("").unwrap_or(0),
            values,
        }
    }

    /// `None` for a node that does not, or not in 32 bits.
    pub fn read(&self, id: NodeId) -> Option<Rowwise> {
        let node = self.graph.node(id);
        let domain = &*node.op.domain;
        if !(domain.is_empty() || domain == "ai.onnx") || node.has_subgraphs() {
            return None;
        }
        let result = self.graph.result(id, 0)?;
        let dims = self.dims(result)?;
        let lead = dims.split_last()?.1.to_vec();
        let form = self.form(id, node)?;
        let operands = self.operands(id, &form)?;
        let is_tensor = |source: &Source| matches!(source, Source::Value(..));
        let results = self.graph.results(id);
        let all_floats = results.iter().flatten().all(|v| self.is(*v, DType::F32));
        (operands.iter().any(is_tensor)
            && all_floats
            && self.stays_in_rows(&form, &operands, &lead))
        .then_some(Rowwise {
            id,
            form,
            operands,
            lead,
        })
    }

    pub fn form(&self, id: NodeId, node: &Node) -> Option<Form> {
        let step = match &*node.op.op_type {
            "Neg" => Op::Neg,
            "Exp" => Op::Exp,
            "Log" => Op::Log,
            "Sqrt" => Op::Sqrt,
            "Reciprocal" => Op::Reciprocal,
            "Sigmoid" => Op::Sigmoid,
            "Tanh" => Op::Tanh,
            "Erf" => Op::Erf,
            "Add" => Op::Add,
            "Sub" => Op::Sub,
            "Mul" => Op::Mul,
            "Div" => Op::Div,
            "Max" | "Min" if self.graph.operands(id).len() != 2 => return None,
            "Max" => Op::Max,
            "Min" => Op::Min,
            "Where" => Op::Select,
            "Pow" => return self.power(id),
            "ReduceSum" => return self.reduced(id, node, Op::Sum),
            "ReduceMean" => return self.reduced(id, node, Op::Mean),
            "ReduceMax" => return self.reduced(id, node, Op::Largest),
            "Softmax" => return self.along_rows(id, node, Op::Softmax),
            "LogSoftmax" => return self.along_rows(id, node, Op::LogSoftmax),
            "Concat" => {
                let rank = self.dims(self.graph.result(id, 0)?)?.len() as i64;
                let axis = node.int("axis")?;
                return (axis == -1 || axis == rank - 1).then_some(Form::Step(Op::Concat));
            }
            "Slice" => return self.part(id),
            "Split" => return self.parts(id, node),
            "GatherElements" => return self.picked(id, node),
            "ScatterElements" => return self.added(id, node),
            "LayerNormalization" => {
                let epsilon = node.float("epsilon").unwrap_or(1e-5);
                self.normalized(id, node)?;
                return Some(Form::LayerNormalization { epsilon });
            }
            "SimplifiedLayerNormalization" | "RMSNormalization" => {
                let epsilon = node.float("epsilon").unwrap_or(1e-5);
                self.normalized(id, node)?;
                return Some(Form::RmsNormalization { epsilon });
            }
            _ => return None,
        };
        // The older ones have an axis of their own for broadcasting.
        (self.opset >= 7).then_some(Form::Step(step))
    }

    fn power(&self, id: NodeId) -> Option<Form> {
        match self.number(self.graph.operand(id, 1)?)? {
            2.0 => Some(Form::Step(Op::Square)),
            3.0 => Some(Form::Cube),
            0.5 => Some(Form::Step(Op::Sqrt)),
            _ => None,
        }
    }

    /// A reduction of rows to one element each.
    fn reduced(&self, id: NodeId, node: &Node, op: Op) -> Option<Form> {
        let axes = match self.graph.operand(id, 1) {
            Some(axes) => self.integers(axes)?,
            None => node.ints("axes")?.to_vec(),
        };
        let is_last = axes.len() == 1 && self.is_last(id, axes[0]);
        (is_last && node.int("keepdims").unwrap_or(1) == 1).then_some(Form::Step(op))
    }

    fn along_rows(&self, id: NodeId, node: &Node, op: Op) -> Option<Form> {
        let axis = match self.opset {
            13.. => node.int("axis").unwrap_or(-1),
            _ => node.int("axis").unwrap_or(1),
        };
        self.is_last(id, axis).then_some(Form::Step(op))
    }

    fn normalized(&self, id: NodeId, node: &Node) -> Option<()> {
        let is_last = self.is_last(id, node.int("axis").unwrap_or(-1));
        (is_last && node.int("stash_type").unwrap_or(1) == 1).then_some(())
    }

    /// Whether an axis of the first operand is that of its rows.
    fn is_last(&self, id: NodeId, axis: i64) -> bool {
        let operand = self.graph.operand(id, 0);
        let rank = operand
            .and_then(|x| self.dims(x))
            .map_or(0, |dims| dims.len() as i64);
        rank > 0 && (axis == -1 || axis == rank - 1)
    }

    fn part(&self, id: NodeId) -> Option<Form> {
        let integer = |slot: usize| match self.integers(self.graph.operand(id, slot)?)?[..] {
            [number] => Some(number),
            _ => None,
        };
        let (start, end, axis) = (integer(1)?, integer(2)?, integer(3)?);
        let has_steps = self.graph.operand(id, 4).is_some();
        let step = if has_steps { integer(4)? } else { 1 };
        let size = self.dims(self.graph.operand(id, 0)?)?.last()?.known()?;
        let place = |at: i64| {
            if at < 0 {
                (at.max(-size) + size).max(0)
            } else {
                at.min(size)
            }
        };
        let (start, end) = (place(start), place(end));
        (step == 1 && start < end && self.is_last(id, axis))
            .then(|| Form::Parts(vec![(start, end)]))
    }

    fn parts(&self, id: NodeId, node: &Node) -> Option<Form> {
        if !self.is_last(id, node.int("axis").unwrap_or(0)) {
            return None;
        }
        let mut parts = Vec::new();
        let mut start = 0;
        for result in self.graph.results(id) {
            let size = self.dims(result?)?.last()?.known()?;
            parts.push((start, start + size));
            start += size;
        }
        let whole = self.dims(self.graph.operand(id, 0)?)?.last()?.known()?;
        (start == whole && parts.iter().all(|(start, end)| start < end))
            .then_some(Form::Parts(parts))
    }

    fn picked(&self, id: NodeId, node: &Node) -> Option<Form> {
        self.is_last(id, node.int("axis").unwrap_or(0))
            .then_some(())?;
        let index = self.dims(self.graph.operand(id, 1)?)?;
        (index.last()?.known() == Some(1)).then_some(Form::Step(Op::Pick))
    }

    fn added(&self, id: NodeId, node: &Node) -> Option<Form> {
        let adds = node.string("reduction") == Some("add");
        let index = self.dims(self.graph.operand(id, 1)?)?;
        let is_one = index.last()?.known() == Some(1);
        (adds && is_one && self.is_last(id, node.int("axis").unwrap_or(0))).then_some(Form::AddAt)
    }

    /// What steps read, in their order.
    fn operands(&self, id: NodeId, form: &Form) -> Option<Vec<Source>> {
        let operands = self.graph.operands(id);
        let count = match form {
            Form::Step(Op::Concat) | Form::LayerNormalization { .. } => operands.len(),
            Form::Step(op) => op.operands()?,
            Form::Cube | Form::Parts(_) => 1,
            Form::AddAt => 3,
            Form::RmsNormalization { .. } => 2,
        };
        let kinds = (0..count).map(|slot| match (form, slot) {
            (Form::Step(Op::Select), 0) => Kind::Bool,
            (Form::Step(Op::Pick) | Form::AddAt, 1) => Kind::I64,
            _ => Kind::F32,
        });
        let slots: Vec<Option<ValueId>> = operands.iter().copied().take(count).collect();
        if slots.len() != count {
            return None;
        }
        slots
            .into_iter()
            .zip(kinds)
            .map(|(value, kind)| self.source(value?, kind))
            .collect()
    }

    fn source(&self, value: ValueId, kind: Kind) -> Option<Source> {
        let dtype = match kind {
            Kind::F32 => DType::F32,
            Kind::Bool => DType::Bool,
            Kind::I64 => DType::I64,
        };
        if !self.is(value, dtype) {
            return None;
        }
        self.dims(value)?;
        match self.number(value) {
            Some(number) if kind == Kind::F32 => Some(Source::Number(number as f32)),
            _ => Some(Source::Value(value, kind)),
        }
    }

    /// Whether rows of operands belong to rows of the result: all but the elementwise steps take
    /// operands that are not stretched.
    fn stays_in_rows(&self, form: &Form, operands: &[Source], lead: &[Dim]) -> bool {
        let has_lead = |source: &Source| match source {
            Source::Number(_) => false,
            Source::Value(value, _) => self
                .dims(*value)
                .is_some_and(|dims| dims.split_last().is_some_and(|(_, own)| same(own, lead))),
        };
        match form {
            Form::Step(op) if op.is_elementwise() => true,
            Form::LayerNormalization { .. } | Form::RmsNormalization { .. } => {
                has_lead(&operands[0])
            }
            _ => operands.iter().all(has_lead),
        }
    }

    pub fn dims(&self, value: ValueId) -> Option<&'m [Dim]> {
        let shape = self.graph.value(value).ty.as_ref()?.shape.as_ref()?;
        Some(&shape.0)
    }

    pub fn is(&self, value: ValueId, dtype: DType) -> bool {
        let ty = self.graph.value(value).ty.as_ref();
        ty.is_some_and(|ty| ty.dtype == dtype)
    }

    /// The only element of a constant.
    pub fn number(&self, value: ValueId) -> Option<f64> {
        let all = self.dims(value)?.iter().all(|dim| dim.known() == Some(1));
        let known = all.then(|| self.known(value)).flatten()?;
        known.single()?.float()
    }

    fn integers(&self, value: ValueId) -> Option<Vec<i64>> {
        self.known(value)?.numbers()
    }

    fn known(&self, value: ValueId) -> Option<Known> {
        match self.graph.value(value).constant() {
            Some(tensor) => Known::from_tensor(tensor),
            None => self.values.get(value).cloned(),
        }
    }
}

/// Whether sizes are shown to be the same.
pub(super) fn same(a: &[Dim], b: &[Dim]) -> bool {
    let equal = |(a, b): (&Dim, &Dim)| a.compare(b) == Proof::Equal;
    a.len() == b.len() && a.iter().zip(b).all(equal)
}
