//! Reductions, and functions that look along the tokens.

use super::{Builtin, Call, Result};
use crate::diag::Span;
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Axis, Binary, Lead, Reduce, Sequence, TermId, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::ty::Dim;

pub(super) fn reduce(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    let Some(over) = call.named.get("over") else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            builtin.name,
            builtin.signature,
        )));
    };
    let axis = cx.axis(over, &ty)?;
    let keep = match call.named.get("keep") {
        Some(expr) => cx.condition(expr)?.unwrap_or(false),
        None => false,
    };
    let function = match builtin.name {
        "sum" => Reduce::Sum,
        "mean" => Reduce::Mean,
        "norm" => Reduce::Norm,
        other => unreachable!("`{other}` is in the table of reductions without an operation"),
    };
    let Some(mask) = cx.mask(call)? else {
        return Ok(Value::Term(cx.reduce(function, id, axis, keep, call.span)?));
    };
    if axis != Axis::Tokens || function == Reduce::Norm {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            builtin.name,
            "mean(x, over = tokens, mask = mask)",
        )));
    }
    let masked = cx.elementwise(Binary::Multiply, id, mask, call.span)?;
    let total = cx.reduce(Reduce::Sum, masked, axis, keep, call.span)?;
    if function == Reduce::Sum {
        return Ok(Value::Term(total));
    }
    let count = cx.reduce(Reduce::Sum, mask, axis, keep, call.span)?;
    let mean = divide_by_count(cx, total, count, call.span)?;
    Ok(Value::Term(mean))
}

/// A row without any counted token divides by 1, not by 0.
fn divide_by_count(cx: &mut Eval<'_>, total: TermId, count: TermId, span: Span) -> Result<TermId> {
    let one = cx.number_term(1.0, span)?;
    let count = cx.elementwise(Binary::Max, count, one, span)?;
    cx.elementwise(Binary::Divide, total, count, span)
}

pub(super) fn running_mean(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.over_tokens(call)?;
    let ty = cx.ty(id);
    let mask = cx.mask(call)?;
    let (values, count) = match mask {
        Some(mask) => {
            let masked = cx.elementwise(Binary::Multiply, id, mask, call.span)?;
            let ty = cx.ty(mask);
            (
                masked,
                cx.term(TermKind::CumulativeSum(mask), ty, call.span)?,
            )
        }
        None => {
            let positions = TermType::of(Lead::Full, [Dim::from(1)]);
            (id, cx.term(TermKind::Positions, positions, call.span)?)
        }
    };
    let total = cx.term(TermKind::CumulativeSum(values), ty, call.span)?;
    let mean = match mask {
        Some(_) => divide_by_count(cx, total, count, call.span)?,
        None => cx.elementwise(Binary::Divide, total, count, call.span)?,
    };
    Ok(Value::Term(mean))
}

/// With a mask: the last token that counts, wherever the padding stands.
pub(super) fn last(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.over_tokens(call)?;
    let Some(mask) = cx.mask(call)? else {
        let mut ty = cx.ty(id);
        ty.lead = Lead::Pooled;
        return Ok(Value::Term(cx.term(
            TermKind::LastToken(id),
            ty,
            call.span,
        )?));
    };
    let ty = cx.ty(mask);
    let seen = cx.term(TermKind::CumulativeSum(mask), ty.clone(), call.span)?;
    let total = cx.reduce(Reduce::Sum, mask, Axis::Tokens, false, call.span)?;
    let complete = cx.term(TermKind::Equal(seen, total), ty, call.span)?;
    let chosen = cx.elementwise(Binary::Multiply, complete, mask, call.span)?;
    let picked = cx.elementwise(Binary::Multiply, id, chosen, call.span)?;
    Ok(Value::Term(cx.reduce(
        Reduce::Sum,
        picked,
        Axis::Tokens,
        false,
        call.span,
    )?))
}

pub(super) fn cumsum(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.over_tokens(call)?;
    let ty = cx.ty(id);
    Ok(Value::Term(cx.term(
        TermKind::CumulativeSum(id),
        ty,
        call.span,
    )?))
}

/// Of rows: a row for every new token, at a cache one for each of its heads.
pub(super) fn prepend(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let kind = cx.facts.kind.clone();
    let in_cache = kind == "cache";
    if !in_cache && kind != "embedding" {
        let why = format!(
            "tokens are put in front at an embedding or a cache, not at a layer of kind `{kind}`"
        );
        return Err(cx.fail(errors::not_available(call.span, builtin.name, &why)));
    }
    let (rows, operand) = (cx.operand(call, 0)?, cx.operand(call, 1)?);
    let (rows_ty, ty) = (cx.ty(rows), cx.ty(operand));
    let output = TermType::of(Lead::Full, [cx.facts.output.clone()]);
    if !ty.is_same(&output) {
        let span = call.positional[1].span;
        let wanted = format!("what the module gives, {output}");
        return Err(cx.fail(errors::wrong_type(span, &wanted, &ty.to_string())));
    }
    let fits = match rows_ty.dims.as_slice() {
        [_, features] => !in_cache && *features == ty.dims[0],
        [heads, _, features] => in_cache && *heads == cx.facts.input && *features == ty.dims[0],
        _ => false,
    };
    if rows_ty.lead != Lead::None || !fits {
        let wanted = match in_cache {
            true => format!("rows [{}, n, {}]", cx.facts.input, ty.dims[0]),
            false => format!("rows [n, {}]", ty.dims[0]),
        };
        let span = call.positional[0].span;
        return Err(cx.fail(errors::wrong_type(span, &wanted, &rows_ty.to_string())));
    }
    let kind = TermKind::Prepended {
        rows,
        operand,
        in_cache,
    };
    Ok(Value::Term(cx.term(kind, ty, call.span)?))
}

/// The ids are those that the model reads, so that the mask is the model's, too.
pub(super) fn since_last(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.hook.is_some() {
        let why = "a hook sees the method's own tensors, and nothing of the module";
        return Err(cx.fail(errors::not_available(call.span, builtin.name, why)));
    }
    if cx.starting {
        return Err(cx.fail(errors::in_start_value(call.span, builtin.name)));
    }
    let masked = match cx.mask(call)? {
        Some(mask) if *cx.kind_of(mask) == TermKind::Mask => true,
        Some(_) => return Err(cx.refuse_call(call, builtin)),
        None => false,
    };
    let span = call.positional[0].span;
    let Value::List(items) = cx.expr(call.positional[0])? else {
        return Err(cx.refuse_call(call, builtin));
    };
    let mut ids = Vec::with_capacity(items.len());
    for item in &items {
        let id = cx.as_size(item, span)?;
        // One that is not known without a model counts as 0 there.
        match id.known().unwrap_or(0) {
            id if id < 0 => return Err(cx.fail(errors::not_an_id(span, &id.to_string()))),
            id => ids.push(id),
        }
    }
    if ids.is_empty() {
        return Err(cx.fail(errors::not_an_id(span, "an empty list")));
    }
    let ty = TermType::of(Lead::Full, [Dim::from(1)]);
    let kind = TermKind::SinceLast(Sequence { ids, masked });
    Ok(Value::Term(cx.term(kind, ty, call.span)?))
}
