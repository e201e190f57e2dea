//! How an adapter is trained, on the command line.

use crate::driver::{Adam, Base, Optimizer, Recipe, Sgd, Task};

/// Arguments of a recipe.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Training")]
pub(super) struct RecipeArgs {
    /// What the model's first output is compared with
    #[arg(long, value_enum, default_value = "causal-lm", requires = "train")]
    task: TaskName,
    /// How much of the target is spread over all classes
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "train")]
    label_smoothing: f64,
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
    /// Scale gradients down to this norm of all of them together
    #[arg(long, value_name = "NORM", requires = "train")]
    max_grad_norm: Option<f64>,
    /// How the training graphs compute with the frozen weights; the adapted model keeps its own
    #[arg(long, value_enum, default_value_t, requires = "train")]
    base: BaseName,
}

/// What the frozen weights are computed with in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BaseName {
    /// In the precision that the model has
    #[default]
    Own,
    /// In 8 bits: a quarter of the memory and faster, within about a percent
    Int8,
}

impl From<BaseName> for Base {
    fn from(name: BaseName) -> Base {
        match name {
            BaseName::Own => Base::Own,
            BaseName::Int8 => Base::Int8,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum TaskName {
    /// Next-token cross-entropy
    CausalLm,
    /// A class a row
    Classification,
    /// A class a token
    TokenClassification,
    /// Every class yes or no
    MultiLabel,
    /// Mean squared error
    Regression,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OptimizerName {
    Adamw,
    Adam,
    Sgd,
}

impl RecipeArgs {
    pub fn recipe(&self) -> Recipe {
        let label_smoothing = self.label_smoothing;
        let adam = Adam {
            beta1: self.beta1.unwrap_or(0.9),
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
        };
        Recipe {
            task: match self.task {
                TaskName::CausalLm => Task::CausalLm { label_smoothing },
                TaskName::Classification => Task::Classification { label_smoothing },
                TaskName::TokenClassification => Task::TokenClassification { label_smoothing },
                TaskName::MultiLabel => Task::MultiLabel,
                TaskName::Regression => Task::Regression,
            },
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
        }
    }
}
