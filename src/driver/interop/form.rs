//! The axes of a tensor here and there.

use crate::hir::Form;

/// The dimensions in PEFT's file of a tensor with these dimensions; `kernel` are those of the
/// module's kernel, empty where it is no convolution.
pub(super) fn foreign_dims(form: Form, dims: &[i64], kernel: &[i64]) -> Vec<i64> {
    let ones = kernel.iter().map(|_| 1);
    // Sizes that a configuration asks for may be of any kind.
    let product = |dims: &[i64]| dims.iter().fold(1_i64, |all, dim| all.saturating_mul(*dim));
    let elements = product(dims);
    match form {
        Form::Same => dims.to_vec(),
        Form::Transposed => dims.iter().rev().copied().collect(),
        Form::Kernel => match dims.split_last() {
            Some((columns, rest)) if !kernel.is_empty() => {
                let channels = columns / product(kernel).max(1);
                let rest = rest.iter().copied();
                rest.chain([channels])
                    .chain(kernel.iter().copied())
                    .collect()
            }
            _ => dims.to_vec(),
        },
        Form::Point => dims.iter().copied().chain(ones).collect(),
        Form::Row if dims.len() > 1 => [&[1], dims].concat(),
        Form::Row => [1, elements].into_iter().chain(ones).collect(),
        Form::Column if kernel.is_empty() => vec![elements, 1],
        Form::Column => [1, elements].into_iter().chain(ones).collect(),
        Form::Flat => vec![elements],
        Form::Places => dims[..dims.len().min(1)].to_vec(),
        Form::Taps => {
            let rest = &dims[..dims.len().saturating_sub(1)];
            rest.iter().chain(kernel).copied().collect()
        }
        Form::Wide => match dims {
            [first, rest @ ..] => vec![*first, product(rest)],
            [] => Vec::new(),
        },
        Form::Tall => match dims {
            [rest @ .., last] => vec![product(rest), *last],
            [] => Vec::new(),
        },
    }
}

/// How many elements a tensor with zeros put in has at most: 256 MiB.
const MOST: i64 = 1 << 26;

/// Elements of these dimensions with zeros behind the ends of every axis, up to those of `wanted`; nothing
/// where they do not fit, or would be too many.
pub(super) fn padded(elements: &[f32], dims: &[i64], wanted: &[i64]) -> Option<Vec<f32>> {
    let is_short = |(size, wanted): (&i64, &i64)| size <= wanted;
    if dims.len() != wanted.len() || !dims.iter().zip(wanted).all(is_short) {
        return None;
    }
    let count = wanted
        .iter()
        .fold(1_i64, |all, dim| all.saturating_mul(*dim));
    if !(0..=MOST).contains(&count) {
        return None;
    }
    let mut all = vec![0.0; count as usize];
    for (number, element) in elements.iter().enumerate() {
        let (mut rest, mut place, mut step) = (number as i64, 0, 1);
        for (size, wide) in dims.iter().zip(wanted).rev() {
            place += rest % size * step;
            rest /= size;
            step *= wide;
        }
        all[place as usize] = *element;
    }
    Some(all)
}

/// Elements with the two axes of a matrix `[rows, columns]` exchanged.
pub(super) fn transposed(elements: &[f32], columns: usize) -> Vec<f32> {
    let rows = elements.len() / columns.max(1);
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    places
        .map(|(row, column)| elements[row * columns + column])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_vectors_have_the_axes_of_torch() {
        let linear = |form| foreign_dims(form, &[4, 18], &[]);
        assert_eq!(linear(Form::Same), [4, 18]);
        assert_eq!(linear(Form::Transposed), [18, 4]);
        assert_eq!(linear(Form::Row), [1, 4, 18]);
        assert_eq!(linear(Form::Kernel), [4, 18]);
        assert_eq!(foreign_dims(Form::Kernel, &[4, 18], &[3, 2]), [4, 3, 3, 2]);
        assert_eq!(foreign_dims(Form::Point, &[8, 4], &[3, 2]), [8, 4, 1, 1]);
        assert_eq!(foreign_dims(Form::Point, &[8, 4], &[]), [8, 4]);
        assert_eq!(foreign_dims(Form::Column, &[8], &[]), [8, 1]);
        assert_eq!(foreign_dims(Form::Row, &[8], &[]), [1, 8]);
        assert_eq!(foreign_dims(Form::Column, &[8], &[3, 3]), [1, 8, 1, 1]);
        assert_eq!(foreign_dims(Form::Flat, &[4, 18], &[]), [72]);
        assert_eq!(foreign_dims(Form::Taps, &[4, 2, 1], &[]), [4, 2]);
        assert_eq!(foreign_dims(Form::Taps, &[4, 2, 6], &[3, 2]), [4, 2, 3, 2]);
        assert_eq!(foreign_dims(Form::Wide, &[4, 2, 6], &[]), [4, 12]);
        assert_eq!(foreign_dims(Form::Tall, &[4, 2, 6], &[]), [8, 6]);
    }

    #[test]
    fn what_is_short_is_filled_up() {
        let filled = padded(&[1.0, 2.0, 3.0, 4.0], &[2, 2], &[3, 3]).unwrap();
        assert_eq!(filled, [1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(padded(&[], &[0, 2], &[1, 2]).unwrap(), [0.0, 0.0]);
        assert_eq!(padded(&[1.0, 2.0], &[2], &[1]), None);
        assert_eq!(padded(&[1.0], &[1, 1], &[i64::MAX, 2]), None);
    }

    #[test]
    fn a_matrix_turns_over() {
        let turned = transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        assert_eq!(turned, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(transposed(&turned, 2), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
