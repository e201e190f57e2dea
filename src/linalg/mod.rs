//! Decompositions of matrices, for start values and conversions, and products of parts of tensors, for
//! kernels. The only user of `faer`.
//!
//! In: matrices as row-major slices of f64. Out: their thin factors, row-major, too. (Products are of parts of
//! `f32` tensors, and are written where the caller says.) What holds:
//! the same matrix gives the same factors on the same machine, whatever runs beside it (one matrix
//! is one thread; several matrices are several threads of the caller); factors whose sign is free
//! have a stated one; a matrix with an entry that is no finite number is refused, never decomposed
//! into nonsense. Not here: reading weights, rounding to f32.
//!
//! Why `faer` and not `nalgebra`: a start by singular values decomposes every weight of a model, and
//! `faer`'s blocked kernels do that several times as fast as `nalgebra`'s element by element. The
//! price is that the last bits of a factor depend on the vector unit of the processor.

mod clusters;
mod low_rank;
mod product;
#[cfg(test)]
mod tests;

pub use clusters::clusters;
pub use low_rank::{Budget, LowRank, low_rank};
pub use product::{Part, PartMut};

use faer::{Mat, MatRef, Side};

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub data: Vec<f64>,
}

/// `A = U diag(s) Vᵀ` with `k = min(rows, columns)`.
#[derive(Clone, Debug)]
pub struct Svd {
    /// `[rows, k]`; in every column the entry of largest size (the first of several) is positive.
    pub u: Matrix,
    /// Falling, none below 0.
    pub s: Vec<f64>,
    /// `Vᵀ`, `[k, columns]`.
    pub vt: Matrix,
}

/// `A = Q R` with `k = min(rows, columns)`.
#[derive(Clone, Debug)]
pub struct Qr {
    /// `[rows, k]`, orthonormal columns.
    pub q: Matrix,
    /// `[k, columns]`, upper triangular; nothing on its diagonal is below 0.
    pub r: Matrix,
}

/// `A = V diag(values) Vᵀ` of a symmetric matrix.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// Rising.
    pub values: Vec<f64>,
    /// Eigenvectors in columns, with signs as in [`Svd::u`].
    pub vectors: Matrix,
}

/// Why a matrix has not been decomposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An entry is no finite number.
    NotFinite,
    /// The iteration did not come to an end.
    NoConvergence,
    /// Eigenvalues are asked of a matrix that is not square.
    NotSquare,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::NotFinite => "the matrix has an entry that is not a finite number",
            Fault::NoConvergence => "the decomposition does not converge",
            Fault::NotSquare => "the matrix is not square",
        })
    }
}

impl Matrix {
    /// `None` if the sizes do not fit the data.
    pub fn new(rows: usize, columns: usize, data: Vec<f64>) -> Option<Matrix> {
        (rows.checked_mul(columns) == Some(data.len())).then_some(Matrix {
            rows,
            columns,
            data,
        })
    }

    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.data[row * self.columns + column]
    }

    fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.data, self.rows, self.columns)
    }

    fn of(view: MatRef<'_, f64>) -> Matrix {
        let (rows, columns) = (view.nrows(), view.ncols());
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        Matrix {
            rows,
            columns,
            data: cells.map(|(row, column)| view[(row, column)]).collect(),
        }
    }

    fn negate_column(&mut self, column: usize) {
        for row in 0..self.rows {
            self.data[row * self.columns + column] *= -1.0;
        }
    }

    fn negate_row(&mut self, row: usize) {
        let row = row * self.columns..(row + 1) * self.columns;
        self.data[row].iter_mut().for_each(|value| *value *= -1.0);
    }

    /// Whether the entry of largest size in a column, the first of several, is below 0.
    fn points_down(&self, column: usize) -> bool {
        let mut largest = 0.0_f64;
        for row in 0..self.rows {
            let value = self.at(row, column);
            if value.abs() > largest.abs() {
                largest = value;
            }
        }
        largest < 0.0
    }

    fn check(&self) -> Result<(), Fault> {
        if self.data.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(Fault::NotFinite)
        }
    }
}

/// Singular values and vectors.
pub fn svd(matrix: &Matrix) -> Result<Svd, Fault> {
    matrix.check()?;
    let found = matrix.view().thin_svd().map_err(|_| Fault::NoConvergence)?;
    let s: Vec<f64> = found.S().column_vector().iter().copied().collect();
    let (mut u, mut vt) = (Matrix::of(found.U()), Matrix::of(found.V().transpose()));
    for index in 0..s.len() {
        if u.points_down(index) {
            u.negate_column(index);
            vt.negate_row(index);
        }
    }
    Ok(Svd { u, s, vt })
}

/// Orthonormal columns and an upper triangle.
pub fn qr(matrix: &Matrix) -> Result<Qr, Fault> {
    matrix.check()?;
    let found = matrix.view().qr();
    let (mut q, mut r) = (
        Matrix::of(found.compute_thin_Q().as_ref()),
        Matrix::of(found.thin_R()),
    );
    for index in 0..r.rows {
        if r.at(index, index) < 0.0 {
            q.negate_column(index);
            r.negate_row(index);
        }
    }
    Ok(Qr { q, r })
}

/// Eigenvalues and eigenvectors of a symmetric matrix; of the two triangles the lower one is read.
pub fn symmetric_eigen(matrix: &Matrix) -> Result<Eigen, Fault> {
    if matrix.rows != matrix.columns {
        return Err(Fault::NotSquare);
    }
    matrix.check()?;
    let found = matrix
        .view()
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| Fault::NoConvergence)?;
    let values = found.S().column_vector().iter().copied().collect();
    let mut vectors = Matrix::of(found.U());
    for index in 0..vectors.columns {
        if vectors.points_down(index) {
            vectors.negate_column(index);
        }
    }
    Ok(Eigen { values, vectors })
}

/// The product of two matrices; `None` if their sizes do not fit.
pub fn product(a: &Matrix, b: &Matrix) -> Option<Matrix> {
    if a.columns != b.rows {
        return None;
    }
    let product: Mat<f64> = a.view() * b.view();
    Some(Matrix::of(product.as_ref()))
}
