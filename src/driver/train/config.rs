//! The configuration of a run: a YAML file, or the same keys on the command line.

use super::changes::changed;
use super::data_config::{Data, Word, known};
use super::errors;
use super::schedule::Schedule;
use super::session::Engine;
use crate::diag::{FileId, Reported, Sink, SourceMap, Span};
use crate::files;
use crate::runtime::{Kernels, Products, Profiling, Provider, Replay, Sums};
use crate::train::{
    Adam, Base, BatchSizes, Memory, Moments, Optimizer, Pool, Rate, Recipe, Recompute, Sgd,
    TaskKind, Waits, parse_bytes,
};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Value;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Component, Path, PathBuf};

/// Configurations are texts that people write.
const LIMIT: u64 = 1 << 20;

/// A run. Paths are relative to the file's folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The ONNX model.
    pub model: PathBuf,
    /// The spec (`.peft`).
    pub spec: PathBuf,
    /// Which adapter of the spec; not needed if it has one.
    pub adapter: Option<String>,
    /// Hyper-parameters that win over the spec.
    #[serde(default)]
    pub set: std::collections::BTreeMap<String, Value>,
    /// What `peftc calibrate` writes, for start values from data.
    pub calibration: Option<PathBuf>,
    /// Tensors that start as in this file.
    pub start: Option<PathBuf>,
    pub data: Data,
    #[serde(default, deserialize_with = "task")]
    pub task: TaskKind,
    #[serde(default)]
    pub label_smoothing: f64,
    /// What similarities or a teacher's logits are divided by.
    pub temperature: Option<f64>,
    /// The output that the loss is of, or that the head stands on; the first one without it.
    pub model_output: Option<String>,
    pub head: Option<HeadConfig>,
    /// Rows of a batch.
    pub batch_size: NonZeroUsize,
    /// Batches of an update; their gradients are added up. One without it.
    pub accumulate: Option<NonZeroUsize>,
    /// Updates of the run; or `epochs`.
    pub steps: Option<NonZeroU64>,
    /// Passes over the data; or `steps`.
    pub epochs: Option<NonZeroU64>,
    /// Inputs of one truth value that always have this value in training.
    #[serde(default)]
    pub specialize: std::collections::BTreeMap<String, bool>,
    /// What the frozen weights are computed with.
    #[serde(default)]
    pub base: BaseName,
    /// Compute activations again in the backward pass in place of keeping them.
    /// Without it as `memory` needs.
    #[serde(default, deserialize_with = "recompute")]
    pub recompute: Option<Recompute>,
    /// In how many pieces of the tokens a language model's logits are computed.
    /// Without it as many as keep them small.
    pub loss_pieces: Option<NonZeroUsize>,
    /// The most bytes that training may take.
    #[serde(default, deserialize_with = "memory")]
    pub memory: Option<u64>,
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// Measure on `data.eval` every so many steps, besides before and after.
    pub eval_every: Option<NonZeroU64>,
    /// Save a checkpoint every so many steps, besides at the end.
    pub checkpoint_every: Option<NonZeroU64>,
    /// Write the figures as TensorBoard's events, too.
    #[serde(default)]
    pub tensorboard: bool,
    /// How many checkpoints stay, under the numbers of their steps, besides the last one.
    pub keep_checkpoints: Option<NonZeroUsize>,
    /// Deploy the adapter with the lowest loss on `data.eval`, not that of the last step.
    #[serde(default)]
    pub keep_best: bool,
    #[serde(default)]
    pub seed: u64,
    /// What computes.
    #[serde(default, deserialize_with = "provider")]
    pub provider: Provider,
    /// Let a GPU round the operands of products to TensorFloat-32.
    #[serde(default)]
    pub tf32: bool,
    /// Let a GPU add numbers in any order: faster, and no two runs are equal.
    #[serde(default)]
    pub any_order: bool,
    /// Have a GPU record the steps of a shape and launch them as a whole.
    #[serde(default)]
    pub cuda_graphs: bool,
    /// Threads inside an operator.
    pub threads: Option<NonZeroUsize>,
    /// Let a CPU run neighbouring operators as one of peftc's own.
    #[serde(default = "on")]
    pub kernels: bool,
    /// The folder of everything that is written.
    pub output: PathBuf,
}

/// What stands on the adapted model, trained in full.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadConfig {
    /// Without it the mean for a task of rows on an output of tokens, otherwise none.
    pub pool: Option<PoolName>,
    /// How many numbers come out; without it as many as the data has classes or numbers.
    pub size: Option<NonZeroU32>,
    /// Train the head alone: the adapter stays as it starts.
    pub alone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolName {
    Mean,
    First,
    Last,
    None,
}

impl From<PoolName> for Pool {
    fn from(name: PoolName) -> Pool {
        match name {
            PoolName::Mean => Pool::Mean,
            PoolName::First => Pool::First,
            PoolName::Last => Pool::Last,
            PoolName::None => Pool::None,
        }
    }
}

fn on() -> bool {
    true
}

/// A task by its word.
fn task<'de, D: Deserializer<'de>>(from: D) -> Result<TaskKind, D::Error> {
    let read = |name: &str| known("task", name, TaskKind::parse(name), TaskKind::names());
    from.deserialize_str(Word(read))
}

/// A provider by its word.
fn provider<'de, D: Deserializer<'de>>(from: D) -> Result<Provider, D::Error> {
    from.deserialize_str(Word(str::parse))
}

/// `true`, `false` or `auto`.
fn recompute<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Recompute>, D::Error> {
    from.deserialize_any(RecomputeWord).map(Some)
}

/// A size of memory, such as `8GiB`.
fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    from.deserialize_any(SizeWord).map(Some)
}

struct RecomputeWord;

impl Visitor<'_> for RecomputeWord {
    type Value = Recompute;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or auto")
    }

    fn visit_bool<E: Error>(self, wanted: bool) -> Result<Recompute, E> {
        Ok(wanted.into())
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Recompute, E> {
        match word {
            "auto" => Ok(Recompute::Auto),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }
}

struct SizeWord;

impl Visitor<'_> for SizeWord {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size of memory, such as 8GiB")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_bytes(text).map_err(E::custom)
    }
}

/// The precision of frozen weights in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseName {
    #[default]
    Own,
    Int8,
    Int8Weights,
    Bf16,
    F16,
}

impl From<BaseName> for Base {
    fn from(name: BaseName) -> Base {
        match name {
            BaseName::Own => Base::Own,
            BaseName::Int8 => Base::Int8,
            BaseName::Int8Weights => Base::Int8Weights,
            BaseName::Bf16 => Base::Bf16,
            BaseName::F16 => Base::F16,
        }
    }
}

/// The optimizer and its learning rate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    pub name: OptimizerName,
    pub learning_rate: f64,
    pub schedule: Schedule,
    pub warmup_steps: u64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub momentum: f64,
    pub nesterov: bool,
    /// What Adam keeps its means in.
    pub state: StateName,
    /// `null` leaves gradients as they are.
    pub max_grad_norm: Option<f64>,
    /// Learning rates of some parameters: factors by a glob of their names, `B` or
    /// `*.v_proj.B`. Of several that match the last one counts.
    pub rates: Vec<RateConfig>,
}

/// The learning rate of parameters.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    pub parameters: String,
    /// Times `optimizer.learning_rate`.
    pub times: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    #[default]
    Adamw,
    Adam,
    Sgd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    #[default]
    F32,
    Int8,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        let adam = Adam::default();
        OptimizerConfig {
            name: OptimizerName::Adamw,
            learning_rate: 1e-4,
            schedule: Schedule::default(),
            warmup_steps: 0,
            weight_decay: 0.0,
            beta1: adam.beta1,
            beta2: adam.beta2,
            epsilon: adam.epsilon,
            momentum: 0.0,
            nesterov: false,
            state: StateName::F32,
            max_grad_norm: Some(1.0),
            rates: Vec::new(),
        }
    }
}

impl Config {
    /// What the training graphs compute.
    pub fn recipe(&self) -> Recipe {
        let optimizer = &self.optimizer;
        let adam = Adam {
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            epsilon: optimizer.epsilon,
            weight_decay: optimizer.weight_decay,
            moments: match optimizer.state {
                StateName::F32 => Moments::F32,
                StateName::Int8 => Moments::Int8,
            },
        };
        Recipe {
            task: self.task.with(self.label_smoothing, self.temperature),
            output: self.model_output.clone(),
            optimizer: match optimizer.name {
                OptimizerName::Adamw => Optimizer::AdamW(adam),
                OptimizerName::Adam => Optimizer::Adam(adam),
                OptimizerName::Sgd => Optimizer::Sgd(Sgd {
                    momentum: optimizer.momentum,
                    nesterov: optimizer.nesterov,
                    weight_decay: optimizer.weight_decay,
                }),
            },
            max_grad_norm: optimizer.max_grad_norm,
            rates: optimizer
                .rates
                .iter()
                .map(|rate| Rate {
                    parameters: rate.parameters.clone(),
                    times: rate.times,
                })
                .collect(),
            memory: Memory {
                recompute: self.recompute.unwrap_or(match self.memory {
                    Some(_) => Recompute::Auto,
                    None => Recompute::Off,
                }),
                // Pieces come one after the other in a loop, which no GPU records.
                pieces: match self.cuda_graphs {
                    true => Some(self.loss_pieces.map_or(1, NonZeroUsize::get)),
                    false => self.loss_pieces.map(NonZeroUsize::get),
                },
                batch: BatchSizes {
                    rows: self.batch_size.get(),
                    ..BatchSizes::default()
                },
                budget: self.memory,
                measures: self.data.eval.is_some(),
                waits: match self.provider {
                    Provider::Cpu => Waits::AsView,
                    Provider::Cuda(_) => Waits::AsCopy,
                },
                kernels: self.kernels && self.provider == Provider::Cpu,
            },
            base: self.base.into(),
        }
    }

    /// What runs the training graphs.
    pub fn engine(&self) -> Engine {
        Engine {
            provider: self.provider,
            products: match self.tf32 {
                true => Products::Tf32,
                false => Products::Exact,
            },
            sums: match self.any_order {
                true => Sums::AnyOrder,
                false => Sums::Ordered,
            },
            threads: self.threads,
            kernels: match self.kernels {
                true => Kernels::On,
                false => Kernels::Off,
            },
            profiling: Profiling::Off,
            replay: match self.cuda_graphs {
                true => Replay::On,
                false => Replay::Off,
            },
        }
    }

    /// `--set` values as the compiler takes them.
    pub fn settings(&self) -> Vec<(String, String)> {
        let text = |value: &Value| {
            let text = serde_yaml::to_string(value).unwrap_or_default();
            text.trim().to_owned()
        };
        self.set
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    }

    fn in_folder(mut self, folder: &Path) -> Config {
        let mut paths: Vec<&mut PathBuf> = vec![&mut self.model, &mut self.spec, &mut self.output];
        paths.extend(&mut self.calibration);
        paths.extend(&mut self.start);
        paths.extend(self.data.paths_mut());
        for path in paths {
            // Standard input is no file.
            if path.as_os_str() != "-" {
                *path = without_detours(&folder.join(&*path));
            }
        }
        self
    }
}

/// The path as people would write it: `a/b/../c` is `a/c`, unless `a/b` is a link, which leads elsewhere.
fn without_detours(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        let is_up = part == Component::ParentDir;
        let last = plain.components().next_back();
        match last {
            Some(Component::Normal(_)) if is_up && !plain.is_symlink() => {
                plain.pop();
            }
            _ => plain.push(part),
        }
    }
    plain
}

/// Reads a configuration; `changes` are keys (`optimizer.learning_rate`) with values in YAML that win
/// over the file.
pub fn read_config(
    path: &Path,
    changes: &[(String, String)],
    sources: &mut SourceMap,
    sink: &mut Sink,
) -> Result<Config, Reported> {
    let text = files::read_text(path, LIMIT, sink)?;
    let file = sources.add(path.to_string_lossy(), text.clone());
    let config: Config = serde_yaml::from_str(&text).map_err(|error| {
        let span = span_of(&error, &text, file);
        sink.emit(errors::bad_config(&error, span))
    })?;
    let config = changed(config, &text, changes, sink)?;
    let line = |key: &str| {
        let is_changed = changes.iter().any(|(changed, _)| changed == key);
        line_of(key, &text, file).filter(|_| !is_changed)
    };
    check(&config, &line, sink)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(config.in_folder(folder))
}

/// What no type can say. `line` is where the file says a key, if that counts.
fn check(
    config: &Config,
    line: &dyn Fn(&str) -> Option<Span>,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let optimizer = &config.optimizer;
    let share = |value: f64| (0.0..1.0).contains(&value);
    let mut wrong = |key: &str, value: f64, wanted: &str| {
        sink.emit(errors::bad_number(key, value, wanted));
    };
    if !(optimizer.learning_rate.is_finite() && optimizer.learning_rate > 0.0) {
        wrong(
            "optimizer.learning_rate",
            optimizer.learning_rate,
            "above 0",
        );
    }
    if !(optimizer.weight_decay.is_finite() && optimizer.weight_decay >= 0.0) {
        wrong(
            "optimizer.weight_decay",
            optimizer.weight_decay,
            "0 or above",
        );
    }
    if let Some(norm) = optimizer.max_grad_norm
        && !(norm.is_finite() && norm > 0.0)
    {
        wrong("optimizer.max_grad_norm", norm, "above 0");
    }
    for (key, value) in [
        ("optimizer.beta1", optimizer.beta1),
        ("optimizer.beta2", optimizer.beta2),
        ("optimizer.momentum", optimizer.momentum),
        ("label_smoothing", config.label_smoothing),
    ] {
        if !share(value) {
            wrong(key, value, "at least 0 and below 1");
        }
    }
    if !(optimizer.epsilon.is_finite() && optimizer.epsilon > 0.0) {
        wrong("optimizer.epsilon", optimizer.epsilon, "above 0");
    }
    if let Some(temperature) = config.temperature
        && !(temperature.is_finite() && temperature > 0.0)
    {
        wrong("temperature", temperature, "above 0");
    }
    let task = config.task;
    if config.label_smoothing > 0.0 && !task.takes_smoothing() {
        sink.emit(errors::no_meaning("label_smoothing", task));
    }
    if config.head.is_some() && task.predicts_tokens() {
        sink.emit(errors::no_meaning("head", task));
    }
    if config.temperature.is_some() && task.temperature().is_none() {
        sink.emit(errors::no_meaning("temperature", task));
    }
    if optimizer.name == OptimizerName::Sgd && optimizer.state == StateName::Int8 {
        sink.emit(errors::no_state());
    }
    for rate in &optimizer.rates {
        if !(rate.times.is_finite() && rate.times >= 0.0) {
            sink.emit(errors::bad_number(
                "optimizer.rates",
                rate.times,
                "0 or above",
            ));
        }
    }
    if config.keep_best && config.data.eval.is_none() {
        sink.emit(errors::best_of_nothing());
    }
    for (base, setting) in [(BaseName::Bf16, "base: bf16"), (BaseName::F16, "base: f16")] {
        if config.provider == Provider::Cpu && config.base == base {
            sink.emit(errors::needs_gpu(setting));
        }
    }
    let base = Base::from(config.base);
    if !runs_on(base, config.provider) {
        let place = line("base").or_else(|| line("provider"));
        sink.emit(errors::base_without_kernels(base, "base: ", place));
    }
    if config.provider == Provider::Cpu && config.tf32 {
        sink.emit(errors::needs_gpu("tf32: true"));
    }
    if config.provider == Provider::Cpu && config.any_order {
        sink.emit(errors::needs_gpu("any_order: true"));
    }
    if config.provider == Provider::Cpu && config.cuda_graphs {
        sink.emit(errors::needs_gpu("cuda_graphs: true"));
    }
    if config.steps.is_none() && config.epochs.is_none() {
        sink.emit(errors::no_end());
    }
    if config.steps.is_some() && config.epochs.is_some() {
        sink.emit(errors::two_ends());
    }
    if config.recompute == Some(Recompute::Auto) && config.memory.is_none() {
        sink.emit(errors::auto_without_budget());
    }
    sink.failed()
}

/// Whether a provider has the products of a base.
pub(super) fn runs_on(base: Base, provider: Provider) -> bool {
    provider == Provider::Cpu || !base.needs_cpu()
}

/// The line of a key that is not inside of another one.
fn line_of(key: &str, text: &str, file: FileId) -> Option<Span> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix(key).map(str::trim_start);
        if rest.is_some_and(|rest| rest.starts_with(':')) {
            return Some(Span::new(file, start, start + line.trim_end().len()));
        }
        start += line.len();
    }
    None
}

/// The line of an error; the start of the file if the parser names none.
fn span_of(error: &serde_yaml::Error, text: &str, file: FileId) -> Span {
    let at = error.location().map_or(0, |location| location.index());
    let at = at.min(text.len());
    let end = text[at..]
        .find('\n')
        .map_or(text.len(), |length| at + length);
    Span::new(file, at, end.max(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_no_way_twice() {
        let plain = |path: &str| without_detours(Path::new(path));
        assert_eq!(
            plain("fixtures/quick/../../target/a"),
            Path::new("target/a")
        );
        assert_eq!(plain("../a/./b"), Path::new("../a/b"));
        assert_eq!(plain("a/../../b"), Path::new("../b"));
        assert_eq!(plain("/a/../b"), Path::new("/b"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_before_going_up() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere/deep", folder.path().join("link")).unwrap();
        let path = folder.path().join("link/../file");
        assert_eq!(without_detours(&path), path);
    }
}
