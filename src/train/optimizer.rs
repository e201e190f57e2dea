//! Optimizers as graph pieces, in PyTorch's semantics.
//!
//! All gradients become one vector, so that an update is a fixed number of operators. Only the
//! parameters themselves stay tensors of their own: the model reads them.

use super::blockwise::{
    BLOCK, Codes, as_vector, block_count, decoded, encoded, in_blocks, thresholds,
};
use crate::ops::{Expr, Refusal};
use crate::ty::{DType, Dim};

/// How parameters follow their gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    Sgd(Sgd),
    /// Adam with L2 regularization: the decay is added to the gradient.
    Adam(Adam),
    /// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).
    AdamW(Adam),
}

/// PyTorch's `SGD`, without dampening.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    pub momentum: f64,
    pub nesterov: bool,
    pub weight_decay: f64,
}

/// PyTorch's `Adam` and `AdamW` (Kingma and Ba, arXiv 1412.6980), without amsgrad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
    pub moments: Moments,
}

/// What Adam keeps its two means in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moments {
    #[default]
    F32,
    /// Codes of 8 bits with a scale for every 256.
    Int8,
}

impl Moments {
    /// The word of configurations.
    pub fn name(self) -> &'static str {
        match self {
            Moments::F32 => "f32",
            Moments::Int8 => "int8",
        }
    }
}

/// A tensor that an optimizer keeps from step to step; zeros at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// As long as all parameters together, in f32.
    Whole,
    Codes(Codes),
    Scales,
}

impl Kept {
    /// Of so many parameters.
    pub fn ty(self, elements: i64) -> (DType, Vec<i64>) {
        let blocks = block_count(elements);
        match self {
            Kept::Whole => (DType::F32, vec![elements]),
            Kept::Codes(codes) => (codes.dtype(), vec![blocks, BLOCK]),
            Kept::Scales => (DType::F32, vec![blocks, 1]),
        }
    }
}

impl Default for Adam {
    fn default() -> Self {
        Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            moments: Moments::F32,
        }
    }
}

impl Optimizer {
    pub const NAMES: &'static [&'static str] = &["adamw", "adam", "sgd"];

    /// The word of configurations.
    pub fn name(self) -> &'static str {
        match self {
            Optimizer::Sgd(_) => "sgd",
            Optimizer::Adam(_) => "adam",
            Optimizer::AdamW(_) => "adamw",
        }
    }

    /// What it keeps; PyTorch's names.
    pub(super) fn states(self) -> &'static [(&'static str, Kept)] {
        match self {
            Optimizer::Sgd(Sgd { momentum: 0.0, .. }) => &[],
            Optimizer::Sgd(_) => &[("momentum_buffer", Kept::Whole)],
            Optimizer::Adam(adam) | Optimizer::AdamW(adam) => match adam.moments {
                Moments::F32 => &[("exp_avg", Kept::Whole), ("exp_avg_sq", Kept::Whole)],
                Moments::Int8 => &[
                    ("exp_avg", Kept::Codes(Codes::Signed)),
                    ("exp_avg.scale", Kept::Scales),
                    ("exp_avg_sq", Kept::Codes(Codes::Unsigned)),
                    ("exp_avg_sq.scale", Kept::Scales),
                ],
            },
        }
    }
}

/// The operands of an update.
pub(super) struct Before<'b> {
    pub parameters: Vec<Expr<'b>>,
    /// Of the parameters: what the learning rate is multiplied with.
    pub rates: Vec<f64>,
    pub gradients: Vec<Expr<'b>>,
    /// In the order of [`Optimizer::states`].
    pub states: Vec<Expr<'b>>,
    /// `f32[]`.
    pub learning_rate: Expr<'b>,
    /// `i64[]`, the first step is 1.
    pub step: Expr<'b>,
}

/// What an update computes.
pub(super) struct After<'b> {
    pub parameters: Vec<Expr<'b>>,
    pub states: Vec<Expr<'b>>,
    /// The norm of all gradients together, before it is limited; `f32[]`.
    pub grad_norm: Expr<'b>,
}

/// Emits one update.
pub(super) fn update<'b>(
    optimizer: Optimizer,
    max_grad_norm: Option<f64>,
    before: &Before<'b>,
) -> Result<After<'b>, Refusal> {
    let mut gradient = flat(&before.gradients)?;
    let grad_norm = gradient.square().sum_dropping(&[0]).sqrt();
    if let Some(limit) = max_grad_norm {
        // PyTorch's `clip_grad_norm_`.
        let factor = grad_norm.number(limit) / (grad_norm + 1e-6);
        gradient = gradient * factor.apply2("Min", factor.number(1.0));
    }
    let (change, states, decay) = match optimizer {
        Optimizer::Sgd(sgd) => sgd_change(sgd, gradient, before)?,
        Optimizer::Adam(adam) => {
            let decayed = with_decay(gradient, adam.weight_decay, before)?;
            let (change, states) = adam_change(adam, decayed, before)?;
            (change, states, 0.0)
        }
        Optimizer::AdamW(adam) => {
            let (change, states) = adam_change(adam, gradient, before)?;
            (change, states, adam.weight_decay)
        }
    };
    Ok(After {
        parameters: subtract(before, change, decay)?,
        states,
        grad_norm,
    })
}

/// b ← μ b + g; the change is lr · b, or lr · (g + μ b) with Nesterov's momentum. The first buffer of
/// PyTorch is the first gradient, which a buffer of zeros gives too.
fn sgd_change<'b>(
    sgd: Sgd,
    gradient: Expr<'b>,
    before: &Before<'b>,
) -> Result<(Expr<'b>, Vec<Expr<'b>>, f64), Refusal> {
    let gradient = with_decay(gradient, sgd.weight_decay, before)?;
    let Some(buffer) = before.states.first() else {
        return Ok((gradient * before.learning_rate, Vec::new(), 0.0));
    };
    let buffer = *buffer * sgd.momentum + gradient;
    let direction = match sgd.nesterov {
        true => gradient + buffer * sgd.momentum,
        false => buffer,
    };
    Ok((direction * before.learning_rate, vec![buffer], 0.0))
}

/// m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,
/// change = lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε).
fn adam_change<'b>(
    adam: Adam,
    gradient: Expr<'b>,
    before: &Before<'b>,
) -> Result<(Expr<'b>, Vec<Expr<'b>>), Refusal> {
    if adam.moments == Moments::F32 {
        let moments = [before.states[0], before.states[1]];
        let (change, moments) = adam_moments(adam, gradient, moments, before);
        return Ok((change, moments.to_vec()));
    }
    let elements = elements(gradient)?;
    let gradient = in_blocks(gradient, elements)?;
    let kept = |at: usize, codes: Codes| decoded(before.states[at], before.states[at + 1], codes);
    let moments = [kept(0, Codes::Signed), kept(2, Codes::Unsigned)];
    let (change, [m, v]) = adam_moments(adam, gradient, moments, before);
    let threshold = thresholds(before.step, block_count(elements))?;
    let (m, m_scale) = encoded(m, threshold, Codes::Signed);
    let (v, v_scale) = encoded(v, threshold, Codes::Unsigned);
    Ok((as_vector(change, elements)?, vec![m, m_scale, v, v_scale]))
}

/// The change and the new moments; all have the gradient's shape.
fn adam_moments<'b>(
    adam: Adam,
    gradient: Expr<'b>,
    [m, v]: [Expr<'b>; 2],
    before: &Before<'b>,
) -> (Expr<'b>, [Expr<'b>; 2]) {
    let m = m + (gradient - m) * (1.0 - adam.beta1);
    let v = v * adam.beta2 + gradient.square() * (1.0 - adam.beta2);
    // In 64 bits: 1 − 0.999 has four digits less than 0.999.
    let step = before.step.cast(DType::F64);
    let correction = |beta: f64| step.number(1.0) - step.number(beta).pow(step);
    let rate = before.learning_rate.cast(DType::F64) / correction(adam.beta1);
    let root = correction(adam.beta2).sqrt();
    let denominator = v.sqrt() / root.cast(DType::F32) + adam.epsilon;
    (m / denominator * rate.cast(DType::F32), [m, v])
}

/// The gradient of ½ λ p² added.
fn with_decay<'b>(
    gradient: Expr<'b>,
    decay: f64,
    before: &Before<'b>,
) -> Result<Expr<'b>, Refusal> {
    if decay == 0.0 {
        return Ok(gradient);
    }
    Ok(gradient + flat(&before.parameters)? * decay)
}

/// p ← (1 − r · lr · λ) p − r · change, with r = 1 but for parameters with a rate of their own.
fn subtract<'b>(
    before: &Before<'b>,
    change: Expr<'b>,
    decay: f64,
) -> Result<Vec<Expr<'b>>, Refusal> {
    let scaled = |value: Expr<'b>, rate: f64| match rate {
        1.0 => value,
        rate => value * rate,
    };
    let kept = |rate: f64| {
        let one = before.learning_rate.number(1.0);
        one - scaled(before.learning_rate * decay, rate)
    };
    let parts = split(change, &before.parameters)?;
    let all = before.parameters.iter().zip(&before.rates).zip(parts);
    Ok(all
        .map(|((parameter, rate), change)| {
            let stored = parameter.dtype();
            let parameter = parameter.cast(DType::F32);
            let parameter = match decay != 0.0 {
                true => parameter * kept(*rate),
                false => parameter,
            };
            (parameter - scaled(change, *rate)).cast(stored)
        })
        .collect())
}

/// All elements of all tensors, one behind the other.
fn flat<'b>(tensors: &[Expr<'b>]) -> Result<Expr<'b>, Refusal> {
    let mut vectors = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let vector = tensor.reshape(&[Dim::from(elements(*tensor)?)])?;
        vectors.push(vector.cast(DType::F32));
    }
    match vectors.first() {
        Some(first) => Ok(first.builder.concat(&vectors, 0)),
        None => Err(Refusal("there is nothing to train".to_owned())),
    }
}

/// The inverse of [`flat`]: parts in the shapes of the tensors.
fn split<'b>(vector: Expr<'b>, like: &[Expr<'b>]) -> Result<Vec<Expr<'b>>, Refusal> {
    let build = vector.builder;
    let mut sizes = Vec::with_capacity(like.len());
    for tensor in like {
        sizes.push(elements(*tensor)?);
    }
    let parts = build.split(vector, &sizes);
    let mut found = Vec::with_capacity(like.len());
    for (part, tensor) in parts.into_iter().zip(like) {
        found.push(part.reshape(&tensor.dims()?)?);
    }
    Ok(found)
}

/// The number of elements, which training needs to be fixed.
pub(super) fn elements(tensor: Expr<'_>) -> Result<i64, Refusal> {
    let sizes: Option<Vec<i64>> = tensor.dims()?.iter().map(Dim::known).collect();
    sizes
        .map(|sizes| sizes.iter().product())
        .ok_or_else(|| Refusal("a trained tensor has no fixed shape".to_owned()))
}
