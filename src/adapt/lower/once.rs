//! What a graph has once, for all of its sites: what the model reads with its tokens, first passes, and
//! terms that are made of nothing else and of tensors that modules share.

use super::{Lowering, TokenInputs};
use crate::adapt::beside::Applied;
use crate::adapt::first_pass::Passes;
use crate::graph::Operand;
use crate::hir::{Lead, Term, TermId, TermKind};
use crate::ty::DType;
use rustc_hash::FxHashMap;
use std::cell::RefCell;

pub(in crate::adapt) struct Once<'m> {
    pub tokens: TokenInputs,
    pub passes: Passes,
    pub applied: Applied<'m>,
    terms: RefCell<CommonTerms>,
}

impl<'m> Once<'m> {
    pub fn new(tokens: TokenInputs, passes: Passes, applied: Applied<'m>) -> Once<'m> {
        Once {
            tokens,
            passes,
            applied,
            terms: RefCell::default(),
        }
    }
}

/// Terms that are the same at all sites that have them, by what they compute.
#[derive(Default)]
struct CommonTerms {
    numbers: FxHashMap<String, u32>,
    emitted: FxHashMap<(u32, DType), Operand>,
}

impl CommonTerms {
    fn number(&mut self, key: String) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(key).or_insert(next)
    }
}

impl Lowering<'_> {
    /// For every term that other sites may have, too, the number of what it computes.
    pub(super) fn common_terms(&self, reached: &[bool]) -> Vec<Option<u32>> {
        let Some(once) = self.bindings.once else {
            return Vec::new();
        };
        let has_pass = self.formula.uses(|kind| kind.first_pass().is_some());
        if !has_pass && !self.bindings.shared.contains(&true) {
            return Vec::new();
        }
        let mut terms = once.terms.borrow_mut();
        let mut found: Vec<Option<u32>> = Vec::with_capacity(reached.len());
        for (id, term) in self.formula.terms() {
            let key = match reached[id.0 as usize] {
                true => self.key(term, &|id| found[id.0 as usize]),
                false => None,
            };
            found.push(key.map(|key| terms.number(key)));
        }
        found
    }

    /// What a term computes, as text; nothing for one that depends on the site. The numbers of operands
    /// stand for what these compute.
    fn key(&self, term: &Term, of: &dyn Fn(TermId) -> Option<u32>) -> Option<String> {
        let kind = match &term.kind {
            TermKind::Param(index) if self.bindings.shared[*index] => {
                format!("{:?}", self.bindings.parameters[*index])
            }
            TermKind::Param(_)
            | TermKind::Input
            | TermKind::Output
            | TermKind::Weight
            | TermKind::Bias
            | TermKind::Mask
            | TermKind::Positions
            | TermKind::Query
            | TermKind::Noise { like: None, .. }
            | TermKind::Base { .. } => return None,
            kind => kind.text(),
        };
        let operands = term.kind.operands().into_iter().map(of);
        let operands: Option<Vec<u32>> = operands.collect();
        // How many leading axes there are is the site's.
        let axes = match term.ty.lead {
            Lead::None => 0,
            _ => self.lead_axes(),
        };
        Some(format!("{kind} {:?} {} {axes}", operands?, term.ty))
    }

    /// The number of a term that is emitted once for all sites.
    pub(super) fn common_term(&self, id: TermId) -> Option<u32> {
        self.common.get(id.0 as usize).copied().flatten()
    }

    /// The term as it was emitted at another site, or else emitted here.
    pub(super) fn once_for_all(&mut self, number: u32, term: &Term) -> Operand {
        let once = self.bindings.once.expect("terms in common have a graph");
        let key = (number, self.dtype);
        let known = once.terms.borrow().emitted.get(&key).copied();
        if let Some(known) = known {
            return known;
        }
        let scope = std::mem::replace(&mut self.emitter.scope, "peftc/shared".to_owned());
        let operand = self.term(term);
        self.emitter.scope = scope;
        once.terms.borrow_mut().emitted.insert(key, operand);
        operand
    }
}
