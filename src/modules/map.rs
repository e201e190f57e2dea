//! The sidecar `peft.names.json`: module paths by the name of a node's output.
//!
//! ```json
//! {
//!   "schema_version": 1,
//!   "modules": {
//!     "linear_3": "model.layers.0.mlp.up_proj",
//!     "qkv_out": [
//!       {"path": "model.layers.0.self_attn.q_proj", "slice": [0, 64]},
//!       {"path": "model.layers.0.self_attn.k_proj", "slice": [64, 96]}
//!     ]
//!   }
//! }
//! ```

use super::errors;
use super::site::Modules;
use crate::diag::{FileId, Reported, Sink, SourceMap, Span};
use crate::graph::Model;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The only version so far.
const SCHEMA_VERSION: u32 = 1;

/// Module paths by output value.
#[derive(Clone, Debug, Default)]
pub struct NameMap {
    pub(super) entries: BTreeMap<String, Vec<Entry>>,
    /// The text that was read, to point into.
    text: Option<(FileId, Arc<str>)>,
}

/// A module's path, and its part of the output if the output holds several modules'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: String,
    pub slice: Option<Range<i64>>,
}

impl NameMap {
    /// Reads the text of a name map; every fault is emitted with its line.
    pub fn parse(
        text: &str,
        file: FileId,
        sources: &SourceMap,
        sink: &mut Sink,
    ) -> Result<NameMap, Reported> {
        debug_assert_eq!(&**sources.text(file), text);
        let read: File = serde_json::from_str(text).map_err(|error| {
            let at = offset(text, error.line(), error.column());
            let message = error.to_string();
            // The place is shown, not told.
            let message = message.split(" at line ").next().unwrap_or(&message);
            sink.emit(errors::bad_name_map(Span::new(file, at, at), message))
        })?;
        if read.schema_version != SCHEMA_VERSION {
            let fault = format!(
                "schema_version is {}, not {SCHEMA_VERSION}",
                read.schema_version
            );
            return Err(sink.emit(errors::bad_name_map(Span::new(file, 0, 0), &fault)));
        }
        let mut entries = BTreeMap::new();
        for (value, modules) in read.modules.0 {
            let modules = modules.entries();
            if let Err(fault) = check(&modules) {
                let fault = format!("`{value}`: {fault}");
                return Err(sink.emit(errors::bad_name_map(locate(text, file, &value), &fault)));
            }
            entries.insert(value, modules);
        }
        let text = Some((file, sources.text(file).clone()));
        Ok(NameMap { entries, text })
    }

    /// The map that names every named site of a model again. An output that stands for several
    /// whole modules, such as that of a fused embedding, is left out.
    pub fn of(model: &Model, modules: &Modules) -> NameMap {
        let mut entries: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for site in modules.named() {
            let graph = site.scope.graph(model);
            let key = graph.value(site.output).name.to_string();
            let entry = Entry {
                path: site.path.clone(),
                slice: site.slice.clone(),
            };
            let list = entries.entry(key).or_default();
            // Both branches of an If name their values alike.
            if !list.contains(&entry) {
                list.push(entry);
            }
        }
        entries.retain(|_, list| list.len() == 1 || list.iter().all(|entry| entry.slice.is_some()));
        NameMap {
            entries,
            text: None,
        }
    }

    /// Where a key is written, if the map was read from a file.
    pub(super) fn span(&self, key: &str) -> Option<Span> {
        let (file, text) = self.text.as_ref()?;
        Some(locate(text, *file, key))
    }

    /// The text that [`NameMap::parse`] reads.
    pub fn to_text(&self) -> String {
        let modules = self
            .entries
            .iter()
            .map(|(value, entries)| (value.clone(), Written::of(entries)))
            .collect();
        let file = File {
            schema_version: SCHEMA_VERSION,
            modules: Unique(modules),
        };
        let mut text = serde_json::to_string_pretty(&file).expect("strings and numbers");
        text.push('\n');
        text
    }

    /// The number of outputs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema_version: u32,
    modules: Unique,
}

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a module path or a list of `{\"path\": …, \"slice\": [start, end]}` is expected"
)]
enum Written {
    One(String),
    Several(Vec<Slice>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slice {
    path: String,
    slice: (i64, i64),
}

impl Written {
    fn of(entries: &[Entry]) -> Written {
        match entries {
            [Entry { path, slice: None }] => Written::One(path.clone()),
            _ => Written::Several(
                entries
                    .iter()
                    .map(|entry| Slice {
                        path: entry.path.clone(),
                        slice: entry.slice.as_ref().map_or((0, 0), |s| (s.start, s.end)),
                    })
                    .collect(),
            ),
        }
    }

    fn entries(self) -> Vec<Entry> {
        match self {
            Written::One(path) => vec![Entry { path, slice: None }],
            Written::Several(slices) => slices
                .into_iter()
                .map(|entry| Entry {
                    path: entry.path,
                    slice: Some(entry.slice.0..entry.slice.1),
                })
                .collect(),
        }
    }
}

/// A JSON object in which no key occurs twice.
#[derive(Serialize)]
#[serde(transparent)]
struct Unique(BTreeMap<String, Written>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Unique;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of module paths by output value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Written>()? {
                    if entries.contains_key(&key) {
                        let fault = format!("`{key}` occurs twice");
                        return Err(serde::de::Error::custom(fault));
                    }
                    entries.insert(key, value);
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

fn check(entries: &[Entry]) -> Result<(), String> {
    if entries.is_empty() {
        return Err("the list of modules is empty".to_owned());
    }
    for entry in entries {
        if entry.path.is_empty() || entry.path.split('.').any(str::is_empty) {
            return Err(format!("`{}` is no module path", entry.path));
        }
        if let Some(slice) = &entry.slice
            && (slice.start < 0 || slice.start >= slice.end)
        {
            return Err(format!("the slice {}..{} is empty", slice.start, slice.end));
        }
    }
    Ok(())
}

/// The byte of a line and column as serde counts them: from 1, columns in bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Where a key is written.
fn locate(text: &str, file: FileId, key: &str) -> Span {
    let quoted = serde_json::to_string(key).expect("a string");
    let at = text
        .match_indices(&quoted)
        .map(|(at, _)| at)
        .find(|at| text[at + quoted.len()..].trim_start().starts_with(':'));
    match at {
        Some(at) => Span::new(file, at, at + quoted.len()),
        None => Span::new(file, 0, 0),
    }
}
