//! ONNX Runtime: found, installed, loaded and run. The only user of `ort`.
//!
//! In: [`Surroundings`] (where to look, read once by the caller), model bytes or paths, named host
//! tensors. Out: a loaded [`Library`], [`Session`]s and the tensors they compute. What holds: the
//! library is loaded once in a process and never through `ort`'s own search, which would panic
//! when nothing is found; every failure of ONNX Runtime comes back as a coded diagnostic with
//! ONNX Runtime's own words. Not here: graphs (a session gets bytes or a path), reading of
//! environment variables, and any decision of which model to run.

mod compare;
mod errors;
mod fetch;
mod install;
mod kernels;
mod library;
mod locate;
mod port;
mod profile;
mod raw;
mod replay;
mod session;
mod stateful;
mod tensor;

pub use compare::{Comparison, Tolerance, Worst, compare};
pub use install::{Flavor, Install, Installed, Network, install};
pub use library::{Library, Load, Tried, check, load, loaded, ready};
pub use locate::{Candidate, Rung, Surroundings, Wanted, candidates};
pub use port::Port;
pub use profile::{OperatorTime, Profile};
pub use session::{
    Activations, Kernels, MemoryPattern, ModelSource, Optimization, Options, Products, Profiling,
    Provider, Replay, Session, Sums,
};
pub use stateful::{Feed, Stateful};
pub use tensor::{HostTensor, NamedTensors};

/// The version that `peftc runtime install` fetches unless told otherwise.
pub const DEFAULT_VERSION: &str = "1.32.0";
/// The version of the CUDA build that goes with it: the newest that is published.
pub const DEFAULT_CUDA_VERSION: &str = "1.31.1";
/// The lowest version that can be loaded: the first with adapters.
pub const LOWEST_VERSION: &str = "1.20";
