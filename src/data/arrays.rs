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

    /// The row of the first whole number that is like this, from 0, and the number.
    fn first(&self, is_like: impl Fn(&i64) -> bool) -> Option<(usize, i64)> {
        let Elements::I64(numbers) = &self.elements else {
            return None;
        };
        let at = numbers.iter().position(is_like)?;
        let width: usize = self.dims[1..].iter().product();
        Some((at / width.max(1), numbers[at]))
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

/// Whether the model knows all tokens, has a position for each, and tells all classes apart.
fn check(arrays: &[Array], encoder: &Encoder, file: &str, sink: &mut Sink) -> Result<(), Reported> {
    let limits = encoder.options().limits;
    for array in arrays {
        // With the place of its row, as data sets name them.
        let outside = |below: Option<usize>, ignored: Option<i64>| {
            let known = 0..below.map_or(i64::MAX, |below| below as i64);
            let is_bad = |number: &i64| Some(*number) != ignored && !known.contains(number);
            let (row, number) = array.first(is_bad)?;
            Some((format!("{file}:{}", row + 1), number))
        };
        match array.name.as_str() {
            "labels" if limits.labels_are_classes => {
                if let Some((place, label)) = outside(limits.classes, Some(IGNORED.into())) {
                    let fault = errors::array_label_outside(&place, label, limits.classes);
                    return Err(sink.emit(fault));
                }
            }
            name @ ("input_ids" | "decoder_input_ids") => {
                if let Some((place, id)) = outside(limits.vocabulary, None) {
                    let fault = errors::array_outside(name, &place, id, limits.vocabulary);
                    return Err(sink.emit(fault));
                }
                let tokens = array.dims.get(1).copied().unwrap_or(0);
                if let Some(longest) = encoder.longest().filter(|longest| tokens > *longest) {
                    let fault = errors::array_too_long(name, file, tokens, longest, encoder);
                    return Err(sink.emit(fault));
                }
            }
            "position_ids" => {
                if let Some((place, at)) = outside(limits.positions, None) {
                    let fault = errors::array_place_outside(&place, at, limits.positions);
                    return Err(sink.emit(fault));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
