//! The torch modules of a model, recovered from what exporters leave behind.
//!
//! In: a [`Model`], with types on its values where they are known. Out: [`Modules`], every call site
//! of a linear, convolution, embedding or norm layer with its torch module path, or listed as
//! unnamed. A site is a call, not a weight: tied layers are two sites that share one weight, and a
//! fused projection is one node with a site for every member. Nothing is changed and nothing is
//! guessed silently: every name says which rung of the ladder gave it, and what other rungs said.
//!
//! Not here: reading files (a weight's bytes come through a function that the caller gives), and
//! the choice of sites by patterns.

mod assemble;
mod attention;
mod boundary;
mod cache;
mod call;
mod constant;
mod errors;
mod find;
mod fused;
mod level;
mod linear;
mod map;
mod names;
mod norm;
mod roles;
mod sequence;
mod site;
mod table;
mod values;

pub use attention::{Form, Query};
pub use map::NameMap;
pub use roles::{Place, Role};
pub use site::{
    Layout, Modules, NameSource, Obstacle, Quantization, Scope, Site, SiteKind, Weight,
};
pub use values::{Candidate, Checkpoint, ReadWeight};

use crate::diag::{Reported, Sink};
use crate::graph::Model;

/// What the ladder may use besides the model itself.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Paths by output value: the user's or peftc's own `peft.names.json`.
    pub names: Option<&'a NameMap>,
    /// The weights that the model was made from.
    pub checkpoint: Option<Checkpoint<'a>>,
}

/// Finds and names every site of a model. Fails only on a name map that does not fit the
/// model and on weights that cannot be read.
pub fn recover(model: &Model, options: &Options<'_>, sink: &mut Sink) -> Result<Modules, Reported> {
    let levels = level::Levels::new(model);
    let calls = find::calls(&levels);
    let dialect = names::Dialect::of(&levels);
    let mut answers = names::from_exporter(&levels, &calls, dialect);
    fused::list_members(&levels, &calls, dialect, &mut answers);
    if let Some(map) = options.names {
        names::sidecar::apply(&levels, &calls, map, &mut answers, sink)?;
    }
    if let Some(checkpoint) = options.checkpoint {
        values::apply(&levels, &calls, checkpoint, &mut answers, sink)?;
    }
    Ok(assemble::modules(&levels, &calls, answers))
}

#[cfg(test)]
mod tests;
