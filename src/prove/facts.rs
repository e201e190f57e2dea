//! What follows from a method before any number is measured.

use super::cases::Case;
use super::net::Read;
use crate::diag::Sink;
use crate::hir::affine::{Affine, Tokens, is_affine, token_reach};
use crate::hir::start::is_identity_at_start;
use crate::hir::{Call, Instance, Program, SiteFacts, TermKind, instantiate};
use crate::ty::Dim;

/// Facts of one method at one kind of layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// It is proved to change nothing at the start.
    pub identity: bool,
    /// Why it does not merge, if it does not.
    pub merges: Result<(), &'static str>,
    pub pad_invariant: bool,
    pub cache_safe: bool,
    /// Elements of one module, with symbolic sizes.
    pub trained: String,
    pub frozen: String,
    /// Name, shape and whether it is trained or shared, of every tensor.
    pub tensors: Vec<Tensor>,
}

/// One tensor of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub doc: String,
    pub shape: String,
    pub trained: bool,
    pub shared: bool,
}

/// Facts with symbolic sizes, at modules with a bias; `None` where that cannot be evaluated.
pub fn facts(program: &Program, case: &Case) -> Option<Facts> {
    let instance = symbolic(program, case)?;
    let reach = token_reach(&instance.forward);
    Some(Facts {
        identity: is_identity_at_start(&instance),
        merges: match is_affine(&instance.forward) {
            Affine::Yes => Ok(()),
            Affine::No { why, .. } => Err(why),
        },
        pad_invariant: reach <= Tokens::Masked,
        cache_safe: reach == Tokens::Own,
        trained: elements(&instance, true),
        frozen: elements(&instance, false),
        tensors: tensors(&instance),
    })
}

/// Whether a method puts tokens in front of those of the model.
pub(super) fn prepends(program: &Program, case: &Case) -> bool {
    let prepends = |kind: &TermKind| matches!(kind, TermKind::Prepended { .. });
    symbolic(program, case).is_some_and(|instance| instance.forward.uses(prepends))
}

/// What a method reads beside its module. A name behind points is one of a module that stands where the
/// method's own does.
pub(super) fn read(program: &Program, case: &Case) -> Read {
    let Some(instance) = symbolic(program, case) else {
        return Read::default();
    };
    let all = |named: fn(&TermKind) -> Option<&str>| {
        let terms = instance.forward.terms();
        let named = terms.filter_map(|(_, term)| named(&term.kind));
        let mut found: Vec<String> = named
            .map(|name| name.trim_start_matches('.').to_owned())
            .collect();
        found.sort();
        found.dedup();
        found
    };
    Read {
        first_passes: all(TermKind::first_pass),
        applied: all(TermKind::module),
        query: instance.forward.uses(|kind| *kind == TermKind::Query),
    }
}

fn symbolic(program: &Program, case: &Case) -> Option<Instance> {
    let method = program.method(case.method);
    let kind = case.layouts.first()?.kind.name();
    let call = Call {
        method: case.method,
        arguments: case.arguments.clone(),
        span: method.name.span,
    };
    let values = call.values(method, &[]);
    let site = SiteFacts::symbolic(kind, kind != "embedding");
    let mut sink = Sink::new();
    instantiate(program, method, &values, &site, None, &mut sink).ok()
}

/// The sum over the tensors of a module that are its own.
fn elements(instance: &Instance, trained: bool) -> String {
    let own = instance.params.iter();
    let own = own.filter(|param| param.trainable == trained && !param.shared);
    let sizes = own.map(|param| param.dims.iter().cloned().fold(Dim::from(1), |a, b| a * b));
    sizes.fold(Dim::from(0), |a, b| a + b).to_string()
}

fn tensors(instance: &Instance) -> Vec<Tensor> {
    let all = instance.params.iter();
    all.map(|param| {
        let dims: Vec<String> = param.dims.iter().map(Dim::to_string).collect();
        Tensor {
            name: param.name.clone(),
            doc: param.doc.clone(),
            shape: format!("[{}]", dims.join(", ")),
            trained: param.trainable,
            shared: param.shared,
        }
    })
    .collect()
}
