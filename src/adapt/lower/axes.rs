//! Named axes, lookups and places as nodes.

use super::Lowering;
use crate::graph::{Attribute, Operand, Tensor};
use crate::hir::{Equation, Lead, Term, TermId, TermKind};
use crate::ops::encode_float;
use crate::ty::DType;

/// ONNX has Einsum, ScatterND and CumSum from these opsets on.
const EINSUM: i64 = 12;
const SCATTER: i64 = 11;
const CUMULATIVE: i64 = 11;

impl Lowering<'_> {
    /// Letters of the equation are lower-case; those of leading axes stand in front in upper case.
    pub(super) fn einsum(&mut self, equation: &Equation, operands: &[TermId]) -> Operand {
        let values: Vec<Operand> = operands.iter().map(|id| self.value(*id)).collect();
        let leads: Vec<bool> = operands
            .iter()
            .map(|id| self.formula.term(*id).ty.lead != Lead::None)
            .collect();
        let axes = self.lead_axes();
        if let Some(order) = equation.permutation() {
            return self.permuted(values[0], &order, if leads[0] { axes } else { 0 });
        }
        let front: String = ('A'..='Z').take(axes).collect();
        let part = |letters: &str, has_lead: bool| match has_lead {
            true => format!("{front}{letters}"),
            false => letters.to_owned(),
        };
        let parts: Vec<String> = equation
            .operands
            .iter()
            .zip(&leads)
            .map(|(letters, lead)| part(letters, *lead))
            .collect();
        let result = part(&equation.result, leads.contains(&true));
        let text = format!("{}->{result}", parts.join(","));
        self.emitter.node(
            "Einsum",
            &values,
            vec![Attribute::string("equation", &text)],
        )
    }

    fn permuted(&mut self, value: Operand, order: &[usize], axes: usize) -> Operand {
        let order: Vec<i64> = (0..axes)
            .chain(order.iter().map(|axis| axis + axes))
            .map(|axis| axis as i64)
            .collect();
        self.emitter
            .node("Transpose", &[value], vec![Attribute::ints("perm", order)])
    }

    pub(super) fn gather(&mut self, table: TermId, positions: TermId, axis: usize) -> Operand {
        let axis = axis as i64 - self.dims(table).len() as i64;
        let positions = self.positions_of(positions);
        let table = self.value(table);
        let axis = vec![Attribute::int("axis", axis)];
        self.emitter.node("Gather", &[table, positions], axis)
    }

    pub(super) fn scatter(&mut self, values: TermId, positions: TermId, term: &Term) -> Operand {
        let dims: Vec<i64> = term
            .ty
            .dims
            .iter()
            .filter_map(crate::ty::Dim::known)
            .collect();
        let dims = self.emitter.ints(&dims);
        let zero = Tensor::from_raw(self.dtype(), &[1], encode_float(0.0, self.dtype()));
        let zero = vec![Attribute::tensor("value", zero)];
        let empty = self.emitter.node("ConstantOfShape", &[dims], zero);
        let positions = self.positions_of(positions);
        let values = self.value(values);
        self.emitter
            .node("ScatterND", &[empty, positions, values], Vec::new())
    }

    pub(super) fn pad(&mut self, operand: TermId, axis: usize, before: i64, after: i64) -> Operand {
        let lead = match self.formula.term(operand).ty.lead {
            Lead::None => 0,
            _ => self.lead_axes(),
        };
        let rank = lead + self.dims(operand).len();
        let mut pads = vec![0; 2 * rank];
        pads[lead + axis] = before;
        pads[rank + lead + axis] = after;
        let value = self.value(operand);
        self.emitter.pad(value, &pads)
    }

    /// 0, 1, 2, …: a constant that ONNX Runtime folds.
    pub(super) fn iota(&mut self, size: i64) -> Operand {
        let bounds = [0.0, size as f64, 1.0];
        let bounds = bounds.map(|bound| self.emitter.scalar(bound, DType::I64));
        let counted = self.emitter.node("Range", &bounds, Vec::new());
        self.emitter.cast(counted, self.dtype())
    }

    pub(super) fn numbers(&mut self, numbers: &[f64]) -> Operand {
        let dtype = self.dtype();
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|number| encode_float(*number, dtype))
            .collect();
        let tensor = Tensor::from_raw(dtype, &[numbers.len() as i64], bytes);
        let name = format!("{}/numbers", self.emitter.scope);
        self.emitter.patch.constant(&name, tensor)
    }

    /// The largest entries of the last axis with their places, as integers.
    fn top_k(&mut self, operand: TermId, count: i64) -> [Operand; 2] {
        let value = self.value(operand);
        let name = format!("{}/TopK", self.emitter.scope);
        let mut inputs = vec![Some(value)];
        let mut attributes = vec![Attribute::int("axis", -1)];
        if self.emitter.opset < 10 {
            attributes.push(Attribute::int("k", count));
        } else {
            inputs.push(Some(self.emitter.ints(&[count])));
        }
        let node = self.emitter.new_node("", "TopK", inputs, attributes);
        let results = vec![
            (format!("{name}_values"), None),
            (format!("{name}_indices"), None),
        ];
        let results = self.emitter.patch.node_with_results(node, results);
        [results[0], results[1]]
    }

    pub(super) fn largest(&mut self, operand: TermId, term: &Term) -> Operand {
        let count = last(term);
        self.top_k(operand, count)[0]
    }

    pub(super) fn largest_at(&mut self, operand: TermId, term: &Term) -> Operand {
        let count = last(term);
        let places = self.top_k(operand, count)[1];
        self.emitter.cast(places, self.dtype())
    }

    /// Positions as 64-bit integers. They are exact: those of a parameter or of counted numbers are
    /// computed in 32 bits at least, whatever the site's type is.
    fn positions_of(&mut self, id: TermId) -> Operand {
        let term = self.formula.term(id).clone();
        if let TermKind::LargestAt(operand) = term.kind {
            return self.top_k(operand, last(&term))[1];
        }
        let half = !matches!(self.dtype(), DType::F32 | DType::F64);
        let places = if half && !reads_the_site(self, id) {
            self.in_f32(|lowering| lowering.computed(id))
        } else {
            self.value(id)
        };
        self.emitter.cast(places, DType::I64)
    }
}

/// Why a model of this opset cannot have a formula, if it cannot.
pub(crate) fn opset_refusal(formula: &crate::hir::Formula, opset: i64) -> Option<String> {
    let reached = formula.reachable();
    let terms = formula.terms();
    let mut terms = terms.filter(|(id, _)| reached[id.0 as usize]);
    terms.find_map(|(_, term)| opset_lacks(&term.kind, opset))
}

/// Why a model of this opset cannot have a term, if it cannot.
pub(crate) fn opset_lacks(kind: &TermKind, opset: i64) -> Option<String> {
    let needs = |kind: &TermKind| match kind {
        TermKind::Einsum { equation, .. } if equation.permutation().is_none() => {
            Some(("einsum", EINSUM))
        }
        TermKind::Scatter { .. } => Some(("scatter", SCATTER)),
        TermKind::Iota => Some(("iota", SCATTER)),
        TermKind::SinceLast(_) => Some(("since_last", CUMULATIVE)),
        _ => None,
    };
    let (name, since) = needs(kind).filter(|(_, since)| opset < *since)?;
    Some(format!(
        "`{name}` needs opset {since}, and the model is of opset {opset}"
    ))
}

fn last(term: &Term) -> i64 {
    let last = term.ty.dims.last().and_then(crate::ty::Dim::known);
    last.expect("sizes of a site are numbers")
}

/// Whether a term reads what has the type of the site.
fn reads_the_site(lowering: &Lowering<'_>, id: TermId) -> bool {
    let kind = &lowering.formula.term(id).kind;
    let own = matches!(
        kind,
        TermKind::Input
            | TermKind::Output
            | TermKind::Weight
            | TermKind::Bias
            | TermKind::Mask
            | TermKind::Positions
            | TermKind::SinceLast(_)
            | TermKind::FirstPass(_)
            | TermKind::Query
            | TermKind::Module { .. }
            | TermKind::Base { .. }
    );
    own || kind
        .operands()
        .iter()
        .any(|operand| reads_the_site(lowering, *operand))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{SourceMap, Span};
    use crate::hir::{Formula, TermType};

    #[test]
    fn an_old_model_is_refused_what_its_opset_lacks() {
        let file = SourceMap::new().add("a.peft", String::new());
        let span = Span {
            file,
            start: 0,
            end: 0,
        };
        let mut formula = Formula::default();
        let row = TermType::of(Lead::None, [3.into()]);
        let counted = formula.push(TermKind::Iota, row.clone(), span);
        let sum = |operand: &str, result: &str| Equation {
            operands: vec![operand.to_owned()],
            result: result.to_owned(),
        };
        let einsum = |equation| TermKind::Einsum {
            equation,
            operands: vec![counted],
        };
        let copy = formula.push(einsum(sum("a", "a")), row, span);
        formula.result = Some(copy);
        // A permutation is a transpose, which every opset has.
        assert_eq!(opset_refusal(&formula, 11), None);
        assert!(opset_refusal(&formula, 10).is_some_and(|why| why.contains("`iota`")));
        let total = formula.push(einsum(sum("a", "")), TermType::scalar(), span);
        formula.result = Some(total);
        assert_eq!(opset_refusal(&formula, 12), None);
        let why = opset_refusal(&formula, 11).unwrap();
        assert!(
            why.contains("`einsum` needs opset 12") && why.contains("opset 11"),
            "{why}"
        );
    }
}
