//! Functions that rearrange a tensor, and marks on it for training.

use super::{Builtin, Call, Result};
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Axis, Lead, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::ty::Dim;

pub(super) fn softmax(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    if ty.dims.is_empty() {
        return Err(cx.fail(errors::wrong_type(
            call.span,
            "a tensor with at least one dim",
            &format!("{ty}"),
        )));
    }
    Ok(Value::Term(cx.term(
        TermKind::Softmax(id),
        ty,
        call.span,
    )?))
}

pub(super) fn reshape(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    let shape = cx.expr(call.positional[1])?;
    let Value::List(items) = shape else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "reshape",
            builtin.signature,
        )));
    };
    let dims: Result<Vec<Dim>> = items
        .iter()
        .map(|item| cx.as_size(item, call.positional[1].span))
        .collect();
    let wanted = TermType {
        lead: ty.lead,
        dims: dims?,
    };
    if !ty.elements().is_same_if_even(&wanted.elements()) {
        let (operand, target) = (call.positional[0].span, call.positional[1].span);
        return Err(cx.fail(errors::shapes_do_not_fit(
            call.span,
            "reshape",
            (operand, &ty),
            (target, &wanted),
        )));
    }
    Ok(Value::Term(cx.term(
        TermKind::Reshape(id),
        wanted,
        call.span,
    )?))
}

pub(super) fn concat(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let Value::List(items) = cx.expr(call.positional[0])? else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "concat",
            builtin.signature,
        )));
    };
    let mut operands = Vec::new();
    for item in items {
        operands.push(cx.as_term(item, call.positional[0].span)?);
    }
    let Some(first) = operands.first() else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "concat",
            builtin.signature,
        )));
    };
    let mut ty = cx.ty(*first);
    let axis = match call.named.get("axis") {
        Some(expr) => cx.axis(expr, &ty)?,
        None => Axis::Dim(0),
    };
    let Axis::Dim(axis) = axis else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "concat",
            builtin.signature,
        )));
    };
    if ty.dims.is_empty() {
        return Err(cx.fail(errors::wrong_type(
            call.span,
            "tensors with at least one dim",
            &format!("{ty}"),
        )));
    }
    for operand in &operands[1..] {
        let other = cx.ty(*operand);
        let fits = other.lead == ty.lead
            && other.dims.len() == ty.dims.len()
            && (0..ty.dims.len()).all(|i| i == axis || ty.dims[i].is_same_if_even(&other.dims[i]));
        if !fits {
            let (a, b) = (cx.span_of(*first), cx.span_of(*operand));
            return Err(cx.fail(errors::shapes_do_not_fit(
                call.span,
                "concat",
                (a, &ty),
                (b, &other),
            )));
        }
        ty.dims[axis] = ty.dims[axis].clone() + other.dims[axis].clone();
    }
    Ok(Value::Term(cx.term(
        TermKind::Concat { axis, operands },
        ty,
        call.span,
    )?))
}

pub(super) fn stop_gradient(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    Ok(Value::Term(cx.term(
        TermKind::StopGradient(id),
        ty,
        call.span,
    )?))
}

pub(super) fn noise(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.event().is_some() {
        return Err(cx.fail(errors::in_hook(call.span, builtin.name)));
    }
    let asked = call.positional[0];
    match cx.expr(asked)? {
        Value::List(items) => {
            let mut dims = Vec::with_capacity(items.len());
            for item in &items {
                let size = cx.as_size(item, asked.span)?;
                if size.known().is_some_and(|size| size < 1) {
                    return Err(cx.fail(errors::not_a_size(asked.span, &format!("{size}"))));
                }
                dims.push(size);
            }
            cx.noise(None, TermType::of(Lead::None, dims), call.span)
        }
        value => {
            let id = cx.as_term(value, asked.span)?;
            cx.noise(Some(id), cx.ty(id), call.span)
        }
    }
}

pub(super) fn dropout(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.hook.is_some() {
        return Err(cx.fail(errors::in_hook(call.span, builtin.name)));
    }
    let id = cx.operand(call, 0)?;
    let Some(expr) = call.named.get("p") else {
        return Err(cx.fail(errors::wrong_arguments(
            call.span,
            "dropout",
            builtin.signature,
        )));
    };
    let p = cx.expr(expr)?;
    let Some(p) = p.number().flatten() else {
        return Err(cx.fail(errors::wrong_type(expr.span, "a probability", p.describe())));
    };
    if p == 0.0 {
        return Ok(Value::Term(id));
    }
    let ty = cx.ty(id);
    Ok(Value::Term(cx.term(
        TermKind::Dropout(id, p),
        ty,
        call.span,
    )?))
}
