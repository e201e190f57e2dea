//! `peftc data`: what a training would learn from.

use super::data_text;
use super::errors;
use super::frame::{Context, Outcome, Payload};
use crate::data::{
    Broken, Columns, Dataset, Encoder, EncoderOptions, Format, Limits, Role, Source, Summary, Task,
    TokenName, TooLong,
};
use clap::ValueEnum;
use std::path::PathBuf;

/// Read data as a training would: counts, lengths, and what is learned from each example
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files of rows; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How rows are written, where the name of the file does not say so
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    rows: Option<Format>,
    /// The tokenizer of the model (`tokenizer.json`); without it rows hold `input_ids`
    #[arg(long, value_name = "JSON")]
    tokenizer: Option<PathBuf>,
    /// What is learned
    #[arg(long, default_value = "causal_lm", value_parser = parse_task, value_name = "TASK")]
    task: Task,
    /// Which column is which, where its name does not say so: prompt=question
    #[arg(long, value_name = "ROLE=COLUMN", value_parser = parse_column)]
    column: Vec<(Role, String)>,
    /// The token that ends a text: as text, or by number as id:2
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    end_token: Option<TokenName>,
    /// The most tokens of an example
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// What happens to an example that is longer
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    too_long: Long,
    /// Leave broken rows out and count them
    #[arg(long)]
    skip_broken: bool,
    /// How many tokens the model knows
    #[arg(long, value_name = "TOKENS")]
    vocabulary: Option<usize>,
    /// How many positions the model has
    #[arg(long, value_name = "TOKENS")]
    positions: Option<usize>,
    /// How many examples to show
    #[arg(long, default_value_t = 2, value_name = "COUNT")]
    show: usize,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Long {
    #[default]
    Refuse,
    CutEnd,
    CutStart,
    Split,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let encoder = Encoder::open(options(args), &mut cx.sink)?;
    let source = |path: &PathBuf| Source {
        path: path.clone(),
        format: args.rows,
    };
    let sources: Vec<Source> = args.files.iter().map(source).collect();
    let broken = match args.skip_broken {
        true => Broken::Skip,
        false => Broken::Refuse,
    };
    let dataset = Dataset::load(&sources, &encoder, broken, &mut cx.sources, &mut cx.sink)?;
    let summary = Summary::new(&dataset);
    let shown = args.show.min(summary.examples);
    let text = data_text::text(&dataset, &summary, &encoder, shown);
    let json = data_text::json(&dataset, &summary, &encoder, shown);
    Ok(Payload::new(text, json))
}

fn options(args: &Args) -> EncoderOptions {
    EncoderOptions {
        tokenizer: args.tokenizer.clone(),
        columns: Columns(args.column.clone()),
        end: args.end_token.clone(),
        max_length: args.max_length,
        too_long: match args.too_long {
            Long::Refuse => TooLong::Refuse,
            Long::CutEnd => TooLong::CutEnd,
            Long::CutStart => TooLong::CutStart,
            Long::Split => TooLong::Split,
        },
        limits: Limits {
            vocabulary: args.vocabulary,
            positions: args.positions,
        },
        ..EncoderOptions::new(args.task)
    }
}

fn parse_format(name: &str) -> Result<Format, String> {
    Format::parse(name).ok_or_else(|| errors::choices("formats", Format::names()))
}

fn parse_task(name: &str) -> Result<Task, String> {
    Task::parse(name).ok_or_else(|| errors::choices("tasks", Task::names()))
}

fn parse_column(text: &str) -> Result<(Role, String), String> {
    let Some((role, column)) = text.split_once('=') else {
        return Err("columns are written role=column, such as prompt=question".to_owned());
    };
    let role = Role::parse(role).ok_or_else(|| errors::choices("roles", Role::names()))?;
    Ok((role, column.to_owned()))
}

fn parse_token(text: &str) -> Result<TokenName, std::convert::Infallible> {
    Ok(TokenName::parse(text))
}
