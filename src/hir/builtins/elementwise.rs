//! Functions of every element, of tensors and of plain numbers alike.

use super::{Builtin, Call, Result};
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Activation, Binary, TermKind, Unary};
use crate::hir::scalar::Value;

pub(super) fn elementwise(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let function = unary(builtin.name);
    let value = cx.expr(call.positional[0])?;
    if let Some(number) = value.number() {
        return Ok(Value::Float(number.map(|x| function.of_number(x))));
    }
    let id = cx.as_term(value, call.positional[0].span)?;
    let ty = cx.ty(id);
    Ok(Value::Term(cx.term(
        TermKind::Unary(function, id),
        ty,
        call.span,
    )?))
}

fn unary(name: &str) -> Unary {
    match name {
        "exp" => Unary::Exp,
        "log" => Unary::Log,
        "sqrt" => Unary::Sqrt,
        "abs" => Unary::Abs,
        "sin" => Unary::Sin,
        "cos" => Unary::Cos,
        "erf" => Unary::Erf,
        "floor" => Unary::Floor,
        "sign" => Unary::Sign,
        "relu" => Unary::Activation(Activation::Relu),
        "sigmoid" => Unary::Activation(Activation::Sigmoid),
        "tanh" => Unary::Activation(Activation::Tanh),
        "gelu" => Unary::Activation(Activation::Gelu),
        "silu" => Unary::Activation(Activation::Silu),
        "softplus" => Unary::Activation(Activation::Softplus),
        other => unreachable!("`{other}` is in the table of functions without an operation"),
    }
}

pub(super) fn extremum(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let smaller = builtin.name == "min";
    let a = cx.expr(call.positional[0])?;
    let b = cx.expr(call.positional[1])?;
    match (&a, &b) {
        (Value::Int(a), Value::Int(b)) => {
            Ok(Value::Int(if smaller { a.smaller(b) } else { a.larger(b) }))
        }
        (Value::Term(_), _) | (_, Value::Term(_)) => {
            let a = cx.as_term(a, call.positional[0].span)?;
            let b = cx.as_term(b, call.positional[1].span)?;
            let function = if smaller { Binary::Min } else { Binary::Max };
            Ok(Value::Term(cx.elementwise(function, a, b, call.span)?))
        }
        _ => match (a.number(), b.number()) {
            (Some(x), Some(y)) => Ok(Value::Float(
                x.zip(y)
                    .map(|(x, y)| if smaller { x.min(y) } else { x.max(y) }),
            )),
            _ => Err(cx.fail(errors::wrong_type(
                call.span,
                "numbers or tensors",
                a.describe(),
            ))),
        },
    }
}
