//! A weight as it is stored, and its elements in fewer bits.

use crate::ty::DType;

/// A matrix of little-endian floats, `[rows, columns]` as stored, `[k, n]` after transposing where that
/// is asked for.
pub(super) struct Matrix<'b> {
    pub bytes: &'b [u8],
    pub rows: usize,
    pub columns: usize,
    pub transpose: bool,
}

/// A matrix `[k, n]` in 8 bits.
pub(super) struct Coded {
    pub codes: Vec<i8>,
    /// By column.
    pub scales: Vec<f32>,
}

impl Matrix<'_> {
    /// By its place as stored.
    fn value(&self, row: usize, column: usize) -> f32 {
        let at = (row * self.columns + column) * 4;
        f32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("4 bytes"))
    }

    /// The place in `[k, n]` of a place as stored.
    fn place(&self, row: usize, column: usize) -> (usize, usize) {
        match self.transpose {
            true => (column, row),
            false => (row, column),
        }
    }

    /// `k` and `n`.
    fn sizes(&self) -> (usize, usize) {
        self.place(self.rows, self.columns)
    }

    /// Every element with its place as stored.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let columns = self.columns;
        (0..self.rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
    }

    fn is_finite(&self) -> bool {
        self.places()
            .all(|(row, column)| self.value(row, column).is_finite())
    }

    /// Rounded to the nearest of a type of 16 bits, ties to even; `None` if an element is not finite, or
    /// is beyond its range.
    pub fn half(&self, dtype: DType) -> Option<Vec<u8>> {
        let round = |value: f32| match dtype {
            DType::F16 => {
                let half = half::f16::from_f32(value);
                half.is_finite().then(|| half.to_le_bytes())
            }
            _ => {
                let half = half::bf16::from_f32(value);
                half.is_finite().then(|| half.to_le_bytes())
            }
        };
        let (k, n) = self.sizes();
        let mut bytes = vec![0; k * n * 2];
        for (row, column) in self.places() {
            let (inner, outer) = self.place(row, column);
            let at = (inner * n + outer) * 2;
            bytes[at..at + 2].copy_from_slice(&round(self.value(row, column))?);
        }
        Some(bytes)
    }

    /// With codes from minus `most` to `most`, the largest element of each column being one of the two;
    /// `None` if an element is not finite.
    pub fn coded(&self, most: f32) -> Option<Coded> {
        if !self.is_finite() {
            return None;
        }
        let (k, n) = self.sizes();
        let mut largest = vec![0.0_f32; n];
        for (row, column) in self.places() {
            let (_, outer) = self.place(row, column);
            largest[outer] = largest[outer].max(self.value(row, column).abs());
        }
        let scale = |largest: f32| match largest > 0.0 {
            true => largest / most,
            false => 1.0,
        };
        let scales: Vec<f32> = largest.into_iter().map(scale).collect();
        let mut codes = vec![0_i8; k * n];
        for (row, column) in self.places() {
            let (inner, outer) = self.place(row, column);
            let code = (self.value(row, column) / scales[outer]).round();
            codes[inner * n + outer] = code.clamp(-most, most) as i8;
        }
        Some(Coded { codes, scales })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    fn matrix(bytes: &[u8], rows: usize, columns: usize, transpose: bool) -> Matrix<'_> {
        Matrix {
            bytes,
            rows,
            columns,
            transpose,
        }
    }

    #[test]
    fn a_column_is_rounded_by_its_largest_element() {
        let bytes = bytes(&[6.3, 10.0, -3.2, 5.2]);
        let rounded = matrix(&bytes, 2, 2, false).coded(63.0).unwrap();
        assert_eq!(rounded.codes, [63, 63, -32, 33]);
        assert_eq!(rounded.scales, [6.3 / 63.0, 10.0 / 63.0]);
    }

    #[test]
    fn codes_may_take_the_whole_range() {
        let bytes = bytes(&[6.35, -10.0, -3.2, 5.2]);
        let rounded = matrix(&bytes, 2, 2, false).coded(127.0).unwrap();
        assert_eq!(rounded.codes, [127, -127, -64, 66]);
        assert_eq!(rounded.scales, [6.35 / 127.0, 10.0 / 127.0]);
    }

    #[test]
    fn a_transposed_matrix_has_the_codes_of_the_plain_one() {
        let plain = bytes(&[1.0, 2.0, 3.0, -4.0, 5.0, 0.5]);
        let stored = bytes(&[1.0, -4.0, 2.0, 5.0, 3.0, 0.5]);
        let (plain, stored) = (matrix(&plain, 2, 3, false), matrix(&stored, 3, 2, true));
        assert_eq!(plain.half(DType::BF16), stored.half(DType::BF16));
        assert_eq!(plain.half(DType::F16), stored.half(DType::F16));
        let (plain, stored) = (plain.coded(63.0).unwrap(), stored.coded(63.0).unwrap());
        assert_eq!(plain.codes, stored.codes);
        assert_eq!(plain.scales, stored.scales);
    }

    #[test]
    fn half_precision_rounds_to_even() {
        // Between 1 and the next number, 1 + 2^-7, lies 1 + 2^-8.
        let bytes = bytes(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
        let rounded = matrix(&bytes, 1, 2, false).half(DType::BF16).unwrap();
        let value = |at: usize| half::bf16::from_le_bytes([rounded[at], rounded[at + 1]]).to_f32();
        assert_eq!([value(0), value(2)], [1.0, 1.0 + 2.0 / 128.0]);
    }

    #[test]
    fn zeros_have_codes_and_infinities_none() {
        let zeros = bytes(&[0.0; 4]);
        let zeros = matrix(&zeros, 2, 2, false).coded(63.0).unwrap();
        assert_eq!((zeros.codes, zeros.scales), (vec![0; 4], vec![1.0; 2]));
        let infinite = bytes(&[1.0, f32::INFINITY]);
        let infinite = matrix(&infinite, 1, 2, false);
        assert!(infinite.coded(63.0).is_none() && infinite.half(DType::BF16).is_none());
        let large = bytes(&[1.0, 70_000.0]);
        let large = matrix(&large, 1, 2, false);
        assert!(large.half(DType::F16).is_none() && large.half(DType::BF16).is_some());
        let bad = bytes(&[1.0, f32::NAN]);
        assert!(matrix(&bad, 2, 1, true).coded(63.0).is_none());
    }
}
