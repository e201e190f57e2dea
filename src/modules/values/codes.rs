//! Quantized weights as the numbers that their codes stand for.

use super::matrix::element;
use crate::graph::Tensor;
use crate::modules::call::{Call, Here};
use crate::modules::level::{At, Levels};
use crate::ty::DType;
use bytes::Bytes;

/// A matrix of codes as it is stored: `number = scale · (code − zero)`.
pub(super) struct Codes {
    codes: Packed,
    /// Codes from one row to the next.
    row: usize,
    scales: (DType, Bytes),
    zeros: Option<Packed>,
    /// Zero points from one row of them to the next.
    zero_row: usize,
    /// The zero point where none is stored.
    zero: f64,
    grid: Grid,
}

/// Which codes share a scale.
struct Grid {
    rows: usize,
    columns: usize,
    /// Scales in a row of them.
    width: usize,
}

/// Integers of a few bits each, the first in the low bits.
struct Packed {
    bits: usize,
    signed: bool,
    data: Bytes,
}

/// The tensors that a quantized weight is made of, and how they go together.
pub(super) struct Parts<'m> {
    pub codes: &'m Tensor,
    pub scales: &'m Tensor,
    pub zeros: Option<&'m Tensor>,
    form: Form,
}

enum Form {
    /// `MatMulNBits`: rows of whole blocks.
    Blocks {
        bits: usize,
        block: usize,
        columns: usize,
    },
    /// `DequantizeLinear`; a block size of 0 is one scale a channel.
    Linear { axis: usize, block: usize },
}

/// The tensors behind a quantized weight; `None` for forms whose numbers are not recovered here.
pub(super) fn parts<'m>(levels: &Levels<'m>, call: &Call<'m>) -> Option<Parts<'m>> {
    let here = Here::new(levels, call.level, call.node);
    if here.is("MatMulNBits") {
        // A group index permutes the columns.
        if here.operand(4).is_some() {
            return None;
        }
        let size = |name: &str| usize::try_from(here.int(name, 0)).ok();
        let form = Form::Blocks {
            bits: usize::try_from(here.int("bits", 4)).ok()?,
            block: size("block_size").filter(|block| *block > 0)?,
            columns: size("K")?,
        };
        return Some(Parts {
            codes: call.weight.tensor,
            scales: here.constant(2)?.tensor,
            zeros: match here.operand(3) {
                Some(_) => Some(here.constant(3)?.tensor),
                None => None,
            },
            form,
        });
    }
    dequantized(levels, call)
}

/// The operands of the `DequantizeLinear` that reads the stored codes themselves.
fn dequantized<'m>(levels: &Levels<'m>, call: &Call<'m>) -> Option<Parts<'m>> {
    let (level, node, data) = call.weight.values.iter().find_map(|at| {
        let (level, node, data) = levels.producer(*at)?;
        let reads = levels.graph(level).operand(node, 0)?;
        let codes = levels.resolve(At {
            level,
            value: reads,
        });
        (data.op.is("DequantizeLinear") && codes == call.weight.root).then_some((level, node, data))
    })?;
    let operand = |slot| levels.graph(level).operand(node, slot);
    let tensor = |value| Some(levels.constant(At { level, value })?.tensor);
    let rank = call.weight.tensor.dims.len() as i64;
    let axis = data.int("axis").unwrap_or(1);
    let axis = if axis < 0 { axis + rank } else { axis };
    Some(Parts {
        codes: call.weight.tensor,
        scales: tensor(operand(1)?)?,
        zeros: match operand(2) {
            Some(value) => Some(tensor(value)?),
            None => None,
        },
        form: Form::Linear {
            axis: usize::try_from(axis).ok()?,
            block: usize::try_from(data.int("block_size").unwrap_or(0)).ok()?,
        },
    })
}

impl Parts<'_> {
    /// The codes with the bytes of every part.
    pub fn codes(&self, codes: Bytes, scales: Bytes, zeros: Option<Bytes>) -> Option<Codes> {
        if !self.scales.dtype.is_float() {
            return None;
        }
        let scales = (self.scales.dtype, scales);
        match self.form {
            Form::Blocks {
                bits,
                block,
                columns,
            } => {
                if !matches!(bits, 2 | 4 | 8) {
                    return None;
                }
                let blocks = columns.div_ceil(block);
                let packed = |data| Packed {
                    bits,
                    signed: false,
                    data,
                };
                // Zero points may be floats, which no exporter here writes.
                if self.zeros.is_some_and(|zeros| zeros.dtype != DType::U8) {
                    return None;
                }
                Some(Codes {
                    codes: packed(codes),
                    row: blocks.checked_mul(block)?,
                    scales,
                    zeros: zeros.map(packed),
                    zero_row: blocks.checked_mul(bits)?.div_ceil(8) * 8 / bits,
                    zero: f64::from(1u32 << (bits - 1)),
                    grid: Grid {
                        rows: 1,
                        columns: block,
                        width: blocks,
                    },
                })
            }
            Form::Linear { axis, block } => {
                let grid = self.grid(axis, block)?;
                let packed = |dtype, data| Packed::of(dtype, data);
                let zeros = match (self.zeros, zeros) {
                    (Some(tensor), Some(data)) => Some(packed(tensor.dtype, data)?),
                    _ => None,
                };
                Some(Codes {
                    codes: packed(self.codes.dtype, codes)?,
                    row: row_size(self.codes)?,
                    scales,
                    zeros,
                    zero_row: grid.width,
                    zero: 0.0,
                    grid,
                })
            }
        }
    }

    /// Which codes share a scale of a `DequantizeLinear`.
    fn grid(&self, axis: usize, block: usize) -> Option<Grid> {
        const ALL: usize = usize::MAX;
        let dims = &self.codes.dims;
        let inner = row_size(self.codes)?;
        let (rows, columns, width) = match (self.scales.elements(), axis, block) {
            (1, ..) => (ALL, ALL, 1),
            (_, 0, 0) => (1, ALL, 1),
            (_, 1, 0) if dims.len() == 2 => (ALL, 1, inner),
            (_, 0, block) if dims.len() == 2 => (block, 1, inner),
            (_, 1, block) if dims.len() == 2 => (1, block, inner.div_ceil(block)),
            _ => return None,
        };
        Some(Grid {
            rows,
            columns,
            width,
        })
    }
}

/// Codes in a row; `None` for a scalar and on overflow.
fn row_size(codes: &Tensor) -> Option<usize> {
    codes.dims.get(1..)?.iter().try_fold(1usize, |all, dim| {
        all.checked_mul(usize::try_from(*dim).ok()?)
    })
}

impl Codes {
    /// The number at a place of the stored matrix; of places that are not stored, nothing in
    /// particular.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        let (down, right) = (row / self.grid.rows, column / self.grid.columns);
        let scale = element(
            self.scales.0,
            &self.scales.1,
            down * self.grid.width + right,
        );
        let zero = match &self.zeros {
            Some(zeros) => zeros.at(place(down, self.zero_row, right)),
            None => self.zero,
        };
        scale * (self.codes.at(place(row, self.row, column)) - zero)
    }
}

/// Sizes are the model's own claims: a place beyond the data is one too many, not a fault.
fn place(row: usize, width: usize, column: usize) -> usize {
    row.saturating_mul(width).saturating_add(column)
}

impl Packed {
    fn of(dtype: DType, data: Bytes) -> Option<Packed> {
        let signed = match dtype {
            DType::I2 | DType::I4 | DType::I8 => true,
            DType::U2 | DType::U4 | DType::U8 => false,
            _ => return None,
        };
        let bits = dtype.bits() as usize;
        Some(Packed { bits, signed, data })
    }

    fn at(&self, index: usize) -> f64 {
        let place = index.saturating_mul(self.bits);
        let byte = self.data.get(place / 8).copied().unwrap_or(0);
        let code = (u16::from(byte) >> (place % 8)) & ((1 << self.bits) - 1);
        let negative = self.signed && code >> (self.bits - 1) == 1;
        let code = f64::from(code);
        if negative {
            code - f64::from(1u32 << self.bits)
        } else {
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(dtype: DType, data: &'static [u8], count: usize) -> Vec<f64> {
        let packed = Packed::of(dtype, Bytes::from_static(data)).expect("an integer type");
        (0..count).map(|index| packed.at(index)).collect()
    }

    #[test]
    fn codes_are_read_from_the_low_bits_on_and_keep_their_sign() {
        assert_eq!(numbers(DType::U4, &[0x8f, 0x07], 3), [15.0, 8.0, 7.0]);
        assert_eq!(numbers(DType::I4, &[0x8f, 0x07], 3), [-1.0, -8.0, 7.0]);
        assert_eq!(numbers(DType::U8, &[0xff, 0x01], 2), [255.0, 1.0]);
        assert_eq!(numbers(DType::I8, &[0xff, 0x80], 2), [-1.0, -128.0]);
        assert_eq!(
            numbers(DType::I2, &[0b1110_0100], 4),
            [0.0, 1.0, -2.0, -1.0]
        );
    }

    #[test]
    fn a_code_beyond_the_data_is_zero() {
        assert_eq!(numbers(DType::U4, &[0xff], 3)[2], 0.0);
        let packed = Packed::of(DType::U4, Bytes::new()).expect("an integer type");
        assert_eq!(packed.at(usize::MAX), 0.0);
    }
}
