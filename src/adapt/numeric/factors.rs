//! Factors of matrices. A matrix is decomposed once, however many values are made of its factors.

use super::{Dense, axes, sizes, slice};
use crate::hir::{Factor, Term};
use crate::linalg::{self, Fault, Matrix, Qr, Svd};
use std::cell::RefCell;
use std::rc::Rc;

/// The decompositions of the matrices of one module.
#[derive(Default)]
pub(in crate::adapt) struct Factors {
    singular: Made<Svd>,
    triangular: Made<Qr>,
}

/// What has been decomposed, and into what.
struct Made<T>(RefCell<Vec<(Matrix, Rc<T>)>>);

impl<T> Default for Made<T> {
    fn default() -> Self {
        Made(RefCell::default())
    }
}

impl<T> Made<T> {
    /// Comparing numbers costs next to nothing beside a decomposition.
    fn of(
        &self,
        matrix: Matrix,
        decompose: impl FnOnce(&Matrix) -> Result<T, Fault>,
    ) -> Result<Rc<T>, String> {
        let mut made = self.0.borrow_mut();
        if let Some((_, factors)) = made.iter().find(|(known, _)| *known == matrix) {
            return Ok(Rc::clone(factors));
        }
        let factors = Rc::new(decompose(&matrix).map_err(|fault| fault.to_string())?);
        made.push((matrix, Rc::clone(&factors)));
        Ok(factors)
    }
}

impl Factors {
    /// A factor of a matrix; how much of it is in the type of the term.
    pub fn factor(&self, factor: Factor, a: &Dense, term: &Term) -> Result<Dense, String> {
        if a.data.iter().any(|value| !value.is_finite()) {
            return Err("it is a factor of a matrix with numbers that are not finite".to_owned());
        }
        let dims = sizes(term);
        let matrix = || Matrix::new(a.dims[0], a.dims[1], a.data.clone()).ok_or("it is no matrix");
        let singular = || self.singular.of(matrix()?, linalg::svd);
        let triangular = || self.triangular.of(matrix()?, linalg::qr);
        match factor {
            Factor::Clusters => Ok(clusters(&matrix()?, dims)),
            Factor::LargestPlaces => Ok(axes::top_places(a, dims[0])),
            Factor::LeftSingular => Ok(part(&singular()?.u, &dims)),
            Factor::RightSingular => Ok(part(&singular()?.vt, &dims)),
            Factor::SingularValues => {
                let data = singular()?.s[..dims[0]].to_vec();
                Ok(Dense { dims, data })
            }
            Factor::Q => Ok(part(&triangular()?.q, &dims)),
            Factor::R => Ok(part(&triangular()?.r, &dims)),
        }
    }
}

/// 1 where a row is in a cluster.
fn clusters(matrix: &Matrix, dims: Vec<usize>) -> Dense {
    let mut data = vec![0.0; dims.iter().product()];
    for (row, cluster) in linalg::clusters(matrix, dims[1]).into_iter().enumerate() {
        data[row * dims[1] + cluster] = 1.0;
    }
    Dense { dims, data }
}

/// The first rows and columns.
fn part(matrix: &Matrix, dims: &[usize]) -> Dense {
    let whole = Dense {
        dims: vec![matrix.rows, matrix.columns],
        data: matrix.data.clone(),
    };
    (0..2).fold(whole, |part, axis| slice(&part, axis, (0, dims[axis])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_matrix_is_decomposed_once() {
        let matrix = |last: f64| Matrix::new(2, 2, vec![1.0, 2.0, 3.0, last]).expect("sizes fit");
        let (made, times) = (Made::default(), Cell::new(0));
        for last in [4.0, 4.0, 5.0, 4.0] {
            let counted = |matrix: &Matrix| {
                times.set(times.get() + 1);
                linalg::svd(matrix)
            };
            let found = made.of(matrix(last), counted).expect("it converges");
            let wanted = linalg::svd(&matrix(last)).expect("it converges");
            assert_eq!(found.s, wanted.s);
        }
        assert_eq!(times.get(), 2);
    }
}
