//! What the model reads with its tokens: their ids, and which of them are padding.

use crate::graph::{Attribute, Operand, Tensor};
use crate::hir::{Formula, Sequence, TermKind};
use crate::ops::{Emitter, encode_float};
use crate::ty::DType;

/// In one graph, for all of its sites.
pub(in crate::adapt) struct TokenInputs {
    /// `[batch, tokens]`.
    ids: Option<(Operand, DType)>,
    /// `[batch, tokens]` of an integer type; a decoder's covers the cached tokens, too.
    pub mask: Option<Operand>,
    since_last: Vec<(Sequence, DType, Operand)>,
}

impl TokenInputs {
    /// Of the ids and the mask, as far as there are any.
    pub fn new([ids, mask]: [Option<(Operand, DType)>; 2]) -> TokenInputs {
        TokenInputs {
            ids,
            mask: mask.map(|(mask, _)| mask),
            since_last: Vec::new(),
        }
    }

    /// Emits what a formula reads of the ids and no formula before has, at the front of the graph.
    pub fn prepare(&mut self, emitter: &mut Emitter, formula: &Formula, dtype: DType) {
        let reached = formula.reachable();
        for (id, term) in formula.terms() {
            let TermKind::SinceLast(sequence) = &term.kind else {
                continue;
            };
            if !reached[id.0 as usize] || self.since_last(sequence, dtype).is_some() {
                continue;
            }
            emitter.patch.front();
            emitter.scope = "peftc/since_last".to_owned();
            let found = self.emit(emitter, sequence);
            let found = emitter.cast(found, dtype);
            let found = emitter.unsqueeze(found, -1);
            self.since_last.push((sequence.clone(), dtype, found));
        }
    }

    /// `[batch, tokens, 1]`: 1 from the first token of the last occurrence on, else 0.
    pub fn since_last(&self, sequence: &Sequence, dtype: DType) -> Option<Operand> {
        let mut known = self.since_last.iter();
        let found = known.find(|(known, of, _)| known == sequence && *of == dtype);
        found.map(|(_, _, operand)| *operand)
    }

    /// `bool[batch, tokens]`: the number of occurrences that have begun is the number of all, and
    /// there are any.
    fn emit(&self, emitter: &mut Emitter, sequence: &Sequence) -> Operand {
        let begins = self.begins(emitter, sequence);
        let begins = emitter.cast(begins, DType::F32);
        let axis = emitter.ints(&[1]);
        let begun = emitter.node("CumSum", &[begins, axis], Vec::new());
        let all = emitter.reduce("ReduceSum", begins, 1, true);
        let one = emitter.scalar(1.0, DType::F32);
        let all = emitter.node("Max", &[all, one], Vec::new());
        emitter.node("Equal", &[begun, all], Vec::new())
    }

    /// `bool[batch, tokens]`: whether the sequence stands at a token and those behind it.
    fn begins(&self, emitter: &mut Emitter, sequence: &Sequence) -> Operand {
        let (mut ids, dtype) = self.ids.expect("the plan has checked that there are ids");
        if sequence.masked {
            ids = self.counted(emitter, ids, dtype);
        }
        let behind = sequence.ids.len() as i64 - 1;
        let longer = nothing_behind(emitter, ids, dtype, behind);
        let mut begins = None;
        for (at, id) in (0..).zip(&sequence.ids) {
            let moved = match behind {
                0 => longer,
                _ if at == behind => emitter.slice(longer, 1, at, i64::MAX),
                _ => emitter.slice(longer, 1, at, at - behind),
            };
            let id = emitter.scalar(*id as f64, dtype);
            let same = emitter.node("Equal", &[moved, id], Vec::new());
            begins = Some(match begins {
                Some(before) => emitter.node("And", &[before, same], Vec::new()),
                None => same,
            });
        }
        begins.expect("a sequence has a token")
    }

    /// The ids, -1 for padding.
    fn counted(&self, emitter: &mut Emitter, ids: Operand, dtype: DType) -> Operand {
        let mask = self
            .mask
            .expect("the plan has checked that there is a mask");
        let count = emitter.size(ids, 1);
        let own = last(emitter, mask, count);
        let own = emitter.cast(own, DType::Bool);
        let none = emitter.scalar(-1.0, dtype);
        emitter.node("Where", &[own, ids, none], Vec::new())
    }
}

/// The last so many of `[batch, tokens]`, whose number is a vector of one integer.
pub(super) fn last(emitter: &mut Emitter, value: Operand, count: Operand) -> Operand {
    let start = emitter.node("Neg", &[count], Vec::new());
    let (end, axis) = (emitter.ints(&[i64::MAX]), emitter.ints(&[1]));
    emitter.node("Slice", &[value, start, end, axis], Vec::new())
}

/// The ids with so many more behind them, which are -1 and thus no token's.
fn nothing_behind(emitter: &mut Emitter, ids: Operand, dtype: DType, count: i64) -> Operand {
    if count == 0 {
        return ids;
    }
    let rows = emitter.size(ids, 0);
    let columns = emitter.ints(&[count]);
    let axis = |axis| vec![Attribute::int("axis", axis)];
    let dims = emitter.node("Concat", &[rows, columns], axis(0));
    let none = Tensor::from_raw(dtype, &[1], encode_float(-1.0, dtype));
    let none = vec![Attribute::tensor("value", none)];
    let none = emitter.node("ConstantOfShape", &[dims], none);
    emitter.node("Concat", &[ids, none], axis(1))
}
