//! What terms compute, as text.

use super::formula::TermKind;

impl TermKind {
    /// What it computes of its operands, which are left out: equal texts, equal operands and equal types
    /// give equal values. Parameters, and what the module has, need more than this.
    pub(crate) fn text(&self) -> String {
        match self {
            TermKind::Number(value) => format!("number {:x}", value.to_bits()),
            TermKind::Reduce {
                function,
                over,
                keep,
                ..
            } => format!("reduce {function:?} {over:?} {keep}"),
            TermKind::Slice {
                axis, start, end, ..
            } => format!("slice {axis} {start} {end}"),
            TermKind::Concat { axis, .. } => format!("concat {axis}"),
            TermKind::Einsum { equation, .. } => format!("einsum {equation}"),
            TermKind::Gather { axis, .. } => format!("gather {axis}"),
            TermKind::Pad {
                axis,
                before,
                after,
                ..
            } => format!("pad {axis} {before} {after}"),
            TermKind::Numbers(values) => format!("numbers {values:?}"),
            TermKind::FirstPass(module) => format!("first_pass {module}"),
            TermKind::Module { path, .. } => format!("module {path}"),
            TermKind::SinceLast(sequence) => format!("since_last {sequence:?}"),
            TermKind::Factor(factor, _) => format!("factor {factor:?}"),
            TermKind::Unary(function, _) => format!("unary {function:?}"),
            TermKind::Binary(function, ..) => format!("binary {function:?}"),
            TermKind::Dropout(_, p) => format!("dropout {p}"),
            TermKind::Calibrated(statistic) => format!("calibrated {statistic:?}"),
            TermKind::Base { weight, bias, .. } => {
                format!("base {} {}", weight.is_some(), bias.is_some())
            }
            other => {
                let name = format!("{other:?}");
                name.split(['(', ' ']).next().unwrap_or_default().to_owned()
            }
        }
    }
}
