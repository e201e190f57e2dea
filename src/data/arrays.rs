//! Arrays that are a model's inputs already.

use super::batch::Elements;
use super::encode::Encoder;
use super::errors;
use super::example::IGNORED;
use super::read::arrays_of;
use super::source::{Format, Source};
use crate::diag::{Reported, Sink};
use std::ops::Range;

/// An array under the name of the input that it is for; `labels` holds the labels. Its first
/// dimension counts the rows of the data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub name: String,
    pub dims: Vec<usize>,
    /// Row-major. Numbers with a fraction are f32, others i64.
    pub elements: Elements,
}

impl Array {
    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        hasher.update(format!("{} {:?}", self.name, self.dims).as_bytes());
        let bytes: Vec<u8> = match &self.elements {
            Elements::I64(all) => all.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Elements::F32(all) => all.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        hasher.update(&bytes);
    }

    /// Rows in any order, as an array of that many.
    pub(super) fn rows(&self, rows: &[usize]) -> Array {
        let width: usize = self.dims[1..].iter().product();
        let ranges = || rows.iter().map(|row| row * width..(row + 1) * width);
        fn pick<T: Copy>(all: &[T], ranges: impl Iterator<Item = Range<usize>>) -> Vec<T> {
            ranges
                .flat_map(|range| all[range].iter().copied())
                .collect()
        }
        let mut dims = self.dims.clone();
        dims[0] = rows.len();
        Array {
            name: self.name.clone(),
            dims,
            elements: match &self.elements {
                Elements::I64(all) => Elements::I64(pick(all, ranges())),
                Elements::F32(all) => Elements::F32(pick(all, ranges())),
            },
        }
    }

    fn append(&mut self, other: Array) -> Result<(), String> {
        if self.dims[1..] != other.dims[1..] {
            let (own, others) = (&self.dims[1..], &other.dims[1..]);
            return Err(format!("rows of {others:?} where {own:?} are expected"));
        }
        match (&mut self.elements, other.elements) {
            (Elements::I64(all), Elements::I64(more)) => all.extend(more),
            (Elements::F32(all), Elements::F32(more)) => all.extend(more),
            (Elements::I64(_), Elements::F32(_)) => return Err("fractions".to_owned()),
            (Elements::F32(_), Elements::I64(_)) => return Err("whole numbers".to_owned()),
        }
        self.dims[0] += other.dims[0];
        Ok(())
    }
}

/// The arrays of all sources, one below the other, and how many rows each source has.
pub(super) fn load(
    sources: &[Source],
    encoder: &Encoder,
    sink: &mut Sink,
) -> Result<(Vec<Array>, Vec<usize>), Reported> {
    let mut all: Vec<Array> = Vec::new();
    let mut counts = Vec::new();
    for source in sources {
        let name = source.name();
        if source.format(sink)? != Format::Npz {
            return Err(sink.emit(errors::arrays_expected(&name)));
        }
        let content = source.bytes(sink)?;
        let arrays = arrays_of(&content);
        let arrays = arrays.map_err(|why| sink.emit(errors::arrays_unusable(&name, &why)))?;
        let rows = rows_of(&arrays, &name, sink)?;
        check(&arrays, encoder, &name, sink)?;
        counts.push(rows);
        if counts.len() == 1 {
            all = arrays;
            continue;
        }
        let same = all.len() == arrays.len();
        for array in arrays {
            let own = all.iter_mut().find(|own| own.name == array.name && same);
            let Some(own) = own else {
                return Err(sink.emit(errors::other_arrays(&array.name, &name)));
            };
            let array_name = array.name.clone();
            own.append(array)
                .map_err(|why| sink.emit(errors::array_differs(&array_name, &name, &why)))?;
        }
    }
    match counts.iter().sum::<usize>() {
        0 => {
            let names: Vec<String> = sources.iter().map(Source::name).collect();
            Err(sink.emit(errors::no_rows(&names)))
        }
        _ => Ok((all, counts)),
    }
}

/// Rows that all arrays of a file have.
fn rows_of(arrays: &[Array], file: &str, sink: &mut Sink) -> Result<usize, Reported> {
    let Some(first) = arrays.first() else {
        return Ok(0);
    };
    let other = arrays.iter().find(|array| array.dims[0] != first.dims[0]);
    match other {
        None => Ok(first.dims[0]),
        Some(other) => {
            let one = (first.name.as_str(), first.dims[0]);
            let other = (other.name.as_str(), other.dims[0]);
            Err(sink.emit(errors::row_counts_differ(file, one, other)))
        }
    }
}

/// Whether the model knows all tokens, and tells all classes apart.
fn check(arrays: &[Array], encoder: &Encoder, file: &str, sink: &mut Sink) -> Result<(), Reported> {
    let labels = arrays.iter().find(|array| array.name == "labels");
    if let (Some(Elements::I64(labels)), Some(classes)) = (
        labels.map(|array| &array.elements),
        encoder.options().limits.classes,
    ) {
        let known = 0..classes as i64;
        let counts = |label: &&i64| **label != i64::from(IGNORED);
        let mut labels = labels.iter().filter(counts);
        if let Some(label) = labels.find(|label| !known.contains(label)) {
            return Err(sink.emit(errors::array_class_outside(file, *label, classes)));
        }
    }
    let ids = arrays.iter().find(|array| array.name == "input_ids");
    if let (Some(Elements::I64(ids)), Some(vocabulary)) = (
        ids.map(|array| &array.elements),
        encoder.options().limits.vocabulary,
    ) {
        let known = 0..vocabulary as i64;
        if let Some(id) = ids.iter().find(|id| !known.contains(id)) {
            return Err(sink.emit(errors::array_outside(file, *id, vocabulary)));
        }
    }
    Ok(())
}
