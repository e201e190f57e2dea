//! Products of matrices where they lie.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// A matrix in the memory of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a>(MatRef<'a, f32>);

impl<'a> Part<'a> {
    /// `[rows, columns]`, row-major, the first elements of its rows `stride` elements apart.
    ///
    /// # Panics
    /// When the memory holds less, or rows lie upon each other.
    pub fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Part<'a> {
        let held = held(rows, columns, stride);
        Part(MatRef::from_row_major_slice_with_stride(
            &data[..held],
            rows,
            columns,
            stride,
        ))
    }

    pub fn transposed(self) -> Part<'a> {
        Part(self.0.transpose())
    }
}

/// A matrix that is written.
#[derive(Debug)]
pub struct PartMut<'a>(MatMut<'a, f32>);

impl<'a> PartMut<'a> {
    /// As [`Part::new`].
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> PartMut<'a> {
        let held = held(rows, columns, stride);
        // Not `from_row_major_slice_with_stride_mut`, which in faer 0.24 takes rows for columns.
        let columns_first = MatMut::from_column_major_slice_with_stride_mut(
            &mut data[..held],
            columns,
            rows,
            stride,
        );
        PartMut(columns_first.transpose_mut())
    }

    pub fn transposed(self) -> PartMut<'a> {
        PartMut(self.0.transpose_mut())
    }

    /// Becomes `factor · a b`, on this thread.
    pub fn set(self, factor: f32, a: Part<'_>, b: Part<'_>) {
        matmul(self.0, Accum::Replace, a.0, b.0, factor, Par::Seq);
    }

    /// Gets `factor · a b` added.
    pub fn add(self, factor: f32, a: Part<'_>, b: Part<'_>) {
        matmul(self.0, Accum::Add, a.0, b.0, factor, Par::Seq);
    }
}

/// Elements from the first to the last.
fn held(rows: usize, columns: usize, stride: usize) -> usize {
    match rows {
        0 => 0,
        rows => (rows - 1) * stride + columns,
    }
}
