//! Arguments that every subcommand with a model has.

use crate::driver::ModelOptions;
use std::path::PathBuf;

/// How names of modules are found.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ModelArgs {
    /// Names for sites that the model does not name (`peft.names.json`)
    #[arg(long, value_name = "JSON")]
    pub names: Option<PathBuf>,
    /// The checkpoint that the model was made from: sites without a name get that of the tensor
    /// whose values they have. Give it again for every file of a checkpoint in parts
    #[arg(long, value_name = "SAFETENSORS")]
    pub weights: Vec<PathBuf>,
}

impl ModelArgs {
    pub fn options(&self) -> ModelOptions {
        ModelOptions {
            names: self.names.clone(),
            weights: self.weights.clone(),
            ..ModelOptions::default()
        }
    }
}

/// Reads `name=value`.
pub(super) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("settings are written name=value, such as rank=16".to_owned()),
    }
}

/// Reads `name=true` or `name=false`.
pub(super) fn parse_flag(text: &str) -> Result<(String, bool), String> {
    let (name, value) = parse_setting(text)?;
    match value.as_str() {
        "true" => Ok((name, true)),
        "false" => Ok((name, false)),
        _ => Err("flags are written name=true or name=false".to_owned()),
    }
}
