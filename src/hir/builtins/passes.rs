//! What the model gives without the adapter: the output of a module in a first pass.

use super::{Builtin, Call, Result};
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Lead, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::ty::Dim;

/// What the module gives when the base model runs on the same inputs.
pub(super) fn first_pass(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.hook.is_some() {
        let why = "a hook sees the method's own tensors, and nothing of the model";
        return Err(cx.fail(errors::not_available(call.span, builtin.name, why)));
    }
    if cx.starting {
        return Err(cx.fail(errors::in_start_value(call.span, builtin.name)));
    }
    let (path, features) = module(cx, builtin, call)?;
    let ty = TermType::of(Lead::Full, [features]);
    Ok(Value::Term(cx.term(
        TermKind::FirstPass(path),
        ty,
        call.span,
    )?))
}

/// How many features the module gives.
pub(super) fn features_of(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let (_, features) = module(cx, builtin, call)?;
    Ok(Value::Int(features))
}

/// The path of the module that a call names, and its features: without a model, a symbol for them.
fn module(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<(String, Dim)> {
    let span = call.positional[0].span;
    let Value::String(name) = cx.expr(call.positional[0])? else {
        return Err(cx.refuse_call(call, builtin));
    };
    let Some(outputs) = cx.facts.outputs.clone() else {
        let features = Dim::symbol(&format!("features_of({name})"));
        return Ok((name, features));
    };
    match outputs.named(&name).as_slice() {
        [] => Err(cx.fail(errors::no_such_module(span, &name, outputs.paths()))),
        [module] => Ok((module.path().to_owned(), Dim::from(module.features))),
        several => {
            let paths: Vec<&str> = several.iter().map(|module| module.path()).collect();
            Err(cx.fail(errors::several_modules(span, &name, &paths)))
        }
    }
}
