//! Finds the tensors whose values a weight has: a few elements first, then every one.

use super::matrix::Matrix;
use super::{Candidate, member};
use crate::modules::names::{Member, tidy};
use crate::modules::site::SiteKind;
use crate::ty::DType;
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// What the checkpoint says about a weight.
pub(super) enum Found {
    Nothing,
    /// The modules whose `weight` has these values, sorted; several where tensors are equal.
    Modules(Vec<String>),
    /// The modules whose weights make up this one, in the order of its output features.
    Members(Vec<Member>),
}

/// Elements that are compared before all are.
const SAMPLES: usize = 24;

/// The weights of a checkpoint.
pub(super) struct Search<'a> {
    modules: Vec<(String, &'a Candidate)>,
    by_dims: FxHashMap<&'a [i64], Vec<usize>>,
    /// Matrices by each of their sizes.
    by_size: FxHashMap<i64, Vec<usize>>,
}

impl<'a> Search<'a> {
    pub fn new(candidates: &'a [Candidate]) -> Self {
        let mut search = Search {
            modules: Vec::new(),
            by_dims: FxHashMap::default(),
            by_size: FxHashMap::default(),
        };
        for candidate in candidates {
            let Some(path) = candidate.name.strip_suffix(".weight") else {
                continue;
            };
            let index = search.modules.len();
            search.modules.push((tidy(path), candidate));
            search
                .by_dims
                .entry(&candidate.dims)
                .or_default()
                .push(index);
            if let [rows, columns] = candidate.dims[..] {
                search.by_size.entry(columns).or_default().push(index);
                if rows != columns {
                    search.by_size.entry(rows).or_default().push(index);
                }
            }
        }
        search
    }

    /// The modules that have the values of a weight: whole ones, else those that were fused.
    pub fn find(&self, weight: &Matrix) -> Found {
        let likenesses = Likeness::of(weight.dtype());
        for likeness in likenesses {
            let whole = self.whole(weight, *likeness);
            if !whole.is_empty() {
                return Found::Modules(whole);
            }
        }
        for likeness in likenesses {
            if weight.kind == SiteKind::Linear
                && let Some(members) = self.members(weight, *likeness)
            {
                return Found::Members(members);
            }
        }
        Found::Nothing
    }

    /// The modules with the values of a weight, if the checkpoint has other values under its path.
    /// A path of which the checkpoint has nothing contradicts nothing: tied weights are saved once.
    pub fn contradiction(&self, weight: &Matrix, path: &str) -> Found {
        let own = self.modules.iter().filter(|(own, _)| same_end(own, path));
        let mut any = false;
        for (_, candidate) in own {
            any = true;
            let views = views(candidate, weight);
            let fits = |view: &Matrix| {
                let likenesses = Likeness::of(weight.dtype());
                likenesses
                    .iter()
                    .any(|likeness| likeness.holds(weight, 0, view))
            };
            if views.iter().any(fits) {
                return Found::Nothing;
            }
        }
        match any {
            true => self.find(weight),
            false => Found::Nothing,
        }
    }

    /// The modules whose whole weight this is.
    fn whole(&self, weight: &Matrix, likeness: Likeness) -> Vec<String> {
        let straight = self.by_dims.get(&weight.dims[..]);
        let reversed: Vec<i64> = weight.dims.iter().rev().copied().collect();
        let square = reversed == weight.dims;
        let turned = self.by_dims.get(&reversed[..]).filter(|_| !square);
        let mut paths: Vec<String> = straight
            .into_iter()
            .chain(turned)
            .flatten()
            .map(|index| &self.modules[*index])
            .filter(|(_, candidate)| {
                let views = views(candidate, weight);
                views.iter().any(|view| likeness.holds(weight, 0, view))
            })
            .map(|(path, _)| path.clone())
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// The modules whose weights, one below the other, are this one. `None` if a part of it is
    /// missing or is that of several.
    fn members(&self, weight: &Matrix, likeness: Likeness) -> Option<Vec<Member>> {
        let candidates = self.by_size.get(weight.dims.get(1)?)?;
        let mut members = Vec::new();
        let mut start = 0;
        while start < weight.rows {
            let mut here: Vec<(&str, usize)> = Vec::new();
            for index in candidates {
                let (path, candidate) = &self.modules[*index];
                let rows = views(candidate, weight)
                    .into_iter()
                    .find(|view| likeness.holds(weight, start, view))
                    .map(|view| view.rows);
                here.extend(rows.map(|rows| (path.as_str(), rows)));
            }
            let [(path, rows)] = here[..] else {
                return None;
            };
            members.push(member(path, start, start + rows));
            start += rows;
        }
        Some(members)
    }
}

/// Whether two paths differ at most by what stands before one of them.
fn same_end(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.strip_suffix(short)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The ways in which a tensor may be a weight of this kind or a part of it. A linear layer's is
/// `[out, in]`, or `[in, out]` where the module is Hugging Face's `Conv1D`.
fn views(candidate: &Candidate, weight: &Matrix) -> Vec<Matrix> {
    if candidate.dims.len() != weight.dims.len() {
        return Vec::new();
    }
    let ways: &[bool] = match weight.kind {
        SiteKind::Linear => &[false, true],
        _ => &[false],
    };
    ways.iter()
        .filter_map(|flipped| Matrix::of_candidate(candidate, weight.kind, *flipped))
        .filter(|view| view.dims[1..] == weight.dims[1..] && view.rows <= weight.rows)
        .collect()
}

/// What counts as the same values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Likeness {
    /// Equal after rounding to this type.
    Rounded(DType),
    /// Near, as numbers are to those that their codes stand for: the norm of the difference is a
    /// small part of the norm of the original.
    Near,
}

/// The largest part. Four bits leave 0.1; weights that have nothing to do with each other, 1.4.
const NEAR: f64 = 0.2;

impl Likeness {
    /// What is tried for a weight of a type, in order. A wide type may hold values that were
    /// narrow on the way.
    fn of(dtype: Option<DType>) -> &'static [Likeness] {
        use DType::{BF16, F16, F32, F64};
        use Likeness::{Near, Rounded};
        let Some(dtype) = dtype else {
            return &[Near];
        };
        match dtype {
            F16 => &[Rounded(F16)],
            BF16 => &[Rounded(BF16)],
            F64 => &[Rounded(F64), Rounded(F32), Rounded(F16), Rounded(BF16)],
            _ => &[Rounded(F32), Rounded(F16), Rounded(BF16)],
        }
    }

    /// Whether a weight's rows from `start` on are those of a tensor. A whole weight fits only a
    /// tensor of its size; the caller asks for no other.
    fn holds(self, weight: &Matrix, start: usize, tensor: &Matrix) -> bool {
        if start + tensor.rows > weight.rows || tensor.columns != weight.columns {
            return false;
        }
        match self {
            Likeness::Rounded(dtype) => is_same(weight, start, tensor, dtype),
            Likeness::Near => is_near(weight, start, tensor),
        }
    }
}

fn is_same(weight: &Matrix, start: usize, tensor: &Matrix, dtype: DType) -> bool {
    let same = |row: usize, column: usize| {
        let number = weight.at(start + row, column);
        is_rounded(number, tensor.at(row, column), dtype)
    };
    let sampled = samples(tensor.rows, tensor.columns, SAMPLES);
    if !sampled.into_iter().all(|(row, column)| same(row, column)) {
        return false;
    }
    let bytes = weight.bytes_of_rows(start, tensor.rows);
    let equal = weight.dtype() == tensor.dtype()
        && bytes.is_some()
        && bytes == tensor.bytes_of_rows(0, tensor.rows);
    equal || everywhere(tensor.rows, tensor.columns, same)
}

fn is_near(weight: &Matrix, start: usize, tensor: &Matrix) -> bool {
    let (difference, norm) = (Cell::new(0.0), Cell::new(0.0));
    let add = |row: usize, column: usize| {
        let original = tensor.at(row, column);
        let off = weight.at(start + row, column) - original;
        difference.set(difference.get() + off * off);
        norm.set(norm.get() + original * original);
        true
    };
    let part = |largest: f64| {
        let (difference, norm) = (difference.take(), norm.take());
        norm > 0.0 && difference < largest * largest * norm
    };
    for (row, column) in samples(tensor.rows, tensor.columns, SAMPLES * 16) {
        add(row, column);
    }
    // A sample may be further away than all are.
    part(2.0 * NEAR) && everywhere(tensor.rows, tensor.columns, add) && part(NEAR)
}

/// Places that are spread over a matrix.
fn samples(rows: usize, columns: usize, count: usize) -> Vec<(usize, usize)> {
    let place = |n: usize| (n * 7919 % rows, (n * 40_503 + n / 3) % columns);
    (0..count).map(place).collect()
}

/// Whether a test holds for every element. A few rows at a time, so that both matrices are read in
/// long runs whichever way they lie.
fn everywhere(rows: usize, columns: usize, test: impl Fn(usize, usize) -> bool) -> bool {
    const BLOCK: usize = 16;
    (0..rows).step_by(BLOCK).all(|first| {
        let block = first..(first + BLOCK).min(rows);
        (0..columns).all(|column| block.clone().all(|row| test(row, column)))
    })
}

/// Whether a number is another one rounded to a type. Converters to narrow types do not round the
/// smallest numbers alike.
fn is_rounded(number: f64, original: f64, dtype: DType) -> bool {
    let (half_step, smallest) = match dtype {
        DType::F64 => return number == original,
        DType::F32 => return number == f64::from(original as f32),
        DType::F16 => (1.0 / 2048.0, 1.2e-7),
        _ => (1.0 / 256.0, 1e-38),
    };
    (number - original).abs() <= original.abs() * half_step + smallest
}
