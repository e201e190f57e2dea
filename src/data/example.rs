//! Examples: rows as tokens.

use super::row::Place;

/// The label of a token whose prediction does not count.
pub const IGNORED: i32 = -100;

/// A run of tokens with what is known of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    pub ids: Vec<u32>,
    /// One a token: what the position stands for (not what comes after it), or [`IGNORED`]. Empty
    /// where labels are not of tokens.
    pub labels: Vec<i32>,
    /// One a token: 1 in the second text of a pair, as far as the tokenizer makes a difference.
    /// Empty where all are 0.
    pub types: Vec<u8>,
}

/// [`Sequence`] of an example in [`Examples`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens<'a> {
    pub ids: &'a [u32],
    /// One a token, or empty.
    pub labels: &'a [i32],
    /// One a token, or empty where all are 0.
    pub types: &'a [u8],
}

impl Tokens<'_> {
    /// How many tokens are predicted and count: the first one of a sequence is never predicted.
    pub fn counted(&self) -> usize {
        let predicted = self.labels.iter().skip(1);
        predicted.filter(|label| **label != IGNORED).count()
    }
}

/// What one row became.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Example {
    pub sequence: Sequence,
}

/// All examples of a data set, in the order of their rows. Takes 4 bytes a token and 4 more where
/// tokens have labels.
#[derive(Debug, Default)]
pub struct Examples {
    ids: Vec<u32>,
    labels: Vec<i32>,
    types: Vec<u8>,
    /// Where the tokens of each example end in `ids`.
    ends: Vec<usize>,
    places: Vec<Place>,
}

impl Examples {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The tokens of an example.
    pub fn tokens(&self, example: usize) -> Tokens<'_> {
        let start = example.checked_sub(1).map_or(0, |before| self.ends[before]);
        let range = start..self.ends[example];
        Tokens {
            ids: &self.ids[range.clone()],
            labels: self.labels.get(range.clone()).unwrap_or(&[]),
            types: self.types.get(range).unwrap_or(&[]),
        }
    }

    /// The row that an example comes from; a row may have several.
    pub fn place(&self, example: usize) -> Place {
        self.places[example]
    }

    /// Tokens of an example.
    pub fn length(&self, example: usize) -> usize {
        self.tokens(example).ids.len()
    }

    pub(super) fn push(&mut self, example: Example, place: Place) {
        let Sequence { ids, labels, types } = example.sequence;
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
        self.places.push(place);
    }
}
