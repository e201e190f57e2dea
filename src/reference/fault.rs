//! Why something is not evaluated.

use std::fmt;

/// What is wrong with one node, or with a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No evaluation is written for the operator in this version.
    Unknown,
    /// The operator has an evaluation, but not of this use of it.
    Unsupported(String),
    /// Operands, attributes or sizes do not fit together.
    Mismatch(String),
    /// More elements or more work than is allowed.
    TooLarge(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unknown => f.write_str("the reference has no evaluation of the operator"),
            Fault::Unsupported(what) => write!(f, "the reference does not evaluate {what}"),
            Fault::Mismatch(why) | Fault::TooLarge(why) => f.write_str(why),
        }
    }
}

/// A run that ended early, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A node with its operator, a value, or the graph.
    pub place: String,
    pub fault: Fault,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

impl std::error::Error for Failure {}

/// Operands that do not fit, in words.
macro_rules! mismatch {
    ($($words:tt)*) => {
        Err($crate::reference::Fault::Mismatch(format!($($words)*)))
    };
}

/// A use of an operator that is not evaluated, in words.
macro_rules! unsupported {
    ($($words:tt)*) => {
        Err($crate::reference::Fault::Unsupported(format!($($words)*)))
    };
}

pub(super) use {mismatch, unsupported};
