use super::check_grad;
use crate::graph::Attribute;

#[test]
fn products_of_rows_and_a_matrix() {
    check_grad("MatMul", 13, &["normal[2, 3]", "normal[3, 4]"], &[]);
    check_grad("MatMul", 13, &["normal[B, S, 3]", "normal[3, 4]"], &[]);
    check_grad("MatMul", 13, &["normal[B, S, T, 3]", "normal[3, N]"], &[]);
}

#[test]
fn products_of_many_matrices_broadcast() {
    check_grad(
        "MatMul",
        13,
        &["normal[B, 2, S, 4]", "normal[B, 2, 4, T]"],
        &[],
    );
    check_grad(
        "MatMul",
        13,
        &["normal[B, 1, S, 4]", "normal[3, 4, T]"],
        &[],
    );
    check_grad("MatMul", 13, &["normal[S, 4]", "normal[B, 4, T]"], &[]);
}

#[test]
fn products_with_vectors() {
    check_grad("MatMul", 13, &["normal[4]", "normal[4]"], &[]);
    check_grad("MatMul", 13, &["normal[4]", "normal[4, N]"], &[]);
    check_grad("MatMul", 13, &["normal[B, 4]", "normal[4]"], &[]);
    check_grad("MatMul", 13, &["normal[4]", "normal[B, 4, N]"], &[]);
    check_grad("MatMul", 13, &["normal[B, S, 4]", "normal[4]"], &[]);
}

#[test]
fn gemm_in_every_orientation() {
    for (a, transpose_a) in [("normal[B, 3]", 0), ("normal[3, B]", 1)] {
        for (b, transpose_b) in [("normal[3, 4]", 0), ("normal[4, 3]", 1)] {
            let attributes = [
                Attribute::int("transA", transpose_a),
                Attribute::int("transB", transpose_b),
                Attribute::float("alpha", 0.5),
                Attribute::float("beta", -2.0),
            ];
            check_grad("Gemm", 13, &[a, b, "normal[4]"], &attributes);
            check_grad("Gemm", 13, &[a, b], &attributes[..2]);
            check_grad("Gemm", 13, &[a, b, "normal[B, 1]"], &attributes[..2]);
        }
    }
}
