//! Adapter tensors as files.
//!
//! In: named tensors. Out: safetensors files whose bytes depend on the tensors alone, and back.
//! Not here: what the tensors mean.

mod errors;
mod safetensors_file;

pub use safetensors_file::{NamedTensor, read_entry, read_tensors, write_tensors};
