//! Split.

use super::cx::{InferCx, Outcome, mismatch};
use super::known::Element;
use super::shape::vector;
use super::shapes;
use crate::ty::{Dim, Proof};

/// `y0, y1, … = x` cut along `axis` into parts of the sizes in `split`; equal parts if it is
/// absent, of which from opset 18 on the last may be smaller.
pub(super) fn split(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let parts = cx.result_count();
    let Some(dims) = cx.shape(0) else {
        for part in 0..parts {
            cx.set_unranked(part, dtype);
        }
        return Ok(());
    };
    let axis = shapes::axis(cx.int_or("axis", 0), dims.len())?;
    let sizes = match stated_sizes(cx) {
        Some(sizes) => {
            if sizes.len() != parts {
                return mismatch!("{} sizes for {parts} parts", sizes.len());
            }
            if let Some(total) = sizes.iter().cloned().sum_known()
                && total.compare(&dims[axis]) == Proof::Different
            {
                return mismatch!("parts of {total} in all from an axis of {}", dims[axis]);
            }
            sizes
        }
        None if cx.has(1) => vec![None; parts],
        None => equal_parts(&dims[axis], parts),
    };
    for (part, size) in sizes.into_iter().enumerate() {
        let mut dims = dims.to_vec();
        dims[axis] = size.unwrap_or_else(|| cx.fresh(part, axis));
        cx.set(part, dtype, dims);
    }
    Ok(())
}

fn stated_sizes(cx: &InferCx<'_>) -> Option<Vec<Option<Dim>>> {
    if let Some(known) = cx.known(1) {
        return Some(known.elements.iter().map(|e| e.int().cloned()).collect());
    }
    let sizes = cx.ints("split").filter(|_| cx.opset < 13)?;
    Some(sizes.iter().map(|n| Some(Dim::from(*n))).collect())
}

fn equal_parts(size: &Dim, parts: usize) -> Vec<Option<Dim>> {
    let count = parts as i64;
    let part = match size.known() {
        Some(_) => shapes::ceil_div(size, count),
        // Without a remainder, every part has the same size.
        None => {
            let part = size.floor_div(&Dim::from(count));
            if (part.clone() * Dim::from(count)).compare(size) != Proof::Equal {
                return vec![None; parts];
            }
            part
        }
    };
    let last = size.clone() - part.clone() * Dim::from(count - 1);
    let mut sizes = vec![Some(part); parts];
    if let Some(slot) = sizes.last_mut() {
        *slot = Some(last.larger(&Dim::from(0)));
    }
    sizes
}

trait SumKnown {
    /// The sum, if every summand is known.
    fn sum_known(self) -> Option<Dim>;
}

impl<I: Iterator<Item = Option<Dim>>> SumKnown for I {
    fn sum_known(mut self) -> Option<Dim> {
        self.try_fold(Dim::from(0), |sum, dim| Some(sum + dim?))
    }
}

/// Folds a split of a vector.
pub(super) fn fold_split(cx: &mut InferCx<'_>) -> Option<()> {
    let x = cx.known(0)?;
    let mut rest = vector(&x)?;
    for part in 0..cx.result_count() {
        let count = usize::try_from(*cx.small_dims(part)?.first()?).ok()?;
        let (elements, behind) = rest.split_at_checked(count)?;
        let elements: Vec<Element> = elements.to_vec();
        rest = behind;
        let _ = cx.set_elements(part, elements);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch, check_values};

    #[test]
    fn sizes_are_an_attribute_first_and_an_operand_later() {
        let axis = Attribute::int("axis", -1);
        let sizes = [axis.clone(), Attribute::ints("split", [64, 32])];
        check_infer(
            "Split",
            11,
            &["f32[B, 96]"],
            &sizes,
            &["f32[B, 64]", "f32[B, 32]"],
        );
        let operands = ["f32[B, 96]", "i64[2] = [64, 32]"];
        check_infer(
            "Split",
            13,
            &operands,
            &[axis],
            &["f32[B, 64]", "f32[B, 32]"],
        );
        check_infer(
            "Split",
            13,
            &["f32[N]", "i64[2]"],
            &[],
            &["f32[y.0]", "f32[y.1.0]"],
        );
    }

    #[test]
    fn without_sizes_the_parts_are_equal() {
        check_infer("Split", 13, &["f32[6]"], &[], &["f32[3]", "f32[3]"]);
        check_infer(
            "Split",
            18,
            &["f32[7]"],
            &[],
            &["f32[3]", "f32[3]", "f32[1]"],
        );
        check_infer("Split", 13, &["f32[N + N]"], &[], &["f32[N]", "f32[N]"]);
        check_infer("Split", 13, &["f32[N]"], &[], &["f32[y.0]", "f32[y.1.0]"]);
    }

    #[test]
    fn sizes_must_add_up() {
        check_mismatch("Split", 13, &["f32[6]", "i64[1] = [5]"], &[], "parts of 5");
        check_mismatch(
            "Split",
            13,
            &["f32[6]", "i64[2] = [3, 3]"],
            &[],
            "2 sizes for 1 parts",
        );
    }

    #[test]
    fn parts_of_shapes_are_followed() {
        check_values(
            "Split",
            13,
            &["i64[2] = [B, S]", "i64[1] = [2]"],
            &[],
            "[B, S]",
        );
    }
}
