//! Evaluates `forward` on rows in f64: every row is a token, alone.
//!
//! In: a formula without terms that look across tokens, the base module in numbers, parameters, and
//! rows of its input. Out: the rows of its result. Terms that depend on no row are computed once for
//! all rows ([`Constants`]); the frequent others on whole blocks of rows, all others row by row, as
//! terms without leading axes.

use super::numeric::{self, Dense, Factors, evaluate_terms};
use crate::hir::{Axis, Binary, Formula, Term, TermId, TermKind};
use crate::modules::SiteKind;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// A base module in numbers, less what a slice leaves out.
pub(super) struct Layer {
    pub kind: SiteKind,
    /// As the method's `weight`: `[out, in]`, of an embedding `[in, out]`, of a norm `[features]`.
    pub weight: Dense,
    pub bias: Option<Dense>,
    /// Groups of a convolution; its rows then hold a patch for every group, side by side.
    pub groups: usize,
}

/// Rows of the input.
pub(super) enum Rows {
    /// Rows of the identity, of this width.
    Unit(Range<usize>, usize),
    /// `[rows, width]`.
    Dense(Dense),
}

impl Rows {
    pub fn count(&self) -> usize {
        match self {
            Rows::Unit(range, _) => range.len(),
            Rows::Dense(dense) => dense.dims[0],
        }
    }

    fn dense(&self) -> Dense {
        match self {
            Rows::Dense(dense) => dense.clone(),
            Rows::Unit(range, width) => {
                let mut data = vec![0.0; range.len() * width];
                for (row, column) in range.clone().enumerate() {
                    data[row * width + column] = 1.0;
                }
                Dense {
                    dims: vec![range.len(), *width],
                    data,
                }
            }
        }
    }
}

impl Layer {
    /// Output features.
    pub fn outputs(&self) -> usize {
        match self.kind {
            SiteKind::Embedding => self.weight.dims[1],
            _ => self.weight.dims[0],
        }
    }

    /// The module's output for rows of its input; at a norm for rows that are normalized already.
    pub fn output(&self, input: &Rows) -> Dense {
        self.applied(input, &self.weight, self.bias.as_ref())
    }

    fn applied(&self, input: &Rows, weight: &Dense, bias: Option<&Dense>) -> Dense {
        let mut result = match (self.kind, input) {
            (SiteKind::Norm, input) => {
                let mut rows = input.dense();
                for row in rows.data.chunks_mut(weight.data.len().max(1)) {
                    row.iter_mut().zip(&weight.data).for_each(|(x, w)| *x *= w);
                }
                rows
            }
            (SiteKind::Embedding, Rows::Unit(range, _)) => {
                numeric::slice(weight, 0, (range.start, range.end))
            }
            (SiteKind::Embedding, Rows::Dense(rows)) => numeric::matmul(rows, weight),
            (_, Rows::Unit(range, _)) if self.groups == 1 => columns(weight, range.clone()),
            (_, input) => products(&input.dense(), weight, self.groups),
        };
        if let Some(bias) = bias {
            for row in result.data.chunks_mut(bias.data.len().max(1)) {
                row.iter_mut().zip(&bias.data).for_each(|(y, b)| *y += b);
            }
        }
        result
    }
}

/// Columns of a matrix as rows.
fn columns(weight: &Dense, range: Range<usize>) -> Dense {
    let (out, input) = (weight.dims[0], weight.dims[1]);
    let count = range.len();
    let data = range
        .flat_map(|column| (0..out).map(move |row| row * input + column))
        .map(|at| weight.data[at])
        .collect();
    Dense {
        dims: vec![count, out],
        data,
    }
}

/// `x Wᵀ`, where every group of output features has columns of `x` of its own.
fn products(x: &Dense, weight: &Dense, groups: usize) -> Dense {
    let (out, input) = (weight.dims[0], weight.dims[1]);
    let per_group = (out / groups.max(1)).max(1);
    let width = input * groups;
    let mut data = Vec::with_capacity(x.dims[0] * out);
    for row in x.data.chunks(width.max(1)) {
        for (o, w) in weight.data.chunks(input.max(1)).enumerate() {
            let start = o / per_group * input;
            let patch = &row[start..start + input];
            data.push(patch.iter().zip(w).map(|(a, b)| a * b).sum());
        }
    }
    Dense {
        dims: vec![x.dims[0], out],
        data,
    }
}

/// A formula with the terms that no row changes already computed.
pub(super) struct Constants<'f> {
    formula: &'f Formula,
    varies: Vec<bool>,
    values: Vec<Option<Dense>>,
}

impl<'f> Constants<'f> {
    /// `parameters` are those of the formula, by index. `Err` says what cannot be computed.
    pub fn new(
        formula: &'f Formula,
        layer: &Layer,
        parameters: &[Dense],
    ) -> Result<Constants<'f>, String> {
        let mut varies = vec![false; formula.terms().count()];
        for (id, term) in formula.terms() {
            let operands = term.kind.operands();
            let reads = matches!(term.kind, TermKind::Input | TermKind::Output)
                || operands.iter().any(|operand| varies[operand.0 as usize]);
            varies[id.0 as usize] = reads && !formula.is_gradient_alone(id);
        }
        let silent = formula
            .terms()
            .filter(|(id, _)| formula.is_gradient_alone(*id));
        let zeros: HashMap<TermId, Dense> = silent.map(|(id, term)| (id, zero(term))).collect();
        let reached = formula.reachable_in_value();
        let mut wanted: Vec<TermId> = Vec::new();
        for (id, term) in formula.terms() {
            if reached[id.0 as usize] && varies[id.0 as usize] {
                let operands = term.kind.operands().into_iter();
                wanted.extend(operands.filter(|operand| !varies[operand.0 as usize]));
            }
        }
        if !varies[formula.result().0 as usize] {
            wanted.push(formula.result());
        }
        wanted.sort_unstable();
        wanted.dedup();
        let given = |id: TermId| match &formula.term(id).kind {
            TermKind::Weight => Some(&layer.weight),
            TermKind::Bias => layer.bias.as_ref(),
            TermKind::Param(index) => parameters.get(*index),
            _ => zeros.get(&id),
        };
        let found = evaluate_terms(formula, &wanted, (None, None), &given, &Factors::default())?;
        let mut values = vec![None; varies.len()];
        for (id, value) in wanted.into_iter().zip(found) {
            values[id.0 as usize] = Some(value);
        }
        Ok(Constants {
            formula,
            varies,
            values,
        })
    }

    /// The result for rows of the input, whose base output (or the result of the method before) is
    /// `output`.
    pub fn rows(&self, layer: &Layer, input: &Rows, output: Dense) -> Result<Dense, String> {
        let reached = self.formula.reachable_in_value();
        let mut block = Block {
            constants: self,
            layer,
            input,
            values: vec![None; self.varies.len()],
        };
        let result = self.formula.result();
        if !self.varies[result.0 as usize] {
            return Ok(repeated(self.constant(result)?, input.count()));
        }
        let mut output = Some(output);
        for (id, term) in self.formula.terms() {
            if !reached[id.0 as usize] || !self.varies[id.0 as usize] {
                continue;
            }
            let value = match &term.kind {
                // Read where it is used: a row of the identity is never built for a product.
                TermKind::Input => continue,
                TermKind::Output => output.take().ok_or("the output is one term")?,
                _ => block.term(id, term)?,
            };
            block.values[id.0 as usize] = Some(value);
        }
        match block.values[result.0 as usize].take() {
            Some(value) => Ok(value),
            None => Ok(input.dense()),
        }
    }

    fn constant(&self, id: TermId) -> Result<&Dense, String> {
        self.values[id.0 as usize]
            .as_ref()
            .ok_or_else(|| "a constant has not been computed".to_owned())
    }
}

/// Zeros that are the same in every row.
fn zero(term: &Term) -> Dense {
    let dims = term.ty.dims.iter();
    let dims: Vec<usize> = dims.map(|dim| dim.known().unwrap_or(1) as usize).collect();
    let data = vec![0.0; dims.iter().product()];
    Dense { dims, data }
}

fn repeated(value: &Dense, rows: usize) -> Dense {
    Dense {
        dims: std::iter::once(rows)
            .chain(value.dims.iter().copied())
            .collect(),
        data: value.data.repeat(rows),
    }
}

/// One block of rows: terms that vary have the rows as an axis in front.
struct Block<'a> {
    constants: &'a Constants<'a>,
    layer: &'a Layer,
    input: &'a Rows,
    values: Vec<Option<Dense>>,
}

impl Block<'_> {
    fn varies(&self, id: TermId) -> bool {
        self.constants.varies[id.0 as usize]
    }

    /// A varying term is the input itself, or the input unchanged.
    fn is_input(&self, id: TermId) -> bool {
        match &self.constants.formula.term(id).kind {
            TermKind::Input => true,
            TermKind::StopGradient(a) | TermKind::Dropout(a, _) => self.is_input(*a),
            _ => false,
        }
    }

    fn value(&self, id: TermId) -> Result<Cow<'_, Dense>, String> {
        if !self.varies(id) {
            return self.constants.constant(id).map(Cow::Borrowed);
        }
        match &self.values[id.0 as usize] {
            Some(value) => Ok(Cow::Borrowed(value)),
            None if self.is_input(id) => Ok(Cow::Owned(self.input.dense())),
            None => Err("a term has no value yet".to_owned()),
        }
    }

    fn term(&self, id: TermId, term: &Term) -> Result<Dense, String> {
        let map = |a: TermId, f: &dyn Fn(f64) -> f64| -> Result<Dense, String> {
            let value = self.value(a)?;
            Ok(Dense {
                dims: value.dims.clone(),
                data: value.data.iter().map(|v| f(*v)).collect(),
            })
        };
        match &term.kind {
            TermKind::StopGradient(a) | TermKind::Dropout(a, _) => Ok(self.value(*a)?.into_owned()),
            TermKind::Noise { like: Some(a), .. } => map(*a, &|_| 0.0),
            TermKind::Unary(function, a) => map(*a, &|x| function.of_number(x)),
            TermKind::Binary(function, a, b) => self.binary(*function, *a, *b),
            TermKind::MatMul(a, b) if self.varies(*a) && !self.varies(*b) => {
                let matrix = self.value(*b)?;
                match self.input {
                    Rows::Unit(range, _) if self.is_input(*a) && self.layer.groups == 1 => {
                        Ok(numeric::slice(&matrix, 0, (range.start, range.end)))
                    }
                    // Every group has rows of the matrix, and a patch, of its own.
                    _ if self.is_input(*a) && self.layer.groups > 1 => {
                        let turned = numeric::transpose(&matrix);
                        Ok(products(&self.input.dense(), &turned, self.layer.groups))
                    }
                    _ => Ok(numeric::matmul(&*self.value(*a)?, &matrix)),
                }
            }
            TermKind::Reduce {
                function,
                over: Axis::Dim(axis),
                keep,
                operand,
            } => Ok(numeric::reduce(
                *function,
                axis + 1,
                *keep,
                &*self.value(*operand)?,
            )),
            TermKind::Slice {
                operand,
                axis,
                start,
                end,
            } => {
                let bound = |dim: &crate::ty::Dim| dim.known().unwrap_or(0) as usize;
                let bounds = (bound(start), bound(end));
                Ok(numeric::slice(&*self.value(*operand)?, axis + 1, bounds))
            }
            TermKind::Reshape(a) => {
                let value = self.value(*a)?;
                let sizes = term.ty.dims.iter().map(|d| d.known().unwrap_or(1) as usize);
                Ok(Dense {
                    dims: std::iter::once(self.input.count()).chain(sizes).collect(),
                    data: value.data.clone(),
                })
            }
            TermKind::Base {
                input,
                weight,
                bias,
            } => self.base(*input, *weight, *bias),
            _ => self.row_by_row(id, term),
        }
    }

    fn base(
        &self,
        input: TermId,
        weight: Option<TermId>,
        bias: Option<TermId>,
    ) -> Result<Dense, String> {
        let own = |id: Option<TermId>| match id {
            Some(id) if self.varies(id) => Err("a weight that depends on the input".to_owned()),
            Some(id) => self.constants.constant(id).map(Some),
            None => Ok(None),
        };
        let weight = own(weight)?.unwrap_or(&self.layer.weight);
        let bias = own(bias)?.or(self.layer.bias.as_ref());
        if self.is_input(input) {
            return Ok(self.layer.applied(self.input, weight, bias));
        }
        let rows = match self.varies(input) {
            true => self.value(input)?.into_owned(),
            false => repeated(self.constants.constant(input)?, self.input.count()),
        };
        Ok(self.layer.applied(&Rows::Dense(rows), weight, bias))
    }

    fn binary(&self, function: Binary, a: TermId, b: TermId) -> Result<Dense, String> {
        let rank = |id: TermId| self.constants.formula.term(id).ty.dims.len();
        let (left, right) = (self.value(a)?, self.value(b)?);
        // The rows stay in front of all other axes, also where the other side has more of them.
        let aligned = |id: TermId, other: TermId, value: &Dense| {
            let missing = rank(other).saturating_sub(rank(id));
            let mut dims = value.dims.clone();
            if self.varies(id) && missing > 0 {
                dims.splice(1..1, std::iter::repeat_n(1, missing));
            }
            dims
        };
        let (da, db) = (aligned(a, b, &left), aligned(b, a, &right));
        if let Some(quick) = quick(function, (&left.data, &da), (&right.data, &db)) {
            return Ok(quick);
        }
        let with = |value: &Dense, dims: Vec<usize>| Dense {
            dims,
            data: value.data.clone(),
        };
        Ok(numeric::binary(
            function,
            &with(&left, da),
            &with(&right, db),
        ))
    }

    /// A term without a form for blocks, as it is for a value without leading axes.
    fn row_by_row(&self, id: TermId, term: &Term) -> Result<Dense, String> {
        let operands = term.kind.operands();
        let mut blocks = Vec::new();
        for operand in &operands {
            blocks.push((*operand, self.value(*operand)?));
        }
        let mut data = Vec::new();
        let mut dims = Vec::new();
        for row in 0..self.input.count() {
            let of_row: Vec<(TermId, Dense)> = blocks
                .iter()
                .map(|(operand, value)| (*operand, self.row(*operand, value, row)))
                .collect();
            let given = |wanted: TermId| {
                let found = of_row.iter().find(|(operand, _)| *operand == wanted);
                found.map(|(_, value)| value)
            };
            let value = evaluate_terms(
                self.constants.formula,
                &[id],
                (None, None),
                &given,
                &Factors::default(),
            )?;
            let value = value.into_iter().next().ok_or("a term has one value")?;
            dims = value.dims;
            data.extend(value.data);
        }
        dims.insert(0, self.input.count());
        Ok(Dense { dims, data })
    }

    fn row(&self, id: TermId, value: &Dense, row: usize) -> Dense {
        if !self.varies(id) {
            return value.clone();
        }
        let dims = value.dims[1..].to_vec();
        let size: usize = dims.iter().product();
        Dense {
            dims,
            data: value.data[row * size..(row + 1) * size].to_vec(),
        }
    }
}

/// The cases that need no arithmetic of positions: the same shape, one number, or the last axes.
fn quick(
    function: Binary,
    (a, da): (&[f64], &[usize]),
    (b, db): (&[f64], &[usize]),
) -> Option<Dense> {
    let ends = |long: &[usize], short: &[usize]| long.ends_with(short);
    let apply = |a: f64, b: f64| numeric::apply(function, a, b);
    let (dims, data) = if da == db || b.len() == 1 && da.len() >= db.len() || ends(da, db) {
        let other = b.iter().cycle();
        (
            da,
            a.iter().zip(other).map(|(a, b)| apply(*a, *b)).collect(),
        )
    } else if a.len() == 1 && db.len() >= da.len() || ends(db, da) {
        let other = a.iter().cycle();
        (db, other.zip(b).map(|(a, b)| apply(*a, *b)).collect())
    } else {
        return None;
    };
    Some(Dense {
        dims: dims.to_vec(),
        data,
    })
}
