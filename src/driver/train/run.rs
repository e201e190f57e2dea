//! A run from its configuration to the trained adapter.

use super::checkpoint::{self, State};
use super::config::Config;
use super::errors;
use super::examples::Examples;
use super::job::{Decided, Job, one_adapter};
use super::scores::{Scores, measure, number};
use super::session::{Wiring, open, start};
use crate::data::{BatchOptions, Batcher, Dataset, Position, Prefetch};
use crate::diag::{Reported, Sink};
use crate::driver::compile::Artifacts;
use crate::driver::session::Session;
use crate::runtime::{Library, NamedTensors, Stateful};
use crate::weights::{NamedTensor, read_tensors, write_tensors};
use std::num::NonZeroUsize;
use std::path::PathBuf;
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
}

/// What a run has come to.
#[derive(Debug)]
pub struct Outcome {
    pub artifacts: Artifacts,
    pub steps: u64,
    pub before: Option<Scores>,
    pub after: Option<Scores>,
    /// Whether it was stopped before its last step.
    pub stopped: bool,
}

/// Trains as a configuration says. When `stop` becomes true, the step that runs is finished and
/// everything is saved.
pub fn train(
    config: &Config,
    resume: bool,
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
    let planned = job.load(session)?;
    let examples = Examples::load(config, &planned.0, session)?;
    let decided = job.decide(&examples, &planned.0);
    let artifacts = job.compile(planned, &decided, None, session)?;
    let mut run = Run::new(
        config,
        &examples,
        &decided,
        &artifacts,
        library,
        session.sink,
    )?;
    let done = match resume {
        true => run.resume(session.sink)?,
        false => 0,
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
    run.save(last, session.sink)?;
    on(&Event::Saved { step: last });
    let after = match last {
        last if last == done => before,
        last => run.evaluate(last, session.sink, on)?,
    };
    let values = run.adapter(&artifacts, session.sink)?;
    let planned = job.load(session)?;
    Ok(Outcome {
        artifacts: job.compile(planned, &decided, Some(values), session)?,
        steps: last,
        before,
        after,
        stopped: last < run.steps,
    })
}

struct Run<'c> {
    config: &'c Config,
    /// See [`State::run`].
    identity: String,
    steps: u64,
    step: Stateful,
    eval: Stateful,
    step_wiring: Wiring,
    eval_wiring: Wiring,
    train: Batcher,
    train_options: BatchOptions,
    held_out: Option<Batcher>,
    eval_options: BatchOptions,
    /// Of the batch behind the last one that was used.
    next: Position,
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
        let step_wiring = Wiring::of(graph("step"), &examples.train, sink)?;
        let eval_wiring = Wiring::of(graph("eval"), &examples.train, sink)?;
        let options = |options| step_wiring.options(config.data.pack, options);
        let train_options = options(BatchOptions {
            order: config.data.order.into(),
            ..BatchOptions::new(config.batch_size, config.seed)
        });
        let eval_options = options(BatchOptions::in_order(config.batch_size));
        let train = Batcher::new(Arc::clone(&examples.train), train_options.clone(), sink)?;
        step_wiring.check(&again(&train, &train_options, sink)?.next_batch(), sink)?;
        let held_out = match &examples.held_out {
            None => None,
            Some(held_out) => {
                let held_out = Batcher::new(Arc::clone(held_out), eval_options.clone(), sink)?;
                eval_wiring.check(&again(&held_out, &eval_options, sink)?.next_batch(), sink)?;
                Some(held_out)
            }
        };
        let steps = match (config.steps, config.epochs) {
            (Some(steps), _) => steps.get(),
            (None, Some(epochs)) => epochs.get() * train.batches() as u64,
            (None, None) => return Err(sink.emit(errors::no_end())),
        };
        let engine = config.engine();
        let folder = &config.output;
        let mut run = Run {
            identity: identity(config, decided, artifacts, train.dataset()),
            step: open(folder, graph("step"), engine, library, sink)?,
            eval: open(folder, graph("eval"), engine, library, sink)?,
            next: train.position(),
            config,
            steps,
            step_wiring,
            eval_wiring,
            train,
            train_options,
            held_out,
            eval_options,
        };
        let carried = &run.step_wiring.carried;
        start(&mut run.step, carried, &artifacts.weights, sink)?;
        Ok(run)
    }

    fn checkpoint(&self) -> PathBuf {
        self.config.output.join("checkpoint.safetensors")
    }

    /// Goes on from the checkpoint; answers with the steps that it has done.
    fn resume(&mut self, sink: &mut Sink) -> Result<u64, Reported> {
        let path = self.checkpoint();
        let (state, tensors) = checkpoint::load(&path, &self.identity, sink)?;
        for carried in &self.step_wiring.carried {
            let Some(tensor) = tensors.get(&carried.name) else {
                let what = format!("it lacks `{}`", carried.name);
                return Err(sink.emit(errors::other_checkpoint(&path, &what)));
            };
            self.step.set(&carried.name, tensor, sink)?;
        }
        self.next = state.position;
        Ok(state.step)
    }

    fn save(&self, step: u64, sink: &mut Sink) -> Result<(), Reported> {
        let mut tensors = NamedTensors::default();
        for carried in &self.step_wiring.carried {
            if let Some(tensor) = self.step.get(&carried.name) {
                tensors.push(carried.name.clone(), tensor);
            }
        }
        let state = State {
            run: self.identity.clone(),
            step,
            position: self.next,
        };
        checkpoint::save(&self.checkpoint(), &state, &tensors, sink)
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
        let optimizer = &self.config.optimizer;
        for step in done + 1..=self.steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(step - 1);
            }
            let Some(batch) = batches.next() else {
                return Ok(step - 1);
            };
            let share = optimizer
                .schedule
                .share(step, optimizer.warmup_steps, self.steps);
            let rate = optimizer.learning_rate * share;
            let inputs = self
                .step_wiring
                .step_inputs(&batch, rate, step, self.config.seed);
            let found = self.step.run(&inputs, sink)?;
            let loss = number(&found, "loss");
            if !loss.is_finite() {
                let dataset = self.train.dataset();
                let places = batch.examples.iter().map(|example| dataset.place(*example));
                let places: Vec<String> = places.collect();
                return Err(sink.emit(errors::not_finite(step, loss, &places)));
            }
            self.next = batch.next;
            on(&Event::Step {
                step,
                epoch: batch.position.epoch,
                loss,
                learning_rate: rate,
                grad_norm: number(&found, "grad_norm"),
                tokens: batch.tokens,
            });
            let due = |every: Option<std::num::NonZeroU64>| {
                every.is_some_and(|every| step % every.get() == 0) && step < self.steps
            };
            if due(self.config.checkpoint_every) {
                self.save(step, sink)?;
                on(&Event::Saved { step });
            }
            if due(self.config.eval_every) {
                self.evaluate(step, sink, on)?;
            }
        }
        Ok(self.steps)
    }

    /// Scores on the held-out examples, if there are any.
    fn evaluate(
        &mut self,
        step: u64,
        sink: &mut Sink,
        on: &mut dyn FnMut(&Event),
    ) -> Result<Option<Scores>, Reported> {
        let Some(held_out) = &self.held_out else {
            return Ok(None);
        };
        for carried in &self.eval_wiring.carried {
            if let Some(tensor) = self.step.get(&carried.name) {
                self.eval.set(&carried.name, &tensor, sink)?;
            }
        }
        let mut batches = again(held_out, &self.eval_options, sink)?;
        let scores = measure(&mut self.eval, &self.eval_wiring, &mut batches, sink)?;
        on(&Event::Evaluated { step, scores });
        Ok(Some(scores))
    }

    /// Writes the adapter with its trained values in place of the start values.
    fn adapter(&self, artifacts: &Artifacts, sink: &mut Sink) -> Result<PathBuf, Reported> {
        let mut tensors: Vec<NamedTensor> = read_tensors(&artifacts.weights, sink)?;
        for tensor in &mut tensors {
            let trained = self
                .step_wiring
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

/// A digest of everything that decides what a step computes.
fn identity(
    config: &Config,
    decided: &Decided,
    artifacts: &Artifacts,
    dataset: &Dataset,
) -> String {
    let manifest = &artifacts.manifest;
    let optimizer = &config.optimizer;
    let text = format!(
        "{} {} {} {:?} {:?} {} {} {} {:?} {} {} {:?} {:?} {:?} {:?} {:?}",
        manifest.spec.digest,
        manifest.base.fingerprint,
        manifest.adapter,
        config.settings(),
        config.recipe(),
        config.batch_size,
        config.seed,
        optimizer.learning_rate,
        optimizer.schedule,
        optimizer.warmup_steps,
        dataset.digest(),
        config.steps,
        config.epochs,
        decided,
        config.data.order,
        config.data.pack,
    );
    format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex())
}
