//! What stands beside the module: other modules of the model, and the query of the attention whose
//! result it reads.

use super::{Builtin, Call, Result};
use crate::diag::Code;
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Lead, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::syntax::ast::Expr;
use crate::ty::{Dim, Proof};

/// A module that a call names.
pub(super) struct Named {
    /// Its path; without a model, as it is written.
    pub path: String,
    /// Without a model, symbols for them.
    pub inputs: Dim,
    pub features: Dim,
    pub is_linear: bool,
}

/// The query of the attention, `[…, tokens, heads, in / heads]`.
pub(super) fn query(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if cx.facts.kind != "linear" {
        let why = "only a linear layer reads what an attention gives";
        return Err(cx.fail(errors::not_available(call.span, builtin.name, why)));
    }
    only_in_forward(cx, builtin, call)?;
    let heads = cx.heads(call.span)?;
    let size = cx.facts.input.floor_div(&heads);
    let ty = TermType::of(Lead::Full, [heads, size]);
    Ok(Value::Term(cx.term(TermKind::Query, ty, call.span)?))
}

/// Another linear module of the base model on another input.
pub(super) fn apply(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    only_in_forward(cx, builtin, call)?;
    let named = module(cx, builtin, call)?;
    let span = call.positional[0].span;
    if !named.is_linear {
        let why = "it is no linear layer";
        return Err(cx.fail(errors::not_applied(span, &named.path, why)));
    }
    let input = cx.operand(call, 1)?;
    let mut ty = cx.ty(input);
    // Without a model two of them may take the same features.
    let fits = |last: &Dim| last.compare(&named.inputs) != Proof::Different;
    match ty.dims.last_mut() {
        Some(last) if fits(last) => *last = named.features,
        _ => {
            let wanted = format!("the input of `{}`, […, {}]", named.path, named.inputs);
            let span = call.positional[1].span;
            return Err(cx.fail(errors::wrong_type(span, &wanted, &format!("{ty}"))));
        }
    }
    let path = named.path;
    Ok(Value::Term(cx.term(
        TermKind::Module { path, input },
        ty,
        call.span,
    )?))
}

/// How many features a module gives, or takes.
pub(super) fn features_of(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    let named = module(cx, builtin, call)?;
    Ok(Value::Int(match builtin.name {
        "inputs_of" => named.inputs,
        _ => named.features,
    }))
}

/// Refuses what is a value of the model in start values and hooks.
pub(super) fn only_in_forward(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<()> {
    if cx.hook.is_some() {
        let why = "a hook sees the method's own tensors, and nothing of the model";
        return Err(cx.fail(errors::not_available(call.span, builtin.name, why)));
    }
    match cx.starting {
        true => Err(cx.fail(errors::in_start_value(call.span, builtin.name))),
        false => Ok(()),
    }
}

/// Of a name behind points, the path it means at a module: `a.b.k` for `.k` at `a.b.c`, `a.k` for `..k`.
fn beside(name: &str, own: &str) -> Option<String> {
    let rest = name.trim_start_matches('.');
    let ups = name.len() - rest.len();
    let parent = (0..ups).fold(own, |path, _| {
        path.rsplit_once('.').map_or("", |(up, _)| up)
    });
    match (ups, parent) {
        (0, _) => None,
        (_, "") => Some(rest.to_owned()),
        (_, parent) => Some(format!("{parent}.{rest}")),
    }
}

/// The module that the first argument of a call names: by its path, by the end of one, or, behind
/// points, by where it stands beside the adapted module.
pub(super) fn module(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Named> {
    let expr: &Expr = call.positional[0];
    let span = expr.span;
    let Value::String(name) = cx.expr(expr)? else {
        return Err(cx.refuse_call(call, builtin));
    };
    let Some(outputs) = cx.facts.outputs.clone() else {
        return Ok(Named {
            inputs: Dim::symbol(&format!("inputs_of({name})")),
            features: Dim::symbol(&format!("features_of({name})")),
            path: name,
            is_linear: true,
        });
    };
    let own = &cx.facts.place.path;
    let beside = beside(&name, own);
    cx.reads_place |= beside.is_some();
    let found = match &beside {
        // One that is called several times is the same at every call.
        Some(path) => outputs.at(path).take(1).collect(),
        None => outputs.named(&name),
    };
    match found.as_slice() {
        [] => {
            let name = beside.as_deref().unwrap_or(&name);
            Err(cx.fail(errors::no_such_module(span, name, outputs.paths())))
        }
        [module] => Ok(Named {
            path: module.path().to_owned(),
            inputs: Dim::from(module.inputs),
            features: Dim::from(module.features),
            is_linear: module.is_linear,
        }),
        several => {
            let paths: Vec<&str> = several.iter().map(|module| module.path()).collect();
            let code = match builtin.name {
                "apply" | "inputs_of" => Code::E0463,
                _ => Code::E0461,
            };
            Err(cx.fail(errors::several_modules(code, span, &name, &paths)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn a_point_goes_one_up() {
        let at = |name: &str| beside(name, "layers.0.attn.o");
        assert_eq!(at("k"), None);
        assert_eq!(at("attn.k"), None);
        assert_eq!(at(".k").as_deref(), Some("layers.0.attn.k"));
        assert_eq!(at("..mlp.up").as_deref(), Some("layers.0.mlp.up"));
        assert_eq!(at("....k").as_deref(), Some("k"));
        assert_eq!(at(".......k").as_deref(), Some("k"));
        assert_eq!(beside(".k", "o").as_deref(), Some("k"));
        assert_eq!(beside(".k", "").as_deref(), Some("k"));
    }
}
