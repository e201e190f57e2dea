use super::*;
use crate::tolerances::FACTORS;

/// Numbers without a pattern, the same ones every time.
fn sample(rows: usize, columns: usize) -> Matrix {
    let data = (0..rows * columns)
        .map(|index| ((index * index * 7 + index * 3 + 1) % 23) as f64 / 23.0 - 0.5)
        .collect();
    Matrix::new(rows, columns, data).expect("sizes fit")
}

fn transposed(a: &Matrix) -> Matrix {
    let data = (0..a.columns)
        .flat_map(|column| (0..a.rows).map(move |row| a.at(row, column)))
        .collect();
    Matrix::new(a.columns, a.rows, data).expect("sizes fit")
}

fn scaled_columns(a: &Matrix, factors: &[f64]) -> Matrix {
    let data = a.data.iter().zip(factors.iter().cycle());
    Matrix::new(a.rows, a.columns, data.map(|(v, f)| v * f).collect()).expect("sizes fit")
}

fn check_close(found: &Matrix, wanted: &Matrix) {
    assert_eq!((found.rows, found.columns), (wanted.rows, wanted.columns));
    for (a, b) in found.data.iter().zip(&wanted.data) {
        assert!((a - b).abs() < FACTORS, "{a} is not {b}");
    }
}

fn check_orthonormal(q: &Matrix) {
    let gram = product(&transposed(q), q).expect("sizes fit");
    let mut identity =
        Matrix::new(q.columns, q.columns, vec![0.0; q.columns * q.columns]).expect("sizes fit");
    for index in 0..q.columns {
        identity.data[index * q.columns + index] = 1.0;
    }
    check_close(&gram, &identity);
}

const SIZES: [(usize, usize); 5] = [(5, 5), (7, 3), (3, 7), (1, 4), (40, 33)];

#[test]
fn singular_factors_multiply_to_the_matrix() {
    for (rows, columns) in SIZES {
        let a = sample(rows, columns);
        let Svd { u, s, vt } = svd(&a).expect("it converges");
        let k = rows.min(columns);
        assert_eq!((u.columns, s.len(), vt.rows), (k, k, k));
        assert!(s.windows(2).all(|pair| pair[0] >= pair[1]) && s[k - 1] >= 0.0);
        check_orthonormal(&u);
        check_orthonormal(&transposed(&vt));
        check_close(
            &product(&scaled_columns(&u, &s), &vt).expect("sizes fit"),
            &a,
        );
    }
}

#[test]
fn a_singular_vector_and_its_negative_are_one() {
    let a = sample(6, 4);
    let negated = Matrix::new(6, 4, a.data.iter().map(|v| -v).collect()).expect("sizes fit");
    let (first, second) = (
        svd(&a).expect("converges"),
        svd(&negated).expect("converges"),
    );
    check_close(&first.u, &second.u);
    for column in 0..4 {
        assert!(!first.u.points_down(column));
    }
}

#[test]
fn a_triangle_has_no_negative_diagonal() {
    for (rows, columns) in SIZES {
        let a = sample(rows, columns);
        let Qr { q, r } = qr(&a).expect("finite");
        check_orthonormal(&q);
        check_close(&product(&q, &r).expect("sizes fit"), &a);
        for row in 0..r.rows {
            assert!(r.at(row, row) >= 0.0);
            assert!((0..row).all(|column| r.at(row, column) == 0.0));
        }
    }
}

#[test]
fn eigenvectors_diagonalise_a_symmetric_matrix() {
    let a = sample(6, 9);
    let gram = product(&a, &transposed(&a)).expect("sizes fit");
    let Eigen { values, vectors } = symmetric_eigen(&gram).expect("it converges");
    assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
    check_orthonormal(&vectors);
    let scaled = scaled_columns(&vectors, &values);
    check_close(
        &product(&scaled, &transposed(&vectors)).expect("sizes fit"),
        &gram,
    );
}

#[test]
fn what_cannot_be_decomposed_is_refused() {
    let mut a = sample(3, 3);
    a.data[4] = f64::NAN;
    assert_eq!(svd(&a).err(), Some(Fault::NotFinite));
    assert_eq!(qr(&a).err(), Some(Fault::NotFinite));
    assert_eq!(symmetric_eigen(&a).err(), Some(Fault::NotFinite));
    assert_eq!(symmetric_eigen(&sample(2, 3)).err(), Some(Fault::NotSquare));
    assert!(Matrix::new(2, 2, vec![0.0; 3]).is_none());
    assert!(product(&sample(2, 3), &sample(2, 3)).is_none());
}

#[test]
fn zeros_and_empty_matrices_have_factors() {
    let zeros = Matrix::new(4, 3, vec![0.0; 12]).expect("sizes fit");
    let found = svd(&zeros).expect("it converges");
    assert!(found.s.iter().all(|value| *value == 0.0));
    check_orthonormal(&found.u);
    let empty = Matrix::new(0, 3, Vec::new()).expect("sizes fit");
    assert!(svd(&empty).expect("nothing to do").s.is_empty());
    assert_eq!(qr(&empty).expect("nothing to do").r.columns, 3);
}

#[test]
fn the_nearest_matrix_of_low_rank_loses_the_smallest_singular_values() {
    let a = sample(5, 4);
    let s = svd(&a).expect("it converges").s;
    let length = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    for rank in 1..4 {
        let found = low_rank(&a, Budget::Rank(rank)).expect("it converges");
        assert_eq!(found.rank(), rank);
        let near = product(&found.left, &found.right).expect("sizes fit");
        let rest: Vec<f64> = a.data.iter().zip(&near.data).map(|(a, b)| a - b).collect();
        assert!((length(&rest) - length(&s[rank..])).abs() <= FACTORS);
        let share = length(&s[rank..]) / length(&s);
        assert_eq!(found.rank_for(share * 1.001), rank);
        assert_eq!(found.rank_for(share * 0.999), rank + 1);
    }
    let zeros = Matrix::new(4, 3, vec![0.0; 12]).expect("sizes fit");
    let found = low_rank(&zeros, Budget::Error(0.01)).expect("it converges");
    assert_eq!(found.rank(), 1);
    assert!(found.left.data.iter().all(|value| *value == 0.0));
}
