//! What the functions ask of their arguments.

use super::{Call, Result};
use crate::diag::Span;
use crate::hir::errors;
use crate::hir::eval::{CALL_DEPTH, Eval};
use crate::hir::formula::{Axis, Lead, TermId, TermKind, TermType};
use crate::hir::scalar::{NamedAxis, Value};
use crate::syntax::ast::Expr;
use crate::ty::Dim;

impl Eval<'_> {
    pub(super) fn enter(&mut self, span: Span, name: &str) -> Result<()> {
        if self.depth >= CALL_DEPTH {
            return Err(self.fail(errors::recursion(span, name)));
        }
        self.depth += 1;
        Ok(())
    }

    pub(super) fn operand(&mut self, call: &Call<'_>, index: usize) -> Result<TermId> {
        let expr = call.positional[index];
        let value = self.expr(expr)?;
        self.as_term(value, expr.span)
    }

    pub(super) fn axis(&mut self, expr: &Expr, ty: &TermType) -> Result<Axis> {
        let value = self.expr(expr)?;
        let rank = ty.dims.len() as i64;
        match value {
            Value::Axis(NamedAxis::Tokens) if ty.lead != Lead::None => Ok(Axis::Tokens),
            Value::Axis(NamedAxis::Batch) if ty.lead != Lead::None => Ok(Axis::Batch),
            Value::Axis(NamedAxis::Tokens | NamedAxis::Batch) => {
                let found = format!("{ty}");
                Err(self.fail(errors::wrong_type(
                    expr.span,
                    "a tensor with a token axis",
                    &found,
                )))
            }
            Value::Axis(NamedAxis::Features) if rank > 0 => Ok(Axis::Dim(rank as usize - 1)),
            Value::Int(dim) if dim.known().is_some_and(|at| (-rank..rank).contains(&at)) => {
                let at = dim.known().expect("checked");
                Ok(Axis::Dim(at.rem_euclid(rank) as usize))
            }
            other => {
                let found = format!("{} for {ty}", other.describe());
                Err(self.fail(errors::wrong_type(
                    expr.span,
                    "`tokens`, `batch`, `features` or the number of an axis",
                    &found,
                )))
            }
        }
    }

    /// The mask argument as a term, if there is one.
    pub(super) fn mask(&mut self, call: &Call<'_>) -> Result<Option<TermId>> {
        let Some(expr) = call.named.get("mask") else {
            return Ok(None);
        };
        let value = self.expr(expr)?;
        let id = self.as_term(value, expr.span)?;
        let ty = self.ty(id);
        if ty != TermType::of(Lead::Full, [Dim::from(1)]) {
            return Err(self.fail(errors::wrong_type(
                expr.span,
                "a mask […, tokens, 1]",
                &format!("{ty}"),
            )));
        }
        Ok(Some(id))
    }

    /// The operand of a function over tokens, checked to have them.
    pub(super) fn over_tokens(&mut self, call: &Call<'_>) -> Result<TermId> {
        let id = self.operand(call, 0)?;
        let ty = self.ty(id);
        match call.named.get("over") {
            Some(expr) => match self.axis(expr, &ty)? {
                Axis::Tokens if ty.lead == Lead::Full => Ok(id),
                _ => Err(self.fail(errors::wrong_type(
                    expr.span,
                    "`tokens` of a tensor that has them",
                    &format!("{ty}"),
                ))),
            },
            None if ty.lead == Lead::Full => Ok(id),
            None => Err(self.fail(errors::wrong_type(
                call.span,
                "a tensor with a token axis",
                &format!("{ty}"),
            ))),
        }
    }

    pub(super) fn number_term(&mut self, value: f64, span: Span) -> Result<TermId> {
        self.term(TermKind::Number(value), TermType::scalar(), span)
    }
}
