//! Functions of the site: the base module, and sizes over all sites.

use super::{Builtin, Call, Result};
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Lead, TermId, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::syntax::ast::Expr;
use crate::ty::Dim;

pub(super) fn base(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.facts.kind == "cache" {
        let why = "a cache holds what earlier tokens gave, and computes nothing";
        return Err(cx.fail(errors::not_available(call.span, "base", why)));
    }
    let input = cx.operand(call, 0)?;
    let wanted = cx.facts.input_type();
    let ty = cx.ty(input);
    if !ty.is_same(&wanted) {
        let span = call.positional[0].span;
        return Err(cx.fail(errors::wrong_type(
            span,
            &format!("the module's input {wanted}"),
            &format!("{ty}"),
        )));
    }
    let weight_type = cx.facts.weight_type();
    let weight = replacement(cx, call, "weight", &weight_type)?;
    let bias_type = TermType::of(Lead::None, [cx.facts.output.clone()]);
    let bias = replacement(cx, call, "bias", &bias_type)?;
    let result = TermType::of(Lead::Full, [cx.facts.output.clone()]);
    Ok(Value::Term(cx.term(
        TermKind::Base {
            input,
            weight,
            bias,
        },
        result,
        call.span,
    )?))
}

fn replacement(
    cx: &mut Eval<'_>,
    call: &Call<'_>,
    name: &'static str,
    wanted: &TermType,
) -> Result<Option<TermId>> {
    let Some(expr) = call.named.get(name) else {
        return Ok(None);
    };
    let value = cx.expr(expr)?;
    let id = cx.as_term(value, expr.span)?;
    let ty = cx.ty(id);
    if !ty.is_same(wanted) {
        return Err(cx.fail(errors::wrong_type(
            expr.span,
            &format!("a {name} {wanted}"),
            &format!("{ty}"),
        )));
    }
    Ok(Some(id))
}

/// The quotient of two sizes, rounded up.
pub(super) fn ceil_div(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (a, b) = (
        cx.size(call.positional[0])?,
        cx.positive(call.positional[1])?,
    );
    Ok(Value::Int((a + b.clone() - Dim::from(1)).floor_div(&b)))
}

/// `most` if it divides the size; else the largest divisor that is neither above it nor above the root. A size that is not known has a symbol for it.
pub(super) fn divisor(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let size = cx.positive(call.positional[0])?;
    let most = match call.named.get("most") {
        Some(expr) => Some(cx.positive(expr)?),
        None => None,
    };
    let Some(n) = size.known() else {
        return Ok(Value::Int(Dim::symbol(&format!("divisor({size})"))));
    };
    let most = most.map(|most| most.known().unwrap_or(1));
    let found = match most {
        Some(most) if n % most == 0 => most,
        _ => {
            let most = most.unwrap_or(n).min(n.isqrt());
            (1..=most).rev().find(|m| n % m == 0).unwrap_or(1)
        }
    };
    Ok(Value::Int(Dim::from(found)))
}

/// A number rounded down, as a size. One that is not known has a symbol for it.
pub(super) fn whole(cx: &mut Eval<'_>, _: &Builtin, call: &Call<'_>) -> Result<Value> {
    let value = cx.expr(call.positional[0])?;
    match (&value, value.number()) {
        (Value::Int(_), _) => Ok(value),
        (_, Some(Some(number))) if number.is_finite() && number.abs() < 1e15 => {
            Ok(Value::Int(Dim::from(number.floor() as i64)))
        }
        (_, Some(None)) => {
            let span = call.span;
            Ok(Value::Int(Dim::symbol(&format!("whole({})", span.start))))
        }
        _ => Err(cx.fail(errors::wrong_type(
            call.positional[0].span,
            "a number below 1e15, above -1e15",
            value.describe(),
        ))),
    }
}

pub(super) fn length(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    match cx.expr(call.positional[0])? {
        Value::List(items) => Ok(Value::Int(Dim::from(items.len() as i64))),
        _ => Err(cx.refuse_call(call, builtin)),
    }
}

/// The largest size over all sites of the `adapt` statement, or the sum of all.
pub(super) fn largest(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let value = cx.expr(call.positional[0])?;
    match value {
        Value::Int(dim) if dim == cx.facts.input && is_name(call.positional[0], "in") => {
            Ok(Value::Int(match builtin.name {
                "total" => cx.facts.total_input.clone(),
                _ => cx.facts.largest_input.clone(),
            }))
        }
        Value::Int(dim) if dim == cx.facts.output && is_name(call.positional[0], "out") => {
            Ok(Value::Int(match builtin.name {
                "total" => cx.facts.total_output.clone(),
                _ => cx.facts.largest_output.clone(),
            }))
        }
        _ => Err(cx.fail(errors::wrong_arguments(
            call.span,
            builtin.name,
            builtin.signature,
        ))),
    }
}

fn is_name(expr: &Expr, name: &str) -> bool {
    matches!(&expr.kind, crate::syntax::ast::ExprKind::Name(found) if found == name)
}
