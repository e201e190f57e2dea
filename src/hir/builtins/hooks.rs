//! What hooks see, and start values in part.

use super::{Builtin, Call, Result};
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Lead, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::syntax::ast::{Event, ExprKind};
use crate::ty::Dim;

/// The gradient of a parameter, which is named.
pub(super) fn gradient(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.event().is_none() {
        return Err(cx.fail(errors::outside_of_hooks(call.span, builtin.name)));
    }
    match &call.positional[0].kind {
        ExprKind::Name(name) => cx.gradient(name, call.positional[0].span),
        _ => Err(cx.refuse_call(call, builtin)),
    }
}

/// A parameter before the update, which is named.
pub(super) fn before(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.event() != Some(Event::Step) {
        let why = "it is there behind an update alone, inside `on step { … }`";
        return Err(cx.fail(errors::not_available(call.span, builtin.name, why)));
    }
    match &call.positional[0].kind {
        ExprKind::Name(name) => cx.before(name, call.positional[0].span),
        _ => Err(cx.refuse_call(call, builtin)),
    }
}

/// A vector or a number at all modules of the statement, in their order: in hooks and start values.
pub(super) fn everywhere(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.event().is_none() && !cx.starting {
        let why = "values of all modules are joined in hooks and in start values";
        return Err(cx.fail(errors::not_available(call.span, builtin.name, why)));
    }
    let id = cx.operand(call, 0)?;
    if cx.starting && !cx.formula.is_of_the_module_alone(id) {
        let span = call.positional[0].span;
        return Err(cx.fail(errors::joined_too_early(span)));
    }
    let ty = cx.ty(id);
    if ty.lead != Lead::None || ty.dims.len() > 1 {
        let (span, found) = (call.positional[0].span, format!("{ty}"));
        return Err(cx.fail(errors::wrong_type(span, "a vector or a number", &found)));
    }
    cx.reads_place = true;
    let own = ty.dims.first().cloned().unwrap_or(Dim::from(1));
    let all = TermType::of(Lead::None, [own * cx.facts.place.sites.clone()]);
    Ok(Value::Term(cx.term(
        TermKind::Everywhere(id),
        all,
        call.span,
    )?))
}
