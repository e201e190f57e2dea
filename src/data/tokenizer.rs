//! A `tokenizer.json` with what lies beside it.

use super::errors;
use super::shield::shield;
use super::template::TemplateText;
use super::value::Value;
use crate::diag::{Reported, Sink};
use crate::files;
use std::path::{Path, PathBuf};
use tokenizers::{EncodeInput, Encoding, PostProcessor, TruncationDirection, TruncationParams};

/// Vocabularies of a million tokens take 100 MB.
const FILE_LIMIT: u64 = 1 << 30;

/// A token as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenName {
    Id(u32),
    /// The token itself, or a text that is one token.
    Text(String),
}

impl TokenName {
    /// Reads `id:10`, or the text of a token.
    pub fn parse(text: &str) -> TokenName {
        let id = text.strip_prefix("id:").and_then(|id| id.parse().ok());
        id.map_or_else(|| TokenName::Text(text.to_owned()), TokenName::Id)
    }
}

/// Text to token ids and back. Truncation and padding that the file asks for are not applied:
/// lengths are the [`Encoder`](super::Encoder)'s to decide, padding is the batch's.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    config: Value,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, and the `tokenizer_config.json` beside it if there is one.
    pub fn open(path: &Path, sink: &mut Sink) -> Result<Tokenizer, Reported> {
        let text = files::read_text(path, FILE_LIMIT, sink)?;
        let inner = shielded(|| tokenizers::Tokenizer::from_bytes(&text));
        let mut inner = inner.map_err(|why| sink.emit(errors::no_tokenizer(path, &why)))?;
        inner.with_padding(None);
        // Fails only for a truncation that leaves no room.
        let _ = inner.with_truncation(None);
        Ok(Tokenizer {
            path: path.to_owned(),
            inner,
            config: config_beside(path, "tokenizer_config.json", sink)?,
        })
    }

    /// Lets texts of more tokens be cut, of two texts the longer one; the tokens around them stay.
    pub(super) fn cut_at(
        &mut self,
        longest: usize,
        from_start: bool,
        sink: &mut Sink,
    ) -> Result<(), Reported> {
        let direction = match from_start {
            true => TruncationDirection::Left,
            false => TruncationDirection::Right,
        };
        // The library subtracts these without looking.
        let processor = self.inner.get_post_processor();
        let around = processor.map_or(0, |processor| processor.added_tokens(true));
        if longest <= around {
            let why = format!("the tokenizer puts up to {around} around a text and its pair");
            return Err(sink.emit(errors::cannot_cut(longest, &why)));
        }
        let truncation = TruncationParams {
            direction,
            max_length: longest,
            ..TruncationParams::default()
        };
        let set = self.inner.with_truncation(Some(truncation)).map(drop);
        set.map_err(|error| sink.emit(errors::cannot_cut(longest, &error.to_string())))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ids are below it, added tokens included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids of a text, with the tokens that the tokenizer puts around every text.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, String> {
        Ok(self.encode(text, true)?.get_ids().to_vec())
    }

    /// The text of tokens, special ones included.
    pub fn text(&self, ids: &[u32]) -> String {
        shielded(|| self.inner.decode(ids, false)).unwrap_or_default()
    }

    /// A token as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub(super) fn encode<'s>(
        &self,
        input: impl Into<EncodeInput<'s>>,
        special: bool,
    ) -> Result<Encoding, String> {
        shielded(|| self.inner.encode(input, special))
    }

    /// The token that a user names; `role` is what for, such as `end`.
    pub fn named(&self, name: &TokenName, role: &str, sink: &mut Sink) -> Result<u32, Reported> {
        let found = match name {
            TokenName::Id(id) => self.token(*id).map(|_| *id),
            TokenName::Text(text) => self.id_of(text),
        };
        found.ok_or_else(|| sink.emit(errors::no_token(&self.path, name, role)))
    }

    fn id_of(&self, text: &str) -> Option<u32> {
        let encoded = || match self.encode(text, false).ok()?.get_ids() {
            [id] => Some(*id),
            _ => None,
        };
        self.inner.token_to_id(text).or_else(encoded)
    }

    /// The token that ends a text, as `tokenizer_config.json` states it.
    pub fn stated_end(&self) -> Option<u32> {
        self.id_of(&self.stated("eos_token")?)
    }

    /// The token of padding: what `tokenizer_config.json` states.
    pub fn stated_padding(&self) -> Option<u32> {
        self.id_of(&self.stated("pad_token")?)
    }

    /// What a decoder starts with, as the `generation_config.json` or `config.json` of the model states
    /// it beside the tokenizer.
    pub fn stated_start(&self, sink: &mut Sink) -> Result<Option<u32>, Reported> {
        for name in ["generation_config.json", "config.json"] {
            let config = config_beside(&self.path, name, sink)?;
            if let Some(Value::Int(id)) = config.field("decoder_start_token_id")
                && let Ok(id) = u32::try_from(*id)
            {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// A token of `tokenizer_config.json`, which writes it as text or as an object with `content`.
    pub(super) fn stated(&self, key: &str) -> Option<String> {
        let value = self.config.field(key)?;
        match value.field("content").unwrap_or(value) {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// What the library gives, or what it says.
fn shielded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    shield(work)?.map_err(|error| error.to_string())
}

impl Tokenizer {
    /// The template of chats: a `chat_template.jinja` beside the tokenizer, or `chat_template` of
    /// `tokenizer_config.json`, of several the one named `default`.
    pub(super) fn chat_template(&self, sink: &mut Sink) -> Result<Option<TemplateText>, Reported> {
        let beside = self.path.with_file_name("chat_template.jinja");
        if beside.exists() {
            let text = files::read_text(&beside, FILE_LIMIT, sink)?;
            let name = beside.display().to_string();
            return Ok(Some(TemplateText { name, text }));
        }
        let text = match self.config.field("chat_template") {
            Some(Value::List(several)) => several
                .iter()
                .find(|one| one.field("name") == Some(&Value::Text("default".to_owned())))
                .and_then(|one| one.field("template")),
            other => other,
        };
        let config = self.path.with_file_name("tokenizer_config.json");
        Ok(match text {
            Some(Value::Text(text)) => Some(TemplateText {
                name: format!("chat_template of {}", config.display()),
                text: text.clone(),
            }),
            _ => None,
        })
    }

    /// The special tokens that templates may name, such as `eos_token`.
    pub(super) fn named_tokens(&self) -> Vec<(String, Value)> {
        let names = ["bos_token", "eos_token", "pad_token", "unk_token"];
        let stated = names.into_iter().filter_map(|name| {
            let token = self.stated(name)?;
            Some((name.to_owned(), Value::Text(token)))
        });
        stated.collect()
    }
}

fn config_beside(path: &Path, name: &str, sink: &mut Sink) -> Result<Value, Reported> {
    let path = path.with_file_name(name);
    if !path.exists() {
        return Ok(Value::Null);
    }
    let text = files::read_text(&path, FILE_LIMIT, sink)?;
    serde_json::from_str(&text)
        .map_err(|error| sink.emit(errors::no_tokenizer(&path, &error.to_string())))
}
