//! Numeric proofs of methods: what follows from `forward` is measured.
//!
//! In: a program, and which of its methods to prove on which sizes. Out: a [`Table`] of methods and
//! checks with measured errors, and a diagnostic for every proof that fails. Each method stands on a
//! small model of its own ([`net`]), adapted as any model would be; the reference evaluates it in
//! double precision, ONNX Runtime, where the caller has one, in single precision.
//!
//! What holds: parameters and inputs depend on the seed alone; what the analyses of `hir` claim
//! (identity at start, merging, reach across tokens) is compared with what is measured, in the
//! direction in which it is claimed; a check that cannot be done says why. No method is known by
//! name. Not here: drawing the table, reading models.

mod additive;
mod cases;
mod checks;
mod errors;
mod facts;
mod gradient;
mod net;
mod numbers;
mod stand;

pub use cases::{Case, cases_of, cases_of_plan};
pub use facts::{Facts, Tensor, facts};

use crate::diag::{Reported, Sink, Span};
use crate::hir::Program;
use crate::runtime::Library;

/// How to prove.
pub struct Options {
    pub seed: u64,
    /// `None` leaves out what ONNX Runtime computes.
    pub library: Option<&'static Library>,
}

/// The checks, in the order of the table.
pub const CHECKS: &[Check] = &[
    Check {
        name: "start",
        what: "nothing changes at the start",
    },
    Check {
        name: "gradient",
        what: "the gradient of every parameter is the slope of the loss",
    },
    Check {
        name: "reached",
        what: "every trained parameter has a gradient",
    },
    Check {
        name: "alive",
        what: "something has a gradient at the start",
    },
    Check {
        name: "runtime",
        what: "ONNX Runtime computes the same outputs and gradients",
    },
    Check {
        name: "merge",
        what: "the merged model gives what the adapted one gives",
    },
    Check {
        name: "base",
        what: "the weights of the base stay as they are",
    },
    Check {
        name: "sum",
        what: "two adapters change the output by the sum of their changes",
    },
    Check {
        name: "batch",
        what: "a sample does not depend on its batch",
    },
    Check {
        name: "padding",
        what: "a token does not depend on padding",
    },
    Check {
        name: "prefix",
        what: "a token does not depend on later ones",
    },
    Check {
        name: "cache",
        what: "a token does not depend on others",
    },
];

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    /// What holds where it passes.
    pub what: &'static str,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It holds, with this relative error.
    Holds(f64),
    /// It does not hold, and nothing says that it should.
    Not(String),
    /// It should hold, and does not.
    Fails { error: f64, why: String },
    /// It cannot be done, for this reason.
    Skipped(String),
}

/// One method at one kind of layer.
#[derive(Clone, Debug)]
pub struct Row {
    /// With the hyper-parameters that differ from their defaults.
    pub method: String,
    pub kind: String,
    /// Sizes of its modules, `in × out`.
    pub sizes: String,
    /// By check, in the order of [`CHECKS`].
    pub verdicts: Vec<Verdict>,
    pub span: Span,
}

/// All methods.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub rows: Vec<Row>,
}

impl Table {
    /// How many verdicts are such ones.
    pub fn count(&self, test: impl Fn(&Verdict) -> bool) -> usize {
        let all = self.rows.iter().flat_map(|row| &row.verdicts);
        all.filter(|verdict| test(verdict)).count()
    }
}

/// Proves every case; each proof that fails is a diagnostic, too.
pub fn prove(
    program: &Program,
    cases: &[Case],
    options: &Options,
    sink: &mut Sink,
) -> Result<Table, Reported> {
    let mut table = Table::default();
    for case in cases {
        let row = checks::row(program, case, options);
        for (check, verdict) in CHECKS.iter().zip(&row.verdicts) {
            if let Verdict::Fails { error, why } = verdict {
                sink.emit(errors::proof_fails(&row, check, *error, why));
            }
        }
        table.rows.push(row);
    }
    Ok(table)
}
