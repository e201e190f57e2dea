//! Batches in order, from any position.

use super::batch::{Batch, BatchTensor, Elements, Input, Length, Matrices, Side};
use super::dataset::Dataset;
use super::errors;
use super::order::{Epoch, Order};
use crate::diag::{Reported, Sink};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// A place in the endless sequence of batches. With the same data, options and seed, a [`Batcher`]
/// that starts here gives what one that went on would give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// From 0.
    pub epoch: u64,
    /// Batches of the epoch that come before.
    pub batch: u64,
}

/// How batches are made.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// Rows of a batch.
    pub rows: NonZeroUsize,
    pub order: Order,
    pub seed: u64,
    pub side: Side,
    pub length: Length,
    /// Put several examples into a row of so many tokens. They share the row's attention: a model
    /// without a mask of blocks lets each see those before it. Their positions start anew, and no
    /// example's first token is learned from the one before.
    pub pack: Option<NonZeroUsize>,
    /// What becomes of the last batch of an epoch when it has fewer rows.
    pub last: LastBatch,
    /// Make [`Input::PositionIds`], too.
    pub position_ids: bool,
    /// Make [`Input::TokenTypeIds`], too.
    pub token_type_ids: bool,
}

/// What becomes of a last batch that is not full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastBatch {
    /// It has fewer rows.
    #[default]
    Smaller,
    /// It is left out, unless it is the only one; with a shuffled order it holds others next time.
    Dropped,
}

impl BatchOptions {
    /// Shuffled batches, padded on the right to their longest row.
    pub fn new(rows: NonZeroUsize, seed: u64) -> BatchOptions {
        BatchOptions {
            rows,
            order: Order::Shuffled,
            seed,
            side: Side::Right,
            length: Length::Longest,
            pack: None,
            last: LastBatch::Smaller,
            position_ids: false,
            token_type_ids: false,
        }
    }

    /// Every example once, in the order of the rows: for evaluation.
    pub fn in_order(rows: NonZeroUsize) -> BatchOptions {
        BatchOptions {
            order: Order::AsRead,
            ..BatchOptions::new(rows, 0)
        }
    }
}

/// An endless sequence of batches, epoch after epoch. The order of an epoch depends on the seed and
/// its number alone.
pub struct Batcher {
    dataset: Arc<Dataset>,
    options: BatchOptions,
    lengths: Arc<[u32]>,
    position: Position,
    epoch: Epoch,
}

impl Batcher {
    /// Starts with the first batch of the first epoch.
    pub fn new(
        dataset: Arc<Dataset>,
        options: BatchOptions,
        sink: &mut Sink,
    ) -> Result<Batcher, Reported> {
        let examples = dataset.examples();
        let lengths: Arc<[u32]> = (0..examples.len())
            .map(|example| examples.length(example) as u32)
            .collect();
        check(&dataset, &options, &lengths, sink)?;
        let epoch = order(&options, &lengths, 0);
        Ok(Batcher {
            dataset,
            options,
            lengths,
            position: Position::default(),
            epoch,
        })
    }

    /// Goes on from a position.
    #[must_use]
    pub fn at(mut self, position: Position) -> Batcher {
        self.epoch = order(&self.options, &self.lengths, position.epoch);
        self.position = position;
        self
    }

    /// Where the next batch stands.
    pub fn position(&self) -> Position {
        self.position
    }

    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// Batches of the epoch that the next batch is in. Epochs have the same number of batches,
    /// unless examples are packed.
    pub fn batches(&self) -> usize {
        let (rows, batch) = (self.epoch.rows(), self.options.rows.get());
        match self.options.last {
            LastBatch::Smaller => rows.div_ceil(batch),
            LastBatch::Dropped => (rows / batch).max(1),
        }
    }

    /// The next batch; after the last one of an epoch comes the first one of the next.
    pub fn next_batch(&mut self) -> Batch {
        while self.position.batch >= self.batches() as u64 {
            let epoch = self.position.epoch + 1;
            self.position = Position { epoch, batch: 0 };
            self.epoch = order(&self.options, &self.lengths, epoch);
        }
        let position = self.position;
        self.position.batch += 1;
        let next = match self.position.batch < self.batches() as u64 {
            true => self.position,
            false => Position {
                epoch: position.epoch + 1,
                batch: 0,
            },
        };
        self.make(position, next)
    }

    fn make(&self, position: Position, next: Position) -> Batch {
        let start = position.batch as usize * self.options.rows.get();
        let end = (start + self.options.rows.get()).min(self.epoch.rows());
        let examples = self.dataset.examples();
        let members = |row: usize| self.epoch.row(row).iter().copied();
        let length_of = |row| {
            members(row)
                .map(|m| self.lengths[m as usize] as usize)
                .sum()
        };
        let longest = (start..end).map(length_of).max().unwrap_or(0);
        let length = self.options.length.of(longest);
        let rows = end - start;
        let padding = self.dataset.padding();
        let mut matrices = Matrices::new(rows, length, self.options.side, padding);
        for row in start..end {
            matrices.fill(row - start, self.epoch.row(row), examples);
        }
        Batch {
            examples: (start..end).flat_map(members).map(|m| m as usize).collect(),
            rows,
            tokens: matrices.tokens,
            counted: matrices.counted,
            position,
            next,
            tensors: self.tensors(matrices, rows, length),
        }
    }

    fn tensors(&self, matrices: Matrices, rows: usize, length: usize) -> Vec<BatchTensor> {
        let options = &self.options;
        let wanted = [
            (true, Input::InputIds, matrices.ids),
            (true, Input::AttentionMask, matrices.mask),
            (options.position_ids, Input::PositionIds, matrices.positions),
            (options.token_type_ids, Input::TokenTypeIds, matrices.types),
            (true, Input::Labels, matrices.labels),
        ];
        let wanted = wanted.into_iter().filter(|(wanted, ..)| *wanted);
        let tensor = |(_, input, elements)| BatchTensor {
            input,
            dims: vec![rows, length],
            elements: Elements::I64(elements),
        };
        wanted.map(tensor).collect()
    }
}

impl Iterator for Batcher {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        Some(self.next_batch())
    }
}

fn order(options: &BatchOptions, lengths: &[u32], epoch: u64) -> Epoch {
    let (order, seed) = (options.order, options.seed);
    match options.pack {
        Some(room) => Epoch::packed(order, lengths, room.get() as u32, seed, epoch),
        None => Epoch::single(order, lengths, options.rows.get(), seed, epoch),
    }
}

/// Whether every example has room.
fn check(
    dataset: &Dataset,
    options: &BatchOptions,
    lengths: &[u32],
    sink: &mut Sink,
) -> Result<(), Reported> {
    let fixed = match options.length {
        Length::Fixed(length) => Some(length),
        _ => None,
    };
    let room = [fixed, options.pack.map(NonZeroUsize::get)];
    let room = room.into_iter().flatten().min();
    let longest = (0..lengths.len()).max_by_key(|example| lengths[*example]);
    if let (Some(room), Some(longest)) = (room, longest)
        && lengths[longest] as usize > room
    {
        let place = dataset.place(longest);
        return Err(sink.emit(errors::no_room(lengths[longest], room, &place)));
    }
    Ok(())
}
