//! Adapters of Hugging Face PEFT: reading and writing what `save_pretrained` writes.
//!
//! In: a folder with `adapter_config.json` and `adapter_model.safetensors`, or a plan with the
//! adapter's tensors. Out: a spec with its tensors, or such a folder. What a method and its tensors
//! are called there says its rule `interchange`; nothing here knows a method. What holds: an adapter
//! goes over whole or not at all. A setting that no rule names has to be one that says nothing.

mod config;
mod errors;
mod export;
mod form;
mod import;
mod layers;
mod settings;
mod sorted;
mod tensors;

pub use export::{ExportArtifacts, ExportOptions, export};
pub use import::{ImportArtifacts, ImportOptions, import};

/// The tool, as rules call it.
const TOOL: &str = "peft";

/// What every method is at a module that is trained in full.
const IN_FULL: &str = "modules_to_save";

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What PEFT puts in front of the paths of the model's modules.
const MODEL: &str = "base_model.model.";

/// What it puts in front of tensors that belong to no module.
const SHARED: &str = "base_model.";
