//! Options of every subcommand.

use super::format::{Report, parse_report};
use clap::{Args, ValueEnum};

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Output format: human, json, sarif, github, junit; several at once with files:
    /// `github,sarif=out.sarif`
    #[arg(long, global = true, value_delimiter = ',', default_value = "human",
          value_parser = parse_report, value_name = "FORMAT[=FILE]")]
    pub format: Vec<Report>,
    /// When to use colour; `NO_COLOR` is respected
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorWhen,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Exit with status 3 when there are warnings
    #[arg(long, global = true, value_enum, value_name = "WHAT")]
    pub deny: Option<Deny>,
    /// Exit with status 0 in spite of findings
    #[arg(long, global = true)]
    pub exit_zero: bool,
    /// Never use the network
    #[arg(long, global = true)]
    pub offline: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorWhen {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Deny {
    Warnings,
}

impl Default for Global {
    /// What holds when the command line could not be read.
    fn default() -> Self {
        Global {
            format: vec![Report::default()],
            color: ColorWhen::Auto,
            quiet: false,
            verbose: false,
            deny: None,
            exit_zero: false,
            offline: false,
        }
    }
}
