//! `peftc data`: what a training would learn from.

use super::data_text::{Packed, View};
use super::errors;
use super::frame::{Context, Outcome, Payload};
use crate::data::{
    BatchOptions, Batcher, Broken, Columns, Dataset, Encoder, EncoderOptions, Format, Limits, Role,
    Source, Summary, Task, TemplateText, Templates, TokenName, TooLong,
};
use crate::diag::{Reported, Sink};
use crate::files;
use clap::ValueEnum;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

/// Templates are texts that people write: larger ones are refused.
const TEMPLATE_LIMIT: u64 = 4 << 20;

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
    /// The token that batches are padded with
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    padding_token: Option<TokenName>,
    /// What a decoder starts with, for the task seq2seq: a token or id:10
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    decoder_start_token: Option<TokenName>,
    /// The template of conversations; without it the tokenizer's own
    #[arg(long, value_name = "JINJA")]
    chat_template: Option<PathBuf>,
    /// Makes the prompt of the row's columns: 'Q: {{ question }} A: '
    #[arg(long, value_name = "TEMPLATE")]
    prompt_template: Option<String>,
    /// Makes the completion
    #[arg(long, value_name = "TEMPLATE")]
    completion_template: Option<String>,
    /// Makes the text
    #[arg(long, value_name = "TEMPLATE")]
    text_template: Option<String>,
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
    /// Names of the classes in the model's order; without them the data decides
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    classes: Vec<String>,
    /// How many classes the model tells apart
    #[arg(long, value_name = "COUNT")]
    class_count: Option<usize>,
    /// Say how many rows of so many tokens the examples fill when several share a row
    #[arg(long, value_name = "TOKENS")]
    pack: Option<NonZeroUsize>,
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
    let options = options(args, &mut cx.sink)?;
    let encoder = Encoder::open(options, &mut cx.sink)?;
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
    let dataset = Arc::new(dataset);
    let packed = args.pack.map(|room| packed(&dataset, room, &mut cx.sink));
    let summary = Summary::new(&dataset);
    let view = View {
        shown: args.show.min(summary.examples),
        packed: packed.transpose()?,
        dataset: &dataset,
        summary,
        encoder: &encoder,
    };
    Ok(Payload::new(view.text(), view.json()))
}

/// How full rows are that several examples share.
fn packed(dataset: &Arc<Dataset>, room: NonZeroUsize, sink: &mut Sink) -> Result<Packed, Reported> {
    let mut options = BatchOptions::new(NonZeroUsize::MIN, 0);
    options.pack = Some(room);
    let batcher = Batcher::new(Arc::clone(dataset), options, sink)?;
    Ok(Packed {
        rows: batcher.rows(),
        room: room.get(),
    })
}

fn options(args: &Args, sink: &mut Sink) -> Result<EncoderOptions, Reported> {
    let named = |text: &Option<String>, name: &str| {
        let (name, text) = (name.to_owned(), text.clone()?);
        Some(TemplateText { name, text })
    };
    let chat = match &args.chat_template {
        None => None,
        Some(path) => Some(TemplateText {
            name: path.display().to_string(),
            text: files::read_text(path, TEMPLATE_LIMIT, sink)?,
        }),
    };
    Ok(EncoderOptions {
        templates: Templates {
            chat,
            prompt: named(&args.prompt_template, "--prompt-template"),
            completion: named(&args.completion_template, "--completion-template"),
            text: named(&args.text_template, "--text-template"),
        },
        tokenizer: args.tokenizer.clone(),
        columns: Columns(args.column.clone()),
        end: args.end_token.clone(),
        padding: args.padding_token.clone(),
        start: args.decoder_start_token.clone(),
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
            classes: args.class_count,
            labels_are_classes: args.class_count.is_some(),
        },
        classes: args.classes.clone(),
        ..EncoderOptions::new(args.task)
    })
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
