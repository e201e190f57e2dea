//! States of an optimizer in 8 bits, block by block (Dettmers et al., arXiv 2110.02861).
//!
//! A block of 256 elements has one scale, its largest magnitude s, and a code of 8 bits an element.
//! Codes are spaced by a power: a signed code q stands for (q / 127)³ · s, an unsigned one for
//! (q / 255)⁴ · s, so that elements of a block may lie six and nine decades apart. A code is rounded up
//! or down by where its fraction lies against a threshold that wanders evenly through [0, 1) from step
//! to step (multiples of the golden ratio): a change that is smaller than the space between two codes is
//! not lost, but made on as many steps as it is worth. The threshold is a function of the element and
//! of the number of the step, so that a run that is resumed rounds as one that never stopped. What is not
//! zero stays so without a sign: nothing is divided by the root of a second moment that rounding took.

use crate::ops::{Expr, Refusal};
use crate::ty::{DType, Dim};

/// Elements of a block.
pub(super) const BLOCK: i64 = 256;

/// The golden ratio's fraction and those of two of its powers: their multiples lie evenly.
const STEPS: f64 = 0.618_033_988_749_895;
const BLOCKS: f64 = 0.754_877_666_246_693;
const ELEMENTS: f64 = 0.569_840_290_998_053;

/// No scale is divided by that is smaller.
const LEAST: f64 = 1e-38;

/// What codes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codes {
    /// `i8`, of magnitudes and signs.
    Signed,
    /// `u8`, of what is never below zero.
    Unsigned,
}

impl Codes {
    pub fn dtype(self) -> DType {
        match self {
            Codes::Signed => DType::I8,
            Codes::Unsigned => DType::U8,
        }
    }
}

/// How many blocks hold so many elements.
pub(super) fn block_count(elements: i64) -> i64 {
    (elements + BLOCK - 1) / BLOCK
}

/// A vector as rows of blocks, zeros behind its end.
pub(super) fn in_blocks(vector: Expr<'_>, elements: i64) -> Result<Expr<'_>, Refusal> {
    let blocks = block_count(elements);
    let behind = [Dim::from(blocks * BLOCK - elements)];
    let padded = vector.pad(&[Dim::from(0)], &behind)?;
    padded.reshape(&[Dim::from(blocks), Dim::from(BLOCK)])
}

/// The inverse of [`in_blocks`].
pub(super) fn as_vector(blocks: Expr<'_>, elements: i64) -> Result<Expr<'_>, Refusal> {
    let all = block_count(elements) * BLOCK;
    let vector = blocks.reshape(&[Dim::from(all)])?;
    Ok(match elements == all {
        true => vector,
        false => vector.slice(0, 0, elements),
    })
}

/// The numbers that codes `[B, 256]` with scales `[B, 1]` stand for.
pub(super) fn decoded<'b>(codes: Expr<'b>, scales: Expr<'b>, kind: Codes) -> Expr<'b> {
    let whole = codes.cast(DType::F32);
    match kind {
        Codes::Signed => {
            let part = whole * (1.0 / 127.0);
            part.square() * part * scales
        }
        Codes::Unsigned => (whole * (1.0 / 255.0)).square().square() * scales,
    }
}

/// Codes and scales of numbers `[B, 256]`; `threshold` is that of [`thresholds`].
pub(super) fn encoded<'b>(
    numbers: Expr<'b>,
    threshold: Expr<'b>,
    kind: Codes,
) -> (Expr<'b>, Expr<'b>) {
    let sizes = match kind {
        Codes::Signed => numbers.apply("Abs"),
        Codes::Unsigned => numbers,
    };
    let scales = sizes.reduce_keeping("ReduceMax", &[1]);
    let part = sizes / scales.apply2("Max", scales.number(LEAST));
    let codes = match kind {
        Codes::Signed => {
            let place = part.pow(part.number(1.0 / 3.0)) * 127.0;
            let rounded = (place + threshold).apply("Floor");
            rounded.apply2("Min", rounded.number(127.0)) * numbers.apply("Sign")
        }
        Codes::Unsigned => {
            let place = part.sqrt().sqrt() * 255.0;
            let rounded = (place + threshold).apply("Floor");
            let least = place.apply2("Min", place.number(1.0)).apply("Ceil");
            let rounded = rounded.apply2("Max", least);
            rounded.apply2("Min", rounded.number(255.0))
        }
    };
    (codes.cast(kind.dtype()), scales)
}

/// For every element a number of [0, 1) that wanders from step to step.
pub(super) fn thresholds<'b>(step: Expr<'b>, blocks: i64) -> Result<Expr<'b>, Refusal> {
    let build = step.builder;
    let fraction = |value: Expr<'b>| value - value.apply("Floor");
    let of = |count: i64, factor: f64| -> Expr<'b> {
        let ends = [0, count, 1].map(|number| build.scalar(number as f64, DType::I64));
        let numbers = build.node("Range", &ends, Vec::new());
        let numbers = numbers.stated(&[Dim::from(count)]).cast(DType::F64);
        fraction(numbers * factor).cast(DType::F32)
    };
    let of_step = fraction(step.cast(DType::F64) * STEPS).cast(DType::F32);
    let rows = of(blocks, BLOCKS).reshape(&[Dim::from(blocks), Dim::from(1)])?;
    Ok(fraction(rows + of(BLOCK, ELEMENTS) + of_step))
}
