//! Changes of the element type.

use super::Rounding;
use super::array::{Array, Elements, Kind, kind};
use super::cx::Cx;
use super::decode::{decode, encode};
use super::fault::{Fault, mismatch, unsupported};
use super::minifloat::{self, Direction, Overflow};
use super::table::{Entry, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("Cast", 1, |cx| match cx.dtype("to")? {
        Some(dtype) => cast(cx, dtype),
        None => mismatch!("no `to`"),
    }),
    one("CastLike", 15, |cx| cast(cx, cx.operand(1)?.dtype())),
    one("BitCast", 26, bit_cast),
];

/// Floats become integers toward zero; integers are cut to their width; a boolean is whether it
/// is not 0. Floats stay in f64 unless declared widths are asked for.
fn cast(cx: &Cx<'_>, dtype: DType) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let elements = match (x.elements(), kind(dtype)?) {
        (Elements::Floats(data), Kind::Int) if dtype == DType::Bool => {
            Elements::Ints(data.iter().map(|x| i128::from(*x != 0.0)).collect())
        }
        (Elements::Floats(data), Kind::Int) => {
            Elements::Ints(data.iter().map(|x| *x as i128).collect())
        }
        (Elements::Ints(data), Kind::Int) => Elements::Ints(data.clone()),
        (_, Kind::Float) => {
            let data = x.to_f64s().into_iter();
            Elements::Floats(
                data.map(|x| round(cx, dtype, x))
                    .collect::<Result<_, _>>()?,
            )
        }
    };
    Array::new(dtype, x.dims(), elements)
}

fn round(cx: &Cx<'_>, dtype: DType, x: f64) -> Result<f64, Fault> {
    if cx.rounding == Rounding::None {
        return Ok(x);
    }
    let overflow = match cx.int_or("saturate", 1) {
        0 => Overflow::Special,
        _ => Overflow::Saturate,
    };
    if dtype != DType::F8E8M0 {
        return Ok(minifloat::round(dtype, x, overflow));
    }
    let direction = match cx.string("round_mode") {
        None | Some("up") => Direction::Up,
        Some("down") => Direction::Down,
        Some("nearest") => Direction::Nearest,
        Some(other) => return unsupported!("rounding `{other}`"),
    };
    Ok(minifloat::round_exponent(x, overflow, direction))
}

/// The same bits under another type of the same width.
fn bit_cast(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let Some(dtype) = cx.dtype("to")? else {
        return mismatch!("no `to`");
    };
    if dtype.bits() != x.dtype().bits() {
        return mismatch!("the bits of {} as {dtype}", x.dtype());
    }
    let dims: Vec<i64> = x.dims().iter().map(|n| *n as i64).collect();
    decode(dtype, &dims, &encode(x))
}
