//! Operators on single elements: arithmetic, comparison, logic, elementary functions.

use super::array::{Array, Elements, Kind, kind};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::rows::{zip_floats, zip_ints};
use super::special;
use super::table::{Entry, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("Add", 1, |cx| {
        arithmetic(cx, |a, b| a + b, |a, b| Ok(a.wrapping_add(b)))
    }),
    one("Sub", 1, |cx| {
        arithmetic(cx, |a, b| a - b, |a, b| Ok(a.wrapping_sub(b)))
    }),
    one("Mul", 1, |cx| {
        arithmetic(cx, |a, b| a * b, |a, b| Ok(a.wrapping_mul(b)))
    }),
    one("Div", 1, |cx| arithmetic(cx, |a, b| a / b, divide)),
    one("Mod", 10, modulo),
    one("Pow", 1, power),
    one("PRelu", 1, prelu),
    one("BitShift", 11, shift),
    one("BitwiseAnd", 18, |cx| bits(cx, |a, b| a & b)),
    one("BitwiseOr", 18, |cx| bits(cx, |a, b| a | b)),
    one("BitwiseXor", 18, |cx| bits(cx, |a, b| a ^ b)),
    one("BitwiseNot", 18, |cx| {
        let x = cx.operand(0)?;
        let data = x.as_ints()?.iter().map(|x| !x).collect();
        Array::ints(x.dtype(), x.dims(), data)
    }),
    one("Sum", 1, |cx| {
        variadic(cx, |a, b| a + b, |a, b| Ok(a.wrapping_add(b)))
    }),
    one("Mean", 1, |cx| {
        let sum = variadic(cx, |a, b| a + b, |a, b| Ok(a.wrapping_add(b)))?;
        sum.map(|x| x / cx.count() as f64)
    }),
    one("Max", 1, |cx| variadic(cx, larger, |a, b| Ok(a.max(b)))),
    one("Min", 1, |cx| variadic(cx, smaller, |a, b| Ok(a.min(b)))),
    one("Equal", 1, |cx| compare(cx, |a, b| a == b, |a, b| a == b)),
    one("Less", 1, |cx| compare(cx, |a, b| a < b, |a, b| a < b)),
    one("Greater", 1, |cx| compare(cx, |a, b| a > b, |a, b| a > b)),
    one("LessOrEqual", 12, |cx| {
        compare(cx, |a, b| a <= b, |a, b| a <= b)
    }),
    one("GreaterOrEqual", 12, |cx| {
        compare(cx, |a, b| a >= b, |a, b| a >= b)
    }),
    one("And", 1, |cx| logic(cx, |a, b| a & b)),
    one("Or", 1, |cx| logic(cx, |a, b| a | b)),
    one("Xor", 1, |cx| logic(cx, |a, b| a ^ b)),
    one("Not", 1, |cx| {
        let x = cx.operand(0)?;
        Array::bools(x.dims(), x.as_ints()?.iter().map(|x| *x == 0).collect())
    }),
    one("IsNaN", 9, |cx| test(cx, f64::is_nan)),
    one("IsInf", 10, |cx| {
        let negative = cx.int_or("detect_negative", 1) != 0;
        let positive = cx.int_or("detect_positive", 1) != 0;
        test(cx, |x| {
            x.is_infinite() && if x > 0.0 { positive } else { negative }
        })
    }),
    one("Abs", 1, |cx| unary(cx, f64::abs, i128::abs)),
    one("Neg", 1, |cx| unary(cx, |x| -x, |x| -x)),
    one("Sign", 9, |cx| unary(cx, sign, i128::signum)),
    one("Ceil", 1, |cx| cx.operand(0)?.map(f64::ceil)),
    one("Floor", 1, |cx| cx.operand(0)?.map(f64::floor)),
    one("Round", 11, |cx| cx.operand(0)?.map(f64::round_ties_even)),
    one("Sqrt", 1, |cx| cx.operand(0)?.map(f64::sqrt)),
    one("Reciprocal", 1, |cx| cx.operand(0)?.map(f64::recip)),
    one("Exp", 1, |cx| cx.operand(0)?.map(f64::exp)),
    one("Log", 1, |cx| cx.operand(0)?.map(f64::ln)),
    one("Erf", 9, |cx| cx.operand(0)?.map(special::erf)),
    one("Sin", 7, |cx| cx.operand(0)?.map(f64::sin)),
    one("Cos", 7, |cx| cx.operand(0)?.map(f64::cos)),
    one("Tan", 7, |cx| cx.operand(0)?.map(f64::tan)),
    one("Asin", 7, |cx| cx.operand(0)?.map(f64::asin)),
    one("Acos", 7, |cx| cx.operand(0)?.map(f64::acos)),
    one("Atan", 7, |cx| cx.operand(0)?.map(f64::atan)),
    one("Sinh", 9, |cx| cx.operand(0)?.map(f64::sinh)),
    one("Cosh", 9, |cx| cx.operand(0)?.map(f64::cosh)),
    one("Asinh", 9, |cx| cx.operand(0)?.map(f64::asinh)),
    one("Acosh", 9, |cx| cx.operand(0)?.map(f64::acosh)),
    one("Atanh", 9, |cx| cx.operand(0)?.map(f64::atanh)),
];

type Floats = fn(f64, f64) -> f64;
type Ints = fn(i128, i128) -> Result<i128, Fault>;

/// The two operands; before opset 7 the second was stretched along an `axis` of the first.
fn pair(cx: &Cx<'_>) -> Result<(Array, Array), Fault> {
    let (a, b) = (cx.operand(0)?, cx.operand(1)?);
    if cx.opset >= 7 || !cx.flag("broadcast") {
        return Ok((a.clone(), b.clone()));
    }
    let Some(axis) = cx.int("axis") else {
        return Ok((a.clone(), b.clone()));
    };
    let axis = super::sizes::axis(axis, a.rank())?;
    let Some(behind) = (a.rank() - axis).checked_sub(b.rank()) else {
        return mismatch!(
            "{:?} does not fit at axis {axis} of {:?}",
            b.dims(),
            a.dims()
        );
    };
    let dims = [b.dims(), &vec![1; behind]].concat();
    Ok((a.clone(), b.clone().reshaped(&dims)?))
}

/// `y = f(a, b)`: the broadcast of both, of their type.
fn arithmetic(cx: &Cx<'_>, floats: Floats, ints: Ints) -> Result<Array, Fault> {
    let (a, b) = pair(cx)?;
    combine(&a, &b, floats, ints)
}

fn combine(a: &Array, b: &Array, floats: Floats, ints: Ints) -> Result<Array, Fault> {
    same_type(a, b)?;
    match kind(a.dtype())? {
        Kind::Float => zip_floats(a.dtype(), a, b, floats),
        Kind::Int => zip_ints(a.dtype(), a, b, ints),
    }
}

fn same_type(a: &Array, b: &Array) -> Result<(), Fault> {
    match a.dtype() == b.dtype() {
        true => Ok(()),
        false => mismatch!("operands of types {} and {}", a.dtype(), b.dtype()),
    }
}

/// `y = f(f(a, b), …)`.
fn variadic(cx: &Cx<'_>, floats: Floats, ints: Ints) -> Result<Array, Fault> {
    let all = cx.all()?;
    let Some((first, rest)) = all.split_first() else {
        return mismatch!("no operands");
    };
    let mut total = (*first).clone();
    for operand in rest {
        total = combine(&total, operand, floats, ints)?;
    }
    Ok(total)
}

pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

pub(super) fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

fn sign(x: f64) -> f64 {
    match x {
        _ if x > 0.0 => 1.0,
        _ if x < 0.0 => -1.0,
        _ => x,
    }
}

fn divide(a: i128, b: i128) -> Result<i128, Fault> {
    a.checked_div(b)
        .map_or_else(|| mismatch!("{a} divided by {b}"), Ok)
}

/// `y = a mod b` with the sign of `b`, or with `fmod` the sign of `a`.
fn modulo(cx: &Cx<'_>) -> Result<Array, Fault> {
    if cx.flag("fmod") {
        return arithmetic(cx, |a, b| a % b, remainder);
    }
    arithmetic(
        cx,
        |a, b| {
            let left = a % b;
            if left != 0.0 && (left < 0.0) != (b < 0.0) {
                left + b
            } else {
                left
            }
        },
        |a, b| {
            let left = remainder(a, b)?;
            Ok(if left != 0 && (left < 0) != (b < 0) {
                left + b
            } else {
                left
            })
        },
    )
}

fn remainder(a: i128, b: i128) -> Result<i128, Fault> {
    a.checked_rem(b)
        .map_or_else(|| mismatch!("{a} modulo {b}"), Ok)
}

/// `y = aᵇ`, of the type of `a`.
fn power(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (a, b) = pair(cx)?;
    match (kind(a.dtype())?, kind(b.dtype())?) {
        (Kind::Float, _) => {
            let exponents = Array::floats(DType::F64, b.dims(), b.to_f64s())?;
            zip_floats(a.dtype(), &a, &exponents, f64::powf)
        }
        (Kind::Int, Kind::Int) => zip_ints(a.dtype(), &a, &b, int_power),
        (Kind::Int, Kind::Float) => {
            let bases = Array::floats(DType::F64, a.dims(), a.to_f64s())?;
            let powers = zip_floats(DType::F64, &bases, &b, f64::powf)?;
            let data = powers.to_f64s().into_iter().map(|x| x as i128).collect();
            Array::ints(a.dtype(), powers.dims(), data)
        }
    }
}

fn int_power(a: i128, b: i128) -> Result<i128, Fault> {
    match u32::try_from(b) {
        Ok(exponent) => Ok(a.wrapping_pow(exponent)),
        // A fraction is cut to an integer.
        Err(_) if b < 0 && a != 0 => Ok(match (a, b % 2) {
            (1, _) | (-1, 0) => 1,
            (-1, _) => -1,
            _ => 0,
        }),
        Err(_) => mismatch!("{a} to the power {b}"),
    }
}

/// `y = x` where `x ≥ 0`, else `s · x`; the slope broadcasts to `x`.
fn prelu(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, slope) = (cx.operand(0)?, cx.operand(1)?);
    let mut slope = slope.clone();
    // Before opset 7 the slope was one number a channel.
    if cx.opset < 7 && slope.rank() == 1 && x.rank() > 2 {
        let dims = [slope.dims(), &vec![1; x.rank() - 2]].concat();
        slope = slope.reshaped(&dims)?;
    }
    let y = combine(
        x,
        &slope,
        |x, s| if x < 0.0 { s * x } else { x },
        |x, s| Ok(if x < 0 { s.wrapping_mul(x) } else { x }),
    )?;
    match y.dims() == x.dims() {
        true => Ok(y),
        false => mismatch!("a slope of {:?} for {:?}", slope.dims(), x.dims()),
    }
}

/// Shifts by more places than there are, or by fewer than 0, push every bit out.
fn shift(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (a, b) = pair(cx)?;
    same_type(&a, &b)?;
    let places = |b: i128| u32::try_from(b).ok().filter(|places| *places < 64);
    match cx.string("direction") {
        Some("LEFT") => zip_ints(a.dtype(), &a, &b, |a, b| {
            Ok(places(b).map_or(0, |places| a << places))
        }),
        // The sign moves in from the left.
        Some("RIGHT") => zip_ints(a.dtype(), &a, &b, |a, b| Ok(a >> places(b).unwrap_or(127))),
        other => mismatch!("a shift in the direction {other:?}"),
    }
}

fn bits(cx: &Cx<'_>, f: fn(i128, i128) -> i128) -> Result<Array, Fault> {
    let (a, b) = pair(cx)?;
    same_type(&a, &b)?;
    zip_ints(a.dtype(), &a, &b, |a, b| Ok(f(a, b)))
}

/// `y = p(a, b)`: booleans.
fn compare(
    cx: &Cx<'_>,
    floats: fn(f64, f64) -> bool,
    ints: fn(i128, i128) -> bool,
) -> Result<Array, Fault> {
    let (a, b) = pair(cx)?;
    same_type(&a, &b)?;
    match kind(a.dtype())? {
        Kind::Float => {
            let truth = zip_floats(a.dtype(), &a, &b, |a, b| f64::from(floats(a, b)))?;
            let data = truth.as_floats()?.iter().map(|x| *x != 0.0).collect();
            Array::bools(truth.dims(), data)
        }
        Kind::Int => zip_ints(DType::Bool, &a, &b, |a, b| Ok(i128::from(ints(a, b)))),
    }
}

fn logic(cx: &Cx<'_>, f: fn(i128, i128) -> i128) -> Result<Array, Fault> {
    let (a, b) = pair(cx)?;
    match (a.dtype(), b.dtype()) {
        (DType::Bool, DType::Bool) => zip_ints(DType::Bool, &a, &b, |a, b| Ok(f(a, b))),
        (a, b) => mismatch!("operands of types {a} and {b}, booleans are needed"),
    }
}

fn test(cx: &Cx<'_>, p: impl Fn(f64) -> bool) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    Array::bools(x.dims(), x.as_floats()?.iter().map(|x| p(*x)).collect())
}

/// `y = f(x)` of either kind.
pub(super) fn unary(
    cx: &Cx<'_>,
    floats: impl Fn(f64) -> f64,
    ints: impl Fn(i128) -> i128,
) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let elements = match x.elements() {
        Elements::Floats(data) => Elements::Floats(data.iter().map(|x| floats(*x)).collect()),
        Elements::Ints(_) if x.dtype() == DType::Bool => {
            return unsupported!("arithmetic on booleans");
        }
        Elements::Ints(data) => Elements::Ints(data.iter().map(|x| ints(*x)).collect()),
    };
    Array::new(x.dtype(), x.dims(), elements)
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::reference::Array;
    use crate::reference::check::{fault, first, floats, ints};
    use crate::ty::DType;

    #[test]
    fn operands_broadcast() {
        let (row, column) = (floats(&[2], &[1.0, 2.0]), floats(&[2, 1], &[10.0, 20.0]));
        let sum = first("Add", 14, &[&row, &column], &[]);
        assert_eq!(sum, floats(&[2, 2], &[11.0, 12.0, 21.0, 22.0]));
        let along = [Attribute::int("broadcast", 1), Attribute::int("axis", 0)];
        let matrix = floats(&[2, 1], &[1.0, 2.0]);
        let sum = first("Add", 6, &[&matrix, &row], &along);
        assert_eq!(sum, floats(&[2, 1], &[2.0, 4.0]));
    }

    #[test]
    fn integers_are_cut_to_their_width() {
        let bytes =
            |values: &[i128]| Array::ints(DType::U8, &[values.len()], values.to_vec()).unwrap();
        let sum = first("Add", 14, &[&bytes(&[200]), &bytes(&[100])], &[]);
        assert_eq!(sum, bytes(&[44]));
        assert_eq!(first("BitwiseNot", 18, &[&bytes(&[1])], &[]), bytes(&[254]));
        let least = ints(&[], &[i64::MIN]);
        assert_eq!(first("Neg", 13, &[&least], &[]), least);
        assert_eq!(first("Div", 14, &[&least, &ints(&[], &[-1])], &[]), least);
    }

    #[test]
    fn division_of_integers_goes_toward_zero_and_modulo_by_the_divisor() {
        let (a, b) = (ints(&[4], &[-7, 7, -7, 7]), ints(&[4], &[2, 2, -2, -2]));
        assert_eq!(
            first("Div", 14, &[&a, &b], &[]),
            ints(&[4], &[-3, 3, 3, -3])
        );
        assert_eq!(
            first("Mod", 13, &[&a, &b], &[]),
            ints(&[4], &[1, 1, -1, -1])
        );
        let fmod = [Attribute::int("fmod", 1)];
        assert_eq!(
            first("Mod", 13, &[&a, &b], &fmod),
            ints(&[4], &[-1, 1, -1, 1])
        );
        assert_eq!(
            fault("Div", 14, &[&a, &ints(&[], &[0])], &[]),
            "-7 divided by 0"
        );
    }

    #[test]
    fn types_have_to_agree() {
        let words = "operands of types f32 and i64";
        assert_eq!(
            fault("Mul", 14, &[&floats(&[], &[1.0]), &ints(&[], &[1])], &[]),
            words
        );
        assert_eq!(
            fault("And", 7, &[&ints(&[], &[1]); 2], &[]),
            "operands of types i64 and i64, booleans are needed"
        );
        let power = first("Pow", 15, &[&floats(&[], &[3.0]), &ints(&[], &[2])], &[]);
        assert_eq!(power, floats(&[], &[9.0]));
    }
}
