//! Indexed reads and writes.

use super::cx::{InferCx, Outcome, mismatch};
use super::grad::{self, help};
use super::known::Element;
use super::registry::{Grad, OpDef, between, exactly, op};
use super::shapes;
use crate::ty::Dim;

pub(super) const OPS: &[OpDef] = &[
    op(
        "Gather",
        1,
        exactly(2),
        gather,
        Grad::Rule(grad::gather::gather),
    )
    .folds(fold_gather),
    op(
        "GatherElements",
        11,
        exactly(2),
        gather_elements,
        Grad::Rule(grad::gather::gather_elements),
    ),
    op(
        "GatherND",
        11,
        exactly(2),
        gather_nd,
        Grad::Rule(grad::gather::gather_nd),
    ),
    op("Scatter", 9, exactly(3), scatter, Grad::Missing(help::OLD)),
    op(
        "ScatterElements",
        11,
        exactly(3),
        scatter,
        Grad::Rule(grad::gather::scatter_elements),
    ),
    op(
        "ScatterND",
        11,
        exactly(3),
        scatter,
        Grad::Rule(grad::gather::scatter_nd),
    ),
    op(
        "TensorScatter",
        24,
        between(2, 3),
        scatter,
        Grad::Missing(help::OTHER),
    ),
    op("OneHot", 9, exactly(3), one_hot, Grad::Missing(help::OTHER)),
];

/// `y[…, i…, …] = x[…, indices[i…], …]`: the indices' axes take the place of `axis`.
fn gather(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let dims = match (cx.shape(0), cx.shape(1)) {
        (Some(data), Some(indices)) => {
            let axis = shapes::axis(cx.int_or("axis", 0), data.len())?;
            Some([&data[..axis], indices, &data[axis + 1..]].concat())
        }
        _ => None,
    };
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// Folds a read from a vector.
fn fold_gather(cx: &mut InferCx<'_>) -> Option<()> {
    let data = cx.known(0)?;
    let [size] = data.dims.as_slice() else {
        return None;
    };
    let indices = cx.known(1)?;
    let elements = indices
        .elements
        .iter()
        .map(|index| {
            let index = index.number()?;
            let at = usize::try_from(if index < 0 { index + size } else { index }).ok()?;
            data.elements.get(at).cloned()
        })
        .map(|element| element.unwrap_or(Element::Unknown))
        .collect();
    cx.set_elements(0, elements)
}

/// `y = x` read at `indices` along one axis: the indices' shape.
fn gather_elements(cx: &mut InferCx<'_>) -> Outcome {
    if let Some(dtype) = cx.dtype(0) {
        cx.same_shape_as(0, 1, dtype);
    }
    Ok(())
}

/// `y[b…, i…, …] = x[b…, indices[b…, i…, :], …]` with `batch_dims` axes `b`: `indices` without
/// its last axis, then the axes of `x` that are not indexed.
fn gather_nd(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let (Some(data), Some(indices)) = (cx.shape(0), cx.shape(1)) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let Some((depth, outer)) = indices.split_last() else {
        return mismatch!("indices without axes");
    };
    let batch = usize::try_from(cx.int_or("batch_dims", 0)).unwrap_or(usize::MAX);
    let Some(depth) = depth.known() else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let indexed = usize::try_from(depth)
        .ok()
        .and_then(|depth| depth.checked_add(batch))
        .filter(|indexed| *indexed <= data.len());
    let Some(indexed) = indexed else {
        return mismatch!("indices of depth {depth} into {} axes", data.len());
    };
    cx.set(0, dtype, [outer, &data[indexed..]].concat());
    Ok(())
}

/// `y = x` with elements replaced: the operand's type.
fn scatter(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// `y = onehot(indices)`: the indices' shape with an axis of `depth` elements at `axis`.
fn one_hot(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(2) else {
        return Ok(());
    };
    let Some(indices) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let axis = shapes::axis(cx.int_or("axis", -1), indices.len() + 1)?;
    let depth = cx.known(1).and_then(|known| known.single()?.int().cloned());
    let depth = depth.unwrap_or_else(|| cx.fresh(0, axis));
    let dims: Vec<Dim> = [&indices[..axis], &[depth], &indices[axis..]].concat();
    cx.set(0, dtype, dims);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch, check_values};

    #[test]
    fn gather_puts_the_indices_axes_in_place_of_its_axis() {
        check_infer(
            "Gather",
            13,
            &["f32[V, 64]", "i64[B, S]"],
            &[],
            &["f32[B, S, 64]"],
        );
        let last = [Attribute::int("axis", -1)];
        check_infer(
            "Gather",
            13,
            &["f32[B, S, 4]", "i64[]"],
            &last,
            &["f32[B, S]"],
        );
        check_infer("Gather", 13, &["f32[?]", "i64[]"], &[], &["f32[?]"]);
        check_mismatch("Gather", 13, &["f32[]", "i64[]"], &[], "axis 0");
    }

    #[test]
    fn elements_of_shapes_are_followed() {
        check_values(
            "Gather",
            13,
            &["i64[3] = [B, S, 4]", "i64[] = -2"],
            &[],
            "S",
        );
        check_values(
            "Gather",
            13,
            &["i64[3] = [B, S, 4]", "i64[2] = [2, 0]"],
            &[],
            "[4, B]",
        );
        check_values(
            "Gather",
            13,
            &["i64[1] = [B]", "i64[2] = [0, 7]"],
            &[],
            "[B, ?]",
        );
    }

    #[test]
    fn gather_elements_has_the_indices_shape() {
        check_infer(
            "GatherElements",
            13,
            &["f16[B, S]", "i64[B, 1]"],
            &[],
            &["f16[B, 1]"],
        );
    }

    #[test]
    fn gather_nd_indexes_leading_axes() {
        check_infer(
            "GatherND",
            13,
            &["f32[B, S, 8]", "i64[N, 2]"],
            &[],
            &["f32[N, 8]"],
        );
        let batch = [Attribute::int("batch_dims", 1)];
        check_infer(
            "GatherND",
            13,
            &["f32[B, S, 8]", "i64[B, N, 1]"],
            &batch,
            &["f32[B, N, 8]"],
        );
        check_infer(
            "GatherND",
            13,
            &["f32[B, S, 8]", "i64[N, D]"],
            &[],
            &["f32[?]"],
        );
        check_mismatch(
            "GatherND",
            13,
            &["f32[B]", "i64[N, 2]"],
            &[],
            "depth 2 into 1",
        );
    }

    #[test]
    fn scatter_keeps_the_type() {
        check_infer(
            "ScatterND",
            16,
            &["f32[B, S]", "i64[N, 2]", "f32[N]"],
            &[],
            &["f32[B, S]"],
        );
    }

    #[test]
    fn one_hot_adds_an_axis() {
        check_infer(
            "OneHot",
            11,
            &["i64[B, S]", "i64[] = 10", "f32[2]"],
            &[],
            &["f32[B, S, 10]"],
        );
        let first = [Attribute::int("axis", 0)];
        check_infer(
            "OneHot",
            11,
            &["i64[B]", "i64[]", "f32[2]"],
            &first,
            &["f32[y.0, B]"],
        );
    }
}
