//! `peftc completions`: completion scripts for shells.

use super::Cli;
use super::frame::{Context, Outcome, Payload};
use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args, _: &mut Context) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "peftc", &mut script);
    let script = String::from_utf8(script).expect("clap writes UTF-8");
    let shell = args.shell.to_string();
    Ok(Payload::new(
        script.clone(),
        json!({ "shell": shell, "script": script }),
    ))
}
