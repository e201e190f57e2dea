//! What is learned: which numbers an output is compared with.

use crate::ty::{DType, Dim};

/// What the loss compares an output of the model with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Task {
    /// Next-token cross-entropy: logits `[B, S, V]`, labels `i64[B, S]` as in Hugging Face (the
    /// label of a position is its own token; the shift happens here).
    CausalLm { label_smoothing: f64 },
    /// Cross-entropy of what a decoder says next: logits `[B, T, V]`, labels `i64[B, T]` (its input is
    /// the labels one place further, so nothing is shifted here).
    Seq2Seq { label_smoothing: f64 },
    /// Cross-entropy of a class a row: logits `[B, C]`, labels `i64[B]`.
    Classification { label_smoothing: f64 },
    /// Cross-entropy of a class a token: logits `[B, S, C]`, labels `i64[B, S]`.
    TokenClassification { label_smoothing: f64 },
    /// Binary cross-entropy of every class: logits `[B, C]`, labels `f32[B, C]`.
    MultiLabel,
    /// Mean squared error: labels `f32` of the output's shape, or `f32[B]` for an output `[B, 1]`.
    Regression,
    /// In-batch contrast of embeddings `[R, D]` (InfoNCE): the first N rows are anchors, the others
    /// what may belong to them, labels `i64[N]` say which one does. Cross-entropy over cosines
    /// divided by the temperature.
    Contrastive { temperature: f64 },
    /// Cosines of embeddings `[R, D]`, the first N rows with the next N, against scores `f32[N]`:
    /// mean squared error.
    Cosine,
    /// A teacher's logits `f32` of the output's shape `[…, C]`: the divergence (Kullback and Leibler)
    /// of both at a temperature, times its square. A row whose first label is NaN counts for nothing.
    Distillation { temperature: f64 },
}

/// A task without its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskKind {
    #[default]
    CausalLm,
    Seq2Seq,
    Classification,
    TokenClassification,
    MultiLabel,
    Regression,
    Contrastive,
    Cosine,
    Distillation,
}

const KINDS: &[(TaskKind, &str)] = &[
    (TaskKind::CausalLm, "causal_lm"),
    (TaskKind::Seq2Seq, "seq2seq"),
    (TaskKind::Classification, "classification"),
    (TaskKind::TokenClassification, "token_classification"),
    (TaskKind::MultiLabel, "multi_label"),
    (TaskKind::Regression, "regression"),
    (TaskKind::Contrastive, "contrastive"),
    (TaskKind::Cosine, "cosine"),
    (TaskKind::Distillation, "distillation"),
];

impl TaskKind {
    /// The word of configurations.
    pub fn name(self) -> &'static str {
        let found = KINDS.iter().find(|(kind, _)| *kind == self);
        found.map_or("", |(_, name)| name)
    }

    /// The task of a word.
    pub fn parse(name: &str) -> Option<TaskKind> {
        let found = KINDS.iter().find(|(_, own)| *own == name);
        found.map(|(kind, _)| *kind)
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|(_, name)| *name)
    }

    /// Whether its target is one of several classes, so that labels can be smoothed.
    pub fn takes_smoothing(self) -> bool {
        matches!(
            self,
            TaskKind::CausalLm
                | TaskKind::Seq2Seq
                | TaskKind::Classification
                | TaskKind::TokenClassification
        )
    }

    /// Whether labels are tokens of a vocabulary.
    pub fn predicts_tokens(self) -> bool {
        matches!(self, TaskKind::CausalLm | TaskKind::Seq2Seq)
    }

    /// The temperature without another one; `None` for a task without any.
    pub fn temperature(self) -> Option<f64> {
        match self {
            TaskKind::Contrastive => Some(0.05),
            TaskKind::Distillation => Some(2.0),
            _ => None,
        }
    }

    /// The task with its numbers.
    pub fn with(self, label_smoothing: f64, temperature: Option<f64>) -> Task {
        let temperature = temperature.or(self.temperature()).unwrap_or(1.0);
        match self {
            TaskKind::CausalLm => Task::CausalLm { label_smoothing },
            TaskKind::Seq2Seq => Task::Seq2Seq { label_smoothing },
            TaskKind::Classification => Task::Classification { label_smoothing },
            TaskKind::TokenClassification => Task::TokenClassification { label_smoothing },
            TaskKind::MultiLabel => Task::MultiLabel,
            TaskKind::Regression => Task::Regression,
            TaskKind::Contrastive => Task::Contrastive { temperature },
            TaskKind::Cosine => Task::Cosine,
            TaskKind::Distillation => Task::Distillation { temperature },
        }
    }
}

impl Task {
    pub fn kind(self) -> TaskKind {
        match self {
            Task::CausalLm { .. } => TaskKind::CausalLm,
            Task::Seq2Seq { .. } => TaskKind::Seq2Seq,
            Task::Classification { .. } => TaskKind::Classification,
            Task::TokenClassification { .. } => TaskKind::TokenClassification,
            Task::MultiLabel => TaskKind::MultiLabel,
            Task::Regression => TaskKind::Regression,
            Task::Contrastive { .. } => TaskKind::Contrastive,
            Task::Cosine => TaskKind::Cosine,
            Task::Distillation { .. } => TaskKind::Distillation,
        }
    }

    /// The word of configurations.
    pub fn name(self) -> &'static str {
        self.kind().name()
    }

    pub fn label_smoothing(self) -> f64 {
        match self {
            Task::CausalLm { label_smoothing }
            | Task::Seq2Seq { label_smoothing }
            | Task::Classification { label_smoothing }
            | Task::TokenClassification { label_smoothing } => label_smoothing,
            _ => 0.0,
        }
    }

    /// The task without smoothing, which is a means of learning: a model that is sure and right has the
    /// loss 0 then, and perplexities compare.
    pub(super) fn measured(self) -> Task {
        self.kind().with(0.0, self.temperature())
    }

    pub fn temperature(self) -> Option<f64> {
        match self {
            Task::Contrastive { temperature } | Task::Distillation { temperature } => {
                Some(temperature)
            }
            _ => None,
        }
    }

    /// Whether an output of this rank can be compared.
    pub(super) fn takes_rank(self, rank: usize) -> bool {
        match self {
            Task::CausalLm { .. } | Task::Seq2Seq { .. } | Task::TokenClassification { .. } => {
                rank == 3
            }
            Task::Classification { .. }
            | Task::MultiLabel
            | Task::Contrastive { .. }
            | Task::Cosine => rank == 2,
            Task::Regression => true,
            Task::Distillation { .. } => rank >= 2,
        }
    }

    /// What it needs of an output, for messages.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Task::CausalLm { .. } | Task::Seq2Seq { .. } => {
                "logits of every token, `f32[batch, sequence, vocabulary]`"
            }
            Task::TokenClassification { .. } => {
                "scores of every token, `f32[batch, sequence, classes]`"
            }
            Task::Classification { .. } | Task::MultiLabel => {
                "scores of every row, `f32[batch, classes]`"
            }
            Task::Contrastive { .. } | Task::Cosine => {
                "an embedding of every row, `f32[rows, size]`"
            }
            Task::Regression => "floats of a known shape",
            Task::Distillation { .. } => "logits, `f32[batch, classes]` or more sizes between",
        }
    }

    /// Element type and sizes of the labels for an output of these sizes. `examples` is the number
    /// of examples where it is not the number of rows.
    pub(super) fn labels(self, output: &[Dim], examples: &Dim) -> (DType, Vec<Dim>) {
        match self {
            Task::CausalLm { .. }
            | Task::Seq2Seq { .. }
            | Task::Classification { .. }
            | Task::TokenClassification { .. } => (DType::I64, output[..output.len() - 1].to_vec()),
            Task::Regression if is_column(output) => (DType::F32, output[..1].to_vec()),
            Task::MultiLabel | Task::Regression | Task::Distillation { .. } => {
                (DType::F32, output.to_vec())
            }
            Task::Contrastive { .. } => (DType::I64, vec![examples.clone()]),
            Task::Cosine => (DType::F32, vec![examples.clone()]),
        }
    }
}

/// One number a row, `[B, 1]`.
pub(super) fn is_column(output: &[Dim]) -> bool {
    matches!(output, [_, last] if last.known() == Some(1))
}
