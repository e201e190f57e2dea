//! Factors of a matrix, which start values alone are made of.

use super::{Builtin, Call, Result};
use crate::hir::errors;
use crate::hir::eval::Eval;
use crate::hir::formula::{Factor, Lead, TermKind, TermType};
use crate::hir::scalar::Value;
use crate::ty::Dim;

pub(super) fn factor(cx: &mut Eval<'_>, builtin: &Builtin, call: &Call<'_>) -> Result<Value> {
    if !cx.starting {
        let why = "it is computed once, when the model is compiled: in a start value";
        return Err(cx.fail(errors::not_available(call.span, builtin.name, why)));
    }
    let id = cx.operand(call, 0)?;
    let ty = cx.ty(id);
    let [rows, columns] = match ty.dims.as_slice() {
        [m, n] if ty.lead == Lead::None => [m.clone(), n.clone()],
        _ => {
            let span = call.positional[0].span;
            return Err(cx.fail(errors::wrong_type(span, "a matrix", &format!("{ty}"))));
        }
    };
    let smaller = rows.smaller(&columns);
    let count = match call.positional.get(1) {
        Some(expr) => cx.positive(expr)?,
        None => smaller.clone(),
    };
    let most = match builtin.name {
        "top_places" => ty.elements(),
        "clusters" => rows.clone(),
        _ => smaller,
    };
    if (most.clone() - count.clone())
        .known()
        .is_some_and(|rest| rest < 0)
    {
        let (wanted, of) = (
            format!("number {count}"),
            format!("the {most} that there are"),
        );
        return Err(cx.fail(errors::outside(call.span, &wanted, &of)));
    }
    let (factor, dims) = match builtin.name {
        "left_singular" => (Factor::LeftSingular, vec![rows, count]),
        "singular_values" => (Factor::SingularValues, vec![count]),
        "right_singular" => (Factor::RightSingular, vec![count, columns]),
        "qr_q" => (Factor::Q, vec![rows, count]),
        "qr_r" => (Factor::R, vec![count, columns]),
        "clusters" => (Factor::Clusters, vec![rows, count]),
        "top_places" => (Factor::LargestPlaces, vec![count, Dim::from(2)]),
        other => unreachable!("`{other}` is in the table of functions without a factor"),
    };
    let ty = TermType::of(Lead::None, dims);
    Ok(Value::Term(cx.term(
        TermKind::Factor(factor, id),
        ty,
        call.span,
    )?))
}
