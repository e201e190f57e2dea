//! `peftc stack`: several adapters as the start of one.

use super::frame::{Context, Outcome, Payload};
use crate::diag::counted;
use crate::driver::{self, StackOptions};
use serde_json::json;
use std::path::PathBuf;

/// Put adapters of one shape into one file, for methods that mix trained ones
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files of tensors, such as adapter.safetensors of a run, in the order of the experts
    #[arg(required = true)]
    adapters: Vec<PathBuf>,
    /// What comes behind the name of every tensor: _general makes A_general of A
    #[arg(long, value_name = "TEXT", default_value = "")]
    suffix: String,
    /// A file whose tensors are written beside them as they are
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// The file to write, which `start:` and `peftc compile --start` read
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let options = StackOptions {
        adapters: args.adapters.clone(),
        suffix: args.suffix.clone(),
        beside: args.beside.clone(),
        output: args.output.clone(),
    };
    let found = driver::stack(&options, &mut cx.sink)?;
    let text = format!(
        "  stacked  {} of {}\n  wrote    {}: {}\n",
        counted(found.stacked, "tensor"),
        counted(args.adapters.len(), "adapter"),
        args.output.display(),
        counted(found.written, "tensor"),
    );
    let json = json!({
        "file": args.output, "adapters": args.adapters.len(),
        "stacked": found.stacked, "tensors": found.written,
    });
    Ok(Payload::new(text, json))
}
