//! Weights as matrices of numbers, whatever lies in memory.

use super::codes::{self, Codes};
use super::{Candidate, ReadWeight};
use crate::diag::{Reported, Sink};
use crate::modules::call::Call;
use crate::modules::level::Levels;
use crate::modules::site::{Layout, SiteKind};
use crate::ty::DType;
use bytes::Bytes;

/// A weight in torch's layout: `[out, in]` for a linear layer, `[out, in · kernel]` for a
/// convolution, rows by columns for an embedding, `[features, 1]` for a norm.
pub(super) struct Matrix {
    pub kind: SiteKind,
    /// The parameter's dimensions in torch's layout.
    pub dims: Vec<i64>,
    pub rows: usize,
    pub columns: usize,
    numbers: Numbers,
    /// Whether the columns lie in memory one after the other.
    flipped: bool,
}

enum Numbers {
    Plain(DType, Bytes),
    Quantized(Codes),
}

impl Matrix {
    /// The weight of a call; `None` where its numbers are not at hand.
    pub fn of_call<'m>(
        levels: &Levels<'m>,
        call: &Call<'m>,
        read: &ReadWeight<'_>,
        sink: &mut Sink,
    ) -> Result<Option<Matrix>, Reported> {
        let weight = &call.weight;
        let dims = match (call.kind, call.layout) {
            (SiteKind::Norm, _) => weight.vector().map(|features| vec![features]),
            (SiteKind::Linear, Layout::InOut) => weight.matrix().map(|(i, o)| vec![o, i]),
            _ => Some(weight.dims.clone()),
        };
        let Some(dims) = dims else {
            return Ok(None);
        };
        let flipped = call.stored() == Layout::InOut;
        let numbers = if weight.quantization.is_some() {
            let Some(parts) = codes::parts(levels, call) else {
                return Ok(None);
            };
            let zeros = parts.zeros.map(|zeros| read(zeros, sink)).transpose()?;
            let (codes, scales) = (read(parts.codes, sink)?, read(parts.scales, sink)?);
            parts.codes(codes, scales, zeros).map(Numbers::Quantized)
        } else if weight.tensor.dtype.is_float() {
            Some(Numbers::Plain(
                weight.tensor.dtype,
                read(weight.tensor, sink)?,
            ))
        } else {
            None
        };
        Ok(numbers.and_then(|numbers| Matrix::new(call.kind, dims, numbers, flipped)))
    }

    /// A tensor of the checkpoint in one of the two ways to read it.
    pub fn of_candidate(candidate: &Candidate, kind: SiteKind, flipped: bool) -> Option<Matrix> {
        let mut dims = candidate.dims.clone();
        if flipped {
            dims.reverse();
        }
        let numbers = Numbers::Plain(candidate.dtype, candidate.data.clone());
        Matrix::new(kind, dims, numbers, flipped)
    }

    fn new(kind: SiteKind, dims: Vec<i64>, numbers: Numbers, flipped: bool) -> Option<Matrix> {
        let sizes: Option<Vec<usize>> = dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        let (rows, rest) = sizes.as_deref()?.split_first()?;
        let columns = rest.iter().try_fold(1usize, |all, d| all.checked_mul(*d))?;
        let elements = rows.checked_mul(columns)?;
        let fits = match &numbers {
            Numbers::Plain(dtype, data) => {
                let wanted = dtype.byte_len(elements as u64);
                dtype.is_float() && wanted == Some(data.len() as u64)
            }
            // A place beyond the codes or scales reads as zero.
            Numbers::Quantized(_) => true,
        };
        (elements > 0 && fits).then_some(Matrix {
            kind,
            rows: *rows,
            columns,
            dims,
            numbers,
            flipped,
        })
    }

    /// Element type of the numbers as they are stored; `None` for codes.
    pub fn dtype(&self) -> Option<DType> {
        match &self.numbers {
            Numbers::Plain(dtype, _) => Some(*dtype),
            Numbers::Quantized(_) => None,
        }
    }

    /// One element, widened.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        let (row, column, width) = if self.flipped {
            (column, row, self.rows)
        } else {
            (row, column, self.columns)
        };
        match &self.numbers {
            Numbers::Plain(dtype, data) => element(*dtype, data, row * width + column),
            Numbers::Quantized(codes) => codes.at(row, column),
        }
    }

    /// The bytes of some rows, if they lie one after the other.
    pub fn bytes_of_rows(&self, from: usize, count: usize) -> Option<&[u8]> {
        let Numbers::Plain(dtype, data) = &self.numbers else {
            return None;
        };
        let row = (self.columns as u64 * dtype.bits() / 8) as usize;
        let all = (!self.flipped).then_some(data)?;
        all.get(from * row..(from + count) * row)
    }
}

/// An element of little-endian floats.
pub(super) fn element(dtype: DType, data: &[u8], index: usize) -> f64 {
    fn bytes<const N: usize>(data: &[u8], index: usize) -> [u8; N] {
        let start = index.saturating_mul(N);
        let found = data.get(start..start.saturating_add(N));
        found.and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }
    match dtype {
        DType::F64 => f64::from_le_bytes(bytes(data, index)),
        DType::F16 => half::f16::from_le_bytes(bytes(data, index)).to_f64(),
        DType::BF16 => half::bf16::from_le_bytes(bytes(data, index)).to_f64(),
        _ => f64::from(f32::from_le_bytes(bytes(data, index))),
    }
}
