//! One call a phase: from paths to specs, models, plans and artifacts.
//!
//! In: what the command line asks for, already parsed. Out: the values of the phases, artifacts on
//! disk, and diagnostics in the session's sink. What holds: a phase that fails has written nothing;
//! artifacts appear complete or not at all, the manifest last. Not here: printing, arguments, and
//! any decision that belongs to a phase.

mod artifacts;
mod calibration;
mod compile;
mod convert;
mod errors;
mod estimate;
mod fingerprint;
mod format;
mod inspect;
mod interop;
mod manifest;
mod merge;
mod neighborhood;
mod session;
mod stack;
mod summary;
mod targets;
pub mod train;
mod training;
mod tree;
mod values;

pub use artifacts::Destination;
pub use compile::{Artifacts, CompileOptions, Progress, compile};
pub use convert::{ConvertArtifacts, ConvertOptions, ConvertedSite, convert};
pub use estimate::{Estimates, estimates};
pub use fingerprint::{Depth, fingerprint};
pub use format::Formatted;
pub use inspect::{modules_json, modules_text, write_names};
pub use interop::{ExportArtifacts, ExportOptions, ImportArtifacts, ImportOptions, export, import};
pub use manifest::Manifest;
pub use merge::{MergeArtifacts, merge};
pub use neighborhood::{Item, ItemKind, Neighborhood, Origin, Picture, Reach};
pub use session::{Loaded, ModelOptions, Planned, Session, Spec};
pub use stack::{StackOptions, Stacked, stack};
pub use summary::Summary;
pub use training::{GraphEntry, PortEntry};
pub use values::trained_values;

// What callers of the driver name beside its own types.
pub use crate::adapt::Options as PlanOptions;
pub use crate::hir::Adapter;
pub use crate::linalg::Budget;
pub use crate::train::{
    Adam, Base, BatchSizes, Estimate, Graphs, Head, Memory, Moments, Optimizer, Pool, Rate, Recipe,
    Recompute, Sgd, Task, TaskKind, Trains, Waits, parse_bytes, show_bytes,
};
