//! How an adapter is trained, on the command line.

use super::errors;
use crate::diag::{Reported, Sink};
use crate::driver::{
    Adam, Base, BatchSizes, Head, Memory, Moments, Optimizer, Pool, Rate, Recipe, Recompute, Sgd,
    TaskKind, Trains, Waits, parse_bytes,
};
use std::num::NonZeroUsize;

/// Arguments of a recipe and of what stands on the model for it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Training")]
pub(super) struct RecipeArgs {
    /// What is learned: causal_lm, classification, token_classification, multi_label, regression,
    /// contrastive, cosine, distillation or seq2seq
    #[arg(long, value_parser = parse_task, default_value = "causal_lm", requires = "train")]
    task: TaskKind,
    /// The output of the model that the loss is of, or that a head stands on; the first one without
    /// it
    #[arg(long, value_name = "NAME")]
    model_output: Option<String>,
    /// Add a head that makes one vector a row of the vectors of its tokens
    #[arg(long, value_enum, value_name = "HOW")]
    pool: Option<PoolName>,
    /// Add a head with a linear layer, trained in full, that makes so many numbers
    #[arg(long, value_name = "SIZE")]
    head: Option<std::num::NonZeroU32>,
    /// Names of the classes by number, for the manifest
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "train")]
    pub classes: Vec<String>,
    /// How much of the target is spread over all classes
    #[arg(long, value_name = "SHARE", requires = "train")]
    label_smoothing: Option<f64>,
    /// What similarities or logits are divided by
    #[arg(long, value_name = "NUMBER", requires = "train")]
    temperature: Option<f64>,
    #[arg(long, value_enum, default_value = "adamw", requires = "train")]
    optimizer: OptimizerName,
    #[arg(long, value_name = "RATE", default_value_t = 0.0, requires = "train")]
    weight_decay: f64,
    /// The decay of Adam's mean of gradients, and SGD's momentum (0 without it)
    #[arg(long, value_name = "DECAY", requires = "train")]
    beta1: Option<f64>,
    /// The decay of Adam's mean of squared gradients
    #[arg(
        long,
        value_name = "DECAY",
        default_value_t = 0.999,
        requires = "train"
    )]
    beta2: f64,
    /// What Adam adds to its denominator
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 1e-8,
        requires = "train"
    )]
    epsilon: f64,
    /// What Adam keeps its two means in: int8 takes a quarter of the memory
    #[arg(long, value_enum, default_value_t, requires = "train")]
    optimizer_state: StateName,
    /// Scale gradients down to this norm of all of them together
    #[arg(long, value_name = "NORM", requires = "train")]
    max_grad_norm: Option<f64>,
    /// A factor for the learning rate of some parameters, such as B=16 or `*.v_proj.B=4`
    #[arg(long = "rate", value_name = "GLOB=TIMES", value_parser = parse_rate, requires = "train")]
    rates: Vec<Rate>,
    /// How the training graphs compute with the frozen weights; the adapted model keeps its own
    #[arg(long, value_enum, default_value_t, requires = "train")]
    base: BaseName,
    /// Compute activations again in the backward pass in place of keeping them: less memory, slower
    #[arg(long, requires = "train")]
    recompute: bool,
    /// In how many pieces of the tokens a language model's logits are computed; as many as keep them small without it
    #[arg(long, value_name = "COUNT", requires = "train")]
    loss_pieces: Option<NonZeroUsize>,
    /// The most memory that training may take, such as 8GiB: activations are computed again if need be
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, requires = "train")]
    memory: Option<u64>,
    /// Rows of the largest batch, for `--memory`
    #[arg(long, value_name = "ROWS", default_value = "4", requires = "train")]
    batch: NonZeroUsize,
    /// Tokens of its rows
    #[arg(long, value_name = "TOKENS", default_value = "256", requires = "train")]
    length: NonZeroUsize,
}

/// What the frozen weights are computed with in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BaseName {
    /// In the precision that the model has
    #[default]
    Own,
    /// In 8 bits, on a CPU: a quarter of the memory and faster, within about a percent
    Int8,
    /// Weights in 8 bits, products in 32: a quarter of the memory, on a GPU, too
    #[value(name = "int8_weights", alias = "int8-weights")]
    Int8Weights,
    /// In bfloat16, on a GPU: half the memory and faster, within about a percent
    Bf16,
    /// In float16, on a GPU that has no bfloat16
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PoolName {
    /// The mean, without padding
    Mean,
    /// The first token
    First,
    /// The last token that is no padding
    Last,
    /// Every token keeps its own
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OptimizerName {
    Adamw,
    Adam,
    Sgd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum StateName {
    #[default]
    F32,
    Int8,
}

impl From<StateName> for Moments {
    fn from(name: StateName) -> Moments {
        match name {
            StateName::F32 => Moments::F32,
            StateName::Int8 => Moments::Int8,
        }
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let (parameters, times) = text.rsplit_once('=').ok_or("write it as `B=16`")?;
    match times.trim().parse::<f64>() {
        Ok(times) if times.is_finite() && times >= 0.0 => Ok(Rate {
            parameters: parameters.trim().to_owned(),
            times,
        }),
        _ => Err(format!(
            "`{times}` is no factor: a number that is 0 or above"
        )),
    }
}

pub(super) fn parse_task(name: &str) -> Result<TaskKind, String> {
    // The command line's own way to write words is understood, too.
    let found = TaskKind::parse(&name.replace('-', "_"));
    found.ok_or_else(|| errors::choices("tasks", TaskKind::names()))
}

impl RecipeArgs {
    /// Whether the numbers of the task are some, and the task takes them.
    pub fn check(&self, sink: &mut Sink) -> Result<(), Reported> {
        let task = self.task;
        if let Some(share) = self.label_smoothing {
            if !task.takes_smoothing() {
                sink.emit(errors::no_meaning("--label-smoothing", task.name()));
            }
            if !(0.0..1.0).contains(&share) {
                let wanted = "at least 0 and below 1";
                sink.emit(errors::number_out_of_range(
                    "--label-smoothing",
                    share,
                    wanted,
                ));
            }
        }
        if let Some(temperature) = self.temperature {
            if task.temperature().is_none() {
                sink.emit(errors::no_meaning("--temperature", task.name()));
            }
            if !(temperature.is_finite() && temperature > 0.0) {
                let wanted = "above 0";
                sink.emit(errors::number_out_of_range(
                    "--temperature",
                    temperature,
                    wanted,
                ));
            }
        }
        sink.failed()
    }

    /// The head, if any part of one is asked for.
    pub fn head(&self) -> Option<Head> {
        if self.pool.is_none() && self.head.is_none() {
            return None;
        }
        Some(Head {
            on: self.model_output.clone(),
            pool: match self.pool {
                Some(PoolName::Mean) => Pool::Mean,
                Some(PoolName::First) => Pool::First,
                Some(PoolName::Last) => Pool::Last,
                Some(PoolName::None) | None => Pool::None,
            },
            size: self.head.map(|size| size.get().into()),
            trains: Trains::HeadAndAdapter,
        })
    }

    pub fn recipe(&self) -> Recipe {
        let label_smoothing = self.label_smoothing.unwrap_or(0.0);
        let adam = Adam {
            beta1: self.beta1.unwrap_or(0.9),
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            moments: self.optimizer_state.into(),
        };
        Recipe {
            task: self.task.with(label_smoothing, self.temperature),
            output: self.model_output.clone(),
            optimizer: match self.optimizer {
                OptimizerName::Adamw => Optimizer::AdamW(adam),
                OptimizerName::Adam => Optimizer::Adam(adam),
                OptimizerName::Sgd => Optimizer::Sgd(Sgd {
                    momentum: self.beta1.unwrap_or(0.0),
                    nesterov: false,
                    weight_decay: self.weight_decay,
                }),
            },
            max_grad_norm: self.max_grad_norm,
            base: self.base.into(),
            rates: self.rates.clone(),
            memory: Memory {
                recompute: match (self.recompute, self.memory) {
                    (false, Some(_)) => Recompute::Auto,
                    (wanted, _) => wanted.into(),
                },
                pieces: self.loss_pieces.map(NonZeroUsize::get),
                batch: BatchSizes {
                    rows: self.batch.get(),
                    tokens: self.length.get(),
                },
                budget: self.memory,
                measures: false,
                waits: Waits::AsView,
                // As `peftc train` computes it, on a CPU.
                kernels: true,
            },
        }
    }
}
