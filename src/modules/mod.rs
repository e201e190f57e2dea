//! The torch modules of a model, recovered from what exporters leave behind.
//!
//! In: a typed [`Model`](crate::graph::Model). Out: [`Modules`], every call site of a linear,
//! convolution, embedding or norm layer with its torch module path, or listed as unnamed. A site is
//! a call, not a weight: tied layers are two sites that share one weight. Nothing is changed and
//! nothing is guessed silently: every name says which rung of the ladder gave it.

mod site;

pub use site::{Layout, Modules, NameSource, Quantization, Scope, Site, SiteKind, Weight};
