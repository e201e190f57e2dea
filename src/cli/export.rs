//! `peftc export`: a trained adapter for another tool.

use super::frame::{Context, Outcome, Payload};
use super::model_args::TrainedArgs;
use crate::diag::counted;
use crate::driver::{self, ExportArtifacts, ExportOptions, Session};
use serde_json::json;
use std::path::PathBuf;

/// Write a trained adapter as Hugging Face PEFT saves it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    trained: TrainedArgs,
    /// The tool that is to read it
    #[arg(long, value_enum, value_name = "TOOL")]
    to: Tool,
    /// The folder of adapter_config.json and adapter_model.safetensors
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What PEFT is to load as the base model (`base_model_name_or_path`)
    #[arg(long, value_name = "NAME")]
    base_model: Option<String>,
    /// The task that PEFT builds its model for (`task_type`): CAUSAL_LM, SEQ_CLS, …
    #[arg(long, value_name = "TASK")]
    task_type: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Tool {
    /// Hugging Face PEFT: what `PeftModel.from_pretrained` reads
    Peft,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let Tool::Peft = args.to;
    let (spec, loaded, planned) = args.trained.load_spec(&mut session)?;
    let options = ExportOptions {
        values: args.trained.values.clone(),
        folder: args.output.clone(),
        base: args.base_model.clone(),
        task: args.task_type.clone(),
    };
    let artifacts = driver::export(&mut session, &spec, &loaded, &planned, &options)?;
    // The process is about to end.
    std::mem::forget(loaded);
    let name = &planned.plan.adapter;
    let json = json!({
        "adapter": name,
        "peft_type": artifacts.kind,
        "config": artifacts.config.display().to_string(),
        "weights": artifacts.weights.display().to_string(),
        "modules": artifacts.modules,
        "tensors": artifacts.tensors,
    });
    Ok(Payload::new(described(name, &artifacts), json))
}

fn described(adapter: &str, artifacts: &ExportArtifacts) -> String {
    let size = std::fs::metadata(&artifacts.weights).map_or(0, |m| m.len());
    format!(
        "adapter `{adapter}`\n  exported   as PEFT's {}: {} of {}\n  wrote      {} ({size} bytes)\n  wrote      {}\n",
        artifacts.kind,
        counted(artifacts.tensors, "tensor"),
        counted(artifacts.modules, "module"),
        artifacts.weights.display(),
        artifacts.config.display(),
    )
}
