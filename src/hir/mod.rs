//! Names resolved and mathematics typed: what a `.peft` program means before any model is opened.
//!
//! In: syntax trees. Out: a [`Program`] of methods and adapters, and for a method with chosen
//! hyper-parameters an [`Instance`]: its parameters with shapes and initialisers, and its `forward`
//! as a [`Formula`], a typed graph of terms over `x`, `y`, the base weight and the parameters.
//! Everything else is derived from the formula: types, the ONNX nodes, identity at start
//! ([`start`]), whether it merges ([`affine`]), what it reads across tokens.
//!
//! What holds: control flow is gone from a formula, every term has a type, and every term knows the
//! source text that made it. Not here: models, sites, ONNX.

pub mod affine;
mod builtins;
mod claim;
pub(crate) mod errors;
mod eval;
mod formula;
mod glob;
mod hook;
mod init;
mod initialiser;
mod instance;
mod interchange;
mod number;
mod outputs;
mod pattern;
mod program;
mod resolve;
mod scalar;
pub mod start;
mod targets;
mod term_text;

pub use crate::syntax::ast::Event;
pub use builtins::functions;
pub use claim::{Claim, Expect, Fact, Operand, Property};
pub use eval::SITE_NAMES;
pub use formula::{
    Activation, Axis, Binary, Equation, Factor, Formula, Lead, Reduce, Sequence, Statistic, Term,
    TermId, TermKind, TermType, Unary,
};
pub use hook::{Change, Hook, StateInstance, Target, Training};
pub use init::{Init, Random};
pub use initialiser::initialisers;
pub use instance::{Context, Instance, ParamInstance, Place, SiteFacts, check_method, instantiate};
pub use interchange::{ANY, Foreign, Form, Interchange, KEY, Setting, SettingValue, forms};
pub use outputs::{ModuleOutput, Outputs};
pub use pattern::{Alternative, Compiled, compile_pattern};
pub use program::{
    Adapt, Adapter, Call, HyperKind, HyperSpec, HyperValue, Method, MethodId, Override, Program,
};
pub use resolve::{HYPER_TYPES, KINDS, Loader, resolve, site_condition, site_size};
pub use targets::ROLES;

#[cfg(test)]
mod tests;
