//! Modules that a method cannot adapt: one cause is said once, whatever the number of modules.

use super::apply::graph_at;
use super::errors;
use crate::diag::{Excerpt, Reported, Sink, Span};
use crate::graph::Model;
use crate::modules::{Modules, Site};

/// Why a method does not go with a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It reads the attention mask, and the model has none.
    NoMask,
    /// It reads the ids of the tokens, and the model has none.
    NoIds,
    /// A part of it is asked for that it does not have, in words.
    Slice(String),
    /// In words, as the end of a sentence.
    Other(String),
}

/// A module that a call cannot adapt.
pub(super) struct Refusal {
    pub site: usize,
    pub span: Span,
    pub cause: Cause,
}

/// Why a module got no method.
pub(super) enum Failure {
    Reported(Reported),
    Refused(Refusal),
}

impl From<Reported> for Failure {
    fn from(reported: Reported) -> Failure {
        Failure::Reported(reported)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

/// The failures of one statement.
#[derive(Default)]
pub(super) struct Failures {
    reported: Option<Reported>,
    refused: Vec<Refusal>,
}

impl Failures {
    pub fn push(&mut self, failure: impl Into<Failure>) {
        match failure.into() {
            Failure::Reported(reported) => self.reported = Some(reported),
            Failure::Refused(refusal) => self.refused.push(refusal),
        }
    }

    /// Says what has not been said yet, each cause once a call with the first module of it.
    pub fn report(self, model: &Model, modules: &Modules, sink: &mut Sink) -> Result<(), Reported> {
        let mut reported = self.reported;
        let mut rest = self.refused;
        while let Some(first) = rest.first() {
            let (span, cause) = (first.span, first.cause.clone());
            let site = &modules.sites[first.site];
            let before = rest.len();
            rest.retain(|other| other.span != span || other.cause != cause);
            let count = before - rest.len();
            let diagnostic = match cause {
                Cause::NoMask => errors::no_mask(span, &site.path),
                Cause::NoIds => errors::no_ids(span, &site.path),
                Cause::Slice(why) => errors::bad_slice(span, &site.path, count, &why),
                Cause::Other(why) => errors::cannot_adapt(span, &site.path, count, &why)
                    .excerpt(excerpt(model, site)),
            };
            reported = Some(sink.emit(diagnostic));
        }
        reported.map_or(Ok(()), Err)
    }
}

/// The node of a module, with a mark on its operator.
pub(super) fn excerpt(model: &Model, site: &Site) -> Excerpt {
    let node = graph_at(model, &site.scope).node_text(site.node);
    Excerpt {
        title: model.name.clone(),
        text: node.text,
        labels: vec![(node.operator, format!("`{}`", site.path))],
    }
}
