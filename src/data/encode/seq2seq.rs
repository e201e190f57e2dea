//! Texts that a decoder makes of other texts.

use super::{Encoded, Encoder, TooLong};
use crate::data::errors;
use crate::data::example::{Example, IGNORED, Sequence, Target};
use crate::data::row::{Fault, Row};
use crate::data::task::Role;

impl Encoder {
    /// What the encoder reads, and what the decoder learns to say: a text of its own, and its end.
    pub(super) fn seq2seq(&self, row: &Row, encoded: &mut Encoded) -> Result<Vec<Example>, Fault> {
        let (source, target) = match self.has(row, Role::InputIds) {
            true => self.given_pair(row)?,
            false => self.text_pair(row, encoded)?,
        };
        if target.labels.iter().all(|label| *label == IGNORED) {
            return Err(errors::nothing_counts(target.ids.len()));
        }
        let mut parts = self.fit(source, TooLong::Refuse, encoded)?;
        parts.extend(self.fit(target, TooLong::Refuse, encoded)?);
        let target = Target::None;
        Ok(vec![Example { parts, target }])
    }

    fn text_pair(&self, row: &Row, encoded: &mut Encoded) -> Result<(Sequence, Sequence), Fault> {
        let prompt = self.made(row, Role::Prompt, &self.texts.prompt)?;
        let completion = self.made(row, Role::Completion, &self.texts.completion)?;
        for (text, role) in [(&prompt, Role::Prompt), (&completion, Role::Completion)] {
            if text.is_empty() {
                return Err(errors::empty(self.column(role)));
            }
        }
        let source = self.unlabelled(self.tokens(&prompt, true)?, encoded)?;
        Ok((source, self.whole(&completion, encoded)?))
    }

    /// Token ids that are in the row: `labels` are the decoder's.
    fn given_pair(&self, row: &Row) -> Result<(Sequence, Sequence), Fault> {
        let source = self.ids(row, Role::InputIds, 0)?;
        let labels = self.ids(row, Role::Labels, IGNORED.into())?;
        let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
        let known = |label: &i32| u32::try_from(*label).unwrap_or(self.padding);
        let source = Sequence {
            ids: source.into_iter().map(|id| id as u32).collect(),
            ..Sequence::default()
        };
        let target = Sequence {
            // What does not count is padding to the decoder, as Hugging Face has it.
            ids: labels.iter().map(known).collect(),
            labels,
            types: Vec::new(),
        };
        Ok((source, target))
    }
}
