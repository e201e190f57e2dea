//! Operators that make tensors: constants, ranges, random numbers.

use super::cx::{InferCx, Outcome};
use super::grad::help;
use super::known::{Element, Known, MAX_ELEMENTS};
use super::registry::{Grad, OpDef, exactly, op};
use super::shape::target_shape;
use super::shapes;
use crate::graph::{AttributeValue, Tensor};
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    op("Constant", 1, exactly(0), constant, Grad::Zero).folds(fold_constant),
    op(
        "ConstantOfShape",
        9,
        exactly(1),
        constant_of_shape,
        Grad::Zero,
    )
    .folds(fold_constant_of_shape),
    op("Range", 11, exactly(3), range, Grad::Missing(help::OTHER)).folds(fold_range),
    op("EyeLike", 9, exactly(1), like, Grad::Zero),
    op("RandomNormal", 1, exactly(0), random, Grad::Zero),
    op("RandomUniform", 1, exactly(0), random, Grad::Zero),
    op("RandomNormalLike", 1, exactly(1), like, Grad::Zero),
    op("RandomUniformLike", 1, exactly(1), like, Grad::Zero),
    op("Bernoulli", 15, exactly(1), like, Grad::Zero),
    op("Multinomial", 7, exactly(1), multinomial, Grad::Zero),
];

/// The value that one of the attributes states.
fn constant(cx: &mut InferCx<'_>) -> Outcome {
    if let Some(AttributeValue::Tensor(tensor)) = cx.attribute("value") {
        let ty = tensor.ty();
        cx.set_maybe(0, ty.dtype, ty.shape.map(|shape| shape.0));
        return Ok(());
    }
    let attributes = [
        "value_int",
        "value_float",
        "value_string",
        "value_ints",
        "value_floats",
        "value_strings",
    ];
    let found = attributes.iter().find_map(|name| cx.attribute(name));
    let vector = |count: usize| vec![Dim::from(count as i64)];
    let (dtype, dims) = match found {
        Some(AttributeValue::Int(_)) => (DType::I64, Vec::new()),
        Some(AttributeValue::Ints(list)) => (DType::I64, vector(list.len())),
        Some(AttributeValue::Float(_)) => (DType::F32, Vec::new()),
        Some(AttributeValue::Floats(list)) => (DType::F32, vector(list.len())),
        Some(AttributeValue::String(_)) => (DType::String, Vec::new()),
        Some(AttributeValue::Strings(list)) => (DType::String, vector(list.len())),
        _ => return Ok(()),
    };
    cx.set(0, dtype, dims);
    Ok(())
}

fn fold_constant(cx: &mut InferCx<'_>) -> Option<()> {
    let int = |value: &i64| Element::Int(Dim::from(*value));
    let float = |value: &f32| Element::from_float(f64::from(*value));
    if let Some(AttributeValue::Tensor(tensor)) = cx.attribute("value") {
        let elements = Known::from_tensor(tensor)?.elements;
        return cx.set_elements(0, elements);
    }
    let names = ["value_int", "value_ints", "value_float", "value_floats"];
    let elements = match names.iter().find_map(|name| cx.attribute(name))? {
        AttributeValue::Int(value) => vec![int(value)],
        AttributeValue::Ints(list) if list.len() <= MAX_ELEMENTS => list.iter().map(int).collect(),
        AttributeValue::Float(value) => vec![float(value)],
        AttributeValue::Floats(list) if list.len() <= MAX_ELEMENTS => {
            list.iter().map(float).collect()
        }
        _ => return None,
    };
    cx.set_elements(0, elements)
}

/// `y = value` everywhere, in the shape that the operand holds.
fn constant_of_shape(cx: &mut InferCx<'_>) -> Outcome {
    let dtype = fill(cx).map_or(DType::F32, |tensor| tensor.dtype);
    let dims = target_shape(cx, 0).map(|target| {
        target
            .into_iter()
            .enumerate()
            .map(|(axis, dim)| dim.unwrap_or_else(|| cx.fresh(0, axis)))
            .collect()
    });
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

fn fill<'a>(cx: &InferCx<'a>) -> Option<&'a Tensor> {
    match cx.attribute("value") {
        Some(AttributeValue::Tensor(tensor)) => Some(tensor),
        _ => None,
    }
}

fn fold_constant_of_shape(cx: &mut InferCx<'_>) -> Option<()> {
    let element = match fill(cx) {
        Some(tensor) => Known::from_tensor(tensor)?.single()?.clone(),
        None => Element::Int(Dim::from(0)),
    };
    let count: i64 = cx.small_dims(0)?.iter().product();
    cx.set_elements(0, vec![element; count as usize])
}

/// `y = [start, start + delta, …]` below `limit`: `max(0, ceil((limit - start) / delta))` elements.
fn range(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = (0..3).find_map(|operand| cx.dtype(operand)) else {
        return Ok(());
    };
    let count = range_length(cx).unwrap_or_else(|| cx.fresh(0, 0));
    cx.set(0, dtype, vec![count]);
    Ok(())
}

fn range_length(cx: &InferCx<'_>) -> Option<Dim> {
    let (start, limit, delta) = (cx.known(0)?, cx.known(1)?, cx.known(2)?);
    let (start, limit, delta) = (start.single()?, limit.single()?, delta.single()?);
    if let (Some(start), Some(limit), Some(delta)) = (start.float(), limit.float(), delta.float()) {
        let count = ((limit - start) / delta).ceil().max(0.0);
        return (count < 9e15).then_some(Dim::from(count as i64));
    }
    let span = limit.int()?.clone() - start.int()?.clone();
    let count = match delta.number()? {
        0 => return None,
        delta if delta > 0 => shapes::ceil_div(&span, delta),
        delta => shapes::ceil_div(&-span, delta.checked_neg()?),
    };
    Some(count.larger(&Dim::from(0)))
}

fn fold_range(cx: &mut InferCx<'_>) -> Option<()> {
    let count = *cx.small_dims(0)?.first()?;
    let (start, delta) = (cx.known(0)?, cx.known(2)?);
    let (start, delta) = (start.single()?.int()?, delta.single()?.int()?);
    let elements = (0..count)
        .map(|index| Element::bounded(start.clone() + delta.clone() * Dim::from(index)))
        .collect();
    cx.set_elements(0, elements)
}

/// A tensor in the operand's shape, of the type `dtype` if it is stated.
fn like(cx: &mut InferCx<'_>) -> Outcome {
    if let Some(dtype) = cx.dtype_attribute("dtype").or(cx.dtype(0)) {
        cx.same_shape_as(0, 0, dtype);
    }
    Ok(())
}

/// Random numbers in the shape of the attribute.
fn random(cx: &mut InferCx<'_>) -> Outcome {
    let dtype = cx.dtype_attribute("dtype").unwrap_or(DType::F32);
    let dims = cx
        .ints("shape")
        .map(|dims| dims.iter().map(|n| Dim::from(*n)).collect());
    cx.set_maybe(0, dtype, dims);
    Ok(())
}

/// `sample_size` draws for every row.
fn multinomial(cx: &mut InferCx<'_>) -> Outcome {
    let dtype = cx.dtype_attribute("dtype").unwrap_or(DType::I32);
    let rows = match cx.shape(0) {
        Some([rows, _]) => rows.clone(),
        _ => cx.fresh(0, 0),
    };
    let draws = Dim::from(cx.int_or("sample_size", 1));
    cx.set(0, dtype, vec![rows, draws]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::{Attribute, AttributeValue, Tensor};
    use crate::ops::check::{check_infer, check_values};

    #[test]
    fn a_constant_is_what_its_attribute_says() {
        let value = [Attribute::tensor("value", Tensor::from_i64(&[2], &[3, -1]))];
        check_infer("Constant", 13, &[], &value, &["i64[2]"]);
        check_values("Constant", 13, &[], &value, "[3, -1]");
        check_infer(
            "Constant",
            13,
            &[],
            &[Attribute::int("value_int", 3)],
            &["i64[]"],
        );
        check_values(
            "Constant",
            13,
            &[],
            &[Attribute::ints("value_ints", [3, 4])],
            "[3, 4]",
        );
        let floats = [Attribute::new(
            "value_floats",
            AttributeValue::Floats(vec![0.5]),
        )];
        check_infer("Constant", 13, &[], &floats, &["f32[1]"]);
        check_infer("Constant", 13, &[], &[], &["_"]);
    }

    #[test]
    fn constant_of_shape_has_the_shape_it_is_given() {
        check_infer(
            "ConstantOfShape",
            9,
            &["i64[2] = [B, 4]"],
            &[],
            &["f32[B, 4]"],
        );
        check_infer("ConstantOfShape", 9, &["i64[2]"], &[], &["f32[y.0, y.1]"]);
        check_infer("ConstantOfShape", 9, &["i64[N]"], &[], &["f32[?]"]);
        let value = [Attribute::tensor("value", Tensor::from_i64(&[1], &[7]))];
        check_infer("ConstantOfShape", 9, &["i64[0] = []"], &value, &["i64[]"]);
        check_values("ConstantOfShape", 9, &["i64[1] = [3]"], &value, "[7, 7, 7]");
    }

    #[test]
    fn a_range_counts_its_steps() {
        check_infer(
            "Range",
            11,
            &["i64[] = 0", "i64[] = S", "i64[] = 1"],
            &[],
            &["i64[S]"],
        );
        check_infer(
            "Range",
            11,
            &["i64[] = P", "i64[] = P + S", "i64[] = 1"],
            &[],
            &["i64[S]"],
        );
        check_infer(
            "Range",
            11,
            &["i64[] = 0", "i64[] = 10", "i64[] = 3"],
            &[],
            &["i64[4]"],
        );
        check_infer(
            "Range",
            11,
            &["i64[] = 5", "i64[] = 0", "i64[] = -1"],
            &[],
            &["i64[5]"],
        );
        check_infer(
            "Range",
            11,
            &["f32[] = 0", "f32[] = 1", "f32[] = 0.25"],
            &[],
            &["f32[4]"],
        );
        check_infer(
            "Range",
            11,
            &["i64[]", "i64[] = S", "i64[] = 1"],
            &[],
            &["i64[y.0]"],
        );
        check_infer(
            "Range",
            11,
            &["i64[] = 0", "i64[] = S", "i64[] = 0"],
            &[],
            &["i64[y.0]"],
        );
        check_values(
            "Range",
            11,
            &["i64[] = S", "i64[] = S + 2", "i64[] = 1"],
            &[],
            "[S, S + 1]",
        );
    }

    #[test]
    fn tensors_like_another_take_its_shape() {
        check_infer(
            "EyeLike",
            9,
            &["i64[N, N]"],
            &[Attribute::int("dtype", 1)],
            &["f32[N, N]"],
        );
        check_infer("RandomNormalLike", 1, &["f16[N]"], &[], &["f16[N]"]);
        check_infer(
            "RandomNormal",
            1,
            &[],
            &[Attribute::ints("shape", [2, 3])],
            &["f32[2, 3]"],
        );
        check_infer(
            "Multinomial",
            7,
            &["f32[B, C]"],
            &[Attribute::int("sample_size", 4)],
            &["i32[B, 4]"],
        );
    }
}
