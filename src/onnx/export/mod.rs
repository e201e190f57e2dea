//! From the IR to bytes.
//!
//! Items that carry their serialized form are written from it, all others are encoded. Fields are
//! written in the order of their numbers. The lengths are known before the first byte is written,
//! so a model that is too large is refused before anything happens.

mod encode;
mod graph;
mod leftovers;
mod model;
mod rope;

pub use model::{save, write_model};
