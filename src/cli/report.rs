//! `peftc report`: the curves of training runs in one page.

use super::frame::{Context, Outcome, Payload};
use super::train_report;
use serde_json::json;
use std::path::PathBuf;

/// Draw the curves of training runs side by side
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Output folders of `peftc train`
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// The page (HTML)
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    train_report::write_side_by_side(&args.folders, &args.output, &mut cx.sink)?;
    let text = format!("  wrote    {}\n", args.output.display());
    Ok(Payload::new(text, json!({ "file": args.output })))
}
