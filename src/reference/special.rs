//! Functions that the standard library lacks.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The error function, to about 1e-16: by its series below 1.5, by the continued fraction of its
/// complement above (Abramowitz and Stegun 7.1.5 and 7.1.14).
pub(super) fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let size = x.abs();
    let value = match size {
        _ if size < 1.5 => erf_series(size),
        // From here on the complement is below half a unit in the last place.
        _ if size > 6.0 => 1.0,
        _ => 1.0 - erfc_fraction(size),
    };
    value.copysign(x)
}

/// `2/√π · Σ (-1)ⁿ x²ⁿ⁺¹ / (n! (2n+1))`, in its form without cancellation:
/// `2/√π · e^(-x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3·…·(2n+1))`.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term > 1e-18 * sum {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

fn erfc_fraction(x: f64) -> f64 {
    let tail = (1..80)
        .rev()
        .fold(x, |tail, n| x + 0.5 * f64::from(n) / tail);
    (-x * x).exp() / (PI.sqrt() * tail)
}

pub(super) fn sigmoid(x: f64) -> f64 {
    // The exponential of a large number is infinite, whose reciprocal is the right 0.
    1.0 / (1.0 + (-x).exp())
}

/// `ln(1 + eˣ)`.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `x/2 · (1 + erf(x/√2))`.
pub(super) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
pub(super) fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// `eˣ / Σ eˣ`, without overflow. A row of negative infinities has no softmax: NaN.
pub(super) fn softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = row.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// `ln Σ eˣ`, without overflow.
pub(super) fn log_sum_exp(row: &[f64]) -> f64 {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most.is_infinite() {
        return most;
    }
    most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_known_values() {
        // Computed with 40 digits.
        for (x, expected) in [
            (0.1, 0.112_462_916_018_284_9),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (1.499_999, 0.966_105_027_544_843_1),
            (1.500_001, 0.966_105_265_405_421_5),
            (3.0, 0.999_977_909_503_001_4),
            (5.0, 0.999_999_999_998_462_5),
        ] {
            assert!((erf(x) - expected).abs() < 3e-16, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(0.0), 0.0);
        assert_eq!(erf(f64::INFINITY), 1.0);
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn softmax_does_not_overflow() {
        assert_eq!(softmax(&[1000.0, 1000.0]), [0.5, 0.5]);
        assert_eq!(log_sum_exp(&[1000.0]), 1000.0);
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert_eq!(softplus(-800.0), 0.0);
        assert_eq!(sigmoid(-800.0), 0.0);
    }
}
