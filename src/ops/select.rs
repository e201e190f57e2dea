//! Choices, searches and cumulative operators.

use super::arithmetic::stretched;
use super::cx::{InferCx, Outcome};
use super::grad::{self, help};
use super::known::Element;
use super::registry::{Grad, OpDef, between, exactly, microsoft, op};
use super::shapes;
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    op(
        "Where",
        9,
        exactly(3),
        choose,
        Grad::Rule(grad::select::choose),
    )
    .folds(fold_choose),
    op(
        "TopK",
        1,
        exactly(1),
        top_k,
        Grad::Rule(grad::select::top_k),
    )
    .results(exactly(2)),
    op(
        "TopK",
        10,
        exactly(2),
        top_k,
        Grad::Rule(grad::select::top_k),
    )
    .results(exactly(2)),
    op("NonZero", 9, exactly(1), non_zero, Grad::Zero),
    op(
        "Compress",
        9,
        exactly(2),
        compress,
        Grad::Missing(help::OTHER),
    ),
    op("Unique", 11, exactly(1), unique, Grad::Missing(help::OTHER)).results(between(1, 4)),
    op(
        "CumSum",
        11,
        exactly(2),
        same,
        Grad::Rule(grad::select::cum_sum),
    ),
    op("CumProd", 26, exactly(2), same, Grad::Missing(help::OTHER)),
    op(
        "NonMaxSuppression",
        10,
        between(2, 5),
        non_max_suppression,
        Grad::Zero,
    ),
    microsoft(
        "Unique",
        exactly(1),
        unique_vector,
        Grad::Missing(help::OTHER),
    )
    .results(exactly(3)),
];

fn same(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// `y = condition ? a : b`, all three broadcast.
fn choose(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(1).or(cx.dtype(2)) else {
        return Ok(());
    };
    let dims = match (cx.shape(0), cx.shape(1), cx.shape(2)) {
        (Some(condition), Some(a), Some(b)) => {
            Some(shapes::broadcast(&shapes::broadcast(condition, a)?, b)?)
        }
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

fn fold_choose(cx: &mut InferCx<'_>) -> Option<()> {
    let dims = cx.small_dims(0)?;
    let unknown = || vec![Element::Unknown; dims.iter().product::<i64>() as usize];
    let read = |operand| cx.known(operand).map(|known| stretched(&known, &dims));
    let [condition, a, b] = [0, 1, 2].map(|slot| read(slot).unwrap_or_else(unknown));
    let elements = condition
        .iter()
        .zip(a.into_iter().zip(b))
        .map(|(condition, (a, b))| match condition.number() {
            Some(0) => b,
            Some(_) => a,
            None if a == b => a,
            None => Element::Unknown,
        })
        .collect();
    cx.set_elements(0, elements)
}

/// `values, indices = topk(x)`: `k` elements along `axis`; `k` is an attribute before opset 10.
fn top_k(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        cx.set_unranked(1, DType::I64);
        return Ok(());
    };
    let axis = shapes::axis(cx.int_or("axis", -1), dims.len())?;
    let k = match cx.opset {
        ..10 => cx.int("k").map(Dim::from),
        _ => cx.known(1).and_then(|known| known.single()?.int().cloned()),
    };
    let mut dims = dims.to_vec();
    dims[axis] = k.unwrap_or_else(|| cx.fresh(0, axis));
    cx.set(0, dtype, dims.clone());
    cx.set(1, DType::I64, dims);
    Ok(())
}

/// `y[:, j]` is the index of the `j`-th element that is not 0: as many as the data has.
fn non_zero(cx: &mut InferCx<'_>) -> Outcome {
    let rank = match cx.rank(0) {
        Some(rank) => Dim::from(rank as i64),
        None => cx.fresh(0, 0),
    };
    let count = cx.fresh(0, 1);
    cx.set(0, DType::I64, vec![rank, count]);
    Ok(())
}

/// `y = x[condition]` along `axis`, or of all elements in a row.
fn compress(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = match (cx.int("axis"), cx.shape(0)) {
        (None, _) => Some(cx.fresh_shape(0, 1)),
        (Some(_), None) => None,
        (Some(axis), Some(dims)) => {
            let axis = shapes::axis(axis, dims.len())?;
            let mut dims = dims.to_vec();
            dims[axis] = cx.fresh(0, axis);
            Some(dims)
        }
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// `y, indices, inverse, counts = unique(x)`, of slices along `axis` or of all elements.
fn unique(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let shape = cx.shape(0);
    let (axis, mut dims) = match (cx.int("axis"), shape) {
        (None, _) => (0, vec![Dim::from(0)]),
        (Some(axis), Some(dims)) => (shapes::axis(axis, dims.len())?, dims.to_vec()),
        (Some(_), None) => {
            cx.set_unranked(0, dtype);
            return Ok(());
        }
    };
    let found = cx.fresh(0, axis);
    dims[axis] = found.clone();
    let total = match (cx.int("axis"), shape) {
        (Some(_), Some(dims)) => Some(dims[axis].clone()),
        (_, Some(dims)) => shapes::product(dims),
        _ => None,
    };
    cx.set(0, dtype, dims);
    cx.set(1, DType::I64, vec![found.clone()]);
    let total = total.unwrap_or_else(|| cx.fresh(2, 0));
    cx.set(2, DType::I64, vec![total]);
    cx.set(3, DType::I64, vec![found]);
    Ok(())
}

/// `y, inverse, counts = unique(x)` of a vector.
fn unique_vector(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let found = cx.fresh(0, 0);
    cx.set(0, dtype, vec![found.clone()]);
    cx.same_shape_as(1, 0, DType::I64);
    cx.set(2, DType::I64, vec![found]);
    Ok(())
}

/// The chosen boxes as rows `[batch, class, box]`.
fn non_max_suppression(cx: &mut InferCx<'_>) -> Outcome {
    let count = cx.fresh(0, 0);
    cx.set(0, DType::I64, vec![count, Dim::from(3)]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_values};

    #[test]
    fn where_broadcasts_three_operands() {
        check_infer(
            "Where",
            16,
            &["bool[B, 1, S]", "f32[]", "f32[H, S]"],
            &[],
            &["f32[B, H, S]"],
        );
        check_infer(
            "Where",
            16,
            &["bool[?]", "f32[]", "f32[H]"],
            &[],
            &["f32[?]"],
        );
    }

    #[test]
    fn the_expand_idiom_of_torchscript_is_followed() {
        let operands = [
            "bool[3] = [0, 1, ?]",
            "i64[3] = [1, 1, 1]",
            "i64[3] = [B, -1, 1]",
        ];
        check_values("Where", 16, &operands, &[], "[B, 1, 1]");
    }

    /// Whatever decides, where both choices are one.
    #[test]
    fn a_choice_between_the_same_is_known() {
        let operands = ["bool[1]", "i64[2] = [B, 4]", "i64[2] = [B, 5]"];
        check_values("Where", 16, &operands, &[], "[B, ?]");
    }

    #[test]
    fn top_k_keeps_k_elements() {
        check_infer(
            "TopK",
            11,
            &["f32[B, V]", "i64[1] = [5]"],
            &[],
            &["f32[B, 5]", "i64[B, 5]"],
        );
        check_infer(
            "TopK",
            11,
            &["f32[B, V]", "i64[1]"],
            &[],
            &["f32[B, y.1]", "i64[B, y.1]"],
        );
        let k = [Attribute::int("k", 3)];
        check_infer("TopK", 1, &["f32[B, V]"], &k, &["f32[B, 3]", "i64[B, 3]"]);
    }

    #[test]
    fn sizes_that_depend_on_data_are_fresh() {
        check_infer("NonZero", 13, &["bool[B, S]"], &[], &["i64[2, y.1]"]);
        check_infer(
            "Compress",
            11,
            &["f32[B, S]", "bool[S]"],
            &[Attribute::int("axis", 1)],
            &["f32[B, y.1]"],
        );
        check_infer(
            "Unique",
            11,
            &["f32[B, S]"],
            &[],
            &["f32[y.0]", "i64[y.0]", "i64[B*S]", "i64[y.0]"],
        );
        check_infer(
            "NonMaxSuppression",
            11,
            &["f32[B, N, 4]", "f32[B, C, N]"],
            &[],
            &["i64[y.0, 3]"],
        );
        check_infer(
            "com.microsoft:Unique",
            1,
            &["f32[N]"],
            &[],
            &["f32[y.0]", "i64[N]", "i64[y.0]"],
        );
    }

    #[test]
    fn cumulative_operators_keep_the_shape() {
        check_infer("CumSum", 14, &["i64[B, S]", "i64[]"], &[], &["i64[B, S]"]);
    }
}
