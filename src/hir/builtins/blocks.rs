//! Matrices with a structure, written with the operators that there are.

use super::{Builtin, Call, Result};
use crate::diag::{Reported, Span};
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Axis, Binary, Lead, Reduce, TermId, TermKind, TermType, Unary};
use crate::hir::scalar::Value;
use crate::ty::Dim;

impl Eval<'_> {
    /// Says that the first argument is not what a function takes.
    fn unlike(&mut self, call: &Call<'_>, id: TermId, wanted: &str) -> Reported {
        let (span, ty) = (call.positional[0].span, self.ty(id));
        self.fail(errors::wrong_type(span, wanted, &format!("{ty}")))
    }

    /// The dims of a tensor without leading axes and with that many dims.
    fn plain<const N: usize>(
        &mut self,
        call: &Call<'_>,
        id: TermId,
        wanted: &str,
    ) -> Result<[Dim; N]> {
        let ty = self.ty(id);
        match <[Dim; N]>::try_from(ty.dims) {
            Ok(dims) if ty.lead == Lead::None => Ok(dims),
            _ => Err(self.unlike(call, id, wanted)),
        }
    }

    fn reshaped(&mut self, id: TermId, dims: Vec<Dim>, span: Span) -> Result<TermId> {
        let lead = self.ty(id).lead;
        self.term(TermKind::Reshape(id), TermType { lead, dims }, span)
    }

    fn function(&mut self, function: Unary, id: TermId, span: Span) -> Result<TermId> {
        let ty = self.ty(id);
        self.term(TermKind::Unary(function, id), ty, span)
    }
}

/// The blocks A\[i, j\] · B.
pub(super) fn kron(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (a, b) = (cx.operand(call, 0)?, cx.operand(call, 1)?);
    let [m, n] = cx.plain(call, a, "a matrix")?;
    let [p, q] = cx.plain(call, b, "a matrix")?;
    let product = cx.product("ij, kl -> ikjl", &[a, b], call.span)?;
    Ok(Value::Term(cx.reshaped(
        product,
        vec![m * p, n * q],
        call.span,
    )?))
}

/// `[k, a, b]` to `[k · a, k · b]`.
pub(super) fn block_diagonal(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let blocks = cx.operand(call, 0)?;
    let [k, a, b] = cx.plain(call, blocks, "blocks [count, rows, columns]")?;
    let eye = cx.identity(&k, call.span)?;
    let spread = cx.product("kab, kl -> kalb", &[blocks, eye], call.span)?;
    let dims = vec![k.clone() * a, k * b];
    Ok(Value::Term(cx.reshaped(spread, dims, call.span)?))
}

/// `[…, n]` to `[…, n, n]`: entry i, j of a matrix is entry i − j of its vector, counted around.
pub(super) fn circulant(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (id, span) = (cx.operand(call, 0)?, call.span);
    let ty = cx.ty(id);
    let Some(n) = ty.dims.last().cloned().filter(|_| ty.lead == Lead::None) else {
        return Err(cx.unlike(call, id, "a tensor without batch axes"));
    };
    let row = cx.counted(&n, vec![n.clone()], span)?;
    let column = cx.counted(&n, vec![n.clone(), Dim::from(1)], span)?;
    let difference = cx.elementwise(Binary::Subtract, column, row, span)?;
    // Where it is negative, n more: the sign is −1 there, and relu of its opposite 1.
    let sign = cx.function(Unary::Sign, difference, span)?;
    let below = cx.function(Unary::Negate, sign, span)?;
    let below = cx.function(Unary::Activation(crate::hir::Activation::Relu), below, span)?;
    let size = match n.known() {
        Some(n) => cx.number_term(n as f64, span)?,
        // Nothing is computed without a model.
        None => cx.number_term(f64::NAN, span)?,
    };
    let around = cx.elementwise(Binary::Multiply, below, size, span)?;
    let positions = cx.elementwise(Binary::Add, difference, around, span)?;
    let axis = ty.dims.len() - 1;
    let mut dims = ty.dims;
    dims.push(n);
    let kind = TermKind::Gather {
        table: id,
        positions,
        axis,
    };
    Ok(Value::Term(cx.term(
        kind,
        TermType::of(Lead::None, dims),
        span,
    )?))
}

/// `[k, n (n − 1) / 2]` to `[k, n, n]`: the entries above the diagonal, row by row; below it their
/// opposites.
pub(super) fn skew(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (id, span) = (cx.operand(call, 0)?, call.span);
    let [count, packed] = cx.plain(call, id, "rows of packed entries [count, n (n - 1) / 2]")?;
    let n = cx.positive(call.positional[1])?;
    let wanted = n.clone() * (n.clone() - Dim::from(1));
    if !(packed.clone() * Dim::from(2)).is_same_if_even(&wanted) {
        let wanted = format!("n (n - 1) / 2 entries for n = {n}");
        return Err(cx.unlike(call, id, &wanted));
    }
    // Entry i, j is number i n − i (i + 1) / 2 + j − i − 1 of those above the diagonal.
    let row = cx.counted(&n, vec![n.clone(), Dim::from(1)], span)?;
    let column = cx.counted(&n, vec![n.clone()], span)?;
    let distance = cx.elementwise(Binary::Subtract, column, row, span)?;
    let sign = cx.function(Unary::Sign, distance, span)?;
    let above = cx.function(Unary::Activation(crate::hir::Activation::Relu), sign, span)?;
    let factor = cx.number_term(n.known().map_or(f64::NAN, |n| n as f64 - 1.5), span)?;
    let half = cx.number_term(0.5, span)?;
    let one = cx.number_term(1.0, span)?;
    // i (n − 3/2 − i / 2) + j − 1
    let halved = cx.elementwise(Binary::Multiply, row, half, span)?;
    let slope = cx.elementwise(Binary::Subtract, factor, halved, span)?;
    let start = cx.elementwise(Binary::Multiply, row, slope, span)?;
    let shifted = cx.elementwise(Binary::Subtract, column, one, span)?;
    let number = cx.elementwise(Binary::Add, start, shifted, span)?;
    let positions = cx.elementwise(Binary::Multiply, number, above, span)?;
    let ty = TermType::of(Lead::None, [count, n.clone(), n]);
    let kind = TermKind::Gather {
        table: id,
        positions,
        axis: 1,
    };
    let spread = cx.term(kind, ty, span)?;
    let upper = cx.elementwise(Binary::Multiply, spread, above, span)?;
    let lower = cx.product("kij -> kji", &[upper], span)?;
    Ok(Value::Term(cx.elementwise(
        Binary::Subtract,
        upper,
        lower,
        span,
    )?))
}

/// Steps beyond those that bring the residual from 1 − 1/n under 1.
const REFINEMENTS: u32 = 14;

/// The inverses of matrices `[n, n]` or `[k, n, n]` by Newton's iteration (Schulz, 1933): X becomes
/// X (2 I − A X), from Aᵀ / ‖A‖², which converges for every invertible A. Only the last step has a
/// gradient: there A X is the identity, so it has the gradient of the inverse.
pub(super) fn inverse(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (given, span) = (cx.operand(call, 0)?, call.span);
    let ty = cx.ty(given);
    let square = matches!(ty.dims.as_slice(), [.., a, b] if a.is_same_if_even(b));
    if ty.lead != Lead::None || !square || ty.dims.len() > 3 {
        return Err(cx.unlike(call, given, "square matrices [n, n] or [k, n, n]"));
    }
    let n = ty.dims[ty.dims.len() - 1].clone();
    let a = match ty.dims.len() {
        2 => cx.reshaped(given, vec![Dim::from(1), n.clone(), n.clone()], span)?,
        _ => given,
    };
    let eye = cx.identity(&n, span)?;
    let two = cx.number_term(2.0, span)?;
    let double = cx.elementwise(Binary::Multiply, eye, two, span)?;
    let fixed = stopped(cx, a, span)?;
    let lengths = cx.reduce(Reduce::Norm, fixed, Axis::Dim(2), true, span)?;
    let length = cx.reduce(Reduce::Norm, lengths, Axis::Dim(1), true, span)?;
    let square = cx.elementwise(Binary::Multiply, length, length, span)?;
    let turned = cx.product("kij -> kji", &[fixed], span)?;
    let mut x = cx.elementwise(Binary::Divide, turned, square, span)?;
    let size = n.known().unwrap_or(1).max(1) as u64;
    for _ in 0..(u64::BITS - size.leading_zeros() + REFINEMENTS) {
        x = newton(cx, fixed, x, double, span)?;
    }
    let x = stopped(cx, x, span)?;
    let x = newton(cx, a, x, double, span)?;
    Ok(Value::Term(match ty.dims.len() {
        2 => cx.reshaped(x, ty.dims, span)?,
        _ => x,
    }))
}

fn newton(cx: &mut Eval<'_>, a: TermId, x: TermId, double: TermId, span: Span) -> Result<TermId> {
    let product = cx.product("kij, kjl -> kil", &[a, x], span)?;
    let rest = cx.elementwise(Binary::Subtract, double, product, span)?;
    cx.product("kij, kjl -> kil", &[x, rest], span)
}

fn stopped(cx: &mut Eval<'_>, id: TermId, span: Span) -> Result<TermId> {
    let ty = cx.ty(id);
    cx.term(TermKind::StopGradient(id), ty, span)
}
