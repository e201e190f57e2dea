//! `peftc calibrate`: what data tells of a model, for methods that start from it.

use super::frame::{Context, Outcome, Payload};
use super::model_args::parse_setting;
use super::progress::Bar;
use crate::driver::Session;
use crate::driver::train::{self, CalibrateOptions, read_config};
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Measure, on training data, what methods such as eva, corda and lora_ga start from
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration (YAML) of the run, as `peftc train` takes it
    config: PathBuf,
    /// A key that wins over the configuration: batch_size=4
    #[arg(long = "with", value_name = "KEY=VALUE", value_parser = parse_setting)]
    changes: Vec<(String, String)>,
    /// Where the file goes; without it the configuration's `calibration`
    #[arg(short, long, value_name = "SAFETENSORS")]
    output: Option<PathBuf>,
    /// The most batches that are measured
    #[arg(long, default_value = "32", value_name = "N")]
    batches: NonZeroUsize,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let config = read_config(&args.config, &args.changes, &mut cx.sources, &mut cx.sink)?;
    let library = cx.onnx_runtime(config.provider.wanted())?;
    let bar = Bar::new("batches", &cx.terminal);
    let options = CalibrateOptions {
        batches: args.batches,
        output: args.output.clone(),
    };
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let mut on = |done, of| bar.at(done, of);
    let found = train::calibrate(&config, &options, library, &mut session, &mut on)?;
    let path = found.path.display().to_string();
    let text = format!(
        "measured {} modules of `{}` on {} examples in {} batches\n  wrote    {path}\n",
        found.modules, found.adapter, found.examples, found.batches
    );
    let json = json!({
        "adapter": found.adapter,
        "modules": found.modules,
        "examples": found.examples,
        "batches": found.batches,
        "calibration": path,
    });
    Ok(Payload::new(text, json))
}
