//! Examples: rows as tokens.

use super::row::Place;
use std::ops::Range;

/// The label of a token whose prediction does not count.
pub const IGNORED: i32 = -100;

/// A run of tokens with what is known of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    pub ids: Vec<u32>,
    /// One a token: what the position itself stands for, or [`IGNORED`]. Empty where labels are not
    /// of tokens.
    pub labels: Vec<i32>,
    /// One a token: 1 in the second text of a pair, as far as the tokenizer makes a difference.
    /// Empty where all are 0.
    pub types: Vec<u8>,
}

impl Sequence {
    pub fn part(&self, range: Range<usize>) -> Sequence {
        Sequence {
            ids: self.ids[range.clone()].to_vec(),
            labels: self.labels.get(range.clone()).unwrap_or(&[]).to_vec(),
            types: self.types.get(range).unwrap_or(&[]).to_vec(),
        }
    }
}

/// What is to be learned from an example as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Target {
    /// Nothing: its tokens have labels, or its parts belong together.
    #[default]
    None,
    Class(i64),
    Numbers(Vec<f32>),
}

/// What one row became: the parts of it that are sequences of their own, mostly one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Example {
    pub parts: Vec<Sequence>,
    pub target: Target,
}

impl Example {
    /// What all examples of a data set have in common: parts, and numbers to learn.
    pub fn form(&self) -> (usize, usize) {
        let numbers = match &self.target {
            Target::Numbers(numbers) => numbers.len(),
            _ => 0,
        };
        (self.parts.len(), numbers)
    }
}

/// A sequence of an example in [`Examples`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens<'a> {
    pub ids: &'a [u32],
    /// One a token, or empty.
    pub labels: &'a [i32],
    /// One a token, or empty where all are 0.
    pub types: &'a [u8],
}

impl Tokens<'_> {
    /// How many tokens have a label that counts.
    pub fn counted(&self) -> usize {
        let labels = self.labels.iter();
        labels.filter(|label| **label != IGNORED).count()
    }
}

/// All examples of a data set, in the order of their rows. Takes 4 bytes a token and 4 more where
/// tokens have labels.
#[derive(Debug, Default)]
pub struct Examples {
    ids: Vec<u32>,
    labels: Vec<i32>,
    types: Vec<u8>,
    /// Where each sequence ends in `ids`.
    ends: Vec<usize>,
    /// Sequences of an example; 0 as long as there is none.
    parts: usize,
    /// A class an example, or none.
    classes: Vec<i64>,
    /// Numbers of an example.
    width: usize,
    numbers: Vec<f32>,
    places: Vec<Place>,
}

impl Examples {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Sequences of an example: 1, more for pairs, and none where examples are rows of arrays.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The tokens of an example, of the first part if it has several.
    pub fn tokens(&self, example: usize) -> Tokens<'_> {
        self.part(example, 0)
    }

    /// The tokens of a part of an example.
    pub fn part(&self, example: usize, part: usize) -> Tokens<'_> {
        let range = self.range(example, part);
        Tokens {
            ids: &self.ids[range.clone()],
            labels: self.labels.get(range.clone()).unwrap_or(&[]),
            types: self.types.get(range).unwrap_or(&[]),
        }
    }

    fn range(&self, example: usize, part: usize) -> Range<usize> {
        let at = example * self.parts + part;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[at]
    }

    /// The row that an example comes from; a row may have several.
    pub fn place(&self, example: usize) -> Place {
        self.places[example]
    }

    /// Tokens of an example, of its longest part if it has several.
    pub fn length(&self, example: usize) -> usize {
        let lengths = (0..self.parts).map(|part| self.range(example, part).len());
        lengths.max().unwrap_or(0)
    }

    /// The class of an example, for a task that has one.
    pub fn class(&self, example: usize) -> Option<i64> {
        self.classes.get(example).copied()
    }

    /// The numbers of an example: what is to be predicted, or whether each class holds, or the score
    /// of a pair. All examples have the same number of them.
    pub fn numbers(&self, example: usize) -> &[f32] {
        let start = example * self.width;
        self.numbers.get(start..start + self.width).unwrap_or(&[])
    }

    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        fn bytes<const N: usize>(all: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
            all.flatten().collect()
        }
        let sizes = [self.parts, self.width, self.len(), self.ids.len()];
        let sizes = sizes.iter().chain(&self.ends);
        hasher.update(&bytes(sizes.map(|size| (*size as u64).to_le_bytes())));
        hasher.update(&bytes(self.ids.iter().map(|id| id.to_le_bytes())));
        hasher.update(&bytes(self.labels.iter().map(|label| label.to_le_bytes())));
        hasher.update(&self.types);
        hasher.update(&bytes(self.classes.iter().map(|class| class.to_le_bytes())));
        hasher.update(&bytes(
            self.numbers.iter().map(|number| number.to_le_bytes()),
        ));
    }

    /// See [`Example::form`]; `None` as long as there is no example.
    pub(super) fn form(&self) -> Option<(usize, usize)> {
        (!self.is_empty()).then_some((self.parts, self.width))
    }

    /// Adds an example, of the form of those before.
    pub(super) fn push(&mut self, example: Example, place: Place) {
        debug_assert!(self.form().is_none_or(|form| form == example.form()));
        (self.parts, self.width) = example.form();
        for sequence in example.parts {
            self.push_sequence(sequence);
        }
        match example.target {
            Target::None => {}
            Target::Class(class) => self.classes.push(class),
            Target::Numbers(numbers) => self.numbers.extend(numbers),
        }
        self.places.push(place);
    }

    fn push_sequence(&mut self, sequence: Sequence) {
        let Sequence { ids, labels, types } = sequence;
        let before = self.ids.len();
        self.ids.extend(ids);
        // What comes late is missing before.
        if !labels.is_empty() {
            self.labels.resize(before, IGNORED);
            self.labels.extend(labels);
        }
        if !types.is_empty() {
            self.types.resize(before, 0);
            self.types.extend(types);
        }
        if !self.labels.is_empty() {
            self.labels.resize(self.ids.len(), IGNORED);
        }
        if !self.types.is_empty() {
            self.types.resize(self.ids.len(), 0);
        }
        self.ends.push(self.ids.len());
    }
}
