//! Rows to examples.

use super::errors;
use super::example::{Example, IGNORED, Sequence};
use super::row::{Fault, Row};
use super::task::{Columns, Role, Task};
use super::tokenizer::{TokenName, Tokenizer};
use super::value::Value;
use crate::diag::{Reported, Sink};
use std::path::PathBuf;
use tokenizers::Encoding;

/// How rows become examples.
#[derive(Clone, Debug)]
pub struct EncoderOptions {
    /// A `tokenizer.json`. Without it rows hold token ids.
    pub tokenizer: Option<PathBuf>,
    pub task: Task,
    pub columns: Columns,
    /// Put behind every text that is learned to its end. Without it `eos_token` of the
    /// `tokenizer_config.json` beside the tokenizer, and if there is none, nothing.
    pub end: Option<TokenName>,
    /// What batches are padded with. Without it `pad_token` of `tokenizer_config.json`, then the
    /// end token, then 0; padding is masked, so the choice changes no result.
    pub padding: Option<TokenName>,
    /// The most tokens of an example.
    pub max_length: Option<usize>,
    pub too_long: TooLong,
    pub limits: Limits,
}

impl EncoderOptions {
    /// Everything at its default.
    pub fn new(task: Task) -> EncoderOptions {
        EncoderOptions {
            tokenizer: None,
            task,
            columns: Columns::default(),
            end: None,
            padding: None,
            max_length: None,
            too_long: TooLong::Refuse,
            limits: Limits::default(),
        }
    }
}

/// What happens to an example with too many tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TooLong {
    /// Its row is broken.
    #[default]
    Refuse,
    /// Its end is cut off, and it is counted.
    CutEnd,
    /// Its start is cut off, and it is counted.
    CutStart,
    /// It becomes several, which share one token: every token is still predicted once. For a text
    /// without a prompt.
    Split,
}

/// What the model takes, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Token ids are below it.
    pub vocabulary: Option<usize>,
    /// The longest sequence.
    pub positions: Option<usize>,
}

/// Turns rows into examples. Rows do not depend on each other.
pub struct Encoder {
    tokenizer: Option<Tokenizer>,
    options: EncoderOptions,
    end: Option<u32>,
    padding: u32,
}

/// What one row became, and what is to be said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Encoded {
    pub examples: Vec<Example>,
    /// Something was cut off.
    pub cut: bool,
    /// The prompt alone has other tokens than in front of its completion.
    pub seam: bool,
}

impl Encoder {
    pub fn open(options: EncoderOptions, sink: &mut Sink) -> Result<Encoder, Reported> {
        let path = options.tokenizer.as_deref();
        let tokenizer = path.map(|path| Tokenizer::open(path, sink)).transpose()?;
        let mut named = |name: &Option<TokenName>, role: &str| match (name, &tokenizer) {
            (None, _) => Ok(None),
            (Some(TokenName::Id(id)), None) => Ok(Some(*id)),
            (Some(name), None) => Err(sink.emit(errors::token_without_tokenizer(name, role))),
            (Some(name), Some(tokenizer)) => tokenizer.named(name, role, sink).map(Some),
        };
        let stated_end = tokenizer.as_ref().and_then(Tokenizer::stated_end);
        let stated_padding = tokenizer.as_ref().and_then(Tokenizer::stated_padding);
        let end = named(&options.end, "end")?.or(stated_end);
        let padding = named(&options.padding, "padding")?.or(stated_padding);
        let padding = padding.or(end).unwrap_or(0);
        for (id, role) in [(end, "end"), (Some(padding), "padding")] {
            if let (Some(id), Some(vocabulary)) = (id, options.limits.vocabulary)
                && id as usize >= vocabulary
            {
                return Err(sink.emit(errors::special_outside(id, role, vocabulary)));
            }
        }
        Ok(Encoder {
            tokenizer,
            options,
            end,
            padding,
        })
    }

    pub fn options(&self) -> &EncoderOptions {
        &self.options
    }

    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The token behind every text that is learned to its end.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// What batches are padded with.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// The most tokens that an example may have.
    pub fn longest(&self) -> Option<usize> {
        let limits = [self.options.max_length, self.options.limits.positions];
        limits.into_iter().flatten().min()
    }

    pub(super) fn encode(&self, row: &Row) -> Result<Encoded, Fault> {
        let mut encoded = Encoded::default();
        let sequence = match self.options.task {
            Task::CausalLm => self.causal(row, &mut encoded)?,
        };
        self.check_vocabulary(&sequence)?;
        for sequence in self.fit(sequence, &mut encoded)? {
            check_counted(&sequence)?;
            encoded.examples.push(Example { sequence });
        }
        Ok(encoded)
    }

    fn causal(&self, row: &Row, encoded: &mut Encoded) -> Result<Sequence, Fault> {
        if self.has(row, Role::InputIds) {
            return self.ids(row);
        }
        if self.has(row, Role::Prompt) || self.has(row, Role::Completion) {
            let prompt = self.text(row, Role::Prompt)?;
            let completion = self.filled(row, Role::Completion)?;
            return self.completion(prompt, completion, encoded);
        }
        if self.has(row, Role::Text) {
            return self.all_of(self.filled(row, Role::Text)?);
        }
        let wanted = "`prompt` and `completion`, nor `text`";
        Err(errors::no_columns(row, wanted))
    }

    /// Token ids that are in the row, learned as `labels` says or all of them.
    fn ids(&self, row: &Row) -> Result<Sequence, Fault> {
        let ids = self.numbers(row, Role::InputIds, 0)?;
        let labels = match self.has(row, Role::Labels) {
            true => self.numbers(row, Role::Labels, IGNORED.into())?,
            false => ids.clone(),
        };
        if labels.len() != ids.len() {
            return Err(errors::lengths_differ(ids.len(), labels.len()));
        }
        Ok(Sequence {
            ids: ids.into_iter().map(|id| id as u32).collect(),
            labels: labels.into_iter().map(|label| label as i32).collect(),
            types: Vec::new(),
        })
    }

    /// All of a text is learned, and its end.
    fn all_of(&self, text: &str) -> Result<Sequence, Fault> {
        let encoding = self.tokens(text)?;
        let mut sequence = learned_from(&encoding, 0);
        self.close(&mut sequence);
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
        let encoding = self.tokens(&format!("{prompt}{completion}"))?;
        let offsets = encoding.get_offsets();
        let start = offsets.iter().position(|(_, end)| *end > prompt.len());
        let start = start.unwrap_or(offsets.len());
        if !prompt.is_empty() {
            let alone = self.tokens(prompt)?;
            encoded.seam = without_end(&alone) != &encoding.get_ids()[..start];
        }
        let mut sequence = learned_from(&encoding, start);
        self.close(&mut sequence);
        Ok(sequence)
    }

    /// Puts the end token behind a sequence, unless the tokenizer has.
    fn close(&self, sequence: &mut Sequence) {
        let Some(end) = self.end else { return };
        if sequence.ids.last() != Some(&end) {
            sequence.ids.push(end);
            sequence.labels.push(end as i32);
        }
    }

    fn tokens(&self, text: &str) -> Result<Encoding, Fault> {
        let tokenizer = self.tokenizer.as_ref().ok_or_else(errors::ids_expected)?;
        let encoded = tokenizer.encode(text, true);
        encoded.map_err(|why| errors::cannot_encode(tokenizer.path(), &why))
    }

    fn has(&self, row: &Row, role: Role) -> bool {
        let columns = &self.options.columns;
        columns.given(role).is_some() || row.get(columns.name(role)).is_some()
    }

    fn cell<'r>(&self, row: &'r Row, role: Role) -> Result<&'r Value, Fault> {
        let name = self.options.columns.name(role);
        row.get(name).ok_or_else(|| errors::no_column(row, name))
    }

    fn text<'r>(&self, row: &'r Row, role: Role) -> Result<&'r str, Fault> {
        match self.cell(row, role)? {
            Value::Text(text) => Ok(text),
            other => Err(self.wrong_kind(role, other, "text")),
        }
    }

    /// A text that is not empty.
    fn filled<'r>(&self, row: &'r Row, role: Role) -> Result<&'r str, Fault> {
        match self.text(row, role)? {
            "" => Err(errors::empty(self.options.columns.name(role))),
            text => Ok(text),
        }
    }

    /// A list of whole numbers from `least` on.
    fn numbers(&self, row: &Row, role: Role, least: i64) -> Result<Vec<i64>, Fault> {
        let cell = self.cell(row, role)?;
        let Value::List(items) = cell else {
            return Err(self.wrong_kind(role, cell, "a list of token ids"));
        };
        let number = |item: &Value| match item {
            Value::Int(number) if (least..=i64::from(i32::MAX)).contains(number) => Ok(*number),
            other => Err(self.wrong_kind(role, other, "a list of token ids")),
        };
        items.iter().map(number).collect()
    }

    fn wrong_kind(&self, role: Role, found: &Value, wanted: &str) -> Fault {
        errors::wrong_kind(self.options.columns.name(role), found, wanted)
    }

    fn check_vocabulary(&self, sequence: &Sequence) -> Result<(), Fault> {
        let Some(vocabulary) = self.options.limits.vocabulary else {
            return Ok(());
        };
        let labels = sequence.labels.iter().filter(|label| **label != IGNORED);
        let ids = sequence.ids.iter().copied();
        let all = ids.chain(labels.map(|label| *label as u32));
        match all.into_iter().find(|id| *id as usize >= vocabulary) {
            Some(id) => {
                let token = self.tokenizer.as_ref().and_then(|t| t.token(id));
                Err(errors::outside_vocabulary(id, token.as_deref(), vocabulary))
            }
            None => Ok(()),
        }
    }

    /// Makes sequences of a length that is allowed.
    fn fit(&self, sequence: Sequence, encoded: &mut Encoded) -> Result<Vec<Sequence>, Fault> {
        let length = sequence.ids.len();
        let Some(longest) = self.longest().filter(|longest| length > *longest) else {
            return Ok(vec![sequence]);
        };
        match self.options.too_long {
            TooLong::Refuse => Err(errors::too_long(length, longest, &self.options)),
            TooLong::CutEnd => {
                encoded.cut = true;
                Ok(vec![sequence.part(0..longest)])
            }
            TooLong::CutStart => {
                encoded.cut = true;
                Ok(vec![sequence.part(length - longest..length)])
            }
            TooLong::Split => {
                let step = longest.saturating_sub(1).max(1);
                let starts = (0..length.saturating_sub(1)).step_by(step);
                let piece = |start: usize| sequence.part(start..(start + longest).min(length));
                Ok(starts.map(piece).collect())
            }
        }
    }
}

impl Sequence {
    fn part(&self, range: std::ops::Range<usize>) -> Sequence {
        Sequence {
            ids: self.ids[range.clone()].to_vec(),
            labels: self.labels.get(range.clone()).unwrap_or(&[]).to_vec(),
            types: self.types.get(range).unwrap_or(&[]).to_vec(),
        }
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

/// A sequence from which nothing is learned is a mistake in the data.
fn check_counted(sequence: &Sequence) -> Result<(), Fault> {
    let predicted = sequence.labels.iter().skip(1);
    match predicted.into_iter().any(|label| *label != IGNORED) {
        true => Ok(()),
        false => Err(errors::nothing_counts(sequence.ids.len())),
    }
}
