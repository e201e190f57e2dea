//! Functions that name, move and look up axes.

use super::{Builtin, Call, Result};
use crate::diag::Span;
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Axis, Equation, Lead, TermId, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::syntax::ast::Expr;
use crate::ty::Dim;
use std::collections::BTreeMap;

impl Eval<'_> {
    pub(super) fn refuse_call(
        &mut self,
        call: &Call<'_>,
        builtin: &Builtin,
    ) -> crate::diag::Reported {
        self.fail(errors::wrong_arguments(
            call.span,
            builtin.name,
            builtin.signature,
        ))
    }

    /// Sums of products over letters. Leading axes are those of the operands that have them, which
    /// must be the same.
    pub(super) fn einsum(
        &mut self,
        equation: Equation,
        operands: Vec<TermId>,
        span: Span,
    ) -> Result<TermId> {
        let mut sizes: BTreeMap<char, (Dim, TermId)> = BTreeMap::new();
        let mut lead: Option<TermId> = None;
        for (letters, id) in equation.operands.iter().zip(&operands) {
            let ty = self.ty(*id);
            if ty.lead != Lead::None {
                if let Some(first) = lead
                    && self.ty(first).lead != ty.lead
                {
                    return Err(self.misfit("einsum", first, *id, span));
                }
                lead = Some(*id);
            }
            if ty.dims.len() != letters.len() {
                let wanted = format!("a tensor with an axis for each letter of `{letters}`");
                return Err(self.fail(errors::wrong_type(span, &wanted, &format!("{ty}"))));
            }
            for (letter, dim) in letters.chars().zip(ty.dims) {
                match sizes.get(&letter) {
                    Some((known, first)) if !known.is_same_if_even(&dim) => {
                        let first = *first;
                        return Err(self.misfit("einsum", first, *id, span));
                    }
                    Some(_) => {}
                    None => drop(sizes.insert(letter, (dim, *id))),
                }
            }
        }
        let mut dims = Vec::new();
        for letter in equation.result.chars() {
            let (dim, _) = &sizes[&letter];
            dims.push(dim.clone());
        }
        let lead = lead.map_or(Lead::None, |id| self.ty(id).lead);
        let ty = TermType::of(lead, dims);
        self.term(TermKind::Einsum { equation, operands }, ty, span)
    }

    /// An equation that is part of the compiler.
    pub(super) fn product(
        &mut self,
        equation: &str,
        operands: &[TermId],
        span: Span,
    ) -> Result<TermId> {
        let equation = parsed(equation).expect("equations of the compiler are sound");
        self.einsum(equation, operands.to_vec(), span)
    }

    fn misfit(&mut self, what: &str, a: TermId, b: TermId, span: Span) -> crate::diag::Reported {
        let ((sa, ta), (sb, tb)) = ((self.span_of(a), self.ty(a)), (self.span_of(b), self.ty(b)));
        self.fail(errors::shapes_do_not_fit(span, what, (sa, &ta), (sb, &tb)))
    }

    /// The axis that a call names, the last one without.
    fn named_axis(
        &mut self,
        call: &Call<'_>,
        builtin: &Builtin,
        ty: &TermType,
        default: i64,
    ) -> Result<usize> {
        let axis = match call.named.get("axis") {
            Some(expr) => self.axis(expr, ty)?,
            None if ty.dims.is_empty() => return Err(self.refuse_call(call, builtin)),
            None => Axis::Dim(default.rem_euclid(ty.dims.len() as i64) as usize),
        };
        match axis {
            Axis::Dim(axis) => Ok(axis),
            Axis::Batch | Axis::Tokens => Err(self.refuse_call(call, builtin)),
        }
    }

    pub(super) fn positive(&mut self, expr: &Expr) -> Result<Dim> {
        let size = self.size(expr)?;
        if size.known().is_some_and(|size| size < 1) {
            return Err(self.fail(errors::not_a_size(expr.span, &format!("{size}"))));
        }
        Ok(size)
    }
}

/// `ab, bc -> ac`; no letter twice in a part, and none in the result that no operand has.
fn parsed(text: &str) -> Option<Equation> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, result) = text.split_once("->")?;
    let operands: Vec<String> = left.split(',').map(str::to_owned).collect();
    let once = |part: &str| {
        part.chars().all(|c| c.is_ascii_lowercase())
            && part.chars().all(|c| part.matches(c).count() == 1)
    };
    let known = result.chars().all(|c| left.contains(c));
    let sound = known && once(result) && operands.iter().all(|operand| once(operand));
    sound.then(|| Equation {
        operands,
        result: result.to_owned(),
    })
}

pub(super) fn einsum(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let Value::String(text) = cx.expr(call.positional[0])? else {
        return Err(cx.refuse_call(call, builtin));
    };
    let equation = parsed(&text).filter(|e| e.operands.len() + 1 == call.positional.len());
    let Some(equation) = equation else {
        let wanted = "an equation such as `ab, bc -> ac`, lower-case letters, one part for every operand, no letter twice in a part";
        let span = call.positional[0].span;
        return Err(cx.fail(errors::wrong_type(span, wanted, &format!("`{text}`"))));
    };
    let operands: Result<Vec<TermId>> = (1..call.positional.len())
        .map(|index| cx.operand(call, index))
        .collect();
    Ok(Value::Term(cx.einsum(equation, operands?, call.span)?))
}

pub(super) fn permute(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let rank = cx.ty(id).dims.len();
    let Value::List(items) = cx.expr(call.positional[1])? else {
        return Err(cx.refuse_call(call, builtin));
    };
    let letters: String = (b'a'..=b'z').take(rank).map(char::from).collect();
    let mut result = String::new();
    for item in &items {
        let axis = cx.as_size(item, call.positional[1].span)?;
        let axis = axis.known().and_then(|axis| usize::try_from(axis).ok());
        result.extend(axis.and_then(|axis| letters.chars().nth(axis)));
    }
    let mut sorted: Vec<char> = result.chars().collect();
    sorted.sort_unstable();
    if items.len() != rank || sorted.into_iter().collect::<String>() != letters {
        let wanted = format!("a list with each of the axes 0 to {} once", rank.max(1) - 1);
        let span = call.positional[1].span;
        return Err(cx.fail(errors::wrong_type(span, &wanted, "another list")));
    }
    let equation = Equation {
        operands: vec![letters],
        result,
    };
    Ok(Value::Term(cx.einsum(equation, vec![id], call.span)?))
}

pub(super) fn gather(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (table, positions) = (cx.operand(call, 0)?, cx.operand(call, 1)?);
    let (from, at) = (cx.ty(table), cx.ty(positions));
    let axis = cx.named_axis(call, builtin, &from, 0)?;
    let fits = match at.lead {
        Lead::None => true,
        _ => from.lead == Lead::None && axis == 0,
    };
    if !fits {
        return Err(cx.misfit("gather", table, positions, call.span));
    }
    let mut dims = from.dims.clone();
    dims.splice(axis..=axis, at.dims.iter().cloned());
    let ty = TermType::of(from.lead.max(at.lead), dims);
    Ok(Value::Term(cx.term(
        TermKind::Gather {
            table,
            positions,
            axis,
        },
        ty,
        call.span,
    )?))
}

/// Positions `[…, k]` are places of the first `k` axes: values are `[…]` and what is behind these.
pub(super) fn scatter(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (values, positions) = (cx.operand(call, 0)?, cx.operand(call, 1)?);
    let Value::List(items) = cx.expr(call.positional[2])? else {
        return Err(cx.refuse_call(call, builtin));
    };
    let dims: Result<Vec<Dim>> = items
        .iter()
        .map(|item| cx.as_size(item, call.positional[2].span))
        .collect();
    let target = TermType::of(Lead::None, dims?);
    let mut wanted = cx.ty(positions);
    let axes = wanted.dims.pop().and_then(|axes| axes.known());
    let rest = axes
        .and_then(|axes| usize::try_from(axes).ok())
        .and_then(|axes| target.dims.get(axes..));
    let Some(rest) = rest else {
        return Err(cx.misfit("scatter", values, positions, call.span));
    };
    wanted.dims.extend(rest.iter().cloned());
    if wanted.lead != Lead::None || !wanted.is_same(&cx.ty(values)) {
        return Err(cx.misfit("scatter", values, positions, call.span));
    }
    let kind = TermKind::Scatter { values, positions };
    Ok(Value::Term(cx.term(kind, target, call.span)?))
}

pub(super) fn pad(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let operand = cx.operand(call, 0)?;
    let mut ty = cx.ty(operand);
    let axis = cx.named_axis(call, builtin, &ty, -1)?;
    let mut size = |name| match call.named.get(name) {
        Some(expr) => {
            let size = cx.size(expr)?;
            match size.known() {
                Some(..0) => Err(cx.fail(errors::not_a_size(expr.span, &format!("{size}")))),
                _ => Ok(size),
            }
        }
        None => Ok(Dim::from(0)),
    };
    let (before, after) = (size("before")?, size("after")?);
    if before.known() == Some(0) && after.known() == Some(0) {
        return Ok(Value::Term(operand));
    }
    ty.dims[axis] = ty.dims[axis].clone() + before.clone() + after.clone();
    let kind = TermKind::Pad {
        operand,
        axis,
        before,
        after,
    };
    Ok(Value::Term(cx.term(kind, ty, call.span)?))
}

/// `top` and `top_at`: of the last axis.
pub(super) fn top(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let count = cx.positive(call.positional[1])?;
    let mut ty = cx.ty(id);
    let Some(last) = ty.dims.last_mut() else {
        return Err(cx.refuse_call(call, builtin));
    };
    if (last.clone() - count.clone())
        .known()
        .is_some_and(|rest| rest < 0)
    {
        let (wanted, of) = (
            format!("number {count} of the largest"),
            format!("an axis of {last}"),
        );
        return Err(cx.fail(errors::outside(call.span, &wanted, &of)));
    }
    *last = count;
    let kind = match builtin.name {
        "top" => TermKind::Largest(id),
        _ => TermKind::LargestAt(id),
    };
    Ok(Value::Term(cx.term(kind, ty, call.span)?))
}
