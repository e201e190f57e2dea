//! Operators on tensors, and the types of what they give.

use super::{Eval, Result};
use crate::diag::Span;
use crate::hir::errors;
use crate::hir::formula::{Axis, Binary, Lead, Reduce, TermId, TermKind, TermType, Unary};
use crate::hir::scalar::Value;
use crate::syntax::ast::{self, Expr, Subscript};
use crate::ty::Dim;

impl Eval<'_> {
    /// An elementwise operation with broadcasting; a factor of 1 and a summand of 0 disappear.
    pub fn elementwise(
        &mut self,
        function: Binary,
        a: TermId,
        b: TermId,
        span: Span,
    ) -> Result<TermId> {
        let (ta, tb) = (self.ty(a), self.ty(b));
        let Some(ty) = broadcast(&ta, &tb) else {
            let (sa, sb) = (self.span_of(a), self.span_of(b));
            return Err(self.fail(errors::shapes_do_not_fit(
                span,
                "elementwise operation",
                (sa, &ta),
                (sb, &tb),
            )));
        };
        let number = |id: TermId| match self.formula.term(id).kind {
            TermKind::Number(value) => Some(value),
            _ => None,
        };
        match (function, number(a), number(b)) {
            (Binary::Multiply, Some(1.0), _) => return Ok(b),
            (Binary::Multiply | Binary::Divide | Binary::Power, _, Some(1.0)) => return Ok(a),
            _ => {}
        }
        self.term(TermKind::Binary(function, a, b), ty, span)
    }

    pub fn matmul(&mut self, a: TermId, b: TermId, span: Span) -> Result<TermId> {
        let (ta, tb) = (self.ty(a), self.ty(b));
        let Some(ty) = matmul_type(&ta, &tb) else {
            let (sa, sb) = (self.span_of(a), self.span_of(b));
            return Err(self.fail(errors::shapes_do_not_fit(
                span,
                "matrix product",
                (sa, &ta),
                (sb, &tb),
            )));
        };
        self.term(TermKind::MatMul(a, b), ty, span)
    }

    /// a − b · ⌊a / b⌋, which has the sign of `b`.
    pub(super) fn remainder(&mut self, a: TermId, b: TermId, span: Span) -> Result<TermId> {
        let quotient = self.elementwise(Binary::Divide, a, b, span)?;
        let ty = self.ty(quotient);
        let whole = self.term(TermKind::Unary(Unary::Floor, quotient), ty, span)?;
        let taken = self.elementwise(Binary::Multiply, b, whole, span)?;
        self.elementwise(Binary::Subtract, a, taken, span)
    }

    /// A reduction; `over` is `tokens` (the axis stays, with size 1), `batch` (no axis in front stays) or one of
    /// the dims.
    pub fn reduce(
        &mut self,
        function: Reduce,
        operand: TermId,
        over: Axis,
        keep: bool,
        span: Span,
    ) -> Result<TermId> {
        let mut ty = self.ty(operand);
        match over {
            Axis::Batch => ty.lead = Lead::None,
            Axis::Tokens => ty.lead = Lead::Pooled,
            Axis::Dim(axis) if keep => ty.dims[axis] = Dim::from(1),
            Axis::Dim(axis) => {
                ty.dims.remove(axis);
            }
        }
        self.term(
            TermKind::Reduce {
                function,
                over,
                keep,
                operand,
            },
            ty,
            span,
        )
    }

    pub(super) fn field(&mut self, base: &Expr, field: &ast::Ident, span: Span) -> Result<Value> {
        if field.node != "T" {
            return Err(self.fail(errors::unknown_name(field.span, &field.node, ["T"])));
        }
        let value = self.expr(base)?;
        let id = self.as_term(value, base.span)?;
        let ty = self.ty(id);
        if ty.lead != Lead::None || ty.dims.len() != 2 {
            return Err(self.fail(errors::wrong_type(base.span, "a matrix", &format!("{ty}"))));
        }
        if let TermKind::Transpose(inner) = self.formula.term(id).kind {
            return Ok(Value::Term(inner));
        }
        let ty = TermType::of(Lead::None, [ty.dims[1].clone(), ty.dims[0].clone()]);
        Ok(Value::Term(self.term(TermKind::Transpose(id), ty, span)?))
    }

    pub(super) fn index(
        &mut self,
        base: &Expr,
        subscripts: &[Subscript],
        span: Span,
    ) -> Result<Value> {
        let value = self.expr(base)?;
        if let Value::List(items) = &value {
            return self.list_item(items, subscripts, span);
        }
        let mut id = self.as_term(value, base.span)?;
        let rank = self.ty(id).dims.len();
        if subscripts.len() > rank {
            let ty = self.ty(id);
            return Err(self.fail(errors::too_many_subscripts(span, subscripts.len(), &ty)));
        }
        let mut axis = 0;
        for subscript in subscripts {
            match subscript {
                Subscript::Range { start, end, span } => {
                    id = self.slice(id, axis, start.as_ref(), end.as_ref(), *span)?;
                    axis += 1;
                }
                Subscript::At(position) => {
                    let start = self.size(position)?;
                    let end = start.clone() + Dim::from(1);
                    id = self.slice_to(id, axis, start, end, position.span)?;
                    let mut ty = self.ty(id);
                    ty.dims.remove(axis);
                    id = self.term(TermKind::Reshape(id), ty, span)?;
                }
            }
        }
        Ok(Value::Term(id))
    }

    fn list_item(
        &mut self,
        items: &[Value],
        subscripts: &[Subscript],
        span: Span,
    ) -> Result<Value> {
        let [Subscript::At(position)] = subscripts else {
            return Err(self.fail(errors::wrong_type(
                span,
                "one position of a list",
                "a range",
            )));
        };
        let position = self.size(position)?;
        let item = position
            .known()
            .and_then(|at| items.get(usize::try_from(at).ok()?));
        match item {
            Some(item) => Ok(item.clone()),
            None => Err(self.fail(errors::outside(
                span,
                &format!("position {position}"),
                &format!("a list of {}", items.len()),
            ))),
        }
    }

    fn slice(
        &mut self,
        id: TermId,
        axis: usize,
        start: Option<&Expr>,
        end: Option<&Expr>,
        span: Span,
    ) -> Result<TermId> {
        let full = self.ty(id).dims[axis].clone();
        let start = match start {
            Some(start) => self.size(start)?,
            None => Dim::from(0),
        };
        let end = match end {
            Some(end) => self.size(end)?,
            None => full.clone(),
        };
        self.slice_to(id, axis, start, end, span)
    }

    fn slice_to(
        &mut self,
        id: TermId,
        axis: usize,
        start: Dim,
        end: Dim,
        span: Span,
    ) -> Result<TermId> {
        let mut ty = self.ty(id);
        let full = ty.dims[axis].clone();
        if start.known() == Some(0) && end == full {
            return Ok(id);
        }
        let size = end.clone() - start.clone();
        let outside = (full.clone() - end.clone())
            .known()
            .is_some_and(|rest| rest < 0);
        if size.known().is_some_and(|size| size < 1)
            || start.known().is_some_and(|s| s < 0)
            || outside
        {
            return Err(self.fail(errors::outside(
                span,
                &format!("{start}..{end}"),
                &format!("an axis of {full}"),
            )));
        }
        ty.dims[axis] = size;
        self.term(
            TermKind::Slice {
                operand: id,
                axis,
                start,
                end,
            },
            ty,
            span,
        )
    }
}

/// The type of an elementwise result: dims aligned at the right, sizes equal or 1; leading axes
/// stand in front of all dims of the other side.
fn broadcast(a: &TermType, b: &TermType) -> Option<TermType> {
    let (long, short) = if (a.lead, a.dims.len()) >= (b.lead, b.dims.len()) {
        (a, b)
    } else {
        (b, a)
    };
    if long.lead != Lead::None && short.lead != Lead::None && long.dims.len() != short.dims.len() {
        return None;
    }
    let mut short_dims = short.dims.as_slice();
    while short_dims.len() > long.dims.len() {
        if short_dims[0].known() != Some(1) {
            return None;
        }
        short_dims = &short_dims[1..];
    }
    let offset = long.dims.len() - short_dims.len();
    let mut dims = long.dims.clone();
    for (index, dim) in short_dims.iter().enumerate() {
        let slot = &mut dims[offset + index];
        if slot.known() == Some(1) {
            *slot = dim.clone();
        } else if dim.known() != Some(1) && !slot.is_same_if_even(dim) {
            return None;
        }
    }
    Some(TermType {
        lead: a.lead.max(b.lead),
        dims,
    })
}

fn matmul_type(a: &TermType, b: &TermType) -> Option<TermType> {
    let inner = a.dims.last()?;
    if b.lead != Lead::None {
        return None;
    }
    let mut dims = a.dims.clone();
    dims.pop();
    match b.dims.as_slice() {
        [k, n] if inner.is_same_if_even(k) => dims.push(n.clone()),
        [k] if inner.is_same_if_even(k) && a.lead == Lead::None && a.dims.len() == 2 => {}
        _ => return None,
    }
    Some(TermType { lead: a.lead, dims })
}
