//! Functions of one number, without a branch, so that many numbers are computed at once.
//!
//! How far they are from the exact values, at most: `exp` 2e-7 of its value, and 0 below 2e-38;
//! `sigmoid` 3e-7 of its value, where that is above 2e-38; `tanh` 3e-7 of its value; `erf` 2e-7.
//! `FUSED` says that the processor multiplies and adds in one instruction, which rounds once.

/// Added and subtracted, it leaves the nearest whole number.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; products of the first with small whole numbers are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// Where `exp` leaves the normal numbers.
const LEAST: f32 = -86.9;
const MOST: f32 = 88.722;
/// (eʳ - 1 - r) / r² where |r| ≤ ½ ln 2: fitted to the relative error of eʳ.
const EXP: [f32; 5] = [
    0.499_999_94,
    0.166_665_21,
    0.041_668_39,
    0.008_368_717,
    0.001_381_46,
];

/// a · b + c.
#[inline(always)]
fn add_product<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    match FUSED {
        true => a.mul_add(b, c),
        false => a * b + c,
    }
}

/// The polynomial with these coefficients, the constant one first.
#[inline(always)]
fn polynomial<const FUSED: bool, const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut sum = coefficients[N - 1];
    for at in (0..N - 1).rev() {
        sum = add_product::<FUSED>(sum, x, coefficients[at]);
    }
    sum
}

/// eˣ = 2ⁿ · eʳ with |r| ≤ ½ ln 2.
#[inline(always)]
pub(super) fn exp<const FUSED: bool>(x: f32) -> f32 {
    let found = bounded_exp::<FUSED>(x);
    if x > MOST { f32::INFINITY } else { found }
}

/// The same without infinity: the largest number where that would be the result.
#[inline(always)]
pub(super) fn bounded_exp<const FUSED: bool>(x: f32) -> f32 {
    // In this order, what is no number stays none.
    let clamped = if x < LEAST { LEAST } else { x };
    let clamped = if clamped > MOST { MOST } else { clamped };
    let rounded = add_product::<FUSED>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = add_product::<FUSED>(n, -LN_2_HIGH, clamped);
    let r = add_product::<FUSED>(n, -LN_2_LOW, r);
    let sum = polynomial::<FUSED, 5>(EXP, r);
    let sum = add_product::<FUSED>(sum, r * r, r) + 1.0;
    // n is in the low bits of the rounded number, and added to the exponent.
    let bits = sum.to_bits().wrapping_add(rounded.to_bits() << 23);
    if x < LEAST { 0.0 } else { f32::from_bits(bits) }
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(super) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + bounded_exp::<FUSED>(-x))
}

/// By its Taylor series near 0, elsewhere 1 - 2 / (e²ˣ + 1).
#[inline(always)]
pub(super) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    const SERIES: [f32; 5] = [
        -1.0 / 3.0,
        2.0 / 15.0,
        -17.0 / 315.0,
        62.0 / 2835.0,
        -1382.0 / 155_925.0,
    ];
    let size = x.abs();
    let far = 1.0 - 2.0 / (bounded_exp::<FUSED>(2.0 * size) + 1.0);
    let square = x * x;
    let series = polynomial::<FUSED, 5>(SERIES, square);
    let near = add_product::<FUSED>(size, series * square, size);
    let found = if size < 0.4 { near } else { far };
    found.copysign(x)
}

/// erfc(x) · e^(x²) for x ≥ 1 as a polynomial in 1 / (1 + x): fitted at Chebyshev's points.
const SCALED: [f32; 7] = [
    -3.924_242e-4,
    0.573_108_85,
    0.479_542_46,
    0.710_845_95,
    -1.484_778_8,
    0.900_656_5,
    -0.170_664_73,
];

/// By its Maclaurin series up to 1, and by that of what lacks to 1 beyond.
#[inline(always)]
pub(super) fn erf<const FUSED: bool>(x: f32) -> f32 {
    // (-1)ⁿ / (n! (2 n + 1)).
    const SERIES: [f32; 11] = [
        1.0,
        -1.0 / 3.0,
        1.0 / 10.0,
        -1.0 / 42.0,
        1.0 / 216.0,
        -1.0 / 1_320.0,
        1.0 / 9_360.0,
        -1.0 / 75_600.0,
        1.0 / 685_440.0,
        -1.0 / 6_894_720.0,
        1.0 / 76_204_800.0,
    ];
    let size = x.abs();
    let square = size * size;
    let scaled = polynomial::<FUSED, 7>(SCALED, 1.0 / (1.0 + size));
    let far = 1.0 - scaled * bounded_exp::<FUSED>(-square);
    let series = polynomial::<FUSED, 11>(SERIES, square);
    let near = size * series * std::f32::consts::FRAC_2_SQRT_PI;
    let found = if size < 1.0 { near } else { far };
    // A fit may leave the last digit above 1.
    let found = if found > 1.0 { 1.0 } else { found };
    found.copysign(x)
}
