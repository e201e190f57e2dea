//! `peftc check`: whether specs are right, alone or against a model.

use super::frame::{Context, Outcome, Payload};
use super::model_args::ModelArgs;
use crate::driver::{ModelOptions, PlanOptions, Session};
use serde_json::json;
use std::path::PathBuf;

/// Check specs, alone or against a model
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The specs
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<PathBuf>,
    /// The model that they are for; its weights need not be there
    #[arg(long, value_name = "ONNX")]
    model: Option<PathBuf>,
    #[command(flatten)]
    recovery: ModelArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let loaded = match &args.model {
        Some(path) => Some(session.model(
            path,
            &ModelOptions {
                without_data: true,
                roles: true,
                ..args.recovery.options()
            },
        )?),
        None => None,
    };
    let mut rows = Vec::new();
    let mut human = String::new();
    for path in &args.specs {
        // Errors of one spec do not hide those of the next.
        let before = session.sink.error_count();
        let Ok(spec) = session.spec(path) else {
            continue;
        };
        let adapters: Vec<&str> = spec
            .program
            .adapters
            .iter()
            .map(|a| a.name.node.as_str())
            .collect();
        rows.push(json!({ "spec": path.display().to_string(), "adapters": adapters }));
        if let Some(loaded) = &loaded
            && let Ok(adapters) = session.adapters(&spec, &[])
        {
            for adapter in adapters {
                let _ = session.plan(&spec, adapter, loaded, &PlanOptions::default());
            }
        }
        if session.sink.error_count() == before {
            human.push_str(&format!("{}: ok\n", path.display()));
        }
    }
    Ok(Payload::new(human, json!({ "specs": rows })))
}
