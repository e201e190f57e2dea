//! Texts of which the next token is learned.

use super::{Encoded, Encoder, TooLong};
use crate::data::errors;
use crate::data::example::{Example, IGNORED, Sequence};
use crate::data::row::{Fault, Row};
use crate::data::task::Role;
use crate::data::template::Template;
use crate::data::value::Value;
use std::borrow::Cow;
use tokenizers::Encoding;

impl Encoder {
    pub(super) fn causal(&self, row: &Row, encoded: &mut Encoded) -> Result<Vec<Example>, Fault> {
        if self.has(row, Role::InputIds) {
            return self.fit_causal(self.given_ids(row)?, TooLong::Refuse, encoded);
        }
        if self.has(row, Role::Messages) {
            let sequence = self.chat(row)?;
            return self.fit_causal(sequence, TooLong::Refuse, encoded);
        }
        let texts = &self.texts;
        let (prompt, completion) = (&texts.prompt, &texts.completion);
        let templates = prompt.is_some() || completion.is_some();
        if templates || self.has(row, Role::Prompt) || self.has(row, Role::Completion) {
            let prompt = self.made(row, Role::Prompt, prompt)?;
            let completion = self.made(row, Role::Completion, completion)?;
            if completion.is_empty() {
                return Err(errors::empty(self.column(Role::Completion)));
            }
            let sequence = self.completion(&prompt, &completion, encoded)?;
            return self.fit_causal(sequence, TooLong::Refuse, encoded);
        }
        if texts.text.is_some() || self.has(row, Role::Text) {
            let text = self.made(row, Role::Text, &texts.text)?;
            if text.is_empty() {
                return Err(errors::empty(self.column(Role::Text)));
            }
            let sequence = self.whole(&text, encoded)?;
            return self.fit_causal(sequence, TooLong::Split, encoded);
        }
        let wanted = "`prompt` and `completion`, nor `messages`, nor `text`";
        Err(errors::no_columns(row, wanted))
    }

    /// The text of a column, or what a template makes in its place.
    pub(super) fn made<'r>(
        &self,
        row: &'r Row,
        role: Role,
        template: &Option<Template>,
    ) -> Result<Cow<'r, str>, Fault> {
        let Some(template) = template else {
            return self.text(row, role).map(Cow::Borrowed);
        };
        let columns = row.0.iter().chain(&self.variables);
        let variables: Vec<(&str, &Value)> = columns
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        Ok(Cow::Owned(template.render(&variables)?.text))
    }

    /// Token ids that are in the row, learned as `labels` says or all of them.
    fn given_ids(&self, row: &Row) -> Result<Sequence, Fault> {
        let ids = self.ids(row, Role::InputIds, 0)?;
        let labels = match self.has(row, Role::Labels) {
            true => self.ids(row, Role::Labels, IGNORED.into())?,
            false => ids.clone(),
        };
        if labels.len() != ids.len() {
            let (ids, labels) = (ids.len(), labels.len());
            return Err(errors::lengths_differ("token", ids, "label", labels));
        }
        Ok(Sequence {
            ids: ids.into_iter().map(|id| id as u32).collect(),
            labels: labels.into_iter().map(|label| label as i32).collect(),
            types: Vec::new(),
        })
    }

    /// All of a text is learned, and its end.
    pub(super) fn whole(&self, text: &str, encoded: &mut Encoded) -> Result<Sequence, Fault> {
        let encoding = self.tokens(text, true)?;
        let mut sequence = learned_from(&encoding, 0);
        self.close(&mut sequence, &encoding, encoded);
        Ok(sequence)
    }

    /// The text behind a prompt is learned, and its end. Both are encoded as one text: a token that
    /// reaches from the prompt into the completion counts.
    fn completion(
        &self,
        prompt: &str,
        completion: &str,
        encoded: &mut Encoded,
    ) -> Result<Sequence, Fault> {
        let encoding = self.tokens(&format!("{prompt}{completion}"), true)?;
        let offsets = encoding.get_offsets();
        let start = offsets.iter().position(|(_, end)| *end > prompt.len());
        let start = start.unwrap_or(offsets.len());
        if !prompt.is_empty() {
            let alone = self.tokens(prompt, true)?;
            encoded.seam = without_end(&alone) != &encoding.get_ids()[..start];
        }
        let mut sequence = learned_from(&encoding, start);
        self.close(&mut sequence, &encoding, encoded);
        Ok(sequence)
    }

    /// Puts the end token behind a sequence, unless the tokenizer has.
    fn close(&self, sequence: &mut Sequence, encoding: &Encoding, encoded: &mut Encoded) {
        let Some(end) = self.end else {
            encoded.endless = encoding.get_special_tokens_mask().last() != Some(&1);
            return;
        };
        if sequence.ids.last() != Some(&end) {
            sequence.ids.push(end);
            sequence.labels.push(end as i32);
        }
    }

    /// Makes examples of a length that is allowed, from each of which something is learned. `split`
    /// is what [`TooLong::Split`] means here.
    fn fit_causal(
        &self,
        sequence: Sequence,
        split: TooLong,
        encoded: &mut Encoded,
    ) -> Result<Vec<Example>, Fault> {
        let mut examples = Vec::new();
        for mut sequence in self.fit(sequence, split, encoded)? {
            // Nothing comes before it that it could be predicted from.
            if let Some(first) = sequence.labels.first_mut() {
                *first = IGNORED;
            }
            if sequence.labels.iter().all(|label| *label == IGNORED) {
                return Err(errors::nothing_counts(sequence.ids.len()));
            }
            examples.push(Example {
                parts: vec![sequence],
                ..Example::default()
            });
        }
        Ok(examples)
    }

    /// The tokens of a text, with those that the tokenizer puts around it if `special`.
    pub(super) fn tokens(&self, text: &str, special: bool) -> Result<Encoding, Fault> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(errors::ids_expected)?;
        let encoded = tokenizer.encode(text, special);
        encoded.map_err(|why| errors::cannot_encode(tokenizer.path(), &why))
    }
}

/// The ids of a text without the special ones that the tokenizer puts behind it.
fn without_end(encoding: &Encoding) -> &[u32] {
    let special = encoding.get_special_tokens_mask();
    let kept = special.iter().rposition(|special| *special == 0);
    &encoding.get_ids()[..kept.map_or(0, |last| last + 1)]
}

/// The tokens of a text, of which those from `start` on are learned.
fn learned_from(encoding: &Encoding, start: usize) -> Sequence {
    let ids = encoding.get_ids().to_vec();
    let label = |(at, id): (usize, &u32)| if at < start { IGNORED } else { *id as i32 };
    Sequence {
        labels: ids.iter().enumerate().map(label).collect(),
        ids,
        types: Vec::new(),
    }
}
