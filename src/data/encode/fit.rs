//! What the model takes: lengths and token numbers.

use super::{Encoded, Encoder, TooLong};
use crate::data::errors;
use crate::data::example::{IGNORED, Sequence};
use crate::data::row::Fault;
use crate::data::task::{Role, Task};
use crate::diag::{Reported, Sink};

impl Encoder {
    /// Lets the tokenizer cut texts where it puts tokens around them, which must not be cut off.
    pub(super) fn set_truncation(&mut self, sink: &mut Sink) -> Result<(), Reported> {
        let cut = matches!(self.options.too_long, TooLong::CutEnd | TooLong::CutStart);
        let longest = self.longest().filter(|_| cut);
        let from_start = self.options.too_long == TooLong::CutStart;
        let by_tokenizer = self.options.task != Task::CausalLm;
        match (longest, &mut self.tokenizer) {
            (Some(longest), Some(tokenizer)) if by_tokenizer => {
                tokenizer.cut_at(longest, from_start, sink)
            }
            _ => Ok(()),
        }
    }

    /// Sequences of a length that is allowed. `split` is what [`TooLong::Split`] means here.
    pub(super) fn fit(
        &self,
        sequence: Sequence,
        split: TooLong,
        encoded: &mut Encoded,
    ) -> Result<Vec<Sequence>, Fault> {
        let length = sequence.ids.len();
        let Some(longest) = self.longest().filter(|longest| length > *longest) else {
            return Ok(vec![sequence]);
        };
        let too_long = match self.options.too_long {
            TooLong::Split => split,
            other => other,
        };
        let cut = matches!(too_long, TooLong::CutEnd | TooLong::CutStart);
        encoded.cut |= cut;
        match too_long {
            TooLong::Refuse => Err(errors::too_long(length, longest, &self.options)),
            TooLong::CutEnd => Ok(vec![sequence.part(0..longest)]),
            TooLong::CutStart => Ok(vec![sequence.part(length - longest..length)]),
            TooLong::Split => {
                let step = longest.saturating_sub(1).max(1);
                let starts = (0..length.saturating_sub(1)).step_by(step);
                let piece = |start: usize| sequence.part(start..(start + longest).min(length));
                Ok(starts.map(piece).collect())
            }
        }
    }

    /// Whether there are tokens, and the model knows all of them.
    pub(super) fn check(&self, sequence: &Sequence) -> Result<(), Fault> {
        if sequence.ids.is_empty() {
            return Err(errors::nothing_counts(0));
        }
        let vocabulary = self.options.limits.vocabulary;
        let is_outside = |number: usize| vocabulary.is_some_and(|count| number >= count);
        let mut ids = sequence.ids.iter().copied();
        if let Some(id) = ids.find(|id| is_outside(*id as usize)) {
            let token = self.tokenizer.as_ref().and_then(|t| t.token(id));
            let vocabulary = vocabulary.unwrap_or(0);
            return Err(errors::outside_vocabulary(id, token.as_deref(), vocabulary));
        }
        if !self.options.task.predicts_tokens() {
            return Ok(());
        }
        let mut labels = sequence.labels.iter().copied();
        // No number below 0 but the one that says that nothing counts.
        let is_none =
            |label: i32| label != IGNORED && usize::try_from(label).map_or(true, is_outside);
        match labels.find(|label| is_none(*label)) {
            Some(label) => {
                let column = self.column(Role::Labels);
                Err(errors::label_outside(label, column, vocabulary))
            }
            None => Ok(()),
        }
    }
}
