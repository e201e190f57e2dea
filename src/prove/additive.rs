//! Whether what a method changes is the same on any base output, so that two adapters sum.

use crate::hir::{Binary, Formula, TermId, TermKind};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing of the base output.
    Without,
    /// The base output once, plus terms without it.
    Plus,
    Other,
}

/// Whether the result is the base output plus something that does not depend on it.
pub(super) fn is_additive(formula: &Formula) -> bool {
    let mut parts: Vec<Part> = Vec::new();
    for (_, term) in formula.terms() {
        let of = |id: TermId| parts[id.0 as usize];
        let part = match &term.kind {
            TermKind::Output => Part::Plus,
            TermKind::StopGradient(a) => of(*a),
            TermKind::Binary(Binary::Add, a, b) => match (of(*a), of(*b)) {
                (Part::Plus, Part::Without) | (Part::Without, Part::Plus) => Part::Plus,
                (Part::Without, Part::Without) => Part::Without,
                _ => Part::Other,
            },
            TermKind::Binary(Binary::Subtract, a, b) => match (of(*a), of(*b)) {
                (Part::Plus, Part::Without) => Part::Plus,
                (Part::Without, Part::Without) => Part::Without,
                _ => Part::Other,
            },
            kind => {
                let operands = kind.operands();
                match operands.into_iter().all(|id| of(id) == Part::Without) {
                    true => Part::Without,
                    false => Part::Other,
                }
            }
        };
        parts.push(part);
    }
    parts[formula.result().0 as usize] == Part::Plus
}
