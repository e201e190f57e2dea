//! Training graphs: an adapted model with a loss, gradients and an optimizer, as plain ONNX.
//!
//! In: an adapted [`Model`], the tensors to train and a [`Recipe`]. Out: [`Graphs`], each a model of
//! its own with the ports that a trainer binds: `step` does everything, `grad` and `update` are its
//! halves for trainers that add up gradients themselves, `eval` measures without changing anything.
//!
//! What holds:
//! * Every trained tensor is an input under the name of its initializer, and its new value the
//!   output `<name>.next`; whatever is fed back is so stated in [`Port::feeds`].
//! * The state of an optimizer is flat: one vector a kind of state for all tensors, in their order,
//!   so that an update is a dozen operators however many tensors there are.
//! * What methods do with gradients (`on gradient`) and behind a step (`on step`) belongs to the update:
//!   they see the mean over all batches, before it is limited, and `grad` gives what they get. What
//!   they keep are states as those of an optimizer. What they add to the loss is in `step` and `grad`.
//! * The dropouts of an adapter take their masks from the input `seed`; a run that is resumed has the
//!   masks of one that never stopped.
//! * A base in fewer bits is only that of training: what is deployed is computed as before.
//! * A model that lacks what its task needs gets a [`Head`]: pooling and a linear layer on an output,
//!   trained in full beside the adapter. It belongs to the task, not to the spec: it stands on the
//!   adapted model, so that no pattern ever matches it.
//! * Loss, statistics and updates are computed in 32 bits whatever the model computes in. Where it
//!   computes in f16, gradients on their way are those of the sum over labels, not of their mean.
//!
//! Not here: gradients of operators (`ops`), the reverse walk (`autodiff`), running (`runtime`).

mod arena;
mod base;
mod blockwise;
mod bytes;
mod calibrate;
mod dropout;
mod errors;
mod graphs;
mod head;
mod hooks;
mod loss;
mod memory;
mod open;
mod optimizer;
mod pieces;
mod sizes;
mod task;
#[cfg(test)]
mod tests;
mod update;

pub use crate::autodiff::Waits;
pub use base::{Keep, ReadWeight, Rounding, round_base};
pub use bytes::{parse_bytes, show_bytes};
pub use calibrate::{CalibrationGraph, InputMeasures, Probe, ProbeMeasures, calibration_graph};
pub use graphs::{Graphs, Port, Role, TrainingGraph, eval_graph, graphs};
pub use head::{AddedHead, Head, PlannedHead, Pool, Trains, add_head, plan_head};
pub use memory::Estimate;
pub use optimizer::{Adam, Moments, Optimizer, Sgd};
pub use sizes::BatchSizes;
pub use task::{Task, TaskKind};

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The initializer of the adapted model that holds it.
    pub initializer: String,
    /// Path of its module; `None` for one that several modules share.
    pub module: Option<String>,
    /// Its name in the method.
    pub name: String,
    /// Its learning rate, times that of the others.
    pub rate: f64,
}

/// How it is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    pub task: Task,
    /// The model's output that the loss is of; the first one without it.
    pub output: Option<String>,
    pub optimizer: Optimizer,
    /// The largest norm of all gradients together; longer ones are scaled down to it.
    pub max_grad_norm: Option<f64>,
    /// What the frozen weights are computed with.
    pub base: Base,
    /// Learning rates of some parameters; of several that match the last one counts.
    pub rates: Vec<Rate>,
    pub memory: Memory,
}

/// What a step of training may keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub recompute: Recompute,
    /// In how many pieces of the tokens logits are computed; as many as keeps them small without it, and at
    /// once where the model does not allow pieces.
    pub pieces: Option<usize>,
    /// The largest batch that comes.
    pub batch: BatchSizes,
    /// The most bytes that a step may take.
    pub budget: Option<u64>,
    /// Whether a session that measures stands beside the one that trains.
    pub measures: bool,
    /// How activations that are computed again wait for their turn.
    pub waits: Waits,
    /// Whether sessions compute attention without keeping what is computed of it on the way.
    pub kernels: bool,
}

/// What the backward pass does for the activations of the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// All that it needs are kept.
    #[default]
    Off,
    /// What crosses the borders of blocks is kept, the rest is computed again.
    Blocks,
    /// As [`Recompute::Off`], unless a step is above its budget then.
    Auto,
}

impl From<bool> for Recompute {
    fn from(wanted: bool) -> Recompute {
        match wanted {
            true => Recompute::Blocks,
            false => Recompute::Off,
        }
    }
}

/// A learning rate of its own, such as LoRA+ has for `B` (Hayou, Ghosh and Yu, arXiv 2402.12354).
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// A glob of names, `<module>.<parameter>` or its end.
    pub parameters: String,
    /// Times the learning rate of the others.
    pub times: f64,
}

/// The precision of frozen weights in training; the adapted model keeps its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Base {
    /// As the model has them.
    #[default]
    Own,
    /// Products in 8 bits, see [`round_base`]. ONNX Runtime has them on CPUs.
    Int8,
    /// Weights in 8 bits, products in 32, see [`round_base`].
    Int8Weights,
    /// Products in bfloat16, see [`round_base`]. ONNX Runtime has them on GPUs.
    Bf16,
    /// Products in float16, see [`round_base`]; for GPUs without bfloat16.
    F16,
}

impl Base {
    /// The word of the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Base::Own => "own",
            Base::Int8 => "int8",
            Base::Int8Weights => "int8_weights",
            Base::Bf16 => "bf16",
            Base::F16 => "f16",
        }
    }

    /// Whether only CPUs have its products.
    pub fn needs_cpu(self) -> bool {
        self == Base::Int8
    }
}
