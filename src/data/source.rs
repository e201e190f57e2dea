//! Where rows come from.

use super::errors;
use crate::diag::{Reported, Sink};
use crate::files;
use bytes::Bytes;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `-` is standard input.
    pub path: PathBuf,
    /// Without it the ending of the name decides.
    pub format: Option<Format>,
}

/// How rows are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// One JSON array of objects; a file that does not start with `[` is read as [`Format::Jsonl`].
    Json,
    /// Columns separated by commas, named in the first line.
    Csv,
    /// Columns separated by tabs, named in the first line.
    Tsv,
    Parquet,
    /// Every line is a row with the column `text`.
    Lines,
    /// The whole file is one row with the column `text`.
    Text,
    /// NumPy arrays that are a model's inputs already; their first dimension counts the rows.
    Npz,
}

const FORMATS: &[(Format, &str, &[&str])] = &[
    (Format::Jsonl, "jsonl", &["jsonl", "ndjson"]),
    (Format::Json, "json", &["json"]),
    (Format::Csv, "csv", &["csv"]),
    (Format::Tsv, "tsv", &["tsv", "tab"]),
    (Format::Parquet, "parquet", &["parquet", "pq"]),
    (Format::Lines, "lines", &["txt"]),
    (Format::Text, "text", &["md"]),
    (Format::Npz, "npz", &["npz"]),
];

impl Format {
    /// Every format's name, as options write it.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FORMATS.iter().map(|(_, name, _)| *name)
    }

    pub fn name(self) -> &'static str {
        let found = FORMATS.iter().find(|(format, ..)| *format == self);
        found.map_or("", |(_, name, _)| name)
    }

    pub fn parse(name: &str) -> Option<Format> {
        let found = FORMATS.iter().find(|(_, own, _)| *own == name);
        found.map(|(format, ..)| *format)
    }

    /// The format that the ending of a name stands for.
    pub fn of(path: &Path) -> Option<Format> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        let found = FORMATS
            .iter()
            .find(|(_, _, endings)| endings.contains(&&*ending));
        found.map(|(format, ..)| *format)
    }
}

impl Source {
    /// A file whose name says its format.
    pub fn file(path: impl Into<PathBuf>) -> Source {
        Source {
            path: path.into(),
            format: None,
        }
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// The name in messages.
    pub fn name(&self) -> String {
        match self.is_stdin() {
            true => "standard input".to_owned(),
            false => self.path.display().to_string(),
        }
    }

    /// The given format, or the one that the name stands for. Standard input without one is JSONL.
    pub fn format(&self, sink: &mut Sink) -> Result<Format, Reported> {
        if let Some(format) = self.format.or_else(|| Format::of(&self.path)) {
            return Ok(format);
        }
        match self.is_stdin() {
            true => Ok(Format::Jsonl),
            false => Err(sink.emit(errors::unknown_format(&self.path))),
        }
    }

    /// The content: mapped from a file, read whole from standard input.
    pub(super) fn bytes(&self, sink: &mut Sink) -> Result<Bytes, Reported> {
        if self.is_stdin() {
            let read = read_whole(&mut std::io::stdin().lock());
            return read.map_err(|error| sink.emit(files::cannot_read(&self.path, &error)));
        }
        files::map(&self.path).map_err(|error| sink.emit(files::cannot_read(&self.path, &error)))
    }
}

/// Memory that is not there is an error, not the end of the process.
fn read_whole(input: &mut dyn Read) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match input.read(&mut piece) {
            Ok(0) => return Ok(bytes.into()),
            Ok(count) => {
                bytes.try_reserve(count)?;
                bytes.extend_from_slice(&piece[..count]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_has_one_name_and_no_ending_stands_for_two() {
        for (format, name, endings) in FORMATS {
            assert_eq!(Format::parse(name), Some(*format));
            assert_eq!(format.name(), *name);
            for ending in *endings {
                let path = PathBuf::from(format!("a.b.{}", ending.to_uppercase()));
                assert_eq!(Format::of(&path), Some(*format));
            }
        }
        assert_eq!(Format::of(Path::new("jsonl")), None);
    }
}
