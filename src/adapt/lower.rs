//! Lowers a formula to ONNX nodes at a site.

pub(super) mod axes;
mod base;
mod beside;
mod once;
mod tokens;

pub(super) use once::Once;
pub(super) use tokens::TokenInputs;

use crate::graph::{Attribute, Graph, Operand};
use crate::hir::{Activation, Axis, Binary, Formula, Lead, Reduce, Term, TermId, TermKind, Unary};
use crate::modules::{Layout, Site, SiteKind};
use crate::ops::{Emitter, encode_float};
use crate::ty::{DType, Dim};
use std::collections::BTreeMap;

/// The values that a formula speaks of, at one site.
pub(super) struct Bindings<'a> {
    /// The module's input.
    pub input: Operand,
    /// The base output (of the slice), or the result of the method before.
    pub output: Operand,
    /// In torch's layout order, first and last feature of the slice; `None` for the whole module.
    pub slice: Option<(i64, i64)>,
    /// What the graph has once, for all of its sites; nothing for a hook.
    pub once: Option<&'a Once<'a>>,
    /// For every parameter of the instance, of type f32.
    pub parameters: Vec<Operand>,
    /// Whether others have it, too.
    pub shared: Vec<bool>,
    /// Their gradients; only hooks read them.
    pub gradients: Vec<Option<Operand>>,
    /// What parameters were before the update.
    pub before: Vec<Option<Operand>>,
    pub states: Vec<Operand>,
    /// The number of the update, `f32[]`.
    pub step: Option<Operand>,
    /// What `forward` has drawn, by its number; in a loss alone.
    pub draws: BTreeMap<u32, Operand>,
}

impl Bindings<'_> {
    /// Nothing of a site.
    pub fn of_nothing() -> Self {
        Bindings {
            input: UNREAD,
            output: UNREAD,
            slice: None,
            once: None,
            parameters: Vec::new(),
            shared: Vec::new(),
            gradients: Vec::new(),
            before: Vec::new(),
            states: Vec::new(),
            step: None,
            draws: BTreeMap::new(),
        }
    }
}

/// Stands for a value that no formula reads.
pub(super) const UNREAD: Operand = Operand::New(u32::MAX);

/// One formula at one site.
pub(super) struct Lowering<'a> {
    pub emitter: &'a mut Emitter,
    /// Nothing for a hook, which reads nothing of the module.
    pub(super) place: Option<(&'a Graph, &'a Site)>,
    pub bindings: Bindings<'a>,
    pub formula: &'a Formula,
    done: Vec<Option<Operand>>,
    /// Terms once more, in f32: positions of a site of less precision.
    done_in_f32: Vec<Option<Operand>>,
    /// Of terms that are the same at other sites: what tells them from others.
    common: Vec<Option<u32>>,
    dtype: DType,
}

impl<'a> Lowering<'a> {
    pub fn new(
        emitter: &'a mut Emitter,
        graph: &'a Graph,
        site: &'a Site,
        bindings: Bindings<'a>,
        formula: &'a Formula,
    ) -> Self {
        let place = Some((graph, site));
        Lowering::with(emitter, place, site.dtype, bindings, formula)
    }

    /// Of a formula over an adapter's tensors, which are f32.
    pub fn beside(emitter: &'a mut Emitter, bindings: Bindings<'a>, formula: &'a Formula) -> Self {
        Lowering::with(emitter, None, DType::F32, bindings, formula)
    }

    fn with(
        emitter: &'a mut Emitter,
        place: Option<(&'a Graph, &'a Site)>,
        dtype: DType,
        bindings: Bindings<'a>,
        formula: &'a Formula,
    ) -> Self {
        let done = vec![None; formula.terms().count()];
        Lowering {
            emitter,
            place,
            bindings,
            formula,
            done_in_f32: done.clone(),
            done,
            common: Vec::new(),
            dtype,
        }
    }

    pub(super) fn site(&self) -> &'a Site {
        self.place.expect("a hook reads nothing of the module").1
    }

    pub(super) fn graph(&self) -> &'a Graph {
        self.place.expect("a hook reads nothing of the module").0
    }

    /// Whether the formula stands at a convolution, whose features come first.
    fn is_at_conv(&self) -> bool {
        self.place
            .is_some_and(|(_, site)| site.kind == SiteKind::Conv)
    }

    /// Emits everything that the result needs and returns it.
    pub fn run(mut self) -> Operand {
        let reached = self.formula.reachable();
        self.common = self.common_terms(&reached);
        for (id, term) in self.formula.terms() {
            // A transpose waits for a user that needs it: a convolution reads its operand.
            if reached[id.0 as usize] && !matches!(term.kind, TermKind::Transpose(_)) {
                self.value_or_term(id);
            }
        }
        self.finished(self.formula.result())
    }

    pub(super) fn value(&mut self, id: TermId) -> Operand {
        assert!(
            self.done[id.0 as usize].is_some()
                || matches!(self.formula.term(id).kind, TermKind::Transpose(_)),
            "operands are lowered before their users"
        );
        self.value_or_term(id)
    }

    /// Dims of a term as numbers: at a site all sizes are known.
    pub(super) fn dims(&self, id: TermId) -> Vec<i64> {
        let ty = &self.formula.term(id).ty;
        ty.dims
            .iter()
            .map(|d| d.known().expect("sizes of a site are numbers"))
            .collect()
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    /// What `emit` gives where all floats are of 32 bits.
    fn in_f32(&mut self, emit: impl FnOnce(&mut Self) -> Operand) -> Operand {
        std::mem::swap(&mut self.done, &mut self.done_in_f32);
        let dtype = std::mem::replace(&mut self.dtype, DType::F32);
        let result = emit(self);
        self.dtype = dtype;
        std::mem::swap(&mut self.done, &mut self.done_in_f32);
        result
    }

    /// A term after all that it needs.
    pub(super) fn computed(&mut self, id: TermId) -> Operand {
        if let Some(done) = self.done[id.0 as usize] {
            return done;
        }
        for operand in self.formula.term(id).kind.operands() {
            if self.done[operand.0 as usize].is_none() {
                let operand_value = self.computed(operand);
                self.done[operand.0 as usize] = Some(operand_value);
            }
        }
        self.value_or_term(id)
    }

    /// Takes terms as emitted that were when the formula was [stopped](Lowering::stop) at.
    pub(super) fn go_on(&mut self, done: &[Option<Operand>]) {
        if done.len() == self.done.len() {
            self.done.copy_from_slice(done);
        }
    }

    /// The terms that have been emitted.
    pub(super) fn stop(self) -> Vec<Option<Operand>> {
        self.done
    }

    fn value_or_term(&mut self, id: TermId) -> Operand {
        if let Some(done) = self.done[id.0 as usize] {
            return done;
        }
        let term = self.formula.term(id);
        let operand = match self.common_term(id) {
            Some(number) => self.once_for_all(number, term),
            None => self.term(term),
        };
        self.done[id.0 as usize] = Some(operand);
        operand
    }

    fn term(&mut self, term: &Term) -> Operand {
        match &term.kind {
            TermKind::Input => self.bindings.input,
            TermKind::Output if self.is_at_conv() => self.features_last(self.bindings.output),
            TermKind::Output => self.bindings.output,
            TermKind::Weight => self.weight(),
            TermKind::Bias => self.bias(),
            TermKind::Mask => self.mask(),
            TermKind::Positions => self.positions(),
            TermKind::SinceLast(sequence) => {
                let once = self.bindings.once;
                let found = once.and_then(|once| once.tokens.since_last(sequence, self.dtype));
                found.expect("what formulas read of the ids is emitted in front of them")
            }
            TermKind::FirstPass(module) => {
                let once = self.bindings.once;
                let found = once.and_then(|once| once.passes.value(module));
                let (value, dtype) = found.expect("first passes are emitted in front of formulas");
                match dtype == self.dtype {
                    true => value,
                    false => self.emitter.cast(value, self.dtype),
                }
            }
            TermKind::Query => self.query(),
            TermKind::Module { path, input } => self.other_module(path, *input),
            TermKind::Param(index) => self.parameter(*index),
            TermKind::Gradient(index) => trained(self.bindings.gradients[*index]),
            TermKind::Before(index) => trained(self.bindings.before[*index]),
            TermKind::State(index) => self.bindings.states[*index],
            TermKind::Step => self
                .bindings
                .step
                .expect("an update has a number where hooks read it"),
            TermKind::Everywhere(_) => {
                unreachable!("what all modules have is joined before a hook reads it")
            }
            TermKind::Number(value) => self.emitter.scalar(*value, self.dtype),
            TermKind::Unary(function, a) => self.unary(*function, *a),
            TermKind::Binary(function, a, b) => {
                let (a, b) = (self.value(*a), self.value(*b));
                self.emitter.node(binary_op(*function), &[a, b], Vec::new())
            }
            TermKind::MatMul(a, b) if self.is_unbuilt(*a) => {
                let input = self.value(*a);
                self.product_with_input(input, *b)
            }
            TermKind::MatMul(a, b) => {
                let (a, b) = (self.value(*a), self.value(*b));
                self.emitter.node("MatMul", &[a, b], Vec::new())
            }
            TermKind::Transpose(a) => {
                let a = self.value(*a);
                self.transpose(a)
            }
            TermKind::Reduce {
                function,
                over,
                keep,
                operand,
            } => self.reduce(*function, *over, *keep, *operand),
            TermKind::CumulativeSum(a) => self.cumulative_sum(*a),
            TermKind::Softmax(a) => {
                let a = self.value(*a);
                self.emitter
                    .node("Softmax", &[a], vec![Attribute::int("axis", -1)])
            }
            TermKind::Reshape(a) => self.reshape(*a, term),
            TermKind::Slice {
                operand,
                axis,
                start,
                end,
            } => self.slice(*operand, *axis, start.known(), end.known()),
            TermKind::LastToken(a) => {
                let axis = self.token_axis(*a);
                let a = self.value(*a);
                self.emitter.slice(a, axis, -1, i64::MAX)
            }
            TermKind::Prepended {
                rows,
                operand,
                in_cache,
            } => self.prepended(*rows, *operand, *in_cache),
            TermKind::Equal(a, b) => {
                let (a, b) = (self.value(*a), self.value(*b));
                let same = self.emitter.node("Equal", &[a, b], Vec::new());
                self.emitter.cast(same, self.dtype)
            }
            TermKind::Concat { axis, operands } => {
                let rank = self.dims(operands[0]).len() as i64;
                let values: Vec<Operand> = operands.iter().map(|id| self.value(*id)).collect();
                let axis = *axis as i64 - rank;
                self.emitter
                    .node("Concat", &values, vec![Attribute::int("axis", axis)])
            }
            TermKind::Einsum { equation, operands } => self.einsum(equation, operands),
            TermKind::Gather {
                table,
                positions,
                axis,
            } => self.gather(*table, *positions, *axis),
            TermKind::Scatter { values, positions } => self.scatter(*values, *positions, term),
            TermKind::Pad {
                operand,
                axis,
                before,
                after,
            } => {
                let size = |dim: &crate::ty::Dim| dim.known().expect("sizes of a site are numbers");
                self.pad(*operand, *axis, size(before), size(after))
            }
            TermKind::Iota => {
                let size = term.ty.dims[0].known();
                self.iota(size.expect("sizes of a site are numbers"))
            }
            TermKind::Numbers(numbers) => self.numbers(numbers),
            TermKind::Largest(a) => self.largest(*a, term),
            TermKind::LargestAt(a) => self.largest_at(*a, term),
            TermKind::Factor(..) | TermKind::Drawn(_) | TermKind::Calibrated(_) => {
                unreachable!("factors, random numbers and statistics are in start values alone")
            }
            TermKind::StopGradient(a) => {
                let a = self.value(*a);
                self.emitter.stop_gradient(a)
            }
            TermKind::Noise { like, number } => self.noise(*like, *number, term),
            TermKind::Dropout(a, p) => self.dropout(*a, *p),
            TermKind::Base {
                input,
                weight,
                bias,
            } => self.base(*input, *weight, *bias),
        }
    }

    /// Zeros that are marked as a draw; in a loss that of `forward`, if that has been replaced.
    fn noise(&mut self, like: Option<TermId>, number: u32, term: &Term) -> Operand {
        if let Some(drawn) = self.bindings.draws.get(&number) {
            return *drawn;
        }
        let like = like.map(|id| self.value(id));
        let dims: Vec<i64> = term.ty.dims.iter().filter_map(Dim::known).collect();
        let name = format!("{}/{number}", self.emitter.scope);
        self.emitter.noise(like, &dims, self.dtype, name)
    }

    /// Parameters are f32 in every file; a site of another type casts them where it reads them.
    fn parameter(&mut self, index: usize) -> Operand {
        let value = self.bindings.parameters[index];
        if self.dtype() == DType::F32 {
            value
        } else {
            self.emitter.cast(value, self.dtype)
        }
    }

    /// The base weight in torch's layout, less what the slice leaves out.
    fn weight(&mut self) -> Operand {
        let operand = Operand::Existing(self.site().weight.operand);
        let weight = match self.site().weight.layout {
            Layout::InOut => self.transpose(operand),
            Layout::OutIn => operand,
            Layout::Conv => self.as_matrix(operand),
        };
        match self.bindings.slice {
            // The table of an embedding has its outputs in columns.
            Some((start, end)) => {
                let axis = i64::from(self.site().kind == SiteKind::Embedding);
                self.emitter.slice(weight, axis, start, end)
            }
            None => weight,
        }
    }

    /// The part of the base module's output that the formula is about.
    fn sliced(&mut self, output: Operand) -> Operand {
        match self.bindings.slice {
            Some((start, end)) => self.emitter.slice(output, -1, start, end),
            None => output,
        }
    }

    fn bias(&mut self) -> Operand {
        let bias = Operand::Existing(
            self.site()
                .bias
                .expect("a formula reads the bias only where there is one"),
        );
        match self.bindings.slice {
            Some((start, end)) => self.emitter.slice(bias, 0, start, end),
            None => bias,
        }
    }

    /// `[batch, tokens, 1]` of the site's type. A decoder's mask also covers the cached tokens: the
    /// last ones are its own.
    fn mask(&mut self) -> Operand {
        let mask = self
            .bindings
            .once
            .and_then(|once| once.tokens.mask)
            .expect("the plan has checked that there is a mask");
        let input = self.bindings.input;
        let count = self.emitter.size(input, self.input_token_axis());
        let own = tokens::last(self.emitter, mask, count);
        let own = self.emitter.cast(own, self.site().dtype);
        self.emitter.unsqueeze(own, -1)
    }

    /// `[tokens, 1]`: 1, 2, 3, ….
    fn positions(&mut self) -> Operand {
        let input = self.bindings.input;
        let tokens = self.emitter.size(input, self.input_token_axis());
        let ones = Attribute::tensor(
            "value",
            crate::graph::Tensor::from_raw(
                self.site().dtype,
                &[1],
                encode_float(1.0, self.site().dtype),
            ),
        );
        let ones = self.emitter.node("ConstantOfShape", &[tokens], vec![ones]);
        let axis = self.emitter.ints(&[0]);
        let counted = self.emitter.node("CumSum", &[ones, axis], Vec::new());
        self.emitter.unsqueeze(counted, -1)
    }

    pub(super) fn transpose(&mut self, value: Operand) -> Operand {
        self.emitter
            .node("Transpose", &[value], vec![Attribute::ints("perm", [1, 0])])
    }

    fn unary(&mut self, function: Unary, a: TermId) -> Operand {
        let a = self.value(a);
        let simple = match function {
            Unary::Negate => "Neg",
            Unary::Exp => "Exp",
            Unary::Log => "Log",
            Unary::Sqrt => "Sqrt",
            Unary::Abs => "Abs",
            Unary::Sin => "Sin",
            Unary::Cos => "Cos",
            Unary::Erf => "Erf",
            Unary::Floor => "Floor",
            Unary::Sign => "Sign",
            Unary::Activation(Activation::Relu) => "Relu",
            Unary::Activation(Activation::Sigmoid) => "Sigmoid",
            Unary::Activation(Activation::Tanh) => "Tanh",
            Unary::Activation(Activation::Softplus) => "Softplus",
            Unary::Activation(Activation::Silu) => {
                let gate = self.emitter.node("Sigmoid", &[a], Vec::new());
                return self.emitter.node("Mul", &[a, gate], Vec::new());
            }
            Unary::Activation(Activation::Gelu) => return self.gelu(a),
        };
        self.emitter.node(simple, &[a], Vec::new())
    }

    /// x · ½ (1 + erf(x / √2)); ONNX has it as one operator from opset 20 on.
    fn gelu(&mut self, a: Operand) -> Operand {
        if self.emitter.opset >= 20 {
            return self.emitter.node("Gelu", &[a], Vec::new());
        }
        let dtype = self.dtype();
        let root = self.emitter.scalar(std::f64::consts::FRAC_1_SQRT_2, dtype);
        let (one, half) = (
            self.emitter.scalar(1.0, dtype),
            self.emitter.scalar(0.5, dtype),
        );
        let scaled = self.emitter.node("Mul", &[a, root], Vec::new());
        let erf = self.emitter.node("Erf", &[scaled], Vec::new());
        let shifted = self.emitter.node("Add", &[erf, one], Vec::new());
        let halved = self.emitter.node("Mul", &[shifted, half], Vec::new());
        self.emitter.node("Mul", &[a, halved], Vec::new())
    }

    fn token_axis(&self, id: TermId) -> i64 {
        -(self.dims(id).len() as i64) - 1
    }

    fn reduce(&mut self, function: Reduce, over: Axis, keep: bool, operand: TermId) -> Operand {
        let (axis, keep) = match over {
            Axis::Batch => (self.token_axis(operand), false),
            Axis::Tokens => (self.token_axis(operand), true),
            Axis::Dim(axis) => (axis as i64 - self.dims(operand).len() as i64, keep),
        };
        let op_type = match function {
            Reduce::Sum => "ReduceSum",
            Reduce::Mean => "ReduceMean",
            Reduce::Max => "ReduceMax",
            Reduce::Min => "ReduceMin",
            Reduce::Norm => "ReduceL2",
        };
        let mut value = self.value(operand);
        if over == Axis::Batch {
            let sizes = [&[-1], self.dims(operand).as_slice()].concat();
            let sizes = self.emitter.ints(&sizes);
            value = self.emitter.node("Reshape", &[value, sizes], Vec::new());
        }
        self.emitter.reduce(op_type, value, axis, keep)
    }

    fn cumulative_sum(&mut self, a: TermId) -> Operand {
        let axis = self.token_axis(a);
        let value = self.value(a);
        let axis = self.emitter.ints(&[axis]);
        self.emitter.node("CumSum", &[value, axis], Vec::new())
    }

    /// Rows in the place of the first tokens of `[batch, tokens, features]`, or in front of those that
    /// a cache `[batch, heads, tokens, features]` holds.
    fn prepended(&mut self, rows: TermId, operand: TermId, in_cache: bool) -> Operand {
        let dims = self.dims(rows);
        let (rows, value) = (self.value(rows), self.value(operand));
        let sizes = [self.emitter.size(value, 0), self.emitter.ints(&dims)];
        let axis = |axis: i64| vec![Attribute::int("axis", axis)];
        let shape = self.emitter.node("Concat", &sizes, axis(0));
        let rows = self.emitter.node("Expand", &[rows, shape], Vec::new());
        if in_cache {
            return self.emitter.node("Concat", &[rows, value], axis(2));
        }
        let own = self.emitter.slice(value, 1, dims[0], i64::MAX);
        self.emitter.node("Concat", &[rows, own], axis(1))
    }

    fn reshape(&mut self, a: TermId, term: &Term) -> Operand {
        let value = self.value(a);
        let wanted: Vec<i64> = term
            .ty
            .dims
            .iter()
            .map(|d| d.known().expect("sizes of a site are numbers"))
            .collect();
        let mut target: Vec<i64> = Vec::new();
        if term.ty.lead != Lead::None {
            // 0 keeps the size of the axis: the leading axes stay as they are.
            target.resize(self.lead_axes(), 0);
        }
        target.extend(wanted);
        let target = self.emitter.ints(&target);
        self.emitter.node("Reshape", &[value, target], Vec::new())
    }

    fn slice(
        &mut self,
        operand: TermId,
        axis: usize,
        start: Option<i64>,
        end: Option<i64>,
    ) -> Operand {
        let rank = self.dims(operand).len() as i64;
        let value = self.value(operand);
        let (start, end) = (
            start.expect("sizes of a site are numbers"),
            end.expect("sizes of a site are numbers"),
        );
        self.emitter.slice(value, axis as i64 - rank, start, end)
    }

    /// In a model that is run as it is, ONNX's Dropout is the identity.
    fn dropout(&mut self, a: TermId, p: f64) -> Operand {
        let value = self.value(a);
        if self.emitter.opset < 12 {
            return self.emitter.node(
                "Dropout",
                &[value],
                vec![Attribute::float("ratio", p as f32)],
            );
        }
        let ratio = self.emitter.scalar(p, DType::F32);
        self.emitter.node("Dropout", &[value, ratio], Vec::new())
    }
}

fn trained(value: Option<Operand>) -> Operand {
    value.expect("a hook reads gradients and earlier values of what is trained")
}

fn binary_op(function: Binary) -> &'static str {
    match function {
        Binary::Add => "Add",
        Binary::Subtract => "Sub",
        Binary::Multiply => "Mul",
        Binary::Divide => "Div",
        Binary::Power => "Pow",
        Binary::Max => "Max",
        Binary::Min => "Min",
    }
}
