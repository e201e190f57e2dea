//! Examples as tensors.

use super::arrays::Array;
use super::batcher::Position;
use super::example::{IGNORED, Tokens};

/// What a tensor of a batch is for. B is the number of rows, S the padded length. Pairs are rows one
/// below the other: with N examples, rows 0 to N are their anchors, rows N to 2 N what belongs to
/// them, and if there are negatives, they are the last N.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// i64 `[B, S]`.
    InputIds,
    /// i64 `[B, S]`: 1 for tokens, 0 for padding.
    AttentionMask,
    /// i64 `[B, S]`: counted from 0 in every example; 0 for padding.
    PositionIds,
    /// i64 `[B, S]`: 1 in the second text of a pair.
    TokenTypeIds,
    /// Of `Seq2Seq`, i64 `[B, T]`: the labels one place further, behind the token that a decoder
    /// starts with.
    DecoderInputIds,
    /// Of `Seq2Seq`, i64 `[B, T]`: 1 for tokens, 0 for padding.
    DecoderAttentionMask,
    /// By [`Task`](super::Task):
    /// `CausalLm`: i64 `[B, S]`, -100 where nothing counts; the label of a position is the token
    /// there, so a loss on the next token compares the scores of position s with the label of s + 1.
    /// `TokenClassification`: i64 `[B, S]`, -100 where nothing counts.
    /// `Seq2Seq`: i64 `[B, T]`, -100 where nothing counts; T is the padded length of completions.
    /// `Classification`: i64 `[B]`. `MultiLabel`: f32 `[B, K]`, one a class.
    /// `Regression`: f32 `[B]`, or `[B, K]` for several numbers.
    /// `Pairs`: f32 `[N]`, the scores; without scores i64 `[N]`, 0 to N: which of the rows below the
    /// anchors belongs to each.
    Labels,
}

impl Input {
    /// The name that models have for it.
    pub fn name(self) -> &'static str {
        match self {
            Input::InputIds => "input_ids",
            Input::AttentionMask => "attention_mask",
            Input::PositionIds => "position_ids",
            Input::TokenTypeIds => "token_type_ids",
            Input::DecoderInputIds => "decoder_input_ids",
            Input::DecoderAttentionMask => "decoder_attention_mask",
            Input::Labels => "labels",
        }
    }
}

/// Elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    I64(Vec<i64>),
    F32(Vec<f32>),
}

/// A tensor of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchTensor {
    pub input: Input,
    pub dims: Vec<usize>,
    pub elements: Elements,
}

/// Examples to learn from in one go.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// One of each [`Input`] that was asked for, in the order of that type. None for the task
    /// [`Arrays`](super::Task::Arrays), but for its `labels`.
    pub tensors: Vec<BatchTensor>,
    /// For the task `Arrays`: the other inputs by name, each with B as its first dimension.
    pub arrays: Vec<Array>,
    /// Numbers of the examples in it, row by row; see [`Dataset::place`](super::Dataset::place).
    pub examples: Vec<usize>,
    pub rows: usize,
    /// Tokens that are no padding.
    pub tokens: usize,
    /// Tokens with a label that counts, or examples where labels are not of tokens: what a mean loss
    /// over the batch divides by.
    pub counted: usize,
    /// Where the batch stands.
    pub position: Position,
    /// Where the one after it stands: a run that resumes there goes on as if it had not stopped.
    pub next: Position,
}

impl Batch {
    pub fn tensor(&self, input: Input) -> Option<&BatchTensor> {
        self.tensors.iter().find(|tensor| tensor.input == input)
    }

    /// The padded length.
    pub fn length(&self) -> usize {
        let ids = self.tensor(Input::InputIds);
        ids.map_or(0, |tensor| tensor.dims[1])
    }
}

/// On which side padding is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    Left,
    #[default]
    Right,
}

/// How long the rows of a batch are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// As long as the longest of the batch.
    #[default]
    Longest,
    /// The same, rounded up to a multiple.
    Multiple(usize),
    /// The same in every batch.
    Fixed(usize),
}

impl Length {
    pub(super) fn of(self, longest: usize) -> usize {
        match self {
            Length::Longest => longest,
            Length::Multiple(of) => longest.next_multiple_of(of.max(1)),
            Length::Fixed(length) => length,
        }
    }
}

/// The matrices of a batch while it is filled.
pub(super) struct Matrices {
    pub ids: Vec<i64>,
    pub mask: Vec<i64>,
    pub positions: Vec<i64>,
    pub types: Vec<i64>,
    pub labels: Vec<i64>,
    length: usize,
    side: Side,
    pub tokens: usize,
    pub counted: usize,
}

impl Matrices {
    pub fn new(rows: usize, length: usize, side: Side, padding: u32) -> Matrices {
        let all = rows * length;
        Matrices {
            ids: vec![padding.into(); all],
            mask: vec![0; all],
            positions: vec![0; all],
            types: vec![0; all],
            labels: vec![IGNORED.into(); all],
            length,
            side,
            tokens: 0,
            counted: 0,
        }
    }

    /// The ids one place further, behind a first one; the last one of a row goes.
    pub fn behind(&self, first: u32) -> Vec<i64> {
        let rows = self.ids.chunks(self.length.max(1));
        let shifted = rows.flat_map(|ids| {
            let kept = ids.iter().take(ids.len() - 1).copied();
            std::iter::once(i64::from(first)).chain(kept)
        });
        shifted.collect()
    }

    /// Fills a row with sequences one behind the other. Each counts its positions from 0.
    pub fn fill<'a>(&mut self, row: usize, members: impl Iterator<Item = Tokens<'a>> + Clone) {
        let used: usize = members.clone().map(|tokens| tokens.ids.len()).sum();
        let mut at = row * self.length;
        if self.side == Side::Left {
            at += self.length - used;
        }
        for tokens in members {
            self.tokens += tokens.ids.len();
            self.counted += tokens.counted();
            for (position, id) in tokens.ids.iter().enumerate() {
                self.ids[at] = (*id).into();
                self.mask[at] = 1;
                self.positions[at] = position as i64;
                self.types[at] = tokens.types.get(position).copied().unwrap_or(0).into();
                let label = tokens.labels.get(position).copied();
                self.labels[at] = label.unwrap_or(IGNORED).into();
                at += 1;
            }
        }
    }
}
