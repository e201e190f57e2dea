//! The command line: arguments in, exit status out.
//!
//! In: the arguments, the environment and the terminal, read here and nowhere below. Out: data on
//! stdout, talk and diagnostics on stderr, an exit status. What holds: with `--format json` stdout
//! is always one valid JSON object, also when the arguments are wrong or peftc itself fails; a
//! subcommand never prints, it returns a [`Payload`]. Not here: any work; a subcommand is one file
//! that calls the rooms below and puts their answer into words.

mod bench;
mod calibrate;
mod check;
mod compile;
mod completions;
mod convert;
mod data;
mod data_text;
mod docs;
mod errors;
mod eval;
mod exit;
mod explain;
mod export;
mod fmt;
mod format;
mod frame;
mod graph;
mod guard;
mod import;
mod inspect;
mod memory;
mod merge;
mod model_args;
mod new;
mod options;
mod plan;
mod progress;
mod recipe_args;
mod report;
mod run;
mod runtime;
mod stack;
mod terminal;
mod test;
mod train;
mod train_report;
mod train_speed;
mod usage;
mod verify;

use clap::{Parser, Subcommand};
use frame::{Context, Outcome};
use options::Global;
use std::process::ExitCode;

/// Compiles adapter specifications (.peft) and ONNX models into adapted ONNX models
#[derive(Debug, Parser)]
#[command(name = "peftc", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compile(compile::Args),
    Calibrate(calibrate::Args),
    Check(check::Args),
    Fmt(fmt::Args),
    Plan(plan::Args),
    Inspect(inspect::Args),
    Graph(graph::Args),
    Merge(merge::Args),
    Convert(convert::Args),
    Export(export::Args),
    Import(import::Args),
    Stack(stack::Args),
    Test(test::Args),
    New(new::Args),
    Docs(docs::Args),
    Data(data::Args),
    Train(train::Args),
    Eval(eval::Args),
    Report(report::Args),
    Bench(bench::Args),
    Run(run::Args),
    Runtime(runtime::Args),
    Explain(explain::Args),
    Completions(completions::Args),
}

impl Command {
    /// The subcommand's name, as the `command` field of JSON outputs gives it.
    fn name(&self) -> &'static str {
        match self {
            Command::Compile(_) => "compile",
            Command::Calibrate(_) => "calibrate",
            Command::Check(_) => "check",
            Command::Fmt(_) => "fmt",
            Command::Plan(_) => "plan",
            Command::Inspect(_) => "inspect",
            Command::Graph(_) => "graph",
            Command::Merge(_) => "merge",
            Command::Convert(_) => "convert",
            Command::Export(_) => "export",
            Command::Import(_) => "import",
            Command::Stack(_) => "stack",
            Command::Test(_) => "test",
            Command::New(_) => "new",
            Command::Docs(_) => "docs",
            Command::Data(_) => "data",
            Command::Train(_) => "train",
            Command::Eval(_) => "eval",
            Command::Report(_) => "report",
            Command::Bench(_) => "bench",
            Command::Run(_) => "run",
            Command::Runtime(_) => "runtime",
            Command::Explain(_) => "explain",
            Command::Completions(_) => "completions",
        }
    }

    fn run(&self, cx: &mut Context) -> Outcome {
        match self {
            Command::Compile(args) => compile::run(args, cx),
            Command::Calibrate(args) => calibrate::run(args, cx),
            Command::Check(args) => check::run(args, cx),
            Command::Fmt(args) => fmt::run(args, cx),
            Command::Plan(args) => plan::run(args, cx),
            Command::Inspect(args) => inspect::run(args, cx),
            Command::Graph(args) => graph::run(args, cx),
            Command::Merge(args) => merge::run(args, cx),
            Command::Convert(args) => convert::run(args, cx),
            Command::Export(args) => export::run(args, cx),
            Command::Import(args) => import::run(args, cx),
            Command::Stack(args) => stack::run(args, cx),
            Command::Test(args) => test::run(args, cx),
            Command::New(args) => new::run(args, cx),
            Command::Docs(args) => docs::run(args, cx),
            Command::Data(args) => data::run(args, cx),
            Command::Train(args) => train::run(args, cx),
            Command::Eval(args) => eval::run(args, cx),
            Command::Report(args) => report::run(args, cx),
            Command::Bench(args) => bench::run(args, cx),
            Command::Run(args) => run::run(args, cx),
            Command::Runtime(args) => runtime::run(args, cx),
            Command::Explain(args) => explain::run(args, cx),
            Command::Completions(args) => completions::run(args, cx),
        }
    }
}

/// Runs the command line of this process; what `main` calls.
pub fn main() -> ExitCode {
    guard::install();
    let arguments: Vec<_> = std::env::args_os().collect();
    let status = match Cli::try_parse_from(&arguments) {
        Ok(cli) => frame::run(&cli.global, cli.command.name(), |cx| cli.command.run(cx)),
        Err(error) => usage::answer(&error, &arguments),
    };
    guard::end(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
