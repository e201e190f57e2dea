//! What the model gives without the adapter: the output of a module in a first pass.

use super::beside;
use super::{Builtin, Call, Result};
use crate::hir::eval::Eval;
use crate::hir::formula::{Lead, TermKind, TermType};
use crate::hir::scalar::Value;

/// What the module gives when the base model runs on the same inputs.
pub(super) fn first_pass(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    beside::only_in_forward(cx, builtin, call)?;
    let named = beside::module(cx, builtin, call)?;
    let ty = TermType::of(Lead::Full, [named.features]);
    Ok(Value::Term(cx.term(
        TermKind::FirstPass(named.path),
        ty,
        call.span,
    )?))
}
