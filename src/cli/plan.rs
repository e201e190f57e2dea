//! `peftc plan`: what `compile` would do.

use super::frame::{Context, Outcome, Payload};
use super::model_args::{ModelArgs, parse_setting};
use crate::driver::{ModelOptions, PlanOptions, Session, Summary};
use serde_json::json;
use std::path::PathBuf;

/// Show which modules an adapter changes, and what that costs, without writing anything
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The spec
    spec: PathBuf,
    /// The ONNX model; its weights need not be there
    #[arg(long, value_name = "ONNX")]
    model: PathBuf,
    /// Which adapters of the spec; all without it
    #[arg(long, value_name = "NAME")]
    adapter: Vec<String>,
    /// A hyper-parameter that wins over the spec: rank=16 or lora.rank=16
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    recovery: ModelArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let spec = session.spec(&args.spec)?;
    let adapters = session.adapters(&spec, &args.adapter)?;
    let loaded = session.model(
        &args.model,
        &ModelOptions {
            without_data: true,
            roles: true,
            ..args.recovery.options()
        },
    )?;
    let options = PlanOptions {
        settings: args.settings.clone(),
    };
    let mut human = String::new();
    let mut plans = Vec::new();
    for adapter in adapters {
        let Ok(planned) = session.plan(&spec, adapter, &loaded, &options) else {
            continue;
        };
        let summary = Summary::new(&planned, &loaded);
        human.push_str(&summary.to_text(&loaded.model));
        plans.push(summary.to_json());
    }
    Ok(Payload::new(human, json!({ "plans": plans })))
}
