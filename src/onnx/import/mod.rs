//! From bytes to the IR.
//!
//! A model is split into records first and each item is decoded by itself, so that the item keeps
//! a slice of the original bytes. All faults of a model are reported together, up to a limit.

mod functions;
mod graph;
mod model;
mod node;
mod nodes;
mod sections;
mod sparse;
mod tensor;
mod types;

pub(super) use model::{Read, model, normalized, pair};
pub(super) use sections::field;

use super::errors;
use super::external::Seen;
use super::schema::Unknown;
use super::wire::Malformed;
use crate::diag::{Diagnostic, Reported, Sink};
use functions::Functions;

/// Subgraphs deeper than this are refused; protobuf's own readers stop at about the same depth.
const DEEPEST: usize = 32;
/// Nodes and values of a model, subgraphs included: bounds the memory that a small file can claim.
const MOST_ITEMS: usize = 8 << 20;
/// After so many errors the rest says nothing new.
const MOST_ERRORS: usize = 100;

/// What an import carries from graph to graph.
pub(super) struct Cx<'a> {
    sink: &'a mut Sink,
    /// The file's name, as messages show it.
    file: &'a str,
    ir_version: i64,
    failure: Option<Reported>,
    errors: usize,
    depth: usize,
    items: usize,
    /// Whether any node is one of the default domain.
    uses_default_domain: bool,
    /// Initializers that are inputs, too.
    defaults: Vec<String>,
    external: Seen,
    /// Sparse initializers, which are stored dense, and an example.
    sparse: Option<(usize, String)>,
    /// Nodes with the name of another one, and an example.
    same_names: Option<(usize, String)>,
    /// What the sparse initializers take together.
    dense_bytes: u64,
    /// Changes to graphs that must not be undone by a node's own serialized form.
    rewritten: usize,
    /// Unknown fields of what is never written again.
    lost: Unknown,
    functions: Functions,
}

impl<'a> Cx<'a> {
    fn new(file: &'a str, sink: &'a mut Sink) -> Self {
        Cx {
            sink,
            file,
            ir_version: 0,
            failure: None,
            errors: 0,
            depth: 0,
            items: 0,
            uses_default_domain: false,
            defaults: Vec::new(),
            external: Seen::default(),
            sparse: None,
            same_names: None,
            dense_bytes: 0,
            rewritten: 0,
            lost: Unknown::default(),
            functions: Functions::default(),
        }
    }

    fn error(&mut self, diagnostic: Diagnostic) -> Reported {
        self.errors += 1;
        match self.failure {
            Some(reported) if self.errors > MOST_ERRORS => reported,
            _ => {
                let reported = self.sink.emit(self.placed(diagnostic));
                self.failure = Some(reported);
                reported
            }
        }
    }

    /// How much has been read otherwise than it stands in the file so far.
    fn changes(&self) -> usize {
        self.external.dropped() + self.rewritten
    }

    fn warn(&mut self, diagnostic: Diagnostic) {
        self.sink.warn(self.placed(diagnostic));
    }

    /// Says which model is meant, unless it is drawn under its name.
    fn placed(&self, diagnostic: Diagnostic) -> Diagnostic {
        if diagnostic.excerpts.is_empty() {
            diagnostic.note(format!("in model `{}`", self.file))
        } else {
            diagnostic
        }
    }

    /// Whether so many errors have been found that going on is of no use.
    fn is_hopeless(&self) -> bool {
        self.errors > MOST_ERRORS
    }

    /// Counts items against the limit.
    fn count(&mut self, items: usize) -> Result<(), Reported> {
        self.items = self.items.saturating_add(items);
        if self.items > MOST_ITEMS {
            return Err(self.error(errors::too_many(MOST_ITEMS)));
        }
        Ok(())
    }

    fn malformed(&mut self, what: &str, fault: Malformed) -> Reported {
        let why = match fault {
            Malformed::Truncated { missing } => {
                format!("a field reaches {missing} bytes past its end")
            }
            Malformed::Garbage { offset } => {
                format!("byte {offset} of it does not start a protobuf field")
            }
        };
        self.error(errors::damaged(what, &why))
    }

    /// Decodes one item; `what` names it in the message.
    fn decode<M: prost::Message + Default>(
        &mut self,
        what: &str,
        bytes: &bytes::Bytes,
    ) -> Result<M, Reported> {
        M::decode(bytes.clone())
            .map_err(|error| self.error(errors::damaged(what, &error.to_string())))
    }
}
