//! Rows to examples.

mod causal;
mod cells;
mod chat;
mod classes;
mod fit;
mod labelled;
mod seq2seq;

pub(super) use classes::{ClassReader, Classes};

use super::errors;
use super::example::Example;
use super::row::{Fault, Row};
use super::task::{Columns, Task};
use super::template::{Template, TemplateText};
use super::tokenizer::{TokenName, Tokenizer};
use super::value::Value;
use crate::diag::{Diagnostic, Reported, Sink};
use std::path::PathBuf;

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
    /// What a decoder starts with, for [`Task::Seq2Seq`]. Without it `decoder_start_token_id` of the
    /// `generation_config.json` or `config.json` beside the tokenizer, and if there is none, the
    /// padding token, as T5 has it.
    pub start: Option<TokenName>,
    /// The most tokens of an example.
    pub max_length: Option<usize>,
    pub too_long: TooLong,
    /// Names of the classes by their numbers. Without them the data decides: numbers as they are,
    /// or the names that it has in the order of the alphabet.
    pub classes: Vec<String>,
    pub templates: Templates,
    pub limits: Limits,
}

/// How texts are made of rows. The variables of a template are the columns of the row and the special
/// tokens of `tokenizer_config.json`, such as `eos_token`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Templates {
    /// For `messages`; without it the tokenizer's. Its variables are `messages`, `tools` and
    /// `add_generation_prompt`.
    pub chat: Option<TemplateText>,
    /// Makes the prompt, in place of the column of that name.
    pub prompt: Option<TemplateText>,
    /// Makes the completion, in place of the column of that name.
    pub completion: Option<TemplateText>,
    /// Makes the text, in place of the column of that name.
    pub text: Option<TemplateText>,
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
            start: None,
            max_length: None,
            too_long: TooLong::Refuse,
            classes: Vec::new(),
            templates: Templates::default(),
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
    /// Its end is cut off, and it is counted. Of a pair of texts the longer one is cut.
    CutEnd,
    /// Its start is cut off, and it is counted.
    CutStart,
    /// A text without a prompt becomes several, which share one token: every token is still
    /// predicted once. Others are refused.
    Split,
}

/// What the model takes, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Token ids are below it.
    pub vocabulary: Option<usize>,
    /// The longest sequence.
    pub positions: Option<usize>,
    /// Classes of the model's output; tokens where labels are tokens that come as arrays.
    pub classes: Option<usize>,
    /// Whole numbers in an array of labels are classes: none is below 0 but for the one of labels that
    /// do not count.
    pub labels_are_classes: bool,
}

/// Turns rows into examples. Rows do not depend on each other.
pub struct Encoder {
    tokenizer: Option<Tokenizer>,
    options: EncoderOptions,
    end: Option<u32>,
    padding: u32,
    start: u32,
    texts: Texts,
    /// Special tokens, as variables of templates.
    variables: Vec<(String, Value)>,
}

/// The templates, understood.
struct Texts {
    /// One that comes with the tokenizer is a fault only of rows that need it.
    chat: Option<Result<Template, Box<Diagnostic>>>,
    prompt: Option<Template>,
    completion: Option<Template>,
    text: Option<Template>,
}

/// What one row became, and what is to be said about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Encoded {
    pub examples: Vec<Example>,
    /// Something was cut off.
    pub cut: bool,
    /// The prompt alone has other tokens than in front of its completion.
    pub seam: bool,
    /// Nothing ends the text.
    pub endless: bool,
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
        let start = match options.task {
            Task::Seq2Seq => named(&options.start, "start")?,
            _ => None,
        };
        let stated_start = match (&tokenizer, options.task) {
            (Some(tokenizer), Task::Seq2Seq) => tokenizer.stated_start(sink)?,
            _ => None,
        };
        let start = start.or(stated_start).unwrap_or(padding);
        for (id, role) in [
            (end, "end"),
            (Some(padding), "padding"),
            (Some(start), "start"),
        ] {
            if let (Some(id), Some(vocabulary)) = (id, options.limits.vocabulary)
                && id as usize >= vocabulary
            {
                return Err(sink.emit(errors::special_outside(id, role, vocabulary)));
            }
        }
        check_classes(&options, sink)?;
        let mut encoder = Encoder {
            texts: Texts::new(&options.templates, tokenizer.as_ref(), sink)?,
            variables: tokenizer
                .as_ref()
                .map(Tokenizer::named_tokens)
                .unwrap_or_default(),
            tokenizer,
            options,
            end,
            padding,
            start,
        };
        encoder.set_truncation(sink)?;
        Ok(encoder)
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

    /// What a decoder starts with.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// The classes of what is encoded from now on, such as those of the data that a model was
    /// trained on: see [`Dataset::classes`](super::Dataset::classes).
    pub fn set_classes(&mut self, names: Vec<String>) {
        self.options.classes = names;
    }

    /// The most tokens that an example may have.
    pub fn longest(&self) -> Option<usize> {
        let limits = [self.options.max_length, self.options.limits.positions];
        limits.into_iter().flatten().min()
    }

    pub(super) fn encode(&self, row: &Row, classes: &Classes) -> Result<Encoded, Fault> {
        let mut encoded = Encoded::default();
        encoded.examples = match self.options.task {
            Task::CausalLm => self.causal(row, &mut encoded)?,
            Task::Seq2Seq => self.seq2seq(row, &mut encoded)?,
            Task::Classification => self.classification(row, classes, &mut encoded)?,
            Task::MultiLabel => self.multi_label(row, classes, &mut encoded)?,
            Task::Regression => self.regression(row, &mut encoded)?,
            Task::TokenClassification => self.words(row, classes, &mut encoded)?,
            Task::Pairs => self.pairs(row, &mut encoded)?,
            Task::Arrays => Vec::new(),
        };
        for sequence in encoded.examples.iter().flat_map(|example| &example.parts) {
            self.check(sequence)?;
        }
        Ok(encoded)
    }
}

impl Texts {
    fn new(
        templates: &Templates,
        tokenizer: Option<&Tokenizer>,
        sink: &mut Sink,
    ) -> Result<Texts, Reported> {
        let mut given = |text: &Option<TemplateText>| {
            let template = text.clone().map(Template::new).transpose();
            template.map_err(|diagnostic| sink.emit(diagnostic))
        };
        let chat = given(&templates.chat)?;
        let (prompt, completion) = (given(&templates.prompt)?, given(&templates.completion)?);
        let text = given(&templates.text)?;
        let chat = match (chat, tokenizer) {
            (Some(chat), _) => Some(Ok(chat)),
            (None, Some(tokenizer)) => {
                let own = tokenizer.chat_template(sink)?;
                own.map(|text| Template::new(text).map_err(Box::new))
            }
            (None, None) => None,
        };
        Ok(Texts {
            chat,
            prompt,
            completion,
            text,
        })
    }
}

/// Whether the names of classes fit the model.
fn check_classes(options: &EncoderOptions, sink: &mut Sink) -> Result<(), Reported> {
    let names = &options.classes;
    let twice = names
        .iter()
        .enumerate()
        .find(|(at, name)| names[..*at].contains(name));
    if let Some((_, name)) = twice {
        return Err(sink.emit(errors::class_named_twice(name)));
    }
    match options.limits.classes {
        Some(limit) if names.len() > limit => {
            Err(sink.emit(errors::too_many_classes(names, limit)))
        }
        _ => Ok(()),
    }
}
