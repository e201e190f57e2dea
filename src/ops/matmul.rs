//! Matrix products.

use super::cx::{InferCx, Mismatch, Outcome, mismatch};
use super::einsum::einsum;
use super::grad;
use super::lower;
use super::registry::{Grad, OpDef, at_least, between, exactly, microsoft, op};
use super::shapes;
use crate::ty::Dim;

pub(super) const OPS: &[OpDef] = &[
    op(
        "MatMul",
        1,
        exactly(2),
        matmul,
        Grad::Rule(grad::matmul::matmul),
    ),
    op("Gemm", 1, exactly(3), gemm, Grad::Rule(grad::matmul::gemm)),
    op(
        "Gemm",
        11,
        between(2, 3),
        gemm,
        Grad::Rule(grad::matmul::gemm),
    ),
    op(
        "Einsum",
        12,
        at_least(1),
        einsum,
        Grad::Rule(grad::einsum::einsum),
    ),
    microsoft(
        "FusedMatMul",
        exactly(2),
        fused_matmul,
        Grad::Lower(lower::fused_matmul),
    ),
    microsoft(
        "TransposeMatMul",
        exactly(2),
        fused_matmul,
        Grad::Lower(lower::fused_matmul),
    ),
    microsoft(
        "FusedGemm",
        between(2, 3),
        gemm,
        Grad::Lower(lower::fused_gemm),
    ),
];

/// `Y = A B`, batch axes broadcast: `[…, m, k] × […, k, n] → […, m, n]`.
fn matmul(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = match (cx.shape(0), cx.shape(1)) {
        (Some(a), Some(b)) => Some(product_dims(a, b)?),
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// The shape of numpy's `a @ b`.
pub(super) fn product_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Mismatch> {
    let (Some(k), false) = (a.last(), b.is_empty()) else {
        return mismatch!("a matrix product of a scalar");
    };
    let inner = b.len().saturating_sub(2);
    shapes::same("inner sizes", k, &b[inner])?;
    let batch_a = &a[..a.len().saturating_sub(2)];
    let mut dims = match inner {
        // The usual case, a weight: nothing to broadcast.
        0 => batch_a.to_vec(),
        _ => shapes::broadcast(batch_a, &b[..inner])?,
    };
    if a.len() > 1 {
        dims.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        dims.push(b[b.len() - 1].clone());
    }
    Ok(dims)
}

/// `Y = α op(A) op(B) + β C`, matrices: `[m, k] × [k, n] → [m, n]`.
fn gemm(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1)) else {
        let dims = cx.fresh_shape(0, 2);
        cx.set(0, dtype, dims);
        return Ok(());
    };
    let (a, b) = match (a, b) {
        ([m, k], [l, n]) => ([m, k], [l, n]),
        _ => {
            return mismatch!("Gemm of tensors with {} and {} axes", a.len(), b.len());
        }
    };
    let (m, k) = if cx.flag("transA") {
        (a[1], a[0])
    } else {
        (a[0], a[1])
    };
    let (l, n) = if cx.flag("transB") {
        (b[1], b[0])
    } else {
        (b[0], b[1])
    };
    shapes::same("inner sizes", k, l)?;
    let dims = vec![m.clone(), n.clone()];
    if let Some(c) = cx.shape(2)
        && cx.opset >= 7
    {
        shapes::broadcast(&dims, c)?;
    }
    cx.set(0, dtype, dims);
    Ok(())
}

/// `Y = α op(A) op(B)`: `transA`, `transB` swap the last two axes; `transBatchA`, `transBatchB`
/// first move the first axis behind the batch axes.
fn fused_matmul(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1)) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let a = transposed(a, cx.flag("transA"), cx.flag("transBatchA"));
    let b = transposed(b, cx.flag("transB"), cx.flag("transBatchB"));
    cx.set(0, dtype, product_dims(&a, &b)?);
    Ok(())
}

fn transposed(dims: &[Dim], last_two: bool, batch: bool) -> Vec<Dim> {
    let mut dims = dims.to_vec();
    let rank = dims.len();
    if rank >= 3 && batch {
        // Stored as [m, b0, b1, …, k].
        dims[..rank - 1].rotate_left(1);
    }
    if rank >= 2 && last_two {
        dims.swap(rank - 2, rank - 1);
    }
    dims
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn matmul_multiplies_the_last_two_axes() {
        check_infer(
            "MatMul",
            13,
            &["f32[B, S, 64]", "f32[64, 128]"],
            &[],
            &["f32[B, S, 128]"],
        );
        check_infer(
            "MatMul",
            13,
            &["f32[B, H, S, 8]", "f32[B, H, 8, T]"],
            &[],
            &["f32[B, H, S, T]"],
        );
        check_infer(
            "MatMul",
            13,
            &["f32[H, S, 8]", "f32[B, 1, 8, T]"],
            &[],
            &["f32[B, H, S, T]"],
        );
        check_infer("MatMul", 13, &["f32[?]", "f32[8, 4]"], &[], &["f32[?]"]);
    }

    #[test]
    fn matmul_takes_vectors() {
        check_infer("MatMul", 13, &["f32[K]", "f32[K]"], &[], &["f32[]"]);
        check_infer(
            "MatMul",
            13,
            &["f32[K]", "f32[B, K, N]"],
            &[],
            &["f32[B, N]"],
        );
        check_infer(
            "MatMul",
            13,
            &["f32[B, M, K]", "f32[K]"],
            &[],
            &["f32[B, M]"],
        );
    }

    #[test]
    fn matmul_refuses_other_inner_sizes() {
        check_mismatch(
            "MatMul",
            13,
            &["f32[S, 64]", "f32[32, 8]"],
            &[],
            "inner sizes differ: 64 and 32",
        );
        check_mismatch("MatMul", 13, &["f32[]", "f32[32, 8]"], &[], "scalar");
    }

    #[test]
    fn gemm_transposes_by_attribute() {
        let attributes = [Attribute::int("transB", 1)];
        check_infer(
            "Gemm",
            13,
            &["f32[N, 64]", "f32[10, 64]", "f32[10]"],
            &attributes,
            &["f32[N, 10]"],
        );
        check_infer(
            "Gemm",
            13,
            &["f32[?]", "f32[10, 64]"],
            &[],
            &["f32[y.0, y.1]"],
        );
        check_mismatch(
            "Gemm",
            13,
            &["f32[N, 64]", "f32[10, 64]"],
            &[],
            "inner sizes",
        );
    }

    #[test]
    fn fused_matmul_transposes_matrices_and_batches() {
        let name = "com.microsoft:FusedMatMul";
        let attributes = [Attribute::int("transB", 1)];
        check_infer(
            name,
            1,
            &["f32[B, S, 8]", "f32[B, T, 8]"],
            &attributes,
            &["f32[B, S, T]"],
        );
        let attributes = [Attribute::int("transBatchA", 1)];
        check_infer(
            name,
            1,
            &["f32[S, B, 8]", "f32[B, 8, T]"],
            &attributes,
            &["f32[B, S, T]"],
        );
    }
}
