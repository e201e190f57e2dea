//! Products of matrices.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::rows::{permuted, stretch, zip_floats, zip_ints};
use super::sizes::{broadcast, count, work};
use super::special;
use super::table::{Entry, one};

pub(super) const OPS: &[Entry] = &[
    one("MatMul", 1, |cx| matmul(cx.operand(0)?, cx.operand(1)?)),
    one("Gemm", 1, gemm),
    one("FusedMatMul", 1, fused_matmul).microsoft(),
    one("TransposeMatMul", 1, fused_matmul).microsoft(),
    one("FusedGemm", 1, fused_gemm).microsoft(),
];

/// `y = a b` over the last two axes, as numpy does it: a vector is a row on the left and a column
/// on the right, and the axes before broadcast.
pub(super) fn matmul(a: &Array, b: &Array) -> Result<Array, Fault> {
    let ([.., _], [.., _]) = (a.dims(), b.dims()) else {
        return mismatch!("a product of {:?} and {:?}", a.dims(), b.dims());
    };
    let (row, column) = (a.rank() == 1, b.rank() == 1);
    let a = if row {
        a.clone().reshaped(&[1, a.len()])?
    } else {
        a.clone()
    };
    let b = if column {
        b.clone().reshaped(&[b.len(), 1])?
    } else {
        b.clone()
    };
    let product = matrices(&a, &b)?;
    let mut dims = product.dims().to_vec();
    if column {
        dims.pop();
    }
    if row {
        dims.remove(product.rank() - 2);
    }
    product.reshaped(&dims)
}

/// Both with at least two axes.
fn matrices(a: &Array, b: &Array) -> Result<Array, Fault> {
    let (a_outer, [m, k]) = last_two(a.dims())?;
    let (b_outer, [inner, n]) = last_two(b.dims())?;
    if k != inner {
        return mismatch!("a product of {:?} and {:?}", a.dims(), b.dims());
    }
    let outer = broadcast(a_outer, b_outer)?;
    let a = stretch(a, &[&outer[..], &[m, k]].concat())?;
    let b = stretch(b, &[&outer[..], &[k, n]].concat())?;
    let batch = count(&outer)?;
    work(&[batch, m, n, k])?;
    let dims = [&outer[..], &[m, n]].concat();
    count(&dims)?;
    let elements = match (a.elements(), b.elements()) {
        (Elements::Floats(a), Elements::Floats(b)) => {
            Elements::Floats(products(a, b, [batch, m, k, n], |sum, a, b| sum + a * b))
        }
        (Elements::Ints(a), Elements::Ints(b)) => {
            let add = |sum: i128, a: i128, b: i128| sum.wrapping_add(a.wrapping_mul(b));
            Elements::Ints(products(a, b, [batch, m, k, n], add))
        }
        _ => return mismatch!("a product of types {} and {}", a.dtype(), b.dtype()),
    };
    Array::new(a.dtype(), &dims, elements)
}

fn last_two(dims: &[usize]) -> Result<(&[usize], [usize; 2]), Fault> {
    match dims {
        [outer @ .., m, n] => Ok((outer, [*m, *n])),
        _ => mismatch!("a matrix with {} axes", dims.len()),
    }
}

fn products<T: Copy + Default>(
    a: &[T],
    b: &[T],
    [batch, m, k, n]: [usize; 4],
    add: impl Fn(T, T, T) -> T,
) -> Vec<T> {
    let mut y = vec![T::default(); batch * m * n];
    if n == 0 {
        return y;
    }
    for (index, row) in y.chunks_exact_mut(n).enumerate() {
        let batch = index / m;
        for inner in 0..k {
            let factor = a[index * k + inner];
            let other = &b[(batch * k + inner) * n..][..n];
            for (y, b) in row.iter_mut().zip(other) {
                *y = add(*y, factor, *b);
            }
        }
    }
    y
}

/// The last two axes exchanged, if wanted.
pub(super) fn transposed(array: &Array, wanted: bool) -> Result<Array, Fault> {
    let rank = array.rank();
    if !wanted || rank < 2 {
        return Ok(array.clone());
    }
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 2, rank - 1);
    permuted(array, &order)
}

/// Both times a number; integers only by a whole one.
fn scaled(array: &Array, factor: f64) -> Result<Array, Fault> {
    if factor == 1.0 {
        return Ok(array.clone());
    }
    match array.elements() {
        Elements::Floats(_) => array.map(|x| factor * x),
        Elements::Ints(_) if factor.fract() != 0.0 => unsupported!("integers times {factor}"),
        Elements::Ints(data) => {
            let scaled = data
                .iter()
                .map(|x| x.wrapping_mul(factor as i128))
                .collect();
            Array::ints(array.dtype(), array.dims(), scaled)
        }
    }
}

pub(super) fn sum(a: &Array, b: &Array) -> Result<Array, Fault> {
    match a.elements() {
        Elements::Floats(_) => zip_floats(a.dtype(), a, b, |a, b| a + b),
        Elements::Ints(_) => zip_ints(a.dtype(), a, b, |a, b| Ok(a.wrapping_add(b))),
    }
}

/// `y = α op(a) op(b) + β c`.
fn gemm(cx: &Cx<'_>) -> Result<Array, Fault> {
    let a = transposed(cx.operand(0)?, cx.flag("transA"))?;
    let b = transposed(cx.operand(1)?, cx.flag("transB"))?;
    if a.rank() != 2 || b.rank() != 2 {
        return mismatch!("a Gemm of {:?} and {:?}", a.dims(), b.dims());
    }
    let product = scaled(&matrices(&a, &b)?, cx.float_or("alpha", 1.0))?;
    let Some(c) = cx.optional(2) else {
        return Ok(product);
    };
    let y = sum(&product, &scaled(c, cx.float_or("beta", 1.0))?)?;
    match y.dims() == product.dims() {
        true => Ok(y),
        false => mismatch!("{:?} does not broadcast to {:?}", c.dims(), product.dims()),
    }
}

/// `y = α op(a) op(b)`; with `transBatch…` the axes before the last but one are rotated, so that
/// the matrix is `[m, batch…, k]`.
fn fused_matmul(cx: &Cx<'_>) -> Result<Array, Fault> {
    let side = |slot, batch, matrix| {
        let mut array = cx.operand(slot)?.clone();
        if cx.flag(batch) && array.rank() > 2 {
            let rank = array.rank();
            let mut order: Vec<usize> = (1..rank - 1).collect();
            order.extend([0, rank - 1]);
            array = permuted(&array, &order)?;
        }
        transposed(&array, cx.flag(matrix))
    };
    let a = side(0, "transBatchA", "transA")?;
    let b = side(1, "transBatchB", "transB")?;
    scaled(&matmul(&a, &b)?, cx.float_or("alpha", 1.0))
}

/// `y = activation(α op(a) op(b) + β c)`.
fn fused_gemm(cx: &Cx<'_>) -> Result<Array, Fault> {
    let y = gemm(cx)?;
    let alpha = cx.float("activation_alpha").map(f64::from);
    let beta = cx.float("activation_beta").map(f64::from);
    activated(&y, cx.string("activation").unwrap_or(""), alpha, beta)
}

/// The activations that ONNX Runtime fuses into products and convolutions, by name.
pub(super) fn activated(
    x: &Array,
    name: &str,
    alpha: Option<f64>,
    beta: Option<f64>,
) -> Result<Array, Fault> {
    let or = |value: Option<f64>, default: f32| value.unwrap_or(default.into());
    match name {
        "" => Ok(x.clone()),
        "Relu" => x.map(|x| x.max(0.0)),
        "Tanh" => x.map(f64::tanh),
        "Sigmoid" => x.map(special::sigmoid),
        "LeakyRelu" => {
            let alpha = or(alpha, 0.01);
            x.map(|x| if x < 0.0 { alpha * x } else { x })
        }
        "Clip" => {
            let (least, most) = (or(alpha, f32::MIN), or(beta, f32::MAX));
            x.map(|x| x.max(least).min(most))
        }
        "HardSigmoid" => {
            let (alpha, beta) = (or(alpha, 0.2), or(beta, 0.5));
            x.map(|x| (alpha * x + beta).clamp(0.0, 1.0))
        }
        "HardSwish" => x.map(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Elu" => {
            let alpha = or(alpha, 1.0);
            x.map(|x| if x > 0.0 { x } else { alpha * x.exp_m1() })
        }
        "Softplus" => x.map(special::softplus),
        "Softsign" => x.map(|x| x / (1.0 + x.abs())),
        other => unsupported!("the activation `{other}`"),
    }
}
