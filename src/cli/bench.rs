//! `peftc bench`: what a step of training takes on this machine.

use super::frame::{Context, Outcome, Payload};
use super::memory;
use super::model_args::{ModelArgs, parse_setting};
use super::recipe_args::BaseName;
use crate::driver::train::{Bench, BenchOptions, Engine};
use crate::driver::{Adam, BatchSizes, Memory, Optimizer, Recipe, Session, Task, Waits};
use crate::files;
use crate::runtime::{Kernels, OperatorTime, Products, Profiling, Provider, Replay, Sums};
use serde_json::json;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

/// Measure what training takes on this machine
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Steps on random batches of one shape: forward, backward and AdamW
    Train(TrainArgs),
}

#[derive(Debug, clap::Args)]
struct TrainArgs {
    /// The spec
    spec: PathBuf,
    /// The ONNX model, a language model whose first output are the logits
    model: PathBuf,
    /// Which adapter of the spec, if it has several
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// A hyper-parameter that wins over the spec: rank=16 or lora.rank=16
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Rows of a batch
    #[arg(long, value_name = "ROWS", default_value = "4")]
    batch: NonZeroUsize,
    /// Tokens of a row
    #[arg(long, value_name = "TOKENS", default_value = "128")]
    length: NonZeroUsize,
    /// Steps that are timed
    #[arg(long, value_name = "COUNT", default_value = "10")]
    steps: NonZeroUsize,
    /// Steps before them that are not
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    warmup: usize,
    /// What the frozen weights are computed with
    #[arg(long, value_enum, default_value_t)]
    base: BaseName,
    /// Compute activations again in the backward pass in place of keeping them
    #[arg(long)]
    recompute: bool,
    /// In how many pieces of the tokens logits are computed; as many as keep them small without it
    #[arg(long, value_name = "COUNT")]
    loss_pieces: Option<NonZeroUsize>,
    /// What computes: cpu, cuda, or cuda:1 for another device
    #[arg(long, default_value = "cpu")]
    provider: Provider,
    /// Let a GPU round the operands of products to TensorFloat-32
    #[arg(long)]
    tf32: bool,
    /// Let a GPU add numbers in any order
    #[arg(long)]
    any_order: bool,
    /// Have a GPU record the step and launch it as a whole
    #[arg(long)]
    cuda_graphs: bool,
    /// Threads inside an operator
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZeroUsize>,
    /// Run every operator by itself, as a session without peftc does
    #[arg(long)]
    no_kernels: bool,
    /// Say which operators the time goes to, and write ONNX Runtime's record of every node here, for Perfetto or Chrome's tracing
    #[arg(long, value_name = "JSON")]
    profile: Option<PathBuf>,
    #[command(flatten)]
    recovery: ModelArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    match &args.what {
        What::Train(args) => train(args, cx),
    }
}

fn train(args: &TrainArgs, cx: &mut Context) -> Outcome {
    let options = BenchOptions {
        adapter: args.adapter.clone(),
        settings: args.settings.clone(),
        recipe: Recipe {
            task: Task::CausalLm {
                label_smoothing: 0.0,
            },
            output: None,
            optimizer: Optimizer::AdamW(Adam::default()),
            max_grad_norm: None,
            base: args.base.into(),
            rates: Vec::new(),
            memory: Memory {
                recompute: args.recompute.into(),
                pieces: match args.cuda_graphs {
                    true => Some(args.loss_pieces.map_or(1, NonZeroUsize::get)),
                    false => args.loss_pieces.map(NonZeroUsize::get),
                },
                batch: BatchSizes {
                    rows: args.batch.get(),
                    tokens: args.length.get(),
                },
                budget: None,
                measures: false,
                waits: match args.provider {
                    Provider::Cpu => Waits::AsView,
                    Provider::Cuda(_) => Waits::AsCopy,
                },
                kernels: !args.no_kernels && args.provider == Provider::Cpu,
            },
        },
        rows: args.batch,
        length: args.length,
        engine: Engine {
            provider: args.provider,
            products: match args.tf32 {
                true => Products::Tf32,
                false => Products::Exact,
            },
            sums: match args.any_order {
                true => Sums::AnyOrder,
                false => Sums::Ordered,
            },
            threads: args.threads,
            kernels: match args.no_kernels {
                true => Kernels::Off,
                false => Kernels::On,
            },
            profiling: match args.profile {
                Some(_) => Profiling::On,
                None => Profiling::Off,
            },
            replay: match args.cuda_graphs {
                true => Replay::On,
                false => Replay::Off,
            },
        },
    };
    options.check(&mut cx.sink)?;
    let library = cx.onnx_runtime(args.provider.wanted())?;
    let began = Instant::now();
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let recovery = args.recovery.options();
    let mut bench = Bench::new(
        &args.spec,
        &args.model,
        recovery,
        &options,
        library,
        &mut session,
    )?;
    let start = began.elapsed();
    let mut times = Vec::with_capacity(args.steps.get());
    for step in 0..args.warmup + args.steps.get() {
        let began = Instant::now();
        bench.step(&mut cx.sink)?;
        if step >= args.warmup {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let (least, median) = least_and_median(&times);
    let tokens = (args.batch.get() * args.length.get()) as f64 / median * 1e3;
    let peak = memory::peak();
    let shown_peak = peak.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let mut text = format!(
        "  batch     {} × {} tokens, {} steps\n  a step    {median:.1} ms, at least {least:.1} ms\n  speed     {tokens:.0} tokens/s\n  memory    {shown_peak} at most\n  start     {:.1} s until the first step\n",
        args.batch,
        args.length,
        args.steps,
        start.as_secs_f64(),
    );
    let mut json = json!({
        "batch": args.batch, "length": args.length, "milliseconds": times,
        "median_milliseconds": median, "least_milliseconds": least, "tokens_per_second": tokens,
        "peak_memory_bytes": peak, "start_seconds": start.as_secs_f64(),
    });
    if let (Some(path), Some(profile)) = (&args.profile, bench.profile(&mut cx.sink)?) {
        let trace = |file: &mut dyn Write| file.write_all(&profile.trace);
        files::write(path, &mut cx.sink, trace)?;
        text += &table(&profile.operators, bench.done());
        json["operators"] = operators(&profile.operators, bench.done());
    }
    Ok(Payload::new(text, json))
}

/// Operators that are shown by themselves.
const SHOWN: usize = 12;

/// Milliseconds of one step; the record is of all of them, those that are not timed, too.
fn milliseconds(microseconds: u64, steps: u64) -> f64 {
    microseconds as f64 / 1e3 / steps as f64
}

fn table(operators: &[OperatorTime], steps: u64) -> String {
    let sum = |of: &[OperatorTime]| of.iter().map(|op| op.microseconds).sum::<u64>();
    let calls = |of: &[OperatorTime]| of.iter().map(|op| op.calls).sum::<u64>();
    let all = sum(operators).max(1);
    let line = |name: &str, calls: u64, microseconds: u64| {
        format!(
            "  {name:<24} {:>6} {:>9.1} ms {:>6.1} %\n",
            calls / steps,
            milliseconds(microseconds, steps),
            100.0 * microseconds as f64 / all as f64,
        )
    };
    let (shown, others) = operators.split_at(operators.len().min(SHOWN));
    let mut text = "\n  operator                  nodes      a step   share\n".to_owned();
    for op in shown {
        text += &line(&op.op_type, op.calls, op.microseconds);
    }
    if !others.is_empty() {
        let name = format!("{} others", others.len());
        text += &line(&name, calls(others), sum(others));
    }
    text
}

fn operators(operators: &[OperatorTime], steps: u64) -> serde_json::Value {
    let row = |op: &OperatorTime| {
        json!({
            "op_type": op.op_type, "nodes": op.calls / steps,
            "milliseconds": milliseconds(op.microseconds, steps),
        })
    };
    operators.iter().map(row).collect()
}

/// Of at least one time.
fn least_and_median(times: &[f64]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2])
}
