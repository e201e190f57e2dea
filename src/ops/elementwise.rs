//! Arithmetic, comparison, logic and elementary functions: operators that broadcast or keep the
//! shape of their operand.

use super::arithmetic::{self, divide, modulo};
use super::cx::{InferCx, Outcome};
use super::grad;
use super::registry::{Grad, OpDef, at_least, exactly, op};
use super::shapes;
use crate::ty::DType;

pub(super) const OPS: &[OpDef] = &[
    op(
        "Add",
        1,
        exactly(2),
        same_dtype,
        Grad::Rule(grad::elementwise::add),
    )
    .folds(|cx| arithmetic::binary(cx, arithmetic::add)),
    op(
        "Sub",
        1,
        exactly(2),
        same_dtype,
        Grad::Rule(grad::elementwise::sub),
    )
    .folds(|cx| arithmetic::binary(cx, arithmetic::subtract)),
    op(
        "Mul",
        1,
        exactly(2),
        same_dtype,
        Grad::Rule(grad::elementwise::mul),
    )
    .folds(|cx| arithmetic::binary(cx, arithmetic::multiply)),
    op(
        "Div",
        1,
        exactly(2),
        same_dtype,
        Grad::Rule(grad::elementwise::div),
    )
    .folds(divide),
    op(
        "Mod",
        10,
        exactly(2),
        same_dtype,
        Grad::Rule(grad::elementwise::modulo),
    )
    .folds(modulo),
    op(
        "Pow",
        1,
        exactly(2),
        same_dtype,
        Grad::Rule(grad::elementwise::pow),
    )
    .folds(|cx| arithmetic::binary(cx, arithmetic::power)),
    op(
        "PRelu",
        1,
        exactly(2),
        unary,
        Grad::Rule(grad::elementwise::prelu),
    ),
    op("BitShift", 11, exactly(2), same_dtype, Grad::Zero),
    op("BitwiseAnd", 18, exactly(2), same_dtype, Grad::Zero),
    op("BitwiseOr", 18, exactly(2), same_dtype, Grad::Zero),
    op("BitwiseXor", 18, exactly(2), same_dtype, Grad::Zero),
    op(
        "Sum",
        1,
        at_least(1),
        same_dtype,
        Grad::Rule(grad::elementwise::sum),
    )
    .folds(|cx| arithmetic::variadic(cx, arithmetic::add)),
    op(
        "Mean",
        1,
        at_least(1),
        same_dtype,
        Grad::Rule(grad::elementwise::mean),
    ),
    op(
        "Max",
        1,
        at_least(1),
        same_dtype,
        Grad::Rule(grad::elementwise::extremum),
    )
    .folds(|cx| arithmetic::variadic(cx, arithmetic::larger)),
    op(
        "Min",
        1,
        at_least(1),
        same_dtype,
        Grad::Rule(grad::elementwise::extremum),
    )
    .folds(|cx| arithmetic::variadic(cx, arithmetic::smaller)),
    // Comparison and logic.
    op("Equal", 1, exactly(2), predicate, Grad::Zero)
        .folds(|cx| arithmetic::binary(cx, arithmetic::equal)),
    op("Less", 1, exactly(2), predicate, Grad::Zero)
        .folds(|cx| arithmetic::binary(cx, arithmetic::less)),
    op("Greater", 1, exactly(2), predicate, Grad::Zero)
        .folds(|cx| arithmetic::binary(cx, |a, b| arithmetic::less(b, a))),
    op("LessOrEqual", 12, exactly(2), predicate, Grad::Zero)
        .folds(|cx| arithmetic::binary(cx, |a, b| arithmetic::not(&arithmetic::less(b, a)))),
    op("GreaterOrEqual", 12, exactly(2), predicate, Grad::Zero)
        .folds(|cx| arithmetic::binary(cx, |a, b| arithmetic::not(&arithmetic::less(a, b)))),
    op("And", 1, exactly(2), predicate, Grad::Zero)
        .folds(|cx| arithmetic::binary(cx, arithmetic::and)),
    op("Or", 1, exactly(2), predicate, Grad::Zero)
        .folds(|cx| arithmetic::binary(cx, arithmetic::or)),
    op("Xor", 1, exactly(2), predicate, Grad::Zero),
    op("Not", 1, exactly(1), unary_predicate, Grad::Zero)
        .folds(|cx| arithmetic::unary(cx, arithmetic::not)),
    op("IsNaN", 9, exactly(1), unary_predicate, Grad::Zero),
    op("IsInf", 10, exactly(1), unary_predicate, Grad::Zero),
    op("BitwiseNot", 18, exactly(1), unary, Grad::Zero),
    // Elementary functions.
    op(
        "Abs",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::abs),
    )
    .folds(|cx| arithmetic::unary(cx, arithmetic::absolute)),
    op(
        "Neg",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::neg),
    )
    .folds(|cx| arithmetic::unary(cx, arithmetic::negate)),
    op("Ceil", 1, exactly(1), unary, Grad::Zero).folds(|cx| arithmetic::float(cx, f64::ceil)),
    op("Floor", 1, exactly(1), unary, Grad::Zero).folds(|cx| arithmetic::float(cx, f64::floor)),
    op("Round", 11, exactly(1), unary, Grad::Zero)
        .folds(|cx| arithmetic::float(cx, f64::round_ties_even)),
    op(
        "Sqrt",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::sqrt),
    )
    .folds(|cx| arithmetic::float(cx, f64::sqrt)),
    op(
        "Reciprocal",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::reciprocal),
    )
    .folds(|cx| arithmetic::float(cx, f64::recip)),
    op(
        "Exp",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::exp),
    ),
    op(
        "Log",
        1,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::log),
    ),
    op(
        "Erf",
        9,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::erf),
    ),
    op("Sign", 9, exactly(1), unary, Grad::Zero),
    op(
        "Sin",
        7,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::sin),
    ),
    op(
        "Cos",
        7,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::cos),
    ),
    op(
        "Tan",
        7,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::tan),
    ),
    op(
        "Asin",
        7,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::asin),
    ),
    op(
        "Acos",
        7,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::acos),
    ),
    op(
        "Atan",
        7,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::atan),
    ),
    op(
        "Sinh",
        9,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::sinh),
    ),
    op(
        "Cosh",
        9,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::cosh),
    ),
    op(
        "Asinh",
        9,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::asinh),
    ),
    op(
        "Acosh",
        9,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::acosh),
    ),
    op(
        "Atanh",
        9,
        exactly(1),
        unary,
        Grad::Rule(grad::elementwise::atanh),
    ),
];

/// `y = f(x)`: the operand's type.
pub(super) fn unary(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_as(0, 0);
    Ok(())
}

/// `y = p(x)`: the operand's shape, boolean.
fn unary_predicate(cx: &mut InferCx<'_>) -> Outcome {
    cx.same_shape_as(0, 0, DType::Bool);
    Ok(())
}

/// `y = f(x0, x1, …)`: the broadcast shape, the element type of the first operand.
fn same_dtype(cx: &mut InferCx<'_>) -> Outcome {
    // Any operand tells the type where all have the same; `Pow` and `BitShift` have the first's.
    match cx.dtype(0) {
        Some(dtype) => broadcast(cx, dtype),
        None => Ok(()),
    }
}

/// `y = p(a, b)`: the broadcast shape, boolean.
fn predicate(cx: &mut InferCx<'_>) -> Outcome {
    broadcast(cx, DType::Bool)
}

/// The broadcast of every operand's shape; unranked if one is.
pub(super) fn broadcast(cx: &mut InferCx<'_>, dtype: DType) -> Outcome {
    if cx.opset < 7 && cx.attribute("broadcast").is_some() {
        // Before opset 7 only the second operand was stretched, along an `axis`.
        cx.same_shape_as(0, 0, dtype);
        return Ok(());
    }
    let mut dims = Vec::new();
    for operand in 0..cx.operand_count() {
        let Some(shape) = cx.shape(operand) else {
            cx.set_unranked(0, dtype);
            return Ok(());
        };
        if operand == 0 {
            dims = shape.to_vec();
        } else if dims != shape {
            dims = shapes::broadcast(&dims, shape)?;
        }
    }
    cx.set(0, dtype, dims);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch, check_values};

    #[test]
    fn operands_broadcast_from_the_last_axis() {
        check_infer(
            "Add",
            14,
            &["f32[B, S, 64]", "f32[64]"],
            &[],
            &["f32[B, S, 64]"],
        );
        check_infer(
            "Mul",
            14,
            &["f32[B, 1, S]", "f32[H, 1]"],
            &[],
            &["f32[B, H, S]"],
        );
        check_infer("Less", 13, &["i64[B, 1]", "i64[S]"], &[], &["bool[B, S]"]);
        check_infer("Add", 14, &["f16[]", "f16[2, N]"], &[], &["f16[2, N]"]);
        check_infer(
            "Max",
            13,
            &["f32[N]", "f32[1]", "f32[M, 1]"],
            &[],
            &["f32[M, N]"],
        );
        check_infer("Add", 14, &["f32[5]", "f32[N]"], &[], &["f32[5]"]);
        check_infer("Add", 14, &["f32[?]", "f32[N]"], &[], &["f32[?]"]);
    }

    #[test]
    fn two_unrelated_sizes_broadcast_to_the_larger() {
        check_infer("Add", 14, &["f32[N]", "f32[M]"], &[], &["f32[max(M, N)]"]);
    }

    #[test]
    fn sizes_that_cannot_broadcast_are_refused() {
        check_mismatch(
            "Add",
            14,
            &["f32[2, 3]", "f32[4]"],
            &[],
            "sizes 3 and 4 do not broadcast",
        );
    }

    #[test]
    fn unary_operators_keep_type_and_shape() {
        check_infer("Erf", 13, &["bf16[B, 4]"], &[], &["bf16[B, 4]"]);
        check_infer("IsNaN", 13, &["f32[B, 4]"], &[], &["bool[B, 4]"]);
        check_infer("Not", 1, &["bool[B]"], &[], &["bool[B]"]);
    }

    #[test]
    fn pow_has_the_type_of_its_base() {
        check_infer("Pow", 15, &["f16[N]", "f32[]"], &[], &["f16[N]"]);
    }

    #[test]
    fn before_opset_7_the_first_operand_decides() {
        let attributes = [Attribute::int("broadcast", 1), Attribute::int("axis", 1)];
        check_infer(
            "Add",
            6,
            &["f32[N, 3, 5]", "f32[3]"],
            &attributes,
            &["f32[N, 3, 5]"],
        );
    }

    #[test]
    fn integer_arithmetic_on_sizes_is_followed() {
        check_values(
            "Add",
            14,
            &["i64[2] = [B, 1]", "i64[1] = [3]"],
            &[],
            "[B + 3, 4]",
        );
        check_values("Sub", 14, &["i64[] = S", "i64[] = 1"], &[], "S - 1");
        check_values(
            "Mul",
            14,
            &["i64[2] = [B, S]", "i64[] = 2"],
            &[],
            "[2*B, 2*S]",
        );
        check_values(
            "Div",
            14,
            &["i64[1] = [S]", "i64[] = 2"],
            &[],
            "[floor(S / 2)]",
        );
        check_values("Div", 14, &["i64[] = -7", "i64[] = 2"], &[], "-3");
        check_values("Mod", 13, &["i64[] = -7", "i64[] = 2"], &[], "1");
        check_values("Max", 13, &["i64[] = S", "i64[] = 0"], &[], "S");
        check_values(
            "Mul",
            14,
            &["i64[2] = [?, S]", "i64[2] = [2, 2]"],
            &[],
            "[?, 2*S]",
        );
    }

    #[test]
    fn a_size_is_never_negative() {
        check_values(
            "Equal",
            13,
            &["i64[3] = [B, -1, 4]", "i64[] = -1"],
            &[],
            "[0, 1, 0]",
        );
        check_values(
            "Less",
            13,
            &["i64[2] = [B, B]", "i64[2] = [0, 0]"],
            &[],
            "[0, 0]",
        );
        check_values(
            "Less",
            13,
            &["i64[2] = [B, 4]", "i64[2] = [1, 5]"],
            &[],
            "[?, 1]",
        );
    }

    #[test]
    fn floats_are_followed_as_numbers() {
        check_values("Sqrt", 13, &["f32[] = 64"], &[], "8");
        check_values("Div", 14, &["f32[] = 7", "f32[] = 2"], &[], "3.5");
        check_values("Floor", 13, &["f32[] = S"], &[], "S");
    }
}
