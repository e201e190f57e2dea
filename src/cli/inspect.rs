//! `peftc inspect`: the modules of a model.

use super::frame::{Context, Outcome, Payload};
use super::model_args::ModelArgs;
use crate::driver::{ModelOptions, Session, modules_json, modules_text, write_names};
use std::path::PathBuf;

/// List the torch modules of a model: what an adapter could target
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ONNX model; its weights need not be there
    model: PathBuf,
    /// Write a name map for `--names`, which names the modules after a tool has dropped the names
    #[arg(long, value_name = "JSON")]
    write_names: Option<PathBuf>,
    #[command(flatten)]
    recovery: ModelArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let options = ModelOptions {
        without_data: true,
        roles: true,
        ..args.recovery.options()
    };
    let loaded = session.model(&args.model, &options)?;
    if let Some(path) = &args.write_names {
        let outputs = write_names(&loaded, path, &mut cx.sink)?;
        cx.terminal.say(&format!(
            "names of {outputs} outputs written to {}",
            path.display()
        ));
    }
    Ok(Payload::new(modules_text(&loaded), modules_json(&loaded)))
}
