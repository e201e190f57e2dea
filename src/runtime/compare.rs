//! Whether a computed tensor is what was expected, within a tolerance.

use super::tensor::HostTensor;

/// `|actual - expected| <= absolute + relative * |expected|` for every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
}

/// How two tensors of one type and shape compare.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub elements: usize,
    /// Elements outside the tolerance.
    pub outside: usize,
    pub largest_difference: f64,
    /// The element that is furthest outside, or nearest to it; `None` without elements.
    pub worst: Option<Worst>,
}

/// One pair of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Worst {
    pub index: Vec<i64>,
    pub actual: f64,
    pub expected: f64,
}

/// Compares element by element; a NaN equals a NaN, an infinity itself. `Err` says why the two
/// cannot be compared.
pub fn compare(
    actual: &HostTensor,
    expected: &HostTensor,
    tolerance: Tolerance,
) -> Result<Comparison, String> {
    if actual.ty() != expected.ty() {
        return Err(format!("it is {}, not {}", actual.ty(), expected.ty()));
    }
    let (Some(ours), Some(theirs)) = (actual.to_f64s(), expected.to_f64s()) else {
        return Err(format!(
            "elements of type {} are not compared",
            actual.dtype()
        ));
    };
    let mut comparison = Comparison {
        elements: ours.len(),
        outside: 0,
        largest_difference: 0.0,
        worst: None,
    };
    let mut worst_excess = f64::NEG_INFINITY;
    for (position, (&actual_value, &expected_value)) in ours.iter().zip(&theirs).enumerate() {
        let same =
            actual_value == expected_value || (actual_value.is_nan() && expected_value.is_nan());
        // What is not the same and not finite is infinitely far away.
        let difference = match (actual_value - expected_value).abs() {
            _ if same => 0.0,
            difference if difference.is_finite() => difference,
            _ => f64::INFINITY,
        };
        let allowed = if expected_value.is_finite() {
            tolerance.absolute + tolerance.relative * expected_value.abs()
        } else {
            0.0
        };
        let excess = difference - allowed;
        comparison.outside += usize::from(excess > 0.0);
        comparison.largest_difference = comparison.largest_difference.max(difference);
        if excess > worst_excess {
            worst_excess = excess;
            comparison.worst = Some(Worst {
                index: index_of(position, actual.dims()),
                actual: actual_value,
                expected: expected_value,
            });
        }
    }
    Ok(comparison)
}

fn index_of(position: usize, dims: &[i64]) -> Vec<i64> {
    let mut rest = position as i64;
    let mut index: Vec<i64> = dims
        .iter()
        .rev()
        .map(|dim| {
            let at = rest % dim;
            rest /= dim;
            at
        })
        .collect();
    index.reverse();
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIGHT: Tolerance = Tolerance {
        absolute: 1e-6,
        relative: 1e-5,
    };

    fn check(actual: &[f32], expected: &[f32]) -> Comparison {
        let dims = [2, actual.len() as i64 / 2];
        compare(
            &HostTensor::from_f32(&dims, actual),
            &HostTensor::from_f32(&dims, expected),
            TIGHT,
        )
        .unwrap()
    }

    #[test]
    fn the_worst_element_is_named_by_its_index() {
        let result = check(&[1.0, 2.0, 3.0, 4.5], &[1.0, 2.0, 3.25, 4.0]);
        assert_eq!(result.outside, 2);
        assert_eq!(result.largest_difference, 0.5);
        assert_eq!(result.worst.unwrap().index, [1, 1]);
    }

    #[test]
    fn rounding_is_within_and_nan_is_not_a_number_that_fits() {
        assert_eq!(check(&[1.0, 1e6], &[1.000_001, 1e6 + 1.0]).outside, 0);
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(check(&[nan, inf], &[nan, inf]).outside, 0);
        assert_eq!(check(&[nan, 1.0], &[1.0, nan]).outside, 2);
        assert_eq!(check(&[1.0, inf], &[inf, -inf]).outside, 2);
    }

    #[test]
    fn other_shapes_and_types_are_not_compared() {
        let one = HostTensor::from_f32(&[2], &[0.0, 0.0]);
        let other = HostTensor::from_f32(&[1, 2], &[0.0, 0.0]);
        let words = compare(&one, &other, TIGHT).unwrap_err();
        assert!(words.contains("[2]") && words.contains("[1, 2]"), "{words}");
    }
}
