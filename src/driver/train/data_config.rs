//! The part of a configuration that says where examples come from.

use crate::data::{Columns, Format, Order, Role, Source, TemplateText, Templates, TooLong};
use crate::diag::{Reported, Sink};
use crate::files;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Templates are texts that people write: larger ones are refused.
const TEMPLATE_LIMIT: u64 = 4 << 20;

/// Where examples come from, and what they become.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    pub train: Files,
    /// Held-out examples.
    pub eval: Option<Files>,
    /// How rows are written, where the names of the files do not say so.
    #[serde(default, deserialize_with = "format")]
    pub format: Option<Format>,
    /// Which column is which, where its name does not say so.
    #[serde(default, deserialize_with = "columns")]
    pub columns: Columns,
    /// Names of the classes in the model's order; without them the data decides.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The model's `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// Put behind every text: a token, or `id:10`.
    pub end_token: Option<String>,
    pub padding_token: Option<String>,
    /// What a decoder starts with, for the task `seq2seq`.
    pub decoder_start_token: Option<String>,
    /// A file with the template of conversations; without it the tokenizer's own.
    pub chat_template: Option<PathBuf>,
    /// Make these of a row's columns.
    pub prompt_template: Option<String>,
    pub completion_template: Option<String>,
    pub text_template: Option<String>,
    /// The most tokens of an example.
    pub max_length: Option<usize>,
    /// What happens to an example that is longer.
    #[serde(default)]
    pub too_long: TooLongName,
    /// Leave broken rows out and count them.
    #[serde(default)]
    pub skip_broken: bool,
    /// The order of training examples.
    #[serde(default)]
    pub order: OrderName,
    /// Put several examples into a row of so many tokens.
    pub pack: Option<NonZeroUsize>,
}

/// One file or several.
#[derive(Clone, Debug)]
pub enum Files {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Files, D::Error> {
        struct Paths;
        impl<'de> Visitor<'de> for Paths {
            type Value = Files;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file or a list of files, or \"-\" for standard input")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Files, E> {
                Ok(Files::One(path.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut paths: A) -> Result<Files, A::Error> {
                let mut all = Vec::new();
                while let Some(path) = paths.next_element()? {
                    all.push(path);
                }
                Ok(Files::Many(all))
            }
        }
        from.deserialize_any(Paths)
    }
}

impl Files {
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Files::One(path) => std::slice::from_ref(path),
            Files::Many(paths) => paths,
        }
    }

    fn paths_mut(&mut self) -> &mut [PathBuf] {
        match self {
            Files::One(path) => std::slice::from_mut(path),
            Files::Many(paths) => paths,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TooLongName {
    #[default]
    Refuse,
    CutEnd,
    CutStart,
    Split,
}

impl From<TooLongName> for TooLong {
    fn from(name: TooLongName) -> TooLong {
        match name {
            TooLongName::Refuse => TooLong::Refuse,
            TooLongName::CutEnd => TooLong::CutEnd,
            TooLongName::CutStart => TooLong::CutStart,
            TooLongName::Split => TooLong::Split,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderName {
    #[default]
    Shuffled,
    AsRead,
    /// Shuffled, with examples of similar length in one batch.
    Grouped,
}

impl From<OrderName> for Order {
    fn from(name: OrderName) -> Order {
        match name {
            OrderName::Shuffled => Order::Shuffled,
            OrderName::AsRead => Order::AsRead,
            OrderName::Grouped => Order::Grouped { pool: 50 },
        }
    }
}

impl Data {
    pub(super) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut paths: Vec<&mut PathBuf> = Vec::new();
        paths.extend(self.train.paths_mut());
        paths.extend(self.eval.iter_mut().flat_map(Files::paths_mut));
        paths.extend(&mut self.tokenizer);
        paths.extend(&mut self.chat_template);
        paths
    }

    /// Files as they are read.
    pub(super) fn sources(&self, files: &Files) -> Vec<Source> {
        let source = |path: &PathBuf| Source {
            path: path.clone(),
            format: self.format,
        };
        files.paths().iter().map(source).collect()
    }

    pub(super) fn templates(&self, sink: &mut Sink) -> Result<Templates, Reported> {
        let named = |text: &Option<String>, name: &str| {
            let (name, text) = (format!("data.{name}"), text.clone()?);
            Some(TemplateText { name, text })
        };
        let chat = match &self.chat_template {
            None => None,
            Some(path) => Some(TemplateText {
                name: path.display().to_string(),
                text: files::read_text(path, TEMPLATE_LIMIT, sink)?,
            }),
        };
        Ok(Templates {
            chat,
            prompt: named(&self.prompt_template, "prompt_template"),
            completion: named(&self.completion_template, "completion_template"),
            text: named(&self.text_template, "text_template"),
        })
    }
}

fn format<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Format>, D::Error> {
    let read = |name: &str| known("format", name, Format::parse(name), Format::names());
    from.deserialize_str(Word(read)).map(Some)
}

fn columns<'de, D: Deserializer<'de>>(from: D) -> Result<Columns, D::Error> {
    struct RoleName(Role);
    impl<'de> Deserialize<'de> for RoleName {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RoleName, D::Error> {
            let read = |name: &str| known("role", name, Role::parse(name), Role::names());
            from.deserialize_str(Word(read)).map(RoleName)
        }
    }
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Columns;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("columns by their roles")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Columns, A::Error> {
            let mut columns = Columns::default();
            while let Some((RoleName(role), column)) = entries.next_entry()? {
                columns.0.push((role, column));
            }
            Ok(columns)
        }
    }
    from.deserialize_map(Pairs)
}

/// A word that stands for something. What is wrong with it is said at its place.
pub(super) struct Word<F>(pub F);

impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for Word<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        (self.0)(word).map_err(E::custom)
    }
}

/// What a word stands for, or the words that there are.
pub(super) fn known<T>(
    what: &str,
    name: &str,
    found: Option<T>,
    names: impl Iterator<Item = &'static str>,
) -> Result<T, String> {
    found.ok_or_else(|| {
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        format!(
            "there is no {what} `{name}`, there are {}",
            names.join(", ")
        )
    })
}
