//! Data sets: every row read and encoded before anything is learned from the first.

use super::arrays::{self, Array};
use super::encode::{ClassReader, Classes, Encoded, Encoder};
use super::errors;
use super::example::{Example, Examples};
use super::read;
use super::row::{Fault, Place, RawRow};
use super::source::{Format, Source};
use super::task::Task;
use crate::diag::{Code, Reported, Sink, SourceMap, Span};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// What happens to a row from which no example can be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// It is an error; the rows behind it are looked at, too.
    #[default]
    Refuse,
    /// It is left out, and a warning counts those that are.
    Skip,
}

/// So many broken rows are shown; the others are counted.
const SHOWN: u64 = 10;
/// So many with the same message.
const SHOWN_OF_A_KIND: u64 = 3;

/// Examples with where they come from.
#[derive(Debug)]
pub struct Dataset {
    examples: Examples,
    names: Vec<String>,
    counts: Counts,
    padding: u32,
    start: u32,
    classes: Classes,
    task: Task,
    arrays: Vec<Array>,
}

/// What was found while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub rows: u64,
    /// Rows that were left out.
    pub broken: u64,
    /// Rows of which something was cut off.
    pub cut: u64,
    /// Rows whose prompt alone has other tokens than in front of its completion.
    pub seams: u64,
    /// Rows with a text that nothing ends.
    pub endless: u64,
    /// How many rows each column is in.
    pub columns: BTreeMap<String, u64>,
}

impl Dataset {
    /// Reads and encodes every row of the sources, one source after the other.
    pub fn load(
        sources: &[Source],
        encoder: &Encoder,
        broken: Broken,
        texts: &mut SourceMap,
        sink: &mut Sink,
    ) -> Result<Dataset, Reported> {
        if encoder.options().task == Task::Arrays {
            return Dataset::of_arrays(sources, encoder, sink);
        }
        let mut files = Vec::new();
        for source in sources {
            files.push((source.format(sink)?, source.bytes(sink)?, source.name()));
        }
        let classes = match encoder.known_classes() {
            Some(classes) => classes,
            None => find_classes(encoder, &files, sink)?,
        };
        let mut loader = Loader {
            encoder,
            classes,
            broken,
            names: sources.iter().map(Source::name).collect(),
            examples: Examples::default(),
            counts: Counts::default(),
            kinds: BTreeMap::new(),
            messages: BTreeMap::new(),
            shown: 0,
        };
        for (number, (format, content, name)) in files.iter().enumerate() {
            for row in read::rows(*format, content, name) {
                let row = row.map_err(|fault| sink.emit(fault))?;
                loader.add(number, row, texts, sink);
            }
        }
        loader.finish(sink)
    }

    /// Arrays of sources, taken as they are.
    fn of_arrays(
        sources: &[Source],
        encoder: &Encoder,
        sink: &mut Sink,
    ) -> Result<Dataset, Reported> {
        let (arrays, rows) = arrays::load(sources, encoder, sink)?;
        let mut examples = Examples::default();
        for (source, rows) in rows.iter().enumerate() {
            for row in 1..=*rows as u64 {
                examples.push(Example::default(), Place { source, line: row });
            }
        }
        let count = examples.len() as u64;
        Ok(Dataset {
            names: sources.iter().map(Source::name).collect(),
            counts: Counts {
                rows: count,
                columns: arrays
                    .iter()
                    .map(|array| (array.name.clone(), count))
                    .collect(),
                ..Counts::default()
            },
            examples,
            arrays,
            padding: 0,
            start: 0,
            classes: Classes::default(),
            task: Task::Arrays,
        })
    }

    /// Inputs that are there already, for the task [`Task::Arrays`].
    pub fn arrays(&self) -> &[Array] {
        &self.arrays
    }

    pub fn examples(&self) -> &Examples {
        &self.examples
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn task(&self) -> Task {
        self.task
    }

    /// Names of the classes by their numbers; numbers where they have no names. Empty for a task
    /// without classes.
    pub fn classes(&self) -> Vec<String> {
        self.classes.names()
    }

    /// A digest of everything that is learned from.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.examples.hash(&mut hasher);
        for array in &self.arrays {
            array.hash(&mut hasher);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What batches are padded with.
    pub fn padding(&self) -> u32 {
        self.padding
    }

    /// What a decoder starts with.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Where an example comes from, such as `train.jsonl:17`.
    pub fn place(&self, example: usize) -> String {
        let Place { source, line } = self.examples.place(example);
        format!("{}:{line}", self.names[source])
    }
}

struct Loader<'a> {
    encoder: &'a Encoder,
    classes: Classes,
    broken: Broken,
    names: Vec<String>,
    examples: Examples,
    counts: Counts,
    /// For every code: how often it was reported for a row, and where first.
    kinds: BTreeMap<Code, (u64, String)>,
    /// How often a message was reported while broken rows were shown.
    messages: BTreeMap<String, u64>,
    shown: u64,
}

impl Loader<'_> {
    fn add(&mut self, source: usize, raw: RawRow<'_>, texts: &mut SourceMap, sink: &mut Sink) {
        self.counts.rows += 1;
        let place = Place {
            source,
            line: raw.line,
        };
        if let Ok(row) = &raw.row {
            for column in row.columns() {
                match self.counts.columns.get_mut(column) {
                    Some(count) => *count += 1,
                    None => drop(self.counts.columns.insert(column.to_owned(), 1)),
                }
            }
        }
        let encoded = raw
            .row
            .and_then(|row| self.encoder.encode(&row, &self.classes));
        match encoded.and_then(|encoded| self.like_others(encoded)) {
            Ok(encoded) => {
                self.counts.cut += u64::from(encoded.cut);
                self.counts.seams += u64::from(encoded.seam);
                self.counts.endless += u64::from(encoded.endless);
                for example in encoded.examples {
                    self.examples.push(example, place);
                }
            }
            Err(fault) => self.blame(fault, place, raw.text, texts, sink),
        }
    }

    /// Refuses an example of another form than those before it.
    fn like_others(&self, encoded: Encoded) -> Result<Encoded, Fault> {
        let Some((parts, numbers)) = self.examples.form() else {
            return Ok(encoded);
        };
        for example in &encoded.examples {
            let (own_parts, own_numbers) = example.form();
            if own_parts != parts {
                return Err(errors::another_form("texts", own_parts, parts));
            }
            if own_numbers != numbers {
                return Err(errors::another_form("numbers", own_numbers, numbers));
            }
        }
        Ok(encoded)
    }

    fn blame(
        &mut self,
        fault: Fault,
        place: Place,
        text: Option<&[u8]>,
        texts: &mut SourceMap,
        sink: &mut Sink,
    ) {
        self.counts.broken += 1;
        let (diagnostic, mark, label) = fault.parts();
        let name = &self.names[place.source];
        let first = || format!("{name}:{}: {}", place.line, diagnostic.message);
        let kind = self.kinds.entry(diagnostic.code);
        kind.or_insert_with(|| (0, first())).0 += 1;
        if self.broken == Broken::Skip || self.shown == SHOWN {
            return;
        }
        let same = self.messages.entry(diagnostic.message.clone()).or_default();
        *same += 1;
        if *same > SHOWN_OF_A_KIND {
            return;
        }
        self.shown += 1;
        sink.emit(match text {
            Some(text) => {
                let span = span(name, place.line, text, mark, texts);
                diagnostic.label(span, label)
            }
            None => diagnostic.note(format!("row {} of `{name}`", place.line)),
        });
    }

    fn finish(self, sink: &mut Sink) -> Result<Dataset, Reported> {
        let Counts { rows, broken, .. } = self.counts;
        if rows == 0 {
            return Err(sink.emit(errors::no_rows(&self.names)));
        }
        match self.broken {
            _ if broken == 0 => {}
            Broken::Refuse if broken == self.shown => sink.failed()?,
            Broken::Refuse => {
                return Err(sink.emit(errors::broken(broken, rows, self.shown, &self.kinds())));
            }
            Broken::Skip if broken == rows => {
                return Err(sink.emit(errors::all_broken(rows, &self.kinds())));
            }
            Broken::Skip => sink.warn(errors::skipped(broken, rows, &self.kinds())),
        }
        if self.counts.cut > 0 {
            let longest = self.encoder.longest().unwrap_or_default();
            sink.warn(errors::cut(self.counts.cut, rows - broken, longest));
        }
        if self.counts.seams > 0 {
            sink.warn(errors::seams(self.counts.seams, rows - broken));
        }
        if self.counts.endless > 0 {
            sink.warn(errors::no_end(self.counts.endless, rows - broken));
        }
        Ok(Dataset {
            examples: self.examples,
            names: self.names,
            counts: self.counts,
            padding: self.encoder.padding(),
            start: self.encoder.start(),
            classes: self.classes,
            task: self.encoder.options().task,
            arrays: Vec::new(),
        })
    }

    /// A line for every code.
    fn kinds(&self) -> Vec<String> {
        let kinds = self.kinds.iter();
        kinds
            .map(|(code, (count, first))| format!("{count} × {}, first {first}", code.name()))
            .collect()
    }
}

/// Reads all rows for their classes alone. What is wrong with a row is said when it is encoded.
fn find_classes(
    encoder: &Encoder,
    files: &[(Format, Bytes, String)],
    sink: &mut Sink,
) -> Result<Classes, Reported> {
    let mut reader = ClassReader::default();
    for (format, content, name) in files {
        // What ends the rows is said when they are encoded.
        for row in read::rows(*format, content, name).map_while(Result::ok) {
            if let Ok(row) = row.row {
                encoder.read_classes(&row, &mut reader);
            }
        }
    }
    reader.finish(encoder.options().limits.classes, sink)
}

/// The place of a fault, on the text of its row.
fn span(
    name: &str,
    line: u64,
    text: &[u8],
    mark: Option<Range<usize>>,
    texts: &mut SourceMap,
) -> Span {
    const MOST: usize = 1 << 16;
    let shown = String::from_utf8_lossy(&text[..text.len().min(MOST)]);
    let file = texts.add_part(name, &*shown, line as usize);
    let end = shown.len();
    let mark = mark.unwrap_or(0..end);
    let boundary = |at: usize| {
        (at..end)
            .find(|at| shown.is_char_boundary(*at))
            .unwrap_or(end)
    };
    Span::new(file, boundary(mark.start), boundary(mark.end))
}
