//! Batches in order, from any position.

use super::arrays::Array;
use super::batch::{Batch, BatchTensor, Elements, Input, Length, Matrices, Side};
use super::dataset::Dataset;
use super::errors;
use super::order::{Epoch, Order};
use super::task::Task;
use crate::diag::{Reported, Sink};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::ops::Range;
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
    /// Put several examples into a row of so many tokens, for tasks that label tokens. They share the
    /// row's attention: a model without a mask of blocks lets each see those before it. Their
    /// positions start anew, and no example's first token is learned from the one before.
    pub pack: Option<NonZeroUsize>,
    /// What becomes of the last batch of an epoch when it has fewer rows.
    pub last: LastBatch,
    /// How long completions are made, for [`Task::Seq2Seq`].
    pub decoder_length: Length,
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
            decoder_length: Length::Longest,
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

    /// Rows of the epoch that the next batch is in: examples, or fewer where they are packed.
    pub fn rows(&self) -> usize {
        self.epoch.rows()
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
        if self.dataset.task() == Task::Arrays {
            return self.of_arrays(start..end, position, next);
        }
        if self.dataset.task() == Task::Seq2Seq {
            return self.of_two_texts(start..end, position, next);
        }
        let examples = self.dataset.examples();
        let members = |row: usize| self.epoch.row(row).iter().map(|member| *member as usize);
        let length_of = |row| members(row).map(|m| self.lengths[m] as usize).sum();
        let longest = (start..end).map(length_of).max().unwrap_or(0);
        let length = self.options.length.of(longest);
        let rows = (end - start) * examples.parts();
        let padding = self.dataset.padding();
        let mut matrices = Matrices::new(rows, length, self.options.side, padding);
        for part in 0..examples.parts() {
            for row in start..end {
                let sequences = members(row).map(|member| examples.part(member, part));
                matrices.fill(part * (end - start) + row - start, sequences);
            }
        }
        let members: Vec<usize> = (start..end).flat_map(members).collect();
        Batch {
            rows,
            tokens: matrices.tokens,
            counted: match self.dataset.task().labels_tokens() {
                true => matrices.counted,
                false => members.len(),
            },
            position,
            next,
            tensors: self.tensors(matrices, &members, [rows, length]),
            arrays: Vec::new(),
            examples: members,
        }
    }

    /// One row an example: what an encoder reads, and what a decoder says.
    fn of_two_texts(&self, rows: Range<usize>, position: Position, next: Position) -> Batch {
        let (examples, padding) = (self.dataset.examples(), self.dataset.padding());
        let members = rows.flat_map(|row| self.epoch.row(row));
        let members: Vec<usize> = members.map(|member| *member as usize).collect();
        let filled = |part: usize, length: Length, side: Side| {
            let parts = members.iter().map(|member| examples.part(*member, part));
            let longest = parts.clone().map(|tokens| tokens.ids.len()).max();
            let length = length.of(longest.unwrap_or(0));
            let mut matrices = Matrices::new(members.len(), length, side, padding);
            for (row, tokens) in parts.enumerate() {
                matrices.fill(row, std::iter::once(tokens));
            }
            (matrices, [members.len(), length])
        };
        let options = &self.options;
        let (source, dims) = filled(0, options.length, options.side);
        // A decoder says nothing in front of its first token.
        let (said, said_dims) = filled(1, options.decoder_length, Side::Right);
        let (tokens, counted) = (source.tokens + said.tokens, said.counted);
        let mut tensors = self.inputs(&source, dims);
        let start = self.dataset.start();
        let decoder = [
            (Input::DecoderInputIds, said.behind(start)),
            (Input::DecoderAttentionMask, said.mask),
            (Input::Labels, said.labels),
        ];
        tensors.extend(decoder.map(|(input, elements)| matrix(input, said_dims, elements)));
        Batch {
            rows: members.len(),
            tokens,
            counted,
            position,
            next,
            tensors,
            arrays: Vec::new(),
            examples: members,
        }
    }

    fn of_arrays(&self, rows: Range<usize>, position: Position, next: Position) -> Batch {
        let members = rows.flat_map(|row| self.epoch.row(row));
        let members: Vec<usize> = members.map(|member| *member as usize).collect();
        let arrays = self.dataset.arrays().iter();
        let arrays = arrays.map(|array| array.rows(&members));
        let is_labels = |array: &Array| array.name == Input::Labels.name();
        let (labels, arrays): (Vec<Array>, Vec<Array>) = arrays.partition(is_labels);
        let tensor = |array: Array| BatchTensor {
            input: Input::Labels,
            dims: array.dims,
            elements: array.elements,
        };
        Batch {
            tensors: labels.into_iter().map(tensor).collect(),
            rows: members.len(),
            tokens: tokens(&arrays),
            arrays,
            counted: members.len(),
            examples: members,
            position,
            next,
        }
    }

    fn tensors(&self, matrices: Matrices, members: &[usize], dims: [usize; 2]) -> Vec<BatchTensor> {
        let mut tensors = self.inputs(&matrices, dims);
        match self.dataset.task().labels_tokens() {
            true => tensors.push(matrix(Input::Labels, dims, matrices.labels)),
            false => tensors.extend(self.labels(members)),
        }
        tensors
    }

    /// What models read of tokens.
    fn inputs(&self, matrices: &Matrices, dims: [usize; 2]) -> Vec<BatchTensor> {
        let options = &self.options;
        let wanted = [
            (true, Input::InputIds, &matrices.ids),
            (true, Input::AttentionMask, &matrices.mask),
            (
                options.position_ids,
                Input::PositionIds,
                &matrices.positions,
            ),
            (options.token_type_ids, Input::TokenTypeIds, &matrices.types),
        ];
        let wanted = wanted.into_iter().filter(|(wanted, ..)| *wanted);
        wanted
            .map(|(_, input, elements)| matrix(input, dims, elements.clone()))
            .collect()
    }

    /// Labels of whole examples.
    fn labels(&self, members: &[usize]) -> Option<BatchTensor> {
        let examples = self.dataset.examples();
        let classes = members.iter().filter_map(|member| examples.class(*member));
        let classes: Vec<i64> = classes.collect();
        let numbers = members.iter().map(|member| examples.numbers(*member));
        let numbers: Vec<f32> = numbers.collect::<Vec<_>>().concat();
        let mut dims = vec![members.len()];
        let width = numbers.len() / members.len().max(1);
        if width > 1 || self.dataset.task() == Task::MultiLabel {
            dims.push(width);
        }
        if self.dataset.task() == Task::Pairs && numbers.is_empty() {
            let belongs = (0..members.len() as i64).collect();
            return Some(BatchTensor {
                input: Input::Labels,
                dims,
                elements: Elements::I64(belongs),
            });
        }
        let elements = match (classes.is_empty(), numbers.is_empty()) {
            (false, _) => Elements::I64(classes),
            (true, false) => Elements::F32(numbers),
            (true, true) => return None,
        };
        Some(BatchTensor {
            input: Input::Labels,
            dims,
            elements,
        })
    }
}

/// Tokens in arrays for a model of language: those that masks count, and without a mask all of them.
fn tokens(arrays: &[Array]) -> usize {
    let named = |input: Input| arrays.iter().find(|array| array.name == input.name());
    let of = |ids: Input, mask: Input| match (named(ids), named(mask).map(|mask| &mask.elements)) {
        (Some(_), Some(Elements::I64(mask))) => mask.iter().filter(|holds| **holds != 0).count(),
        (Some(ids), _) => ids.dims.iter().product(),
        (None, _) => 0,
    };
    of(Input::InputIds, Input::AttentionMask)
        + of(Input::DecoderInputIds, Input::DecoderAttentionMask)
}

fn matrix(input: Input, dims: [usize; 2], elements: Vec<i64>) -> BatchTensor {
    BatchTensor {
        input,
        dims: dims.to_vec(),
        elements: Elements::I64(elements),
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

/// Whether examples can be put into rows like this, and every one has room.
fn check(
    dataset: &Dataset,
    options: &BatchOptions,
    lengths: &[u32],
    sink: &mut Sink,
) -> Result<(), Reported> {
    let task = dataset.task();
    if options.pack.is_some() && !(task.labels_tokens() && task != Task::Seq2Seq) {
        return Err(sink.emit(errors::cannot_pack(task)));
    }
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
