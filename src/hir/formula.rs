//! Typed mathematics: the terms that a `forward` or an initialiser becomes.

use super::init::Random;
use crate::diag::Span;
use crate::ty::Dim;
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// A term of one formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TermId(pub(crate) u32);

/// A directed acyclic graph of terms with one result. Operands come before their users.
#[derive(Clone, Debug, Default)]
pub struct Formula {
    pub(crate) terms: Vec<Term>,
    pub(crate) result: Option<TermId>,
}

/// One operation with its type and the source text that made it.
#[derive(Clone, Debug)]
pub struct Term {
    pub kind: TermKind,
    pub ty: TermType,
    pub span: Span,
}

/// The leading axes of a term: batch axes and the token axis of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lead {
    /// No leading axes: weights, parameters, numbers.
    None,
    /// Batch axes and a token axis of size 1.
    Pooled,
    /// Batch axes and tokens.
    Full,
}

/// The type of a term: leading axes, then sizes. All terms are floats of the site's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermType {
    pub lead: Lead,
    pub dims: Vec<Dim>,
}

impl TermType {
    pub fn of(lead: Lead, dims: impl IntoIterator<Item = Dim>) -> Self {
        TermType {
            lead,
            dims: dims.into_iter().collect(),
        }
    }

    pub fn scalar() -> Self {
        TermType {
            lead: Lead::None,
            dims: Vec::new(),
        }
    }

    /// Whether both are one type. An integer divided by an integer is a size only where the division
    /// comes out even, so it may be taken to do so.
    pub fn is_same(&self, other: &TermType) -> bool {
        self.lead == other.lead
            && self.dims.len() == other.dims.len()
            && self
                .dims
                .iter()
                .zip(&other.dims)
                .all(|(a, b)| a.is_same_if_even(b))
    }

    /// How many elements there are behind the leading axes.
    pub fn elements(&self) -> Dim {
        self.dims
            .iter()
            .fold(Dim::from(1), |product, dim| product * dim.clone())
    }
}

impl fmt::Display for TermType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = match self.lead {
            Lead::None => Vec::new(),
            Lead::Pooled => vec!["…".to_owned(), "1".to_owned()],
            Lead::Full => vec!["…".to_owned(), "tokens".to_owned()],
        };
        parts.extend(self.dims.iter().map(Dim::to_string));
        write!(f, "[{}]", parts.join(", "))
    }
}

/// What a term computes. Axes of dims count from 0 behind the leading axes.
#[derive(Clone, Debug, PartialEq)]
pub enum TermKind {
    /// The module's input.
    Input,
    /// The base module's output, or the result of the method applied before.
    Output,
    /// The base weight, `[out, in]` for linear, `[features]` for norms.
    Weight,
    Bias,
    /// 1 for tokens that count and 0 for padding, `[…, tokens, 1]`.
    Mask,
    /// A parameter of the instance, by index.
    Param(usize),
    /// Its gradient; in hooks alone.
    Gradient(usize),
    /// What it was before the update; in hooks alone.
    Before(usize),
    /// What the instance keeps from step to step, by index; in hooks alone.
    State(usize),
    /// The number of the update, from 1; in hooks alone.
    Step,
    /// The values that a term has at all modules of the statement, one behind the other; in hooks
    /// alone.
    Everywhere(TermId),
    Number(f64),
    Unary(Unary, TermId),
    Binary(Binary, TermId, TermId),
    MatMul(TermId, TermId),
    /// Exchanges the two dims of a matrix without leading axes.
    Transpose(TermId),
    Reduce {
        function: Reduce,
        over: Axis,
        keep: bool,
        operand: TermId,
    },
    /// 1, 2, 3, … along the tokens, `[…, tokens, 1]`.
    Positions,
    /// Sums over this and all earlier tokens.
    CumulativeSum(TermId),
    Softmax(TermId),
    /// Replaces the dims, leading axes kept.
    Reshape(TermId),
    Slice {
        operand: TermId,
        axis: usize,
        start: Dim,
        end: Dim,
    },
    /// The last token, `[…, 1, …]`.
    LastToken(TermId),
    /// Rows `[n, features]` in the place of the first `n` tokens, which are placeholders: the model
    /// has as many more tokens as it is given. In a cache, rows `[heads, n, features]` in front of
    /// those of earlier tokens.
    Prepended {
        rows: TermId,
        operand: TermId,
        in_cache: bool,
    },
    /// 1 from the first token of the last occurrence of a sequence on, and 0 in front of it or where
    /// there is none, `[…, tokens, 1]`.
    SinceLast(Sequence),
    /// What a module of the model gives when the model runs without the adapter on the same inputs,
    /// `[…, tokens, features]`; its path, or as it is written where no model is known.
    FirstPass(String),
    /// The query, rotated and not scaled, of the attention whose result the module reads,
    /// `[…, tokens, heads, features of a head]`.
    Query,
    /// Another linear module of the base model, by its path, on an input whose last axis holds its
    /// features.
    Module {
        path: String,
        input: TermId,
    },
    /// 1 where both are the same number, else 0.
    Equal(TermId, TermId),
    Concat {
        axis: usize,
        operands: Vec<TermId>,
    },
    /// Sums of products over named axes, such as `ab, bc -> ac`.
    Einsum {
        equation: Equation,
        operands: Vec<TermId>,
    },
    /// Entries of an axis by their positions; the dims of the positions take its place.
    Gather {
        table: TermId,
        positions: TermId,
        axis: usize,
    },
    /// Values put at positions of a tensor of zeros: the last axis of the positions is a place in
    /// the tensor, and no place comes twice.
    Scatter {
        values: TermId,
        positions: TermId,
    },
    /// Zeros in front of and behind an axis.
    Pad {
        operand: TermId,
        axis: usize,
        before: Dim,
        after: Dim,
    },
    /// 0, 1, 2, … as floats, `[n]`.
    Iota,
    /// Numbers of the spec, `[n]`.
    Numbers(Vec<f64>),
    /// The largest entries of the last axis, in descending order.
    Largest(TermId),
    /// Their positions in it.
    LargestAt(TermId),
    /// A factor of a matrix; in start values alone.
    Factor(Factor, TermId),
    /// The value; no gradient flows through it.
    StopGradient(TermId),
    /// In training, zero with the probability and scaled up otherwise; the value itself elsewhere.
    Dropout(TermId, f64),
    /// Random numbers; in start values alone.
    Drawn(Random),
    /// What data tells of the module; in start values alone.
    Calibrated(Statistic),
    /// Standard normal numbers, new ones for every element and step of training; 0 elsewhere. Of the shape
    /// of a term, or of the term's own where nothing says how many axes lead.
    Noise {
        like: Option<TermId>,
        /// Which draw of the instance it is; in a loss, that of `forward`.
        number: u32,
    },
    /// The base module applied to another input, weight or bias.
    Base {
        input: TermId,
        weight: Option<TermId>,
        bias: Option<TermId>,
    },
}

/// Ids of tokens in a row, as the model reads them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence {
    /// At least one, none below 0.
    pub ids: Vec<i64>,
    /// Whether tokens that the attention mask leaves out are no part of it.
    pub masked: bool,
}

/// Which letter every axis of every operand has, and those of the result. Leading axes stand in
/// front and have none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Equation {
    pub operands: Vec<String>,
    pub result: String,
}

impl Equation {
    /// The order in which the result takes the axes of the only operand, if it does nothing else.
    pub fn permutation(&self) -> Option<Vec<usize>> {
        let [operand] = self.operands.as_slice() else {
            return None;
        };
        (operand.len() == self.result.len()).then_some(())?;
        self.result
            .chars()
            .map(|letter| operand.find(letter))
            .collect()
    }
}

impl fmt::Display for Equation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.operands.join(", "), self.result)
    }
}

/// What a pass over data tells of a linear module with the base weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statistic {
    /// The mean of the inputs over the tokens that count, `[in]`.
    InputMean,
    /// The covariance of the inputs over the tokens that count, `[in, in]`.
    InputCovariance,
    /// The mean over batches of XᵀX, X the inputs of a batch divided by their largest entry, `[in, in]`.
    InputGram,
    /// The mean over batches of the gradient of the loss by the weight, `[out, in]`.
    WeightGradient,
}

impl Statistic {
    pub const ALL: [Statistic; 4] = [
        Statistic::InputMean,
        Statistic::InputCovariance,
        Statistic::InputGram,
        Statistic::WeightGradient,
    ];

    /// The word of the language, and of a file's tensors.
    pub fn name(self) -> &'static str {
        match self {
            Statistic::InputMean => "input_mean",
            Statistic::InputCovariance => "input_covariance",
            Statistic::InputGram => "input_gram",
            Statistic::WeightGradient => "weight_gradient",
        }
    }

    pub fn named(name: &str) -> Option<Statistic> {
        Statistic::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// A factor of a matrix `[m, n]`: singular vectors and values in the order of the values, largest
/// first, or the factors of a QR decomposition. How many there are is in the type of the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factor {
    /// `[m, k]`.
    LeftSingular,
    /// `[k]`.
    SingularValues,
    /// `[k, n]`.
    RightSingular,
    /// `[m, min(m, n)]`, orthonormal columns.
    Q,
    /// `[min(m, n), n]`, upper triangular.
    R,
    /// The places of the entries with the largest values, `[k, rank]`.
    LargestPlaces,
    /// 1 where a row is in a cluster, `[m, k]`.
    Clusters,
}

/// The axis of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// All leading axes: those of the batch and the tokens.
    Batch,
    Tokens,
    /// Counted behind the leading axes.
    Dim(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    Sum,
    Mean,
    Max,
    Min,
    /// The Euclidean norm.
    Norm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    Negate,
    Exp,
    Log,
    Sqrt,
    Abs,
    Sin,
    Cos,
    Erf,
    Floor,
    Sign,
    Activation(Activation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    Relu,
    Sigmoid,
    Tanh,
    Gelu,
    Silu,
    Softplus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    Max,
    Min,
}

impl TermKind {
    /// Whether it reads the ids of the model's tokens.
    pub fn reads_ids(&self) -> bool {
        matches!(self, TermKind::SinceLast(_))
    }

    /// Whether it reads the model's attention mask.
    pub fn reads_mask(&self) -> bool {
        matches!(
            self,
            TermKind::Mask | TermKind::SinceLast(Sequence { masked: true, .. })
        )
    }

    /// The module whose output in a first pass it is.
    pub fn first_pass(&self) -> Option<&str> {
        match self {
            TermKind::FirstPass(module) => Some(module),
            _ => None,
        }
    }

    /// The other module that it is the result of.
    pub fn module(&self) -> Option<&str> {
        match self {
            TermKind::Module { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The terms it reads.
    pub fn operands(&self) -> SmallVec<[TermId; 4]> {
        use TermKind::*;
        match self {
            Input | Output | Weight | Bias | Mask | Positions | SinceLast(_) | Param(_)
            | FirstPass(_) | Query | Gradient(_) | Before(_) | State(_) | Step | Number(_)
            | Iota | Numbers(_) | Drawn(_) | Calibrated(_) => SmallVec::new(),
            Unary(_, a)
            | Transpose(a)
            | CumulativeSum(a)
            | Softmax(a)
            | Reshape(a)
            | LastToken(a)
            | Largest(a)
            | LargestAt(a)
            | Factor(_, a)
            | StopGradient(a)
            | Everywhere(a)
            | Dropout(a, _) => smallvec![*a],
            Noise { like, .. } => like.iter().copied().collect(),
            Reduce { operand, .. } | Slice { operand, .. } | Pad { operand, .. } => {
                smallvec![*operand]
            }
            Module { input, .. } => smallvec![*input],
            Binary(_, a, b) | MatMul(a, b) | Equal(a, b) => smallvec![*a, *b],
            Gather {
                table, positions, ..
            } => smallvec![*table, *positions],
            Scatter { values, positions } => smallvec![*values, *positions],
            Prepended { rows, operand, .. } => smallvec![*rows, *operand],
            Concat { operands, .. } | Einsum { operands, .. } => operands.iter().copied().collect(),
            Base {
                input,
                weight,
                bias,
            } => std::iter::once(*input)
                .chain(*weight)
                .chain(*bias)
                .collect(),
        }
    }
}

impl Formula {
    pub(crate) fn push(&mut self, kind: TermKind, ty: TermType, span: Span) -> TermId {
        self.terms.push(Term { kind, ty, span });
        TermId(self.terms.len() as u32 - 1)
    }

    pub fn term(&self, id: TermId) -> &Term {
        &self.terms[id.0 as usize]
    }

    /// Whether a term of a start value is made of the module and of what data tells of it alone: of no
    /// parameter, nothing random, and nothing of other modules.
    pub(super) fn is_of_the_module_alone(&self, id: TermId) -> bool {
        let of_more = |kind: &TermKind| {
            matches!(
                kind,
                TermKind::Param(_) | TermKind::Drawn(_) | TermKind::Everywhere(_)
            )
        };
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let kind = &self.term(id).kind;
            if of_more(kind) {
                return false;
            }
            open.extend(kind.operands());
        }
        true
    }

    /// The operands of what is joined over all modules, in the order of the calls, with the terms that
    /// stand for the whole.
    pub fn everywhere(&self) -> impl Iterator<Item = (TermId, TermId)> {
        self.terms().filter_map(|(id, term)| match term.kind {
            TermKind::Everywhere(operand) => Some((operand, id)),
            _ => None,
        })
    }

    /// The term that the formula stands for.
    pub fn result(&self) -> TermId {
        self.result.expect("a finished formula has a result")
    }

    /// Every term with its id, operands first.
    pub fn terms(&self) -> impl Iterator<Item = (TermId, &Term)> {
        self.terms
            .iter()
            .enumerate()
            .map(|(index, term)| (TermId(index as u32), term))
    }

    /// For every term whether the result depends on it.
    pub fn reachable(&self) -> Vec<bool> {
        let mut reached = vec![false; self.terms.len()];
        if let Some(result) = self.result {
            reached[result.0 as usize] = true;
        }
        for index in (0..self.terms.len()).rev() {
            if reached[index] {
                for operand in self.terms[index].kind.operands() {
                    reached[operand.0 as usize] = true;
                }
            }
        }
        reached
    }

    /// Whether a term is 0 whatever its operands are, with a gradient nevertheless: x − `stop_gradient(x)`.
    pub fn is_gradient_alone(&self, id: TermId) -> bool {
        match self.term(id).kind {
            TermKind::Binary(Binary::Subtract, a, b) => {
                self.term(b).kind == TermKind::StopGradient(a)
            }
            _ => false,
        }
    }

    /// For every term whether the value of the result depends on it, outside of training.
    pub fn reachable_in_value(&self) -> Vec<bool> {
        let mut reached = vec![false; self.terms.len()];
        reached[self.result().0 as usize] = true;
        for index in (0..self.terms.len()).rev() {
            if reached[index] && !self.is_gradient_alone(TermId(index as u32)) {
                for operand in self.terms[index].kind.operands() {
                    reached[operand.0 as usize] = true;
                }
            }
        }
        reached
    }

    /// Whether the result depends on such a term.
    pub fn uses(&self, test: impl Fn(&TermKind) -> bool) -> bool {
        // Few formulas have such a term at all.
        self.terms.iter().any(|term| test(&term.kind))
            && self
                .reachable()
                .iter()
                .zip(&self.terms)
                .any(|(reached, term)| *reached && test(&term.kind))
    }
}
