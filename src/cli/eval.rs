//! `peftc eval`: trained adapters on held-out data.

use super::frame::{Context, Outcome, Payload};
use super::model_args::parse_setting;
use super::train::{scores_json, scores_text};
use crate::driver::Session;
use crate::driver::train::{self, Config, Measured, read_config};
use crate::runtime::Provider;
use serde_json::json;
use std::path::PathBuf;

/// Measure trained adapters, side by side and beside the model without any
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configurations (YAML) that have been trained
    #[arg(required = true)]
    configs: Vec<PathBuf>,
    /// A key that wins over the configurations: data.eval=other.jsonl
    #[arg(long = "with", value_name = "KEY=VALUE", value_parser = parse_setting)]
    changes: Vec<(String, String)>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut configs = Vec::new();
    for path in &args.configs {
        // The faults of all of them are shown.
        configs.extend(read_config(
            path,
            &args.changes,
            &mut cx.sources,
            &mut cx.sink,
        ));
    }
    cx.sink.failed()?;
    let configs: Vec<Config> = configs;
    train::comparable(&configs, &mut cx.sink)?;
    // The library with CUDA has the CPU, too.
    let mut providers = configs.iter().map(|config| config.provider);
    let on_gpu = providers.find(|provider| *provider != Provider::Cpu);
    let library = cx.onnx_runtime(on_gpu.unwrap_or_default().wanted())?;
    let terminal = cx.terminal.clone();
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let mut on = |measured: &Measured| {
        terminal.detail(&format!("measured {}", name(measured, &[])));
    };
    let measured = train::evaluate(&configs, library, &mut session, &mut on)?;
    let task = configs
        .first()
        .map(|config| config.task)
        .unwrap_or_default();
    let width = measured
        .iter()
        .map(|one| name(one, &measured).len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    let mut data = None;
    for one in &measured {
        if data != Some(&one.data) {
            data = Some(&one.data);
            text.push_str(&format!("{}, {} examples\n", files(one), one.examples));
        }
        let scores = scores_text(one.scores, task);
        let name = name(one, &measured);
        text.push_str(&format!("  {name:width$}  {scores}\n"));
    }
    let rows = measured.iter().map(|one| {
        let mut row = scores_json(one.scores, task);
        row["adapter"] = one.adapter.clone().into();
        let folder = one.folder.as_ref();
        row["output"] = folder.map(|folder| folder.display().to_string()).into();
        row["data"] = files(one).into();
        row["examples"] = one.examples.into();
        row
    });
    let json = json!({ "task": task.name(), "results": rows.collect::<Vec<_>>() });
    Ok(Payload::new(text, json))
}

/// The adapter, with the folder of its run where others have one of the same name.
fn name(measured: &Measured, all: &[Measured]) -> String {
    let (Some(adapter), Some(folder)) = (&measured.adapter, &measured.folder) else {
        return "without adapter".to_owned();
    };
    let is_other = |other: &Measured| other.folder.as_ref() != Some(folder);
    let mut namesakes = all
        .iter()
        .filter(|other| other.adapter.as_ref() == Some(adapter));
    match namesakes.any(is_other) {
        true => format!("{adapter} ({})", folder.display()),
        false => adapter.clone(),
    }
}

fn files(measured: &Measured) -> String {
    let files = measured.data.iter().map(|path| path.display().to_string());
    files.collect::<Vec<_>>().join(", ")
}
