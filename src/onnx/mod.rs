//! ONNX files: reading them into the graph IR and writing the IR back.
//!
//! In: a model's path or bytes. Out: a [`Model`](crate::graph::Model) with where its weights are,
//! or diagnostics; and bytes again, through [`write_model`]. What holds after an import:
//! * the graph verifies; every tensor's data has the length of its type and dimensions; external
//!   data lies in a file that may be read; local functions are inlined;
//! * every item that nobody changes is written as it was found, byte for byte, unknown fields
//!   included. A model that nobody changes differs only where this list says so:
//!   - fields that the file did not have in the order of their numbers, or with lengths in more
//!     bytes than needed, are written in order and short;
//!   - nodes that the file did not have in topological order are sorted;
//!   - local functions are gone, their calls replaced by their nodes: those of call `c` are named
//!     `c/inner`, and are written as far as the graph IR holds them (no device configurations, no
//!     descriptions of attributes). What a function says about itself and its values is dropped.
//!     Opsets that only a function imports are added, domains that held functions only are dropped;
//!   - keys of external data that ONNX does not define are dropped;
//!   - nodes with the name of another one get a number behind it;
//!   - an input that is listed twice is written once;
//!   - sparse initializers are written dense.
//! * an item that is written anew keeps the fields that ONNX does not define; a warning names those
//!   that it cannot keep.
//!
//! Not here: operator semantics, shape inference, and any decision about what to adapt. No
//! weights are read by an import, nor by a write that refers to external data.

mod errors;
mod export;
mod external;
mod fields;
mod import;
mod model;
mod proto;
mod schema;
mod sniff;
#[cfg(test)]
mod tests;
mod wire;

pub use export::{save, write_model};
pub use external::ExternalFiles;
pub use model::{Imported, import, import_bytes, import_without_weights};
