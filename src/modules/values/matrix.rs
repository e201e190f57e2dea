//! Weights as matrices of numbers, whatever lies in memory.

use super::{Candidate, ReadWeight};
use crate::diag::{Reported, Sink};
use crate::modules::call::Call;
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
    pub dtype: DType,
    data: Bytes,
    /// Whether the columns lie in memory one after the other.
    flipped: bool,
}

impl Matrix {
    /// The weight of a call; `None` where its numbers are not at hand.
    pub fn of_call(
        call: &Call<'_>,
        read: &ReadWeight<'_>,
        sink: &mut Sink,
    ) -> Result<Option<Matrix>, Reported> {
        let weight = &call.weight;
        let dims = match (call.kind, call.layout) {
            (SiteKind::Norm, _) => weight.vector().map(|features| vec![features]),
            (SiteKind::Linear, Layout::InOut) => weight.matrix().map(|(i, o)| vec![o, i]),
            _ => Some(weight.dims.clone()),
        };
        let (Some(dims), None) = (dims, &weight.quantization) else {
            return Ok(None);
        };
        if !weight.tensor.dtype.is_float() {
            return Ok(None);
        }
        let data = read(weight.tensor, sink)?;
        let flipped = call.stored() == Layout::InOut;
        Ok(Matrix::new(
            call.kind,
            dims,
            weight.tensor.dtype,
            data,
            flipped,
        ))
    }

    /// A tensor of the checkpoint in one of the two ways to read it.
    pub fn of_candidate(candidate: &Candidate, kind: SiteKind, flipped: bool) -> Option<Matrix> {
        let mut dims = candidate.dims.clone();
        if flipped {
            dims.reverse();
        }
        let data = candidate.data.clone();
        Matrix::new(kind, dims, candidate.dtype, data, flipped)
    }

    fn new(
        kind: SiteKind,
        dims: Vec<i64>,
        dtype: DType,
        data: Bytes,
        flipped: bool,
    ) -> Option<Matrix> {
        let sizes: Option<Vec<usize>> = dims.iter().map(|d| usize::try_from(*d).ok()).collect();
        let (rows, rest) = sizes.as_deref()?.split_first()?;
        let columns = rest.iter().try_fold(1usize, |all, d| all.checked_mul(*d))?;
        let elements = rows.checked_mul(columns)?;
        let fits = dtype.byte_len(elements as u64) == Some(data.len() as u64);
        (elements > 0 && fits && dtype.is_float()).then_some(Matrix {
            kind,
            rows: *rows,
            columns,
            dims,
            dtype,
            data,
            flipped,
        })
    }

    /// One element, widened.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        let index = if self.flipped {
            column * self.rows + row
        } else {
            row * self.columns + column
        };
        element(self.dtype, &self.data, index)
    }

    /// The bytes of some rows, if they lie one after the other.
    pub fn bytes_of_rows(&self, from: usize, count: usize) -> Option<&[u8]> {
        let row = (self.columns as u64 * self.dtype.bits() / 8) as usize;
        let all = (!self.flipped).then_some(&self.data)?;
        all.get(from * row..(from + count) * row)
    }
}

/// An element of little-endian floats.
pub(super) fn element(dtype: DType, data: &[u8], index: usize) -> f64 {
    fn bytes<const N: usize>(data: &[u8], index: usize) -> [u8; N] {
        let found = data.get(index * N..(index + 1) * N);
        found.and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }
    match dtype {
        DType::F64 => f64::from_le_bytes(bytes(data, index)),
        DType::F16 => half::f16::from_le_bytes(bytes(data, index)).to_f64(),
        DType::BF16 => half::bf16::from_le_bytes(bytes(data, index)).to_f64(),
        _ => f64::from(f32::from_le_bytes(bytes(data, index))),
    }
}
