//! `peftc merge`: an adapter in the weights of its model.

use super::frame::{Context, Outcome, Payload};
use super::model_args::{TrainedArgs, destination};
use crate::diag::counted;
use crate::driver::{self, MergeArtifacts, Session};
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;

/// Merge a trained adapter into the weights of its model: the same nodes, other numbers
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    trained: TrainedArgs,
    /// Write model.onnx into this folder, not MODEL.ADAPTER.merged.onnx beside the model; external
    /// data is copied there
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let (mut loaded, planned) = args.trained.load(&mut session)?;
    let destination = destination(args.output.as_ref());
    let artifacts = driver::merge(
        &mut session,
        &mut loaded,
        &planned,
        &args.trained.values,
        &destination,
    )?;
    // The process is about to end.
    std::mem::forget(loaded);
    let sites = artifacts.sites.iter().map(|site| {
        json!({
            "path": site.path,
            "change": site.change,
            "rounded": site.rounded.map(|dtype| dtype.to_string()),
            "bias": site.bias,
        })
    });
    let json = json!({
        "adapter": planned.plan.adapter,
        "model": artifacts.model.display().to_string(),
        "data": artifacts.data.as_ref().map(|path| path.display().to_string()),
        "copied": artifacts.copied.iter().map(|(path, size)| json!({"file": path.display().to_string(), "bytes": size})).collect::<Vec<_>>(),
        "modules": sites.collect::<Vec<_>>(),
    });
    Ok(Payload::new(
        described(&planned.plan.adapter, &artifacts),
        json,
    ))
}

fn described(adapter: &str, artifacts: &MergeArtifacts) -> String {
    let mut text = format!("adapter `{adapter}`\n");
    let sites = &artifacts.sites;
    let changes = || sites.iter().map(|site| site.change);
    let (low, high) = (
        changes().fold(f64::INFINITY, f64::min),
        changes().fold(0.0, f64::max),
    );
    let count = counted(sites.len(), "module");
    let _ = writeln!(
        text,
        "  merged     {count}; their weights change by {} to {} of their length",
        share(low),
        share(high)
    );
    if let Some(dtype) = sites.iter().find_map(|site| site.rounded) {
        let rounded = sites.iter().filter(|site| site.rounded.is_some()).count();
        let _ = writeln!(
            text,
            "  rounded    {} to {dtype}, the type of the model's weights",
            counted(rounded, "weight")
        );
    }
    let biases = sites.iter().filter(|site| site.bias).count();
    if biases > 0 {
        let _ = writeln!(text, "  bias       of {}, too", counted(biases, "module"));
    }
    for path in std::iter::once(&artifacts.model).chain(&artifacts.data) {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        let _ = writeln!(text, "  wrote      {} ({size} bytes)", path.display());
    }
    for (path, size) in &artifacts.copied {
        let _ = writeln!(text, "  copied     {} ({size} bytes)", path.display());
    }
    text
}

fn share(value: f64) -> String {
    match value {
        0.0 => "0 %".to_owned(),
        _ if value < 1e-4 => format!("{:.1e} %", value * 100.0),
        _ => format!("{:.2} %", value * 100.0),
    }
}
