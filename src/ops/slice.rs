//! Slices of symbolic axes.
//!
//! Two things are taken for granted, because exporters rely on them and the sizes would say
//! nothing otherwise: a symbolic axis that is sliced has at least one element, and a symbolic
//! bound lies within an axis of known size (a table of positions is as long as the sequences that
//! are fed).

use super::cx::{InferCx, Mismatch, Outcome};
use super::known::Element;
use super::shapes;
use crate::ty::Dim;

/// From here on a bound means "to the end": exporters write the largest i32 or i64.
pub(super) const OPEN: i64 = i32::MAX as i64;

/// The bounds of one axis; `None` where a bound is not known.
struct Range {
    axis: usize,
    start: Option<Dim>,
    end: Option<Dim>,
    step: Option<i64>,
}

/// `y = x[starts:ends:steps]` on `axes`, as attributes before opset 10, as operands since.
pub(super) fn slice(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let Some(ranges) = ranges(cx, dims.len())? else {
        let dims = cx.fresh_shape(0, dims.len());
        cx.set(0, dtype, dims);
        return Ok(());
    };
    let mut sliced = dims.to_vec();
    for range in ranges {
        let axis = range.axis;
        sliced[axis] = length(&dims[axis], &range).unwrap_or_else(|| cx.fresh(0, axis));
    }
    cx.set(0, dtype, sliced);
    Ok(())
}

/// Every sliced axis with its bounds; `None` if not even the axes are known.
fn ranges(cx: &InferCx<'_>, rank: usize) -> Result<Option<Vec<Range>>, Mismatch> {
    let attribute = |name: &str| {
        cx.ints(name)
            .map(|list| list.iter().map(|n| Some(Dim::from(*n))).collect::<Vec<_>>())
    };
    let operand = |slot: usize| {
        let known = cx.known(slot)?;
        Some(
            known
                .elements
                .iter()
                .map(|e| e.int().cloned())
                .collect::<Vec<_>>(),
        )
    };
    let by_attribute = cx.opset < 10;
    let (starts, ends) = match by_attribute {
        true => (attribute("starts"), attribute("ends")),
        false => (operand(1), operand(2)),
    };
    let count = [&starts, &ends].into_iter().flatten().map(Vec::len).next();
    let axes = match (by_attribute, cx.has(3)) {
        (true, _) => cx.ints("axes").map(<[i64]>::to_vec),
        (false, true) => cx.numbers(3),
        (false, false) => None,
    };
    let axes = match (axes, count) {
        (Some(axes), _) => axes,
        (None, _) if !by_attribute && cx.has(3) => return Ok(None),
        (None, Some(count)) => (0..count as i64).collect(),
        (None, None) => return Ok(None),
    };
    let has_steps = !by_attribute && cx.has(4);
    let steps = if has_steps { operand(4) } else { None };
    let bound = |list: &Option<Vec<Option<Dim>>>, at: usize| list.as_ref()?.get(at)?.clone();
    let mut ranges = Vec::with_capacity(axes.len());
    for (at, axis) in axes.into_iter().enumerate() {
        ranges.push(Range {
            axis: shapes::axis(axis, rank)?,
            start: bound(&starts, at),
            end: bound(&ends, at),
            step: match has_steps {
                true => bound(&steps, at).and_then(|step| step.known()),
                false => Some(1),
            },
        });
    }
    Ok(Some(ranges))
}

/// How many elements a range takes of an axis; `None` if it cannot be told.
fn length(size: &Dim, range: &Range) -> Option<Dim> {
    let (start, end) = (range.start.as_ref()?, range.end.as_ref()?);
    match range.step? {
        0 => None,
        step if step > 0 => {
            let (start, end) = (bound(size, start)?, bound(size, end)?);
            let span = at_least_zero(end - start);
            Some(if step == 1 {
                span
            } else {
                shapes::ceil_div(&span, step)
            })
        }
        step => backwards(size, start.known()?, end.known()?, step),
    }
}

/// A bound as an offset between 0 and the size, for a forward range.
fn bound(size: &Dim, bound: &Dim) -> Option<Dim> {
    if let (Some(size), Some(bound)) = (size.known(), bound.known()) {
        let from_start = if bound < 0 {
            bound.saturating_add(size)
        } else {
            bound
        };
        return Some(Dim::from(from_start.clamp(0, size.max(0))));
    }
    match bound.known() {
        Some(n) if n >= OPEN => Some(size.clone()),
        Some(n) if n < -OPEN => Some(Dim::from(0)),
        // A sliced axis has at least one element.
        Some(1) => Some(Dim::from(1)),
        Some(-1) => Some(size.clone() - Dim::from(1)),
        Some(n) if n < 0 => Some(at_least_zero(size.clone() + Dim::from(n))),
        Some(_) => Some(bound.smaller(size)),
        None if bound.lower_bound().is_none_or(|least| least < 0) => from_either_end(size, bound),
        // Symbolic bounds lie within tables.
        None if size.known().is_some() => Some(bound.clone()),
        None => Some(bound.smaller(size)),
    }
}

/// A symbolic bound that is certainly negative counts from the end; one of unknown sign is not
/// followed.
fn from_either_end(size: &Dim, bound: &Dim) -> Option<Dim> {
    let negative = (-bound.clone())
        .lower_bound()
        .is_some_and(|least| least >= 0);
    negative.then(|| at_least_zero(size.clone() + bound.clone()))
}

fn at_least_zero(dim: Dim) -> Dim {
    // `S - 1` is not negative: an axis of size S has at least one element.
    if dim.lower_bound().is_some_and(|bound| bound >= -1) && dim.known().is_none() {
        return dim;
    }
    dim.larger(&Dim::from(0))
}

/// The length of a backward range with constant bounds.
fn backwards(size: &Dim, start: i64, end: i64, step: i64) -> Option<Dim> {
    match size.known() {
        Some(size) => {
            let from_start = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
            let start = from_start(start).clamp(-1, size - 1);
            let end = from_start(end).clamp(-1, size - 1);
            let span = (start - end).max(0);
            Some(shapes::ceil_div(&Dim::from(span), step.checked_neg()?))
        }
        // The whole axis.
        None if (start == -1 || start >= OPEN) && end <= -OPEN => {
            Some(shapes::ceil_div(size, step.checked_neg()?))
        }
        None => None,
    }
}

/// Folds a slice of a vector by numbers.
pub(super) fn fold_slice(cx: &mut InferCx<'_>) -> Option<()> {
    let x = cx.known(0)?;
    let size = match x.dims.as_slice() {
        [size] => *size,
        _ => return None,
    };
    let ranges = ranges(cx, 1).ok()??;
    let [range] = ranges.as_slice() else {
        return None;
    };
    let (start, step) = (range.start.as_ref()?.known()?, range.step?);
    let count = *cx.small_dims(0)?.first()?;
    let from_start = if start < 0 {
        start.saturating_add(size)
    } else {
        start
    };
    let first = match step > 0 {
        true => from_start.clamp(0, size),
        false => from_start.clamp(-1, size - 1),
    };
    let elements = (0..count)
        .map(|index| {
            let at = usize::try_from(first.checked_add(index.checked_mul(step)?)?).ok()?;
            x.elements.get(at).cloned()
        })
        .collect::<Option<Vec<Element>>>()?;
    cx.set_elements(0, elements)
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch, check_values};

    #[track_caller]
    fn check(x: &str, start: &str, end: &str, axis: i64, step: i64, expected: &str) {
        let operands = [
            x,
            &format!("i64[1] = [{start}]"),
            &format!("i64[1] = [{end}]"),
            &format!("i64[1] = [{axis}]"),
            &format!("i64[1] = [{step}]"),
        ];
        check_infer("Slice", 13, &operands, &[], &[expected]);
    }

    const END: &str = "9223372036854775807";

    #[test]
    fn known_axes_are_clamped() {
        check("f32[10]", "2", "5", 0, 1, "f32[3]");
        check("f32[10]", "-3", END, 0, 1, "f32[3]");
        check("f32[10]", "0", END, 0, 3, "f32[4]");
        check("f32[10]", "8", "3", 0, 1, "f32[0]");
        check("f32[10]", "-1", "-9223372036854775808", 0, -1, "f32[10]");
        check("f32[10]", "8", "2", 0, -2, "f32[3]");
        check("f32[2, 10]", "0", "5", -1, 1, "f32[2, 5]");
    }

    #[test]
    fn symbolic_axes_are_followed() {
        check("f32[S]", "0", END, 0, 1, "f32[S]");
        check("f32[S]", "1", END, 0, 1, "f32[S - 1]");
        check("f32[S]", "0", "-1", 0, 1, "f32[S - 1]");
        check("f32[S]", "-1", END, 0, 1, "f32[1]");
        check("f32[S]", "0", "1", 0, 1, "f32[1]");
        check("f32[S]", "0", "5", 0, 1, "f32[min(5, S)]");
        check("f32[S]", "0", END, 0, 2, "f32[floor(S + 1 / 2)]");
        check("f32[S]", "-1", "-9223372036854775807", 0, -1, "f32[S]");
    }

    #[test]
    fn symbolic_bounds_lie_within_tables() {
        check("f32[1024]", "P", "P + S", 0, 1, "f32[S]");
        check("f32[T]", "0", "S", 0, 1, "f32[min(S, T)]");
        check("f32[P + S]", "0", "S", 0, 1, "f32[S]");
        check("f32[T]", "0", "?", 0, 1, "f32[y.0]");
    }

    #[test]
    fn bounds_are_attributes_before_opset_10() {
        let attributes = [
            Attribute::ints("starts", [1]),
            Attribute::ints("ends", [3]),
            Attribute::ints("axes", [1]),
        ];
        check_infer("Slice", 9, &["f32[B, 4]"], &attributes, &["f32[B, 2]"]);
        check_infer(
            "Slice",
            10,
            &["f32[B, 4]", "i64[1]", "i64[1]", "i64[1]"],
            &[],
            &["f32[y.0, y.1]"],
        );
    }

    #[test]
    fn an_axis_that_is_not_there_is_refused() {
        let operands = ["f32[B]", "i64[1] = [0]", "i64[1] = [1]", "i64[1] = [3]"];
        check_mismatch("Slice", 13, &operands, &[], "axis 3");
    }

    #[test]
    fn slices_of_shapes_are_followed() {
        let shape = "i64[4] = [B, S, 4, 8]";
        check_values(
            "Slice",
            13,
            &[shape, "i64[1] = [-2]", "i64[1] = [100]"],
            &[],
            "[4, 8]",
        );
        let reversed = [
            shape,
            "i64[1] = [-1]",
            "i64[1] = [-100]",
            "i64[1] = [0]",
            "i64[1] = [-1]",
        ];
        check_values("Slice", 13, &reversed, &[], "[8, 4, S, B]");
    }
}
