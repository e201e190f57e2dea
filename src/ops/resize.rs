//! Resampling.

use super::cx::{InferCx, Outcome, mismatch};
use super::known::Element;
use super::shape::target_shape;
use super::shapes;
use crate::graph::AttributeValue;
use crate::ty::Dim;

/// `y = upsample(x, scales)`: `floor(dim · scale)`; scales are an attribute before opset 9.
pub(super) fn upsample(cx: &mut InferCx<'_>) -> Outcome {
    let scales = match cx.attribute("scales") {
        Some(AttributeValue::Floats(scales)) => Some(
            scales
                .iter()
                .map(|scale| Element::from_float(f64::from(*scale)))
                .collect(),
        ),
        _ => elements(cx, 1),
    };
    resample(cx, scales, None)
}

/// `y = resize(x, roi, scales, sizes)`: the stated sizes, or `floor(dim · scale)`, on `axes`.
pub(super) fn resize(cx: &mut InferCx<'_>) -> Outcome {
    let sizes = cx.has(3).then(|| target_shape(cx, 3)).flatten();
    let stretches = cx
        .string("keep_aspect_ratio_policy")
        .is_none_or(|policy| policy == "stretch");
    let crops = cx.string("coordinate_transformation_mode") == Some("tf_crop_and_resize");
    if !stretches || crops {
        return resample(cx, None, None);
    }
    let scales = elements(cx, 2).filter(|scales| !scales.is_empty());
    resample(cx, scales, sizes)
}

fn elements(cx: &InferCx<'_>, operand: usize) -> Option<Vec<Element>> {
    cx.known(operand).map(|known| known.elements.clone())
}

fn resample(
    cx: &mut InferCx<'_>,
    scales: Option<Vec<Element>>,
    sizes: Option<Vec<Option<Dim>>>,
) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(dims) = cx.shape(0) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let axes = match cx.ints("axes") {
        Some(list) => list
            .iter()
            .map(|axis| shapes::axis(*axis, dims.len()))
            .collect::<Result<Vec<_>, _>>()?,
        None => (0..dims.len()).collect(),
    };
    let stated = sizes
        .as_ref()
        .map(Vec::len)
        .or(scales.as_ref().map(Vec::len));
    if stated.is_some_and(|count| count != axes.len()) {
        return mismatch!(
            "{} axes are resized, the tensor has {}",
            stated.unwrap_or(0),
            axes.len()
        );
    }
    let mut resized = dims.to_vec();
    for (at, axis) in axes.into_iter().enumerate() {
        let size = match (&sizes, &scales) {
            (Some(sizes), _) => sizes[at].clone(),
            (None, Some(scales)) => scaled(&dims[axis], &scales[at]),
            (None, None) => None,
        };
        resized[axis] = size.unwrap_or_else(|| cx.fresh(0, axis));
    }
    cx.set(0, dtype, resized);
    Ok(())
}

/// `floor(dim · scale)`.
fn scaled(dim: &Dim, scale: &Element) -> Option<Dim> {
    if let Some(factor) = scale.number() {
        return Some(dim.clone() * Dim::from(factor));
    }
    let scale = scale.float().filter(|scale| *scale > 0.0)?;
    match dim.known() {
        // ONNX Runtime multiplies in single precision.
        Some(size) => Some(Dim::from((size as f32 * scale as f32).floor() as i64)),
        None => {
            let inverse = 1.0 / scale;
            (inverse.fract() == 0.0 && inverse < 1e6)
                .then(|| dim.floor_div(&Dim::from(inverse as i64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{Attribute, AttributeValue};
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn sizes_win_over_scales() {
        let sizes = ["f32[N, 3, H, W]", "_", "_", "i64[4] = [N, 3, 7, 9]"];
        check_infer("Resize", 13, &sizes, &[], &["f32[N, 3, 7, 9]"]);
        let some = ["f32[N, 3, H, W]", "_", "_", "i64[2] = [7, 9]"];
        let axes = [Attribute::ints("axes", [2, 3])];
        check_infer("Resize", 18, &some, &axes, &["f32[N, 3, 7, 9]"]);
    }

    #[test]
    fn scales_multiply_and_round_down() {
        let scales = ["f32[N, 3, H, 5]", "_", "f32[4] = [1, 1, 2, 0.5]"];
        check_infer("Resize", 13, &scales, &[], &["f32[N, 3, 2*H, 2]"]);
        let halves = ["f32[N, H]", "f32[2] = [1, 0.5]"];
        check_infer("Resize", 10, &halves, &[], &["f32[N, floor(H / 2)]"]);
        let attribute = Attribute::new("scales", AttributeValue::Floats(vec![1.0, 2.0]));
        check_infer(
            "Upsample",
            7,
            &["f32[N, H]"],
            &[attribute],
            &["f32[N, 2*H]"],
        );
        check_infer(
            "Resize",
            13,
            &["f32[N, H]", "_", "f32[2]"],
            &[],
            &["f32[y.0, y.1]"],
        );
    }

    #[test]
    fn a_wrong_number_of_sizes_is_refused() {
        let sizes = ["f32[N, H]", "_", "_", "i64[1] = [7]"];
        check_mismatch("Resize", 13, &sizes, &[], "1 axes are resized");
    }
}
