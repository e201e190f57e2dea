//! Whether a method merges: is `forward`, as a function of the input, still the same layer with
//! another weight and bias?
//!
//! It is if the result is affine in `x` with coefficients that do not depend on `x`, counting the
//! base output `y` as affine, and if no term looks across tokens.

use super::formula::{Axis, Binary, Formula, Reduce, TermId, TermKind, Unary};
use crate::diag::Span;

/// The answer, with the text that prevents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affine {
    Yes,
    /// The expression at the span is not affine in the module's input.
    No {
        span: Span,
        why: &'static str,
    },
}

/// How a term depends on the module's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Degree {
    Constant,
    Affine,
    Other,
}

/// Decides for the result of a formula.
pub fn is_affine(formula: &Formula) -> Affine {
    let mut degrees: Vec<Degree> = Vec::with_capacity(formula.terms.len());
    let mut blame: Vec<Option<(Span, &'static str)>> = Vec::with_capacity(formula.terms.len());
    for (id, term) in formula.terms() {
        let operands = term.kind.operands();
        let inherited = operands.iter().find_map(|id| blame[id.0 as usize]);
        let is_silent = is_silent(formula, &term.kind) || formula.is_gradient_alone(id);
        let (degree, why) = match is_silent {
            true => (Degree::Constant, ""),
            false => degree(&term.kind, &|id: TermId| degrees[id.0 as usize]),
        };
        degrees.push(degree);
        blame.push(match degree {
            Degree::Other => inherited.or(Some((term.span, why))),
            Degree::Constant | Degree::Affine => None,
        });
    }
    match blame[formula.result().0 as usize] {
        Some((span, why)) => Affine::No { span, why },
        None => Affine::Yes,
    }
}

/// Whether a term is noise times something: 0 but in training.
fn is_silent(formula: &Formula, kind: &TermKind) -> bool {
    let is_noise = |id: &TermId| matches!(formula.term(*id).kind, TermKind::Noise { .. });
    matches!(kind, TermKind::Binary(Binary::Multiply, a, b) if is_noise(a) || is_noise(b))
}

fn degree(kind: &TermKind, of: &dyn Fn(TermId) -> Degree) -> (Degree, &'static str) {
    use Degree::{Affine, Constant, Other};
    let highest = kind
        .operands()
        .into_iter()
        .map(of)
        .max()
        .unwrap_or(Constant);
    match kind {
        TermKind::Input | TermKind::Output => (Affine, ""),
        // Only in training is it anything but 0.
        TermKind::Noise { .. } => (Constant, ""),
        TermKind::Mask | TermKind::Positions => (Other, "it depends on the position of a token"),
        TermKind::SinceLast(_) => (Other, "it depends on the ids of the tokens"),
        TermKind::FirstPass(_) => (Other, "it depends on a first pass of the whole model"),
        TermKind::Query => (Other, "it depends on the query of an attention"),
        TermKind::Weight
        | TermKind::Bias
        | TermKind::Param(_)
        | TermKind::Gradient(_)
        | TermKind::Before(_)
        | TermKind::State(_)
        | TermKind::Step
        | TermKind::Number(_)
        | TermKind::Numbers(_)
        | TermKind::Drawn(_)
        | TermKind::Calibrated(_)
        | TermKind::Iota => (Constant, ""),
        _ if highest == Constant => (Constant, ""),
        _ if highest == Other => (Other, ""),
        // From here on the input is affine in x.
        TermKind::Unary(Unary::Negate, _)
        | TermKind::Transpose(_)
        | TermKind::Reshape(_)
        | TermKind::Slice { .. }
        | TermKind::Concat { .. }
        | TermKind::Pad { .. }
        | TermKind::StopGradient(_)
        | TermKind::Module { .. }
        | TermKind::Dropout(..) => (Affine, ""),
        TermKind::Gather { positions, .. } | TermKind::Scatter { positions, .. }
            if of(*positions) == Constant =>
        {
            (Affine, "")
        }
        TermKind::Einsum { operands, .. } => {
            match operands.iter().filter(|id| of(**id) != Constant).count() {
                1 => (Affine, ""),
                _ => (Other, "it multiplies two values that depend on the input"),
            }
        }
        TermKind::Binary(Binary::Add | Binary::Subtract, ..) => (Affine, ""),
        TermKind::Binary(Binary::Multiply, a, b) if of(*a) == Constant || of(*b) == Constant => {
            (Affine, "")
        }
        TermKind::Binary(Binary::Multiply, ..) => {
            (Other, "it multiplies two values that depend on the input")
        }
        TermKind::Binary(Binary::Divide, _, b) if of(*b) == Constant => (Affine, ""),
        TermKind::MatMul(_, b) if of(*b) == Constant => (Affine, ""),
        TermKind::Base { weight, bias, .. }
            if weight.is_none_or(|id| of(id) == Constant)
                && bias.is_none_or(|id| of(id) == Constant) =>
        {
            (Affine, "")
        }
        TermKind::Reduce {
            function: Reduce::Sum | Reduce::Mean,
            over: Axis::Dim(_),
            ..
        } => (Affine, ""),
        TermKind::Reduce {
            over: Axis::Tokens | Axis::Batch,
            ..
        }
        | TermKind::CumulativeSum(_)
        | TermKind::LastToken(_) => (Other, "it mixes the values of several tokens"),
        TermKind::Prepended { .. } => (Other, "it puts tokens in front of the model's own"),
        _ => (Other, "it is not linear in the input"),
    }
}

/// What a formula reads beside the token that it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tokens {
    /// Only the token itself.
    Own,
    /// Earlier tokens too: right under a causal mask, not with a KV cache.
    Earlier,
    /// All tokens, those that the mask leaves out excepted.
    Masked,
    /// All tokens, padding included.
    All,
}

/// The widest reach of any term that the result depends on.
pub fn token_reach(formula: &Formula) -> Tokens {
    let reached = formula.reachable_in_value();
    let masked: Vec<bool> = formula
        .terms
        .iter()
        .scan(Vec::new(), |seen: &mut Vec<bool>, term| {
            let own = term.kind == TermKind::Mask
                || term.kind.operands().iter().any(|id| seen[id.0 as usize]);
            seen.push(own);
            Some(own)
        })
        .collect();
    formula
        .terms()
        .filter(|(id, _)| reached[id.0 as usize])
        .map(|(_, term)| match &term.kind {
            TermKind::Reduce {
                over: Axis::Tokens,
                operand,
                ..
            } if masked[operand.0 as usize] => Tokens::Masked,
            TermKind::Reduce {
                over: Axis::Tokens | Axis::Batch,
                ..
            }
            | TermKind::LastToken(_) => Tokens::All,
            TermKind::SinceLast(sequence) if sequence.masked => Tokens::Masked,
            TermKind::SinceLast(_) => Tokens::All,
            // What the model makes of the others: no more than its mask lets it.
            TermKind::FirstPass(_) => Tokens::Masked,
            TermKind::CumulativeSum(_)
            | TermKind::Positions
            | TermKind::Prepended {
                in_cache: false, ..
            } => Tokens::Earlier,
            _ => Tokens::Own,
        })
        .max()
        .unwrap_or(Tokens::Own)
}
