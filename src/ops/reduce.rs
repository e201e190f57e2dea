//! Reductions over axes.

use super::arithmetic;
use super::cx::{InferCx, Outcome};
use super::grad;
use super::known::{Element, Known};
use super::registry::{Grad, OpDef, between, exactly, op};
use super::shapes;
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    op(
        "ReduceSum",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::sum),
    )
    .folds(|cx| fold(cx, arithmetic::add)),
    op(
        "ReduceSum",
        13,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::sum),
    )
    .folds(|cx| fold(cx, arithmetic::add)),
    op(
        "ReduceMean",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::mean),
    ),
    op(
        "ReduceMean",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::mean),
    ),
    op(
        "ReduceMax",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::extremum),
    )
    .folds(|cx| fold(cx, arithmetic::larger)),
    op(
        "ReduceMax",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::extremum),
    )
    .folds(|cx| fold(cx, arithmetic::larger)),
    op(
        "ReduceMin",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::extremum),
    )
    .folds(|cx| fold(cx, arithmetic::smaller)),
    op(
        "ReduceMin",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::extremum),
    )
    .folds(|cx| fold(cx, arithmetic::smaller)),
    op(
        "ReduceProd",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::prod),
    )
    .folds(|cx| fold(cx, arithmetic::multiply)),
    op(
        "ReduceProd",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::prod),
    )
    .folds(|cx| fold(cx, arithmetic::multiply)),
    op(
        "ReduceL1",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::l1),
    ),
    op(
        "ReduceL1",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::l1),
    ),
    op(
        "ReduceL2",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::l2),
    ),
    op(
        "ReduceL2",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::l2),
    ),
    op(
        "ReduceLogSum",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::log_sum),
    ),
    op(
        "ReduceLogSum",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::log_sum),
    ),
    op(
        "ReduceLogSumExp",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::log_sum_exp),
    ),
    op(
        "ReduceLogSumExp",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::log_sum_exp),
    ),
    op(
        "ReduceSumSquare",
        1,
        exactly(1),
        by_attribute,
        Grad::Rule(grad::reduce::sum_square),
    ),
    op(
        "ReduceSumSquare",
        18,
        between(1, 2),
        by_operand,
        Grad::Rule(grad::reduce::sum_square),
    ),
    op("ArgMax", 1, exactly(1), arg, Grad::Zero),
    op("ArgMin", 1, exactly(1), arg, Grad::Zero),
];

/// Which axes a reduction removes.
enum Axes {
    All,
    List(Vec<i64>),
    /// The operand that lists them is not known.
    Unknown,
}

/// `y = reduce(x)` over the attribute `axes`; all axes if it is absent.
fn by_attribute(cx: &mut InferCx<'_>) -> Outcome {
    let axes = match cx.ints("axes") {
        Some(axes) => Axes::List(axes.to_vec()),
        None => Axes::All,
    };
    reduce(cx, axes)
}

/// `y = reduce(x, axes)`; if `axes` is absent or empty, over all axes or, with
/// `noop_with_empty_axes`, over none.
fn by_operand(cx: &mut InferCx<'_>) -> Outcome {
    let axes = axes_operand(cx);
    reduce(cx, axes)
}

fn axes_operand(cx: &InferCx<'_>) -> Axes {
    let empty = if cx.flag("noop_with_empty_axes") {
        Axes::List(Vec::new())
    } else {
        Axes::All
    };
    if !cx.has(1) {
        return empty;
    }
    match cx.numbers(1) {
        Some(axes) if axes.is_empty() => empty,
        Some(axes) => Axes::List(axes),
        None => Axes::Unknown,
    }
}

fn reduce(cx: &mut InferCx<'_>, axes: Axes) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let keep = cx.int_or("keepdims", 1) != 0;
    let Some(dims) = cx.shape(0) else {
        match (axes, keep) {
            (Axes::All, false) => cx.set(0, dtype, Vec::new()),
            _ => cx.set_unranked(0, dtype),
        }
        return Ok(());
    };
    let reduced = match axes {
        Axes::All => (0..dims.len()).collect(),
        Axes::List(list) => shapes::axes(&list, dims.len())?,
        Axes::Unknown => {
            unknown_axes(cx, dtype, dims.len(), keep);
            return Ok(());
        }
    };
    let dims = without(dims, &reduced, keep);
    cx.set(0, dtype, dims);
    Ok(())
}

/// Axes that are not known: with `keepdims` at least the rank stays, and without it their number
/// tells the rank.
fn unknown_axes(cx: &mut InferCx<'_>, dtype: DType, rank: usize, keep: bool) {
    let removed = match cx.shape(1) {
        _ if keep => Some(0),
        Some([count]) => count.known().and_then(|count| usize::try_from(count).ok()),
        _ => None,
    };
    match removed.and_then(|removed| rank.checked_sub(removed)) {
        Some(rank) => {
            let dims = cx.fresh_shape(0, rank);
            cx.set(0, dtype, dims);
        }
        None => cx.set_unranked(0, dtype),
    }
}

fn without(dims: &[Dim], reduced: &[usize], keep: bool) -> Vec<Dim> {
    dims.iter()
        .enumerate()
        .filter_map(|(axis, dim)| match (reduced.contains(&axis), keep) {
            (false, _) => Some(dim.clone()),
            (true, true) => Some(Dim::from(1)),
            (true, false) => None,
        })
        .collect()
}

/// `y = argmax(x)` along `axis`, indices as i64.
fn arg(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, DType::I64);
        return Ok(());
    };
    let axis = shapes::axis(cx.int_or("axis", 0), dims.len())?;
    let dims = without(dims, &[axis], cx.int_or("keepdims", 1) != 0);
    cx.set(0, DType::I64, dims);
    Ok(())
}

/// Folds a reduction of a vector to one element.
fn fold(cx: &mut InferCx<'_>, combine: fn(&Element, &Element) -> Element) -> Option<()> {
    let x = cx.known(0)?;
    let Known { dims, elements, .. } = &*x;
    if dims.len() != 1 || cx.small_dims(0)?.iter().product::<i64>() != 1 {
        return None;
    }
    let (first, rest) = elements.split_first()?;
    if !rest.is_empty() && matches!(axes_operand(cx), Axes::List(list) if list.is_empty()) {
        return None;
    }
    let total = rest
        .iter()
        .fold(first.clone(), |total, x| combine(&total, x));
    cx.set_elements(0, vec![total])
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch, check_values};

    #[test]
    fn axes_are_an_attribute_first_and_an_operand_later() {
        let axes = [Attribute::ints("axes", [-1])];
        check_infer(
            "ReduceMean",
            13,
            &["f32[B, S, 64]"],
            &axes,
            &["f32[B, S, 1]"],
        );
        check_infer(
            "ReduceMean",
            18,
            &["f32[B, S, 64]", "i64[1] = [-1]"],
            &[],
            &["f32[B, S, 1]"],
        );
        check_infer(
            "ReduceSum",
            13,
            &["f32[B, S]", "i64[1] = [0]"],
            &[Attribute::int("keepdims", 0)],
            &["f32[S]"],
        );
        check_infer(
            "ReduceSum",
            11,
            &["f32[B, S]"],
            &[Attribute::int("keepdims", 0)],
            &["f32[]"],
        );
    }

    #[test]
    fn empty_axes_mean_all_or_none() {
        check_infer(
            "ReduceSum",
            13,
            &["f32[B, S]", "i64[0] = []"],
            &[],
            &["f32[1, 1]"],
        );
        let noop = [Attribute::int("noop_with_empty_axes", 1)];
        check_infer("ReduceSum", 13, &["f32[B, S]"], &noop, &["f32[B, S]"]);
    }

    #[test]
    fn unknown_axes_leave_the_rank() {
        check_infer(
            "ReduceSum",
            13,
            &["f32[B, S]", "i64[1]"],
            &[],
            &["f32[y.0, y.1]"],
        );
        let drop = [Attribute::int("keepdims", 0)];
        check_infer(
            "ReduceSum",
            13,
            &["f32[B, S]", "i64[1]"],
            &drop,
            &["f32[y.0]"],
        );
        check_infer(
            "ReduceSum",
            13,
            &["f32[B, S]", "i64[N]"],
            &drop,
            &["f32[?]"],
        );
        check_infer("ReduceSum", 13, &["f32[?]"], &drop, &["f32[]"]);
    }

    #[test]
    fn an_axis_that_is_not_there_is_refused() {
        check_mismatch(
            "ReduceMax",
            13,
            &["f32[B]"],
            &[Attribute::ints("axes", [1])],
            "axis 1",
        );
    }

    #[test]
    fn arg_max_gives_indices() {
        let attributes = [Attribute::int("axis", -1), Attribute::int("keepdims", 0)];
        check_infer("ArgMax", 13, &["f32[B, S, V]"], &attributes, &["i64[B, S]"]);
    }

    #[test]
    fn the_product_of_a_shape_is_followed() {
        let drop = [Attribute::int("keepdims", 0)];
        check_values("ReduceProd", 18, &["i64[3] = [B, S, 4]"], &drop, "4*B*S");
        check_values("ReduceSum", 13, &["i64[2] = [B, 4]"], &[], "[B + 4]");
    }
}
