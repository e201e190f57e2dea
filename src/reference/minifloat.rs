//! Floats of 8 bits and less: their values, their codes, and rounding to them.

use crate::ty::DType;

/// How the bits of a small float are laid out: sign, exponent, mantissa from the high end on.
#[derive(Clone, Copy, Debug)]
struct Layout {
    signed: bool,
    exponent: u32,
    mantissa: u32,
    bias: i32,
    specials: Specials,
}

/// Which codes are no finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Specials {
    None,
    /// As IEEE 754: the highest exponent holds infinity and NaN.
    Ieee,
    /// All bits but the sign set is NaN.
    HighestIsNan,
    /// The code of a negative zero is NaN.
    NegativeZeroIsNan,
}

/// What becomes of a number that is too large for its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// The largest finite number.
    Saturate,
    /// Infinity, or NaN in a type without it.
    Special,
}

/// The direction of rounding to an exponent without mantissa.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Nearest,
    Up,
    Down,
}

fn layout(dtype: DType) -> Layout {
    let of = |exponent, mantissa, bias, specials| Layout {
        signed: true,
        exponent,
        mantissa,
        bias,
        specials,
    };
    match dtype {
        DType::F8E4M3FN => of(4, 3, 7, Specials::HighestIsNan),
        DType::F8E4M3FNUZ => of(4, 3, 8, Specials::NegativeZeroIsNan),
        DType::F8E5M2 => of(5, 2, 15, Specials::Ieee),
        DType::F8E5M2FNUZ => of(5, 2, 16, Specials::NegativeZeroIsNan),
        DType::F6E2M3 => of(2, 3, 1, Specials::None),
        DType::F6E3M2 => of(3, 2, 3, Specials::None),
        DType::F4E2M1 => of(2, 1, 1, Specials::None),
        // E8M0: no sign, no mantissa, no zero.
        _ => Layout {
            signed: false,
            ..of(8, 0, 127, Specials::HighestIsNan)
        },
    }
}

/// The number that a code of the type stands for.
pub(super) fn value(dtype: DType, code: u8) -> f64 {
    let layout = layout(dtype);
    let code = u32::from(code);
    let (width, sign) = (layout.exponent + layout.mantissa, layout.signed);
    let magnitude = code & ((1 << width) - 1);
    let negative = sign && code >> width & 1 == 1;
    let exponent = (magnitude >> layout.mantissa) as i32;
    let fraction = f64::from(magnitude & ((1 << layout.mantissa) - 1));
    let highest = (1 << layout.exponent) - 1;
    match layout.specials {
        Specials::Ieee if exponent == highest && fraction == 0.0 => {
            return if negative {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            };
        }
        Specials::Ieee if exponent == highest => return f64::NAN,
        Specials::HighestIsNan if magnitude == (1 << width) - 1 => return f64::NAN,
        Specials::NegativeZeroIsNan if negative && magnitude == 0 => return f64::NAN,
        _ => {}
    }
    let unit = 2_f64.powi(-(layout.mantissa as i32));
    let size = match exponent {
        0 if layout.mantissa > 0 => fraction * unit * 2_f64.powi(1 - layout.bias),
        _ => (1.0 + fraction * unit) * 2_f64.powi(exponent - layout.bias),
    };
    if negative { -size } else { size }
}

/// The code of the number of the type that is nearest.
pub(super) fn code(dtype: DType, x: f64) -> u8 {
    let codes = 1_u16 << dtype.bits();
    let rounded = round(dtype, x, Overflow::Special);
    let same = |code: u8| {
        let value = value(dtype, code);
        value.to_bits() == rounded.to_bits() || value.is_nan() && rounded.is_nan()
    };
    let found = (0..codes).map(|code| code as u8).find(|code| same(*code));
    // A negative zero in a type without it.
    found.unwrap_or(0)
}

/// The largest finite number of a type.
pub(super) fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MAX,
        DType::F32 => f64::from(f32::MAX),
        DType::F16 => half::f16::MAX.to_f64(),
        DType::BF16 => half::bf16::MAX.to_f64(),
        _ => (0..1_u16 << dtype.bits())
            .map(|code| value(dtype, code as u8))
            .filter(|value| value.is_finite())
            .fold(0.0, f64::max),
    }
}

/// The number of the type that is nearest, ties to even.
pub(super) fn round(dtype: DType, x: f64, overflow: Overflow) -> f64 {
    match dtype {
        DType::F64 => return x,
        DType::F32 => return f64::from(x as f32),
        DType::F16 => return half::f16::from_f64(x).to_f64(),
        DType::BF16 => return half::bf16::from_f64(x).to_f64(),
        DType::F8E8M0 => return round_exponent(x, overflow, Direction::Nearest),
        _ => {}
    }
    let layout = layout(dtype);
    if x.is_nan() {
        // What has no NaN takes it as 0.
        let none = layout.specials == Specials::None;
        return if none { 0.0 } else { x };
    }
    let rounded = if x.is_finite() && x != 0.0 {
        let least = 1 - layout.bias;
        let exponent = (x.abs().log2().floor() as i32).max(least);
        let quantum = 2_f64.powi(exponent - layout.mantissa as i32);
        (x / quantum).round_ties_even() * quantum
    } else {
        x
    };
    let most = largest(dtype);
    let saturates = overflow == Overflow::Saturate || layout.specials == Specials::None;
    match rounded {
        _ if rounded.abs() <= most => no_negative_zero(layout, rounded),
        _ if saturates => most.copysign(x),
        _ if layout.specials == Specials::Ieee => f64::INFINITY.copysign(x),
        _ => f64::NAN,
    }
}

fn no_negative_zero(layout: Layout, x: f64) -> f64 {
    match layout.specials {
        Specials::NegativeZeroIsNan if x == 0.0 => 0.0,
        _ => x,
    }
}

/// A power of two of the type E8M0, which has no zero and no sign.
pub(super) fn round_exponent(x: f64, overflow: Overflow, direction: Direction) -> f64 {
    let size = x.abs();
    if size.is_nan() || size.is_infinite() && overflow == Overflow::Special {
        return f64::NAN;
    }
    let (least, most) = (2_f64.powi(-127), 2_f64.powi(127));
    let below = 2_f64.powi(size.clamp(least, most).log2().floor() as i32);
    let rounded = match direction {
        Direction::Up if size > below => 2.0 * below,
        // A tie is in the middle of the numbers, not of the exponents.
        Direction::Nearest if size >= 1.5 * below => 2.0 * below,
        _ => below,
    };
    match overflow {
        _ if rounded <= most => rounded,
        Overflow::Saturate => most,
        Overflow::Special => f64::NAN,
    }
}
