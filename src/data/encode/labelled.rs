//! Texts with labels, and texts that belong together.

use super::cells::as_list;
use super::{Classes, Encoded, Encoder, TooLong};
use crate::data::errors;
use crate::data::example::{Example, IGNORED, Sequence, Target};
use crate::data::row::{Fault, Row};
use crate::data::task::Role;
use crate::data::value::Value;
use std::borrow::Cow;
use tokenizers::{EncodeInput, Encoding, InputSequence};

impl Encoder {
    pub(super) fn classification(
        &self,
        row: &Row,
        classes: &Classes,
        encoded: &mut Encoded,
    ) -> Result<Vec<Example>, Fault> {
        let label = self.cell(row, Role::Label)?;
        let class = classes.number(label, self.column(Role::Label))?;
        self.one(self.texts(row, encoded)?, Target::Class(class as i64))
    }

    pub(super) fn multi_label(
        &self,
        row: &Row,
        classes: &Classes,
        encoded: &mut Encoded,
    ) -> Result<Vec<Example>, Fault> {
        let holds = self.holds(self.cell(row, Role::Labels)?, classes)?;
        self.one(self.texts(row, encoded)?, Target::Numbers(holds))
    }

    /// Whether each class holds, as a number from 0 to 1.
    fn holds(&self, cell: &Value, classes: &Classes) -> Result<Vec<f32>, Fault> {
        let column = self.column(Role::Labels);
        let items = match (as_list(cell), cell) {
            (Some(items), _) => items,
            // A file without types may have the name of one class here, or nothing.
            (None, Value::Bare(text)) if text.is_empty() => Cow::Owned(Vec::new()),
            (None, Value::Bare(_)) => Cow::Owned(vec![cell.clone()]),
            (None, other) => return Err(errors::wrong_kind(column, other, "a list of classes")),
        };
        let share = |item: &Value| match item {
            Value::Bool(holds) => Some(f32::from(u8::from(*holds))),
            Value::Float(share) => Some(*share as f32),
            _ => None,
        };
        let shares: Option<Vec<f32>> = items.iter().map(share).collect();
        if let Some(shares) = shares.filter(|shares| !shares.is_empty()) {
            return match shares.len() == classes.count() {
                true => Ok(shares),
                false => Err(errors::not_one_a_class(
                    column,
                    shares.len(),
                    classes.count(),
                )),
            };
        }
        let mut holds = vec![0.0; classes.count()];
        for item in items.iter() {
            let class = &mut holds[classes.number(item, column)?];
            if *class > 0.0 {
                return Err(errors::class_twice(column));
            }
            *class = 1.0;
        }
        Ok(holds)
    }

    pub(super) fn regression(
        &self,
        row: &Row,
        encoded: &mut Encoded,
    ) -> Result<Vec<Example>, Fault> {
        let label = self.cell(row, Role::Label)?;
        let numbers = match label {
            Value::List(items) => items.iter().map(|i| self.number(Role::Label, i)).collect(),
            one => self.number(Role::Label, one).map(|number| vec![number]),
        };
        self.one(self.texts(row, encoded)?, Target::Numbers(numbers?))
    }

    pub(super) fn pairs(&self, row: &Row, encoded: &mut Encoded) -> Result<Vec<Example>, Fault> {
        let mut roles = vec![Role::Anchor, Role::Positive];
        if self.has(row, Role::Negative) {
            roles.push(Role::Negative);
        }
        let mut part = |role: Role| {
            let encoding = self.tokens(self.filled(row, role)?, true)?;
            self.unlabelled(encoding, encoded)
        };
        let parts = roles.into_iter().map(&mut part).collect::<Result<_, _>>()?;
        let target = match self.has(row, Role::Score) {
            true => Target::Numbers(vec![
                self.number(Role::Score, self.cell(row, Role::Score)?)?,
            ]),
            false => Target::None,
        };
        Ok(vec![Example { parts, target }])
    }

    /// The first token of every word has the class of the word, the others have none.
    pub(super) fn words(
        &self,
        row: &Row,
        classes: &Classes,
        encoded: &mut Encoded,
    ) -> Result<Vec<Example>, Fault> {
        let cells = self.list(row, Role::Tokens, "a list of words")?;
        let mut words = Vec::with_capacity(cells.len());
        for cell in cells.iter() {
            match cell {
                Value::Text(word) if !word.is_empty() => words.push(word.as_str()),
                other => return Err(self.wrong_kind(Role::Tokens, other, "a list of words")),
            }
        }
        let column = self.column(Role::Tags);
        let class = |item: &Value| match item {
            Value::Null | Value::Int(-100) => Ok(IGNORED),
            item => classes.number(item, column).map(|class| class as i32),
        };
        let tags = self.list(row, Role::Tags, "a list of classes")?;
        let tags: Vec<i32> = tags.iter().map(class).collect::<Result<_, _>>()?;
        if tags.len() != words.len() {
            let (words, tags) = (words.len(), tags.len());
            return Err(errors::lengths_differ("word", words, "tag", tags));
        }
        let encoding = self.encoding(InputSequence::from(words))?;
        let mut before = None;
        let label = |word: &Option<u32>| {
            let first = *word != before;
            before = *word;
            let tag = word
                .filter(|_| first)
                .and_then(|word| tags.get(word as usize));
            tag.copied().unwrap_or(IGNORED)
        };
        let labels: Vec<i32> = encoding.get_word_ids().iter().map(label).collect();
        if labels.iter().all(|label| *label == IGNORED) {
            return Err(errors::nothing_counts(labels.len()));
        }
        let mut sequence = self.unlabelled(encoding, encoded)?;
        sequence.labels = labels;
        self.one(sequence, Target::None)
    }

    fn one(&self, sequence: Sequence, target: Target) -> Result<Vec<Example>, Fault> {
        let parts = vec![sequence];
        Ok(vec![Example { parts, target }])
    }

    /// The tokens of the text or the two texts of a row, or its token ids.
    fn texts(&self, row: &Row, encoded: &mut Encoded) -> Result<Sequence, Fault> {
        if self.has(row, Role::InputIds) {
            let ids = self.ids(row, Role::InputIds, 0)?;
            let sequence = Sequence {
                ids: ids.into_iter().map(|id| id as u32).collect(),
                ..Sequence::default()
            };
            return self.fit_one(sequence, encoded);
        }
        let text = self.filled(row, Role::Text)?;
        let encoding = match self.has(row, Role::TextPair) {
            true => self.encoding((text, self.filled(row, Role::TextPair)?))?,
            false => self.tokens(text, true)?,
        };
        self.unlabelled(encoding, encoded)
    }

    fn encoding<'s>(&self, input: impl Into<EncodeInput<'s>>) -> Result<Encoding, Fault> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(errors::ids_expected)?;
        let encoded = tokenizer.encode(input, true);
        encoded.map_err(|why| errors::cannot_encode(tokenizer.path(), &why))
    }

    pub(super) fn unlabelled(
        &self,
        encoding: Encoding,
        encoded: &mut Encoded,
    ) -> Result<Sequence, Fault> {
        encoded.cut |= !encoding.get_overflowing().is_empty();
        let types = encoding.get_type_ids();
        let types = match types.iter().all(|ty| *ty == 0) {
            true => Vec::new(),
            false => types.iter().map(|ty| *ty as u8).collect(),
        };
        let sequence = Sequence {
            ids: encoding.get_ids().to_vec(),
            labels: Vec::new(),
            types,
        };
        self.fit_one(sequence, encoded)
    }

    fn fit_one(&self, sequence: Sequence, encoded: &mut Encoded) -> Result<Sequence, Fault> {
        let fitted = self.fit(sequence, TooLong::Refuse, encoded)?;
        Ok(fitted.into_iter().next().unwrap_or_default())
    }
}
