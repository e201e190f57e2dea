//! Tensors made of nothing but numbers and sizes.

use super::{Builtin, Call, Result};
use crate::diag::Span;
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Lead, TermId, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::ty::Dim;

impl Eval<'_> {
    /// 0, 1, 2, … of these dims, along the only one that is not 1.
    pub(super) fn counted(&mut self, size: &Dim, dims: Vec<Dim>, span: Span) -> Result<TermId> {
        let row = TermType::of(Lead::None, [size.clone()]);
        let counted = self.term(TermKind::Iota, row, span)?;
        match dims.len() {
            1 => Ok(counted),
            _ => self.term(
                TermKind::Reshape(counted),
                TermType::of(Lead::None, dims),
                span,
            ),
        }
    }

    /// The identity matrix.
    pub(super) fn identity(&mut self, size: &Dim, span: Span) -> Result<TermId> {
        let row = self.counted(size, vec![size.clone()], span)?;
        let column = self.counted(size, vec![size.clone(), Dim::from(1)], span)?;
        let ty = TermType::of(Lead::None, [size.clone(), size.clone()]);
        self.term(TermKind::Equal(column, row), ty, span)
    }
}

pub(super) fn iota(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let size = cx.positive(call.positional[0])?;
    Ok(Value::Term(cx.counted(
        &size,
        vec![size.clone()],
        call.span,
    )?))
}

pub(super) fn eye(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let size = cx.positive(call.positional[0])?;
    Ok(Value::Term(cx.identity(&size, call.span)?))
}

/// A list of numbers as a tensor. One that is not known without a model counts as 0 there.
pub(super) fn vector(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let span = call.positional[0].span;
    let Value::List(items) = cx.expr(call.positional[0])? else {
        return Err(cx.refuse_call(call, builtin));
    };
    let mut numbers = Vec::with_capacity(items.len());
    for item in &items {
        match item.number() {
            Some(number) => {
                let number = number.unwrap_or(0.0);
                if !number.is_finite() {
                    return Err(cx.fail(errors::not_finite(span, number)));
                }
                numbers.push(number);
            }
            None => return Err(cx.fail(errors::wrong_type(span, "numbers", item.describe()))),
        }
    }
    if numbers.is_empty() {
        return Err(cx.fail(errors::not_a_size(span, "an empty list")));
    }
    let ty = TermType::of(Lead::None, [Dim::from(numbers.len() as i64)]);
    Ok(Value::Term(cx.term(
        TermKind::Numbers(numbers),
        ty,
        call.span,
    )?))
}
