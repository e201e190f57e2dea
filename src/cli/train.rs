//! `peftc train`: a configuration, and the trained adapter.

use super::frame::{Context, Outcome, Payload};
use super::guard;
use super::memory;
use super::model_args::parse_setting;
use super::progress::{Bar, Steps};
use super::train_report;
use super::train_speed::Speed;
use crate::diag::{Diagnostic, Reported, Sink};
use crate::driver::train::{
    self, Begin, Config, EVENTS, Event, METRICS, RunOptions, Scores, read_config,
};
use crate::driver::{Artifacts, Progress, Session, TaskKind};
use crate::files;
use crate::report;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Train an adapter on ONNX Runtime
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration (YAML); `peftc explain E1101` lists its keys
    config: PathBuf,
    /// A key that wins over the configuration: steps=100 or optimizer.learning_rate=1e-3
    #[arg(long = "with", value_name = "KEY=VALUE", value_parser = parse_setting)]
    changes: Vec<(String, String)>,
    /// Go on from the checkpoint in the output folder, or from another one of the same run, such as a kept
    /// or the best one
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    resume: Option<Option<PathBuf>>,
    /// Compute activations again in the backward pass in place of keeping them: less memory, slower
    #[arg(long)]
    recompute: bool,
    /// The most memory that training may take, such as 8GiB: activations are computed again if need be
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Search the first value that is no number when a loss or a gradient is none; slower
    #[arg(long)]
    debug_numerics: bool,
    /// Run every operator by itself, as a session without peftc does: `kernels: false`
    #[arg(long)]
    no_kernels: bool,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Outcome {
    let mut changes = args.changes.clone();
    if args.recompute {
        changes.push(("recompute".to_owned(), "true".to_owned()));
    }
    if args.no_kernels {
        changes.push(("kernels".to_owned(), "false".to_owned()));
    }
    if let Some(size) = &args.memory {
        changes.push(("memory".to_owned(), size.clone()));
    }
    let config = read_config(&args.config, &changes, &mut cx.sources, &mut cx.sink)?;
    let library = cx.onnx_runtime(config.provider.wanted())?;
    let stop = guard::graceful();
    let bar = Bar::new("start values", &cx.terminal);
    let mut show = Show::new(cx, &config);
    let mut session = Session {
        sources: &mut cx.sources,
        sink: &mut cx.sink,
    };
    let result = train::train(
        &config,
        RunOptions {
            begin: match args.resume.clone() {
                None => Begin::Anew,
                Some(None) => Begin::Last,
                Some(Some(path)) => Begin::From(path),
            },
            debug_numerics: args.debug_numerics,
            progress: Progress::new(move |done, of| bar.at(done, of)),
            available: memory::available(),
        },
        library,
        stop,
        &mut session,
        &mut |event| {
            show.event(event);
        },
    );
    guard::ungraceful();
    cx.shown.append(&mut show.warned);
    let outcome = result?;
    if let Some(failed) = show.failed {
        return Err(cx.sink.emit(failed));
    }
    let seconds = show.trained.as_secs_f64();
    let mut text = String::new();
    if outcome.stopped {
        text.push_str("stopped; `--resume` goes on\n");
    }
    if let (Some(before), Some(after)) = (outcome.before, outcome.after) {
        text.push_str(&format!(
            "  before   {}\n  after    {}\n",
            scores_text(before, config.task),
            scores_text(after, config.task)
        ));
    }
    if let Some(step) = outcome.best {
        text.push_str(&format!(
            "  deployed is the adapter of step {step}, with the lowest loss\n"
        ));
    }
    let report = report(&config, &outcome, seconds, &mut cx.sink)?;
    let written = files(&outcome.artifacts).chain([report.as_path()]);
    let written: Vec<String> = written.map(|path| path.display().to_string()).collect();
    for path in &written {
        text.push_str(&format!("  wrote    {path}\n"));
    }
    let json = json!({
        "steps": outcome.steps,
        "stopped": outcome.stopped,
        "best": outcome.best,
        "before": outcome.before.map(|scores| scores_json(scores, config.task)),
        "after": outcome.after.map(|scores| scores_json(scores, config.task)),
        "seconds": seconds,
        "files": written,
    });
    Ok(Payload::new(text, json))
}

/// Writes the run's report; answers with its path.
fn report(
    config: &Config,
    outcome: &train::Outcome,
    seconds: f64,
    sink: &mut Sink,
) -> Result<PathBuf, Reported> {
    let manifest = &outcome.artifacts.manifest;
    let mut facts = vec![
        ("model".to_owned(), manifest.base.name.clone()),
        ("spec".to_owned(), manifest.spec.name.clone()),
        (
            "trained parameters".to_owned(),
            manifest.counts.trainable.to_string(),
        ),
        ("steps".to_owned(), outcome.steps.to_string()),
        ("seconds of training".to_owned(), format!("{seconds:.1}")),
    ];
    for (when, scores) in [("before", outcome.before), ("after", outcome.after)] {
        facts.extend(scores.map(|scores| (when.to_owned(), scores_text(scores, config.task))));
    }
    let title = format!("Training of {}", manifest.adapter);
    train_report::write(&config.output, title, facts, sink)
}

fn files(artifacts: &Artifacts) -> impl Iterator<Item = &Path> {
    let three = [
        &artifacts.model,
        &artifacts.weights,
        &artifacts.manifest_path,
    ];
    three.into_iter().map(PathBuf::as_path)
}

pub(super) fn scores_text(scores: Scores, task: TaskKind) -> String {
    let mut text = format!("loss {:.4}", scores.loss);
    if task.predicts_tokens() {
        text.push_str(&format!(", perplexity {}", rounded(scores.perplexity())));
    }
    for (what, share) in [
        (what_counts(task), scores.accuracy),
        ("examples", scores.exact),
    ] {
        if let Some(share) = share {
            text.push_str(&format!(", {what} right {:.1} %", 100.0 * share));
        }
    }
    if let Some(f1) = scores.f1 {
        text.push_str(&format!(", F1 {f1:.3}"));
    }
    text
}

/// Four digits of a number that may be huge.
fn rounded(number: f64) -> String {
    match number {
        number if number < 1e4 => format!("{number:.4}"),
        number => format!("{number:.2e}"),
    }
}

/// What is right or wrong.
fn what_counts(task: TaskKind) -> &'static str {
    match task {
        TaskKind::CausalLm | TaskKind::Seq2Seq | TaskKind::TokenClassification => "tokens",
        TaskKind::MultiLabel => "classes",
        TaskKind::Contrastive => "pairs",
        TaskKind::Classification
        | TaskKind::Regression
        | TaskKind::Cosine
        | TaskKind::Distillation => "examples",
    }
}

pub(super) fn scores_json(scores: Scores, task: TaskKind) -> Value {
    let mut json = json!({
        "loss": scores.loss, "accuracy": scores.accuracy, "f1": scores.f1, "exact": scores.exact,
    });
    if task.predicts_tokens() {
        json["perplexity"] = scores.perplexity().into();
    }
    json
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// How often a line about the steps is said.
const PACE: Duration = Duration::from_secs(2);

/// Tells of a run: lines for people, JSON lines in a file.
struct Show {
    shown: Steps,
    /// Warnings that have been shown.
    warned: Vec<Diagnostic>,
    folder: PathBuf,
    tensorboard: bool,
    /// Whether there are held-out examples.
    measures: bool,
    /// `metrics.jsonl` of the output folder; without it nothing is written down.
    metrics: Option<File>,
    /// The same for TensorBoard.
    events: Option<File>,
    /// Why not everything is written down.
    failed: Option<Diagnostic>,
    task: TaskKind,
    steps: u64,
    last: Instant,
    began: Instant,
    /// Since the first step, without measuring.
    trained: Duration,
    tokens: usize,
    done: u64,
}

impl Show {
    fn new(cx: &Context, config: &Config) -> Show {
        Show {
            shown: Steps::new(&cx.terminal),
            warned: Vec::new(),
            folder: config.output.clone(),
            tensorboard: config.tensorboard,
            measures: config.data.eval.is_some(),
            metrics: None,
            events: None,
            failed: None,
            task: config.task,
            steps: 0,
            last: Instant::now(),
            began: Instant::now(),
            trained: Duration::ZERO,
            tokens: 0,
            done: 0,
        }
    }

    /// Opens what is written to, behind the figures of the steps that a run goes on from.
    fn open(&mut self, done: u64) {
        let open = |name: &str| {
            let mut options = File::options();
            options
                .create(true)
                .write(true)
                .append(done > 0)
                .truncate(done == 0);
            options.open(self.folder.join(name))
        };
        let cut = match done {
            0 => Ok(()),
            done => train_report::cut(&self.folder.join(METRICS), done, self.measures),
        };
        let metrics = cut.and_then(|()| open(METRICS));
        let events = self.tensorboard.then(|| open(EVENTS)).transpose();
        self.metrics = metrics.map_err(|error| self.fail(METRICS, &error)).ok();
        self.events = events
            .map_err(|error| self.fail(EVENTS, &error))
            .ok()
            .flatten();
        if let Some(file) = &mut self.events {
            // Behind the events of an earlier run it is a start again, which TensorBoard takes, too.
            let _ = file.write_all(&report::event_file(wall_time()));
        }
    }

    /// Says at once that something is not written down. It is the error of the run when that ends; what
    /// has been trained is worth more.
    fn fail(&mut self, name: &str, error: &io::Error) {
        let failed = files::cannot_write(&self.folder.join(name), error);
        self.shown.warn(&failed);
        self.warned.push(failed.clone());
        self.failed = Some(failed);
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Started {
                adapter,
                trained,
                examples,
                steps,
                done,
            } => {
                let from = match done {
                    0 => String::new(),
                    done => format!(", from step {done}"),
                };
                self.shown.say(&format!(
                    "training `{adapter}`: {trained} parameters, {examples} examples, {steps} steps{from}"
                ));
                self.open(*done);
                self.shown.start(*done, *steps);
                self.steps = *steps;
                self.done = *done;
                self.began = Instant::now();
                self.last = self.began;
            }
            Event::Step {
                step,
                epoch,
                loss,
                learning_rate,
                grad_norm,
                tokens,
            } => self.step(*step, *epoch, [*loss, *learning_rate, *grad_norm], *tokens),
            Event::Evaluated { step, scores } => {
                self.shown.say(&format!(
                    "  step {step:5}  held out: {}",
                    scores_text(*scores, self.task)
                ));
                let mut line = scores_json(*scores, self.task);
                line["event"] = "eval".into();
                line["step"] = (*step).into();
                self.write(&line);
                // Measuring is no training.
                self.began = Instant::now();
            }
            Event::Warned(warning) => {
                // The system may end the run before its end could show it.
                self.shown.warn(warning);
                self.warned.push(warning.clone());
            }
            Event::Saved { step } => {
                self.shown.detail(&format!("  step {step:5}  checkpoint"));
            }
        }
    }

    fn step(&mut self, step: u64, epoch: u64, [loss, rate, norm]: [f64; 3], tokens: usize) {
        let now = Instant::now();
        self.trained += now - self.began;
        self.began = now;
        self.tokens += tokens;
        let speed = Speed {
            seconds: self.trained.as_secs_f64().max(1e-9),
            steps: step - self.done,
            left: self.steps - step,
            tokens: self.tokens,
            memory: memory::peak(),
        };
        self.write(&json!({
            "event": "step", "step": step, "epoch": epoch, "loss": loss, "learning_rate": rate,
            "grad_norm": norm, "tokens": tokens, "seconds": speed.seconds,
            "tokens_per_second": speed.tokens_per_second(),
            "steps_per_second": speed.steps_per_second(),
            "eta_seconds": speed.eta_seconds(), "memory_bytes": speed.memory,
        }));
        let learned = format!("loss {loss:.4}  rate {rate:.2e}  norm {norm:.2}");
        let speed = speed.text();
        self.shown.at(step, &learned, &speed);
        let is_last = step == self.steps;
        if is_last || (now - self.last >= PACE && !self.shown.is_seen()) {
            self.last = now;
            self.shown
                .say(&format!("  step {step:5}  {learned}  {speed}"));
        }
        if is_last {
            self.shown.end();
        }
    }

    fn write(&mut self, line: &Value) {
        self.write_event(line);
        if let Some(file) = &mut self.metrics
            && let Err(error) = writeln!(file, "{line}")
        {
            // A full disk ends the run at the next checkpoint, with its own error.
            self.metrics = None;
            self.fail(METRICS, &error);
        }
    }

    /// The numbers of a line, under tags such as `train/loss`.
    fn write_event(&mut self, line: &Value) {
        let Some(file) = &mut self.events else {
            return;
        };
        let kind = match line["event"] == "eval" {
            true => "eval",
            false => "train",
        };
        let numbers = line.as_object().into_iter().flatten();
        let scalars: Vec<(String, f64)> = numbers
            .filter(|(name, _)| *name != "step")
            .filter_map(|(name, value)| Some((format!("{kind}/{name}"), value.as_f64()?)))
            .collect();
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(tag, n)| (tag.as_str(), *n)).collect();
        let step = line["step"].as_u64().unwrap_or(0);
        if let Err(error) = file.write_all(&report::event(wall_time(), step, &scalars)) {
            self.events = None;
            self.fail(EVENTS, &error);
        }
    }
}
