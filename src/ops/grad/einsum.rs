//! Einstein summation.

use super::{GradCx, GradOutcome};
use crate::graph::Attribute;
use crate::ops::build::refuse;
use crate::ty::Dim;
use std::collections::BTreeSet;

/// `y = einsum(terms → result)`: the gradient of an operand is the einsum of `dy` and the other
/// operands to its term. Letters that only this operand has were summed over: they are axes of
/// size 1 first, along which the sweep stretches the gradient.
pub fn einsum(cx: &mut GradCx<'_>) -> GradOutcome {
    let equation: String = cx.node.string("equation").unwrap_or_default().to_owned();
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left.to_owned(), right.to_owned()),
        None => (equation.clone(), implicit(&equation)),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != cx.operand_count() {
        return refuse!("`{equation}` is for {} operands", terms.len());
    }
    if equation.contains('.') {
        return refuse!("`{equation}` has an ellipsis");
    }
    for term in terms.iter().copied().chain([right.as_str()]) {
        if term.chars().collect::<BTreeSet<_>>().len() != term.chars().count() {
            return refuse!("`{equation}` repeats a letter in `{term}`");
        }
    }
    for slot in 0..terms.len() {
        if cx.needs(slot) {
            one(cx, &terms, &right, slot)?;
        }
    }
    Ok(())
}

fn one(cx: &mut GradCx<'_>, terms: &[&str], right: &str, slot: usize) -> GradOutcome {
    let (build, dy) = (cx.build, cx.dy()?);
    let mut sources = vec![right.to_owned()];
    let mut operands = vec![dy];
    for (other, term) in terms.iter().enumerate() {
        if other != slot {
            sources.push((*term).to_owned());
            operands.push(cx.x(other)?);
        }
    }
    let own = terms[slot];
    let known = |letter: &char| sources.iter().any(|source| source.contains(*letter));
    let kept: String = own.chars().filter(known).collect();
    let text = format!("{}->{kept}", sources.join(","));
    let lost: Vec<usize> = own
        .chars()
        .enumerate()
        .filter(|(_, letter)| !known(letter))
        .map(|(axis, _)| axis)
        .collect();
    // An axis of size 1 in this operand alone is stretched by the others: the sweep sums over it.
    let dims: Vec<Dim> = cx.dims(slot)?;
    if dims.len() != own.chars().count() {
        return refuse!("`{own}` is for a tensor with {} axes", dims.len());
    }
    cx.give(slot, || {
        let gradient = build.node(
            "Einsum",
            &operands,
            vec![Attribute::string("equation", &text)],
        );
        gradient.unsqueeze(&lost)
    });
    Ok(())
}

/// The letters that occur once, sorted.
fn implicit(left: &str) -> String {
    let letters: BTreeSet<char> = left.chars().filter(char::is_ascii_alphabetic).collect();
    let once = |letter: &char| left.matches(*letter).count() == 1;
    letters.into_iter().filter(once).collect()
}
