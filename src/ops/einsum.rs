//! Einstein summation.

use super::cx::{InferCx, Outcome, mismatch};
use super::shapes;
use crate::ty::Dim;
use std::collections::BTreeMap;

/// `Y = einsum(equation, x0, x1, …)`: a letter is an axis, `...` stands for axes that broadcast;
/// without `->` the letters that occur once, sorted, are kept.
pub(super) fn einsum(cx: &mut InferCx<'_>) -> Outcome {
    let (Some(dtype), Some(equation)) = (cx.dtype(0), cx.string("equation")) else {
        return Ok(());
    };
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != cx.operand_count() {
        return mismatch!("`{equation}` is for {} operands", terms.len());
    }
    let mut sizes: BTreeMap<char, Dim> = BTreeMap::new();
    let mut rest: Vec<Dim> = Vec::new();
    for (operand, term) in terms.iter().enumerate() {
        let Some(dims) = cx.shape(operand) else {
            cx.set_unranked(0, dtype);
            return Ok(());
        };
        let (before, behind) = term.split_once("...").unwrap_or((term, ""));
        let letters = before.chars().count() + behind.chars().count();
        let extra = match dims.len().checked_sub(letters) {
            Some(0) => 0,
            Some(extra) if term.contains("...") => extra,
            _ => return mismatch!("`{term}` for a tensor with {} axes", dims.len()),
        };
        let start = before.chars().count();
        rest = shapes::broadcast(&rest, &dims[start..start + extra])?;
        let named = dims[..start].iter().chain(&dims[start + extra..]);
        for (letter, dim) in before.chars().chain(behind.chars()).zip(named) {
            let size = match sizes.get(&letter) {
                // Sizes of 1 stretch here, too.
                Some(known) => {
                    let pair = [known.clone()];
                    shapes::broadcast(&pair, std::slice::from_ref(dim))?.remove(0)
                }
                None => dim.clone(),
            };
            sizes.insert(letter, size);
        }
    }
    let implicit;
    let right = match right {
        Some(right) => right,
        None => {
            let once = |letter: &char| left.matches(*letter).count() == 1;
            let letters: String = sizes.keys().copied().filter(once).collect();
            implicit = if left.contains("...") {
                format!("...{letters}")
            } else {
                letters
            };
            &implicit
        }
    };
    let (before, behind) = right.split_once("...").unwrap_or((right, ""));
    let size = |letter: char| sizes.get(&letter).cloned();
    let first: Option<Vec<Dim>> = before.chars().map(size).collect();
    let last: Option<Vec<Dim>> = behind.chars().map(size).collect();
    let (Some(mut dims), Some(last)) = (first, last) else {
        return mismatch!("`{right}` names an axis that no operand has");
    };
    if right.contains("...") {
        dims.extend(rest);
    }
    dims.extend(last);
    cx.set(0, dtype, dims);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    fn equation(text: &str) -> [Attribute; 1] {
        [Attribute::string("equation", text)]
    }

    #[test]
    fn letters_name_axes() {
        let attention = equation("bhid, bhjd -> bhij");
        check_infer(
            "Einsum",
            12,
            &["f32[B, 4, S, 8]", "f32[B, 4, T, 8]"],
            &attention,
            &["f32[B, 4, S, T]"],
        );
        check_infer(
            "Einsum",
            12,
            &["f32[2, N]", "f32[N, M]"],
            &equation("ij,jk"),
            &["f32[2, M]"],
        );
        check_infer("Einsum", 12, &["f32[N, N]"], &equation("ii->"), &["f32[]"]);
    }

    #[test]
    fn an_ellipsis_broadcasts() {
        let batched = equation("...ij,...jk->...ik");
        check_infer(
            "Einsum",
            12,
            &["f32[B, H, S, 8]", "f32[H, 8, T]"],
            &batched,
            &["f32[B, H, S, T]"],
        );
    }

    #[test]
    fn wrong_equations_are_refused() {
        check_mismatch(
            "Einsum",
            12,
            &["f32[2, 3]"],
            &equation("ijk->i"),
            "tensor with 2 axes",
        );
        check_mismatch(
            "Einsum",
            12,
            &["f32[2, 3]"],
            &equation("ij->k"),
            "no operand has",
        );
        check_mismatch(
            "Einsum",
            12,
            &["f32[2, 3]"],
            &equation("ij,jk->ik"),
            "2 operands",
        );
    }
}
