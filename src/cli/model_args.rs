//! Arguments that every subcommand with a model has.

use crate::diag::Reported;
use crate::driver::{Destination, Loaded, ModelOptions, PlanOptions, Planned, Session, Spec};
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

/// A trained adapter on its model.
#[derive(Debug, clap::Args)]
pub(super) struct TrainedArgs {
    /// The spec
    spec: PathBuf,
    /// The ONNX model; it is not changed
    model: PathBuf,
    /// The adapter's tensors
    #[arg(long, value_name = "SAFETENSORS")]
    pub values: PathBuf,
    /// Which adapter of the spec; the only one without it
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// A hyper-parameter that wins over the spec: rank=16 or lora.rank=16
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    recovery: ModelArgs,
}

impl TrainedArgs {
    /// Reads the model and plans the adapter.
    pub fn load(&self, session: &mut Session<'_>) -> Result<(Loaded, Planned), Reported> {
        let (_, loaded, planned) = self.load_spec(session)?;
        Ok((loaded, planned))
    }

    /// The same with the spec.
    pub fn load_spec(
        &self,
        session: &mut Session<'_>,
    ) -> Result<(Spec, Loaded, Planned), Reported> {
        let spec = session.spec(&self.spec)?;
        let adapter = session.one_adapter(&spec, self.adapter.as_deref())?;
        let options = ModelOptions {
            roles: adapter.asks_for_roles(),
            ..self.recovery.options()
        };
        let loaded = session.model(&self.model, &options)?;
        let options = PlanOptions {
            settings: self.settings.clone(),
        };
        let (loaded, planned) = session.plan(&spec, adapter, loaded, &options)?;
        session.sink.failed()?;
        Ok((spec, loaded.into_owned(), planned))
    }
}

/// Into the folder, or beside the model without one.
pub(super) fn destination(folder: Option<&PathBuf>) -> Destination {
    match folder {
        Some(folder) => Destination::Folder(folder.clone()),
        None => Destination::Beside,
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
