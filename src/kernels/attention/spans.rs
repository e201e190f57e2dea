//! Which keys of a block of queries can have a probability other than 0.
//!
//! No score is larger than the length of its query times that of its key (Cauchy and Schwarz), times
//! the scale. A key whose mask is below the largest of its row by more than twice that, and by as much
//! as e^x needs to be 0, has a probability of exactly 0. So what may be left out is seen from the mask
//! and from lengths, before any score: with whatever number an exporter masks.

use super::{Attention, Keys, Mask, Operands, Threads};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// So far below the largest score of its row, e^x is 0 in 32 bits.
const NOTHING: f32 = 104.0;
/// Lengths are rounded.
const SLACK: f32 = 1.01;

/// Keys from the first to the last that count, by block of queries.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    /// By head: which of the masks it has.
    masks: Vec<usize>,
    blocks: usize,
    /// By mask and block.
    spans: Vec<Range<usize>>,
}

impl Spans {
    pub fn of(
        attention: &Attention,
        block: usize,
        of: &Operands<'_>,
        threads: &dyn Threads,
    ) -> Result<Spans, String> {
        let heads = attention.heads();
        let blocks = attention.queries.div_ceil(block);
        let all = 0..attention.keys;
        let (Some(mask), Some(elements)) = (&attention.mask, of.mask) else {
            return Ok(Spans {
                masks: vec![0; heads],
                blocks,
                spans: vec![all; blocks],
            });
        };
        let mut starts = mask.heads.clone();
        starts.sort_unstable();
        starts.dedup();
        let masks = mask.heads.iter();
        let masks = masks.map(|start| starts.partition_point(|other| other < start));
        let reach = reach(attention, of, threads)?;
        let found: Vec<Mutex<Range<usize>>> = (0..starts.len() * blocks)
            .map(|_| Mutex::new(0..0))
            .collect();
        threads.each(found.len(), &|task| {
            let first = task % blocks * block;
            let rows = first..(first + block).min(attention.queries);
            let span = mask.span(
                &elements[starts[task / blocks]..],
                rows,
                attention.keys,
                reach,
            );
            *found[task].lock().unwrap_or_else(PoisonError::into_inner) = span;
        })?;
        let found = found.into_iter();
        Ok(Spans {
            masks: masks.collect(),
            blocks,
            spans: found
                .map(|span| span.into_inner().unwrap_or_else(PoisonError::into_inner))
                .collect(),
        })
    }

    pub fn span(&self, head: usize, block: usize) -> Range<usize> {
        self.spans[self.masks[head] * self.blocks + block].clone()
    }
}

impl Mask {
    /// From the first to the last key that is not out of reach for all of some queries.
    fn span(
        &self,
        of_head: &[f32],
        queries: Range<usize>,
        keys: usize,
        reach: f32,
    ) -> Range<usize> {
        if self.key == 0 {
            return 0..keys;
        }
        // A mask that is stretched over queries is the same for all.
        let queries = match self.query {
            0 => 0..1,
            _ => queries,
        };
        let mut span = keys..0;
        for query in queries {
            let row = &of_head[query * self.query..][..keys];
            let most = row.iter().fold(
                f32::NEG_INFINITY,
                |most, x| {
                    if *x > most { *x } else { most }
                },
            );
            // In these words, what is no number is in reach.
            let is_out = |x: &f32| *x < most - reach;
            let before = row[..span.start].iter().position(|x| !is_out(x));
            span.start = before.unwrap_or(span.start);
            let behind = row[span.end..].iter().rposition(|x| !is_out(x));
            span.end = behind.map_or(span.end, |at| span.end + at + 1);
        }
        span.start.min(span.end)..span.end
    }
}

/// How far apart masks have to be so that one of two keys counts for nothing.
fn reach(attention: &Attention, of: &Operands<'_>, threads: &dyn Threads) -> Result<f32, String> {
    let heads = attention.heads();
    let bounds: Vec<Mutex<f32>> = (0..heads).map(|_| Mutex::new(0.0)).collect();
    threads.each(heads, &|head| {
        let (rows, columns, width) = (attention.queries, attention.keys, attention.width);
        let queries = &of.queries[head * rows * width..][..rows * width];
        let keys = &of.keys[head * columns * width..][..columns * width];
        let bound = longest(queries, width, Keys::Rows) * longest(keys, width, attention.layout);
        *bounds[head].lock().unwrap_or_else(PoisonError::into_inner) = bound;
    })?;
    let mut most = 0.0;
    for bound in bounds {
        let bound = bound.into_inner().unwrap_or_else(PoisonError::into_inner);
        most = larger(most, bound);
    }
    Ok(NOTHING + 2.0 * SLACK * attention.scale.abs() * most)
}

/// The larger number; what is no number stays none, and is out of no reach.
fn larger(most: f32, other: f32) -> f32 {
    if other <= most || most.is_nan() {
        most
    } else {
        other
    }
}

/// The length of the longest vector, or what is no number where one has none.
fn longest(vectors: &[f32], width: usize, layout: Keys) -> f32 {
    if vectors.is_empty() || width == 0 {
        return 0.0;
    }
    let square = match layout {
        Keys::Rows => {
            let all = vectors.chunks_exact(width);
            let squares = all.map(|vector| vector.iter().map(|x| x * x).sum());
            squares.fold(0.0, larger)
        }
        Keys::Columns => {
            let mut squares = vec![0.0; vectors.len() / width];
            for row in vectors.chunks_exact(squares.len()) {
                for (square, x) in squares.iter_mut().zip(row) {
                    *square += x * x;
                }
            }
            squares.into_iter().fold(0.0, larger)
        }
    };
    square.sqrt()
}
