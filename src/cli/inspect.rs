//! `peftc inspect`: the modules of a model.

use super::frame::{Context, Outcome, Payload};
use super::model_args::ModelArgs;
use crate::driver::{ModelOptions, Session, modules_json, modules_text};
use std::path::PathBuf;

/// List the torch modules of a model: what an adapter could target
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ONNX model; its weights need not be there
    model: PathBuf,
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
        ..args.recovery.options()
    };
    let loaded = session.model(&args.model, &options)?;
    Ok(Payload::new(modules_text(&loaded), modules_json(&loaded)))
}
