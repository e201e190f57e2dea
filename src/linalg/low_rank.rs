//! The matrix of low rank that is nearest to another.

use super::{Fault, Matrix, Svd, svd};

/// How many singular values are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// At most so many.
    Rank(usize),
    /// As few as leave a difference of at most this share of the matrix, by Frobenius norms.
    Error(f64),
}

/// `A ≈ left · right`, both with the roots of the singular values, so that neither is larger.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[rows, rank]`.
    pub left: Matrix,
    /// `[rank, columns]`.
    pub right: Matrix,
    /// Singular values of the matrix, falling; those that are rounding alone are 0.
    values: Vec<f64>,
}

impl LowRank {
    /// At least 1, and at most the smaller side.
    pub fn rank(&self) -> usize {
        self.left.columns
    }

    /// The rank that leaves a difference of at most this share of the matrix: at least 1.
    pub fn rank_for(&self, share: f64) -> usize {
        rank_for(&self.values, share)
    }
}

/// The nearest matrix, of at least rank 1.
pub fn low_rank(matrix: &Matrix, budget: Budget) -> Result<LowRank, Fault> {
    let Svd { u, mut s, vt } = svd(matrix)?;
    let rounding = f64::EPSILON * matrix.rows.max(matrix.columns) as f64;
    let least = s.first().map_or(0.0, |largest| largest * rounding);
    s.iter_mut()
        .filter(|value| **value <= least)
        .for_each(|value| *value = 0.0);
    let wanted = match budget {
        Budget::Rank(rank) => rank.max(1),
        Budget::Error(share) => rank_for(&s, share),
    };
    let rank = wanted.min(s.len());
    let left = (0..u.rows).flat_map(|row| (0..rank).map(move |k| (row, k)));
    let right = (0..rank).flat_map(|k| (0..vt.columns).map(move |column| (k, column)));
    Ok(LowRank {
        left: Matrix {
            rows: u.rows,
            columns: rank,
            data: left.map(|(row, k)| u.at(row, k) * s[k].sqrt()).collect(),
        },
        right: Matrix {
            rows: rank,
            columns: vt.columns,
            data: right
                .map(|(k, column)| s[k].sqrt() * vt.at(k, column))
                .collect(),
        },
        values: s,
    })
}

fn rank_for(values: &[f64], share: f64) -> usize {
    // From the smallest value on, so that a long tail is not lost in rounding.
    let mut rest = vec![0.0; values.len() + 1];
    for (index, value) in values.iter().enumerate().rev() {
        rest[index] = rest[index + 1] + value * value;
    }
    let most = share * share * rest[0];
    let enough = rest.iter().position(|left| *left <= most);
    enough.unwrap_or(values.len()).max(1)
}
