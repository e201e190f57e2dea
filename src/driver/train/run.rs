//! A run from its configuration to the trained adapter.

mod resume;

use super::aside;
use super::checkpoint::{self, Best, State};
use super::config::Config;
use super::errors;
use super::examples::Examples;
use super::finite::{Bad, bad_parameter};
use super::identity::Identity;
use super::job::{Decided, Job, one_adapter};
use super::numerics::culprit;
use super::scores::{Scores, measure};
use super::session::{Wiring, open};
use super::stepper::{Stepper, Update};
use crate::data::{Batch, BatchOptions, Batcher, Position, Prefetch};
use crate::diag::{Diagnostic, Reported, Sink};
use crate::driver::compile::{Artifacts, Progress};
use crate::driver::session::Session;
use crate::files;
use crate::runtime::{Library, NamedTensors, Provider, Stateful};
use crate::weights::{NamedTensor, read_tensors, write_tensors};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Batches that are made ahead.
const AHEAD: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// What happens in a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// Everything is ready.
    Started {
        adapter: String,
        trained: u64,
        examples: usize,
        steps: u64,
        /// Steps that an earlier run has done.
        done: u64,
    },
    Step {
        step: u64,
        epoch: u64,
        loss: f64,
        learning_rate: f64,
        grad_norm: f64,
        /// Tokens of the batch that are no padding.
        tokens: usize,
    },
    Evaluated {
        step: u64,
        scores: Scores,
    },
    /// A checkpoint.
    Saved {
        step: u64,
    },
    /// What has to be known before the run ends; the sink has it, too.
    Warned(Diagnostic),
}

/// What a run has come to.
#[derive(Debug)]
pub struct Outcome {
    pub artifacts: Artifacts,
    pub steps: u64,
    pub before: Option<Scores>,
    pub after: Option<Scores>,
    /// The step whose adapter is deployed, if it is not the last one.
    pub best: Option<u64>,
    /// Whether it was stopped before its last step.
    pub stopped: bool,
}

/// What a run begins with.
#[derive(Clone, Debug, Default)]
pub enum Begin {
    /// Start values. What an earlier run has kept in the output folder goes into its folder `earlier`.
    #[default]
    Anew,
    /// The checkpoint in the output folder.
    Last,
    /// Another checkpoint of the same run, such as a kept or the best one.
    From(PathBuf),
}

/// What is asked of a run besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    pub begin: Begin,
    /// Keep a copy of the state before every step, and search the step whose loss is no number for the
    /// value where that began.
    pub debug_numerics: bool,
    /// Hears of start values that are computed from weights.
    pub progress: Progress,
    /// The bytes that this machine can still give, if that is known.
    pub available: Option<u64>,
}

/// Trains as a configuration says. When `stop` becomes true, the step that runs is finished and
/// everything is saved.
pub fn train(
    config: &Config,
    options: RunOptions,
    library: &'static Library,
    stop: &AtomicBool,
    session: &mut Session<'_>,
    on: &mut dyn FnMut(&Event),
) -> Result<Outcome, Reported> {
    let spec = session.spec(&config.spec)?;
    let job = Job {
        config,
        spec: &spec,
        adapter: one_adapter(config.adapter.as_deref(), &spec, session)?,
    };
    let from = match options.begin {
        Begin::Anew => None,
        Begin::Last => Some(config.output.join(checkpoint::LAST)),
        Begin::From(path) => Some(path),
    };
    aside::settle(&config.output, session.sink)?;
    if let Some(path) = &from {
        checkpoint::require(path, session.sink)?;
    }
    files::remove_leftovers(&config.output);
    let planned = job.load(session)?;
    let examples = Examples::load(config, &planned.0, session)?;
    let decided = job.decide(&examples, &planned.0);
    let artifacts = job.compile(planned, &decided, options.progress.clone(), session)?;
    if let Some(warning) = too_large(config, &artifacts, options.available) {
        on(&Event::Warned(warning.clone()));
        session.sink.warn(warning);
    }
    let mut run = Run::new(
        config,
        &examples,
        &decided,
        &artifacts,
        library,
        session.sink,
    )?;
    run.debug_numerics = options.debug_numerics;
    let done = match from {
        Some(path) => run.resume(path, session.sink)?,
        None => {
            aside::set_aside(&config.output, session.sink)?;
            0
        }
    };
    on(&Event::Started {
        adapter: job.adapter.name.node.clone(),
        trained: artifacts.manifest.counts.trainable,
        examples: run.train.dataset().examples().len(),
        steps: run.steps,
        done,
    });
    let before = run.evaluate(done, session.sink, on)?;
    let last = run.steps(done, stop, session.sink, on)?;
    // Measuring takes its time; nothing is lost if it is cut off.
    run.save(last, session.sink)?;
    on(&Event::Saved { step: last });
    let mut after = match last {
        last if last == done => before,
        last => run.evaluate(last, session.sink, on)?,
    };
    // The last step may have been the best one; the checkpoint says so then.
    if config.keep_best {
        run.save(last, session.sink)?;
    }
    let mut best = None;
    if run.best.is_some_and(|best| best.step != last) {
        let step = run.restore_best(session.sink)?;
        after = run.evaluate(step, session.sink, on)?;
        best = Some(step);
    }
    let values = run.adapter(&artifacts, session.sink)?;
    let stopped = last < run.steps;
    // What runs training graphs is done; the model needs its memory.
    drop(run);
    let planned = job.load(session)?;
    Ok(Outcome {
        artifacts: job.deploy(planned, &decided, values, artifacts, session)?,
        steps: last,
        before,
        after,
        best,
        stopped,
    })
}

/// The warning of a step that the machine has no memory for, as far as both are known. A GPU has a memory of
/// its own.
fn too_large(config: &Config, artifacts: &Artifacts, available: Option<u64>) -> Option<Diagnostic> {
    let (estimate, available) = (artifacts.estimate.as_ref()?, available?);
    let is_too_large = config.provider == Provider::Cpu && estimate.total() > available;
    is_too_large.then(|| errors::larger_than_machine(estimate, available))
}

struct Run<'c> {
    config: &'c Config,
    identity: Identity,
    steps: u64,
    library: &'static Library,
    step: Stepper,
    /// Without held-out examples nothing is measured.
    eval: Option<Stateful>,
    eval_wiring: Wiring,
    train: Batcher,
    train_options: BatchOptions,
    held_out: Option<Batcher>,
    eval_options: BatchOptions,
    /// Of the batch behind the last one that was used.
    next: Position,
    /// The measurement with the lowest loss, if the best one is kept.
    best: Option<Best>,
    /// The last checkpoint of this run, if it has one yet.
    saved: Option<PathBuf>,
    debug_numerics: bool,
    /// Whether it has been said that the held-out loss is no number.
    warned: bool,
}

impl<'c> Run<'c> {
    fn new(
        config: &'c Config,
        examples: &Examples,
        decided: &Decided,
        artifacts: &Artifacts,
        library: &'static Library,
        sink: &mut Sink,
    ) -> Result<Run<'c>, Reported> {
        let graph = |name: &str| &artifacts.manifest.graphs[name];
        let (engine, folder) = (config.engine(), &config.output);
        let batches = config.accumulate.map_or(1, NonZeroUsize::get);
        let step = Stepper::new(batches, &examples.train, artifacts, engine, library, sink)?;
        let eval_wiring = Wiring::of(graph("eval"), &examples.train, sink)?;
        let options = |pack, options| step.wiring.options(pack, options);
        let train_options = options(
            config.data.pack,
            BatchOptions {
                order: config.data.order.into(),
                ..BatchOptions::new(config.batch_size, config.seed)
            },
        );
        // An example that shares a row sees those before it, as it does nowhere else.
        let eval_options = options(None, BatchOptions::in_order(config.batch_size));
        let train = Batcher::new(Arc::clone(&examples.train), train_options.clone(), sink)?;
        step.wiring
            .check(&again(&train, &train_options, sink)?.next_batch(), sink)?;
        let held_out = match &examples.held_out {
            None => None,
            Some(held_out) => {
                let held_out = Batcher::new(Arc::clone(held_out), eval_options.clone(), sink)?;
                eval_wiring.check(&again(&held_out, &eval_options, sink)?.next_batch(), sink)?;
                Some(held_out)
            }
        };
        let eval = match &held_out {
            Some(_) => Some(open(
                folder,
                graph("eval"),
                engine.measuring(),
                library,
                sink,
            )?),
            None => None,
        };
        let steps = match (config.steps, config.epochs) {
            (Some(steps), _) => steps.get(),
            (None, Some(epochs)) => {
                let all = epochs.get() * train.batches() as u64;
                all.div_ceil(batches as u64)
            }
            (None, None) => return Err(sink.emit(errors::no_end())),
        };
        Ok(Run {
            identity: Identity::new(config, decided, artifacts, train.dataset(), steps),
            library,
            step,
            eval,
            next: train.position(),
            config,
            steps,
            eval_wiring,
            train,
            train_options,
            held_out,
            eval_options,
            best: None,
            saved: None,
            debug_numerics: false,
            warned: false,
        })
    }

    fn checkpoint(&self) -> PathBuf {
        self.config.output.join(checkpoint::LAST)
    }

    fn best_checkpoint(&self) -> PathBuf {
        self.config.output.join(checkpoint::BEST)
    }

    /// Writes the checkpoint, and keeps those before it as the configuration says.
    fn save(&mut self, step: u64, sink: &mut Sink) -> Result<(), Reported> {
        self.write(&self.checkpoint(), step, sink)?;
        self.saved = Some(self.checkpoint());
        match self.config.keep_checkpoints {
            Some(keep) => checkpoint::keep(&self.checkpoint(), step, keep, sink),
            None => Ok(()),
        }
    }

    fn write(&self, path: &Path, step: u64, sink: &mut Sink) -> Result<(), Reported> {
        self.check_parameters(step, sink)?;
        let state = State {
            run: self.identity.clone(),
            step,
            position: self.next,
            best: self.best,
        };
        checkpoint::save(path, &state, &self.carried(), sink)
    }

    /// Nothing is measured or saved that is no number.
    fn check_parameters(&self, step: u64, sink: &mut Sink) -> Result<(), Reported> {
        match bad_parameter(&self.step) {
            None => Ok(()),
            Some(carried) => {
                let name = carried.parameter.as_deref().unwrap_or(&carried.name);
                Err(sink.emit(errors::parameter_not_finite(step, name)))
            }
        }
    }

    /// Parameters and state.
    fn carried(&self) -> NamedTensors {
        let names = self.step.carried.iter().map(|carried| &carried.name);
        let tensors = names.filter_map(|name| Some((name.clone(), self.step.get(name)?)));
        NamedTensors(tensors.collect())
    }

    /// Steps until the last one, or until `stop`; answers with how many are done.
    fn steps(
        &mut self,
        done: u64,
        stop: &AtomicBool,
        sink: &mut Sink,
        on: &mut dyn FnMut(&Event),
    ) -> Result<u64, Reported> {
        let batcher = again(&self.train, &self.train_options, sink)?.at(self.next);
        let mut batches = Prefetch::start(batcher, AHEAD);
        let each = self.config.accumulate.map_or(1, NonZeroUsize::get);
        for step in done + 1..=self.steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(step - 1);
            }
            let batches: Vec<Batch> = batches.by_ref().take(each).collect();
            let Some(last) = batches.last() else {
                return Ok(step - 1);
            };
            let (next, epoch) = (last.next, last.position.epoch);
            let update = self.update(step);
            let before = self.debug_numerics.then(|| self.carried());
            let updated = self.step.update(&batches, update, sink)?;
            if let Some(bad) = Bad::of(&updated) {
                return Err(self.not_finite(&batches, bad, update, before, sink));
            }
            self.next = next;
            on(&Event::Step {
                step,
                epoch,
                loss: updated.loss,
                learning_rate: update.learning_rate,
                grad_norm: updated.grad_norm,
                tokens: batches.iter().map(|batch| batch.tokens).sum(),
            });
            let is_last = step == self.steps;
            let due = |every: Option<std::num::NonZeroU64>| {
                every.is_some_and(|every| step % every.get() == 0) && !is_last
            };
            // The checkpoint knows of a measurement of its own step.
            if due(self.config.eval_every) {
                self.evaluate(step, sink, on)?;
            }
            if due(self.config.checkpoint_every) {
                self.save(step, sink)?;
                on(&Event::Saved { step });
            }
        }
        Ok(self.steps)
    }

    fn update(&self, step: u64) -> Update {
        let optimizer = &self.config.optimizer;
        let warmup = optimizer.warmup_steps;
        let share = optimizer.schedule.share(step, warmup, self.steps);
        Update {
            learning_rate: optimizer.learning_rate * share,
            step,
            seed: self.config.seed,
        }
    }

    /// What of an update is no number; `before` is what it began with.
    fn not_finite(
        &self,
        batches: &[Batch],
        bad: Bad,
        update: Update,
        before: Option<NamedTensors>,
        sink: &mut Sink,
    ) -> Reported {
        let dataset = self.train.dataset();
        let blamed = bad.batches(batches.len());
        let rows = batches[blamed.clone()].iter().map(|batch| {
            let examples = batch.examples.iter();
            examples.map(|example| dataset.place(*example)).collect()
        });
        let diagnostic = errors::not_finite(update.step, bad, &rows.collect::<Vec<_>>());
        let Some(before) = before else {
            let resume = self
                .saved
                .as_ref()
                .map(|path| match *path == self.checkpoint() {
                    true => "--resume".to_owned(),
                    false => format!("--resume={}", path.display()),
                });
            return sink.emit(errors::look_closer(diagnostic, resume.as_deref()));
        };
        let mut found = None;
        for at in blamed {
            let mut inputs = self.step.inputs(&batches[at], at, batches.len(), update);
            for carried in &self.step.wiring.carried {
                if let Some(tensor) = before.get(&carried.name) {
                    inputs.push(carried.name.clone(), tensor.clone());
                }
            }
            let engine = self.config.engine();
            match culprit(&self.step.file, &inputs, engine, self.library, sink) {
                Ok(None) => {}
                Ok(culprit) => {
                    found = culprit;
                    break;
                }
                Err(reported) => return reported,
            }
        }
        sink.emit(errors::with_culprit(diagnostic, found.as_ref()))
    }

    /// Scores on the held-out examples, if there are any.
    fn evaluate(
        &mut self,
        step: u64,
        sink: &mut Sink,
        on: &mut dyn FnMut(&Event),
    ) -> Result<Option<Scores>, Reported> {
        self.check_parameters(step, sink)?;
        let (Some(held_out), Some(eval)) = (&self.held_out, &mut self.eval) else {
            return Ok(None);
        };
        for carried in &self.eval_wiring.carried {
            if let Some(tensor) = self.step.get(&carried.name) {
                eval.set(&carried.name, &tensor, sink)?;
            }
        }
        let mut batches = again(held_out, &self.eval_options, sink)?;
        let measured = measure(eval, &self.eval_wiring, &mut batches, sink)?;
        let scores = measured.scores;
        let warning = measured.warning(&format!("of step {step}"), batches.dataset());
        if let Some(warning) = warning.filter(|_| !self.warned) {
            self.warned = true;
            on(&Event::Warned(warning.clone()));
            sink.warn(warning);
        }
        on(&Event::Evaluated { step, scores });
        // What is no number is never the best.
        let is_better =
            scores.loss.is_finite() && self.best.is_none_or(|best| scores.loss < best.loss);
        // Before the first step there is nothing to deploy.
        if self.config.keep_best && step > 0 && is_better {
            self.best = Some(Best {
                step,
                loss: scores.loss,
            });
            self.write(&self.best_checkpoint(), step, sink)?;
        }
        Ok(Some(scores))
    }

    /// Writes the adapter with its trained values in place of the start values.
    fn adapter(&self, artifacts: &Artifacts, sink: &mut Sink) -> Result<PathBuf, Reported> {
        let mut tensors: Vec<NamedTensor> = read_tensors(&artifacts.weights, sink)?;
        for tensor in &mut tensors {
            let trained = self
                .step
                .carried
                .iter()
                .find(|carried| carried.parameter.as_deref() == Some(tensor.name.as_str()));
            if let Some(value) = trained.and_then(|carried| self.step.get(&carried.name)) {
                tensor.data = value.bytes().clone();
            }
        }
        let path = artifacts.weights.clone();
        write_tensors(&path, &tensors, ("peftc", "trained".to_owned()), sink)?;
        Ok(path)
    }
}

/// A batcher of the same examples, at its start.
fn again(batcher: &Batcher, options: &BatchOptions, sink: &mut Sink) -> Result<Batcher, Reported> {
    Batcher::new(Arc::clone(batcher.dataset()), options.clone(), sink)
}
