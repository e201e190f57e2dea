//! Blocks of attention.

use super::rows::{Added, of_scores, probabilities};
use super::spans::Spans;
use super::{Attention, Keys, Operands, Threads};
use crate::linalg::{Part, PartMut};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Queries of a block: products are as fast as with more of them, and little of what is masked is
/// computed along.
const BLOCK: usize = 64;

thread_local! {
    /// Scores and gradients of a block.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// What gradients are computed from, besides the operands.
#[derive(Clone, Copy, Debug)]
pub struct Given<'r> {
    /// The gradient of the result.
    pub result: &'r [f32],
    /// By query, the sum over all keys of the probability times its gradient; computed where nobody has it.
    pub inner: Option<&'r [f32]>,
}

/// Where gradients go.
#[derive(Debug)]
pub struct Gradients<'r> {
    pub queries: Option<&'r mut [f32]>,
    pub keys: Option<(Keys, &'r mut [f32])>,
    pub values: Option<&'r mut [f32]>,
}

/// Those of one head.
type Held<'r> = Mutex<Gradients<'r>>;

impl Attention {
    pub fn forward(
        &self,
        of: &Operands<'_>,
        result: &mut [f32],
        threads: &dyn Threads,
    ) -> Result<(), String> {
        self.check(of)?;
        if result.len() != self.heads() * self.queries * self.value_width {
            return Err("a result of another size than planned".to_owned());
        }
        if self.is_empty() {
            result.fill(0.0);
            return Ok(());
        }
        let spans = Spans::of(self, BLOCK, of, threads)?;
        let parts: Vec<Mutex<&mut [f32]>> = result
            .chunks_mut(self.queries * self.value_width)
            .flat_map(|head| head.chunks_mut(BLOCK * self.value_width))
            .map(Mutex::new)
            .collect();
        let blocks = self.queries.div_ceil(BLOCK);
        threads.each(parts.len(), &|task| {
            let block = self.block(of, &spans, task / blocks, task % blocks);
            let mut into = parts[task].lock().unwrap_or_else(PoisonError::into_inner);
            with_scratch(block.scores(), |scores| {
                block.probabilities(scores);
                PartMut::new(
                    &mut into,
                    block.rows.len(),
                    self.value_width,
                    self.value_width,
                )
                .set(1.0, block.of_scores(scores), block.values());
            });
        })
    }

    pub fn backward(
        &self,
        of: &Operands<'_>,
        given: &Given<'_>,
        mut into: Gradients<'_>,
        threads: &dyn Threads,
    ) -> Result<(), String> {
        self.check(of)?;
        let heads = self.heads();
        let fits = |held: Option<usize>, size: usize| held.is_none_or(|held| held == heads * size);
        let queries = self.queries * self.width;
        let keys = self.keys * self.width;
        let values = self.keys * self.value_width;
        if given.result.len() != heads * self.queries * self.value_width
            || !fits(given.inner.map(<[f32]>::len), self.queries)
            || !fits(into.queries.as_deref().map(<[f32]>::len), queries)
            || !fits(into.keys.as_ref().map(|(_, keys)| keys.len()), keys)
            || !fits(into.values.as_deref().map(<[f32]>::len), values)
        {
            return Err("gradients of other sizes than planned".to_owned());
        }
        into.zero();
        if self.is_empty() {
            return Ok(());
        }
        let spans = Spans::of(self, BLOCK, of, threads)?;
        let held = into.by_head(heads, [queries, keys, values]);
        threads.each(heads, &|head| {
            let mut into = held[head].lock().unwrap_or_else(PoisonError::into_inner);
            for at in 0..self.queries.div_ceil(BLOCK) {
                let block = self.block(of, &spans, head, at);
                with_scratch(2 * block.scores(), |scratch| {
                    let (scores, gradients) = scratch.split_at_mut(block.scores());
                    block.gradients(scores, gradients, given, &mut into);
                });
            }
        })
    }

    /// Whether there is nothing to compute; what there is of results is 0 then.
    fn is_empty(&self) -> bool {
        [self.heads(), self.queries, self.keys, self.value_width].contains(&0)
    }

    fn block<'b>(
        &'b self,
        of: &'b Operands<'b>,
        spans: &Spans,
        head: usize,
        block: usize,
    ) -> Block<'b> {
        let first = block * BLOCK;
        Block {
            attention: self,
            of,
            head,
            rows: first..(first + BLOCK).min(self.queries),
            span: spans.span(head, block),
        }
    }
}

/// Some queries of a head, and the keys that count for them.
struct Block<'b> {
    attention: &'b Attention,
    of: &'b Operands<'b>,
    head: usize,
    rows: Range<usize>,
    span: Range<usize>,
}

impl<'b> Block<'b> {
    fn scores(&self) -> usize {
        self.rows.len() * self.span.len()
    }

    /// `[queries, width]`.
    fn queries(&self) -> Part<'b> {
        let width = self.attention.width;
        let first = self.head * self.attention.queries + self.rows.start;
        let data = &self.of.queries[first * width..];
        Part::new(data, self.rows.len(), width, width)
    }

    /// `[keys, width]`.
    fn keys(&self) -> Part<'b> {
        let (keys, width) = (self.attention.keys, self.attention.width);
        let data = &self.of.keys[self.head * keys * width..];
        match self.attention.layout {
            Keys::Rows => {
                let data = &data[self.span.start * width..];
                Part::new(data, self.span.len(), width, width)
            }
            Keys::Columns => {
                let data = &data[self.span.start..];
                Part::new(data, width, self.span.len(), keys).transposed()
            }
        }
    }

    /// `[keys, value_width]`.
    fn values(&self) -> Part<'b> {
        let width = self.attention.value_width;
        let first = self.head * self.attention.keys + self.span.start;
        let data = &self.of.values[first * width..];
        Part::new(data, self.span.len(), width, width)
    }

    /// What lies as the scores of the block: `[queries, keys]`.
    fn of_scores<'s>(&self, scores: &'s [f32]) -> Part<'s> {
        let keys = self.span.len();
        Part::new(scores, self.rows.len(), keys, keys)
    }

    fn probabilities(&self, scores: &mut [f32]) {
        let keys = self.span.len();
        PartMut::new(scores, self.rows.len(), keys, keys).set(
            self.attention.scale,
            self.queries(),
            self.keys().transposed(),
        );
        let mask = self.attention.mask.as_ref().zip(self.of.mask);
        let added = |row: usize| match mask {
            None => Added::Nothing,
            Some((mask, elements)) => {
                let query = self.rows.start + row;
                let of_row = &elements[mask.heads[self.head] + query * mask.query..];
                match mask.key {
                    0 => Added::Number(of_row[0]),
                    _ => Added::Row(&of_row[self.span.clone()]),
                }
            }
        };
        probabilities(scores, keys, self.attention.guards, &added);
    }

    fn gradients(
        &self,
        scores: &mut [f32],
        gradients: &mut [f32],
        given: &Given<'_>,
        into: &mut Gradients<'_>,
    ) {
        let attention = self.attention;
        let (keys, width) = (self.span.len(), attention.width);
        self.probabilities(scores);
        let first = self.head * attention.queries + self.rows.start;
        let of_values = attention.value_width;
        let of_result = &given.result[first * of_values..];
        let of_result = Part::new(of_result, self.rows.len(), of_values, of_values);
        if let Some(into) = &mut into.values {
            let into = &mut into[self.span.start * of_values..];
            let transposed = self.of_scores(scores).transposed();
            PartMut::new(into, keys, of_values, of_values).add(1.0, transposed, of_result);
        }
        if into.queries.is_none() && into.keys.is_none() {
            return;
        }
        let part = PartMut::new(gradients, self.rows.len(), keys, keys);
        part.set(1.0, of_result, self.values().transposed());
        let inner = given.inner.map(|inner| &inner[first..][..self.rows.len()]);
        of_scores(gradients, scores, keys, inner);
        if let Some(into) = &mut into.queries {
            let into = &mut into[self.rows.start * width..];
            let part = PartMut::new(into, self.rows.len(), width, width);
            part.set(attention.scale, self.of_scores(gradients), self.keys());
        }
        if let Some((layout, into)) = &mut into.keys {
            let part = match layout {
                Keys::Rows => {
                    PartMut::new(&mut into[self.span.start * width..], keys, width, width)
                }
                Keys::Columns => {
                    let into = &mut into[self.span.start..];
                    PartMut::new(into, width, keys, attention.keys).transposed()
                }
            };
            let transposed = self.of_scores(gradients).transposed();
            part.add(attention.scale, transposed, self.queries());
        }
    }
}

impl<'r> Gradients<'r> {
    fn zero(&mut self) {
        let keys = self.keys.as_mut().map(|(_, keys)| &mut **keys);
        let all = [
            self.queries.as_deref_mut(),
            keys,
            self.values.as_deref_mut(),
        ];
        all.into_iter().flatten().for_each(|into| into.fill(0.0));
    }

    /// Cut into those of single heads.
    fn by_head(self, heads: usize, [queries, keys, values]: [usize; 3]) -> Vec<Held<'r>> {
        let layout = self.keys.as_ref().map(|(layout, _)| *layout);
        let mut queries = self.queries.map(|all| all.chunks_mut(queries));
        let mut keys = self.keys.map(|(_, all)| all.chunks_mut(keys));
        let mut values = self.values.map(|all| all.chunks_mut(values));
        let one = |_| {
            Mutex::new(Gradients {
                queries: queries.as_mut().and_then(Iterator::next),
                keys: layout.zip(keys.as_mut().and_then(Iterator::next)),
                values: values.as_mut().and_then(Iterator::next),
            })
        };
        (0..heads).map(one).collect()
    }
}

/// So many elements that nobody else has while `work` runs; what they are is open.
fn with_scratch(elements: usize, work: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < elements {
            scratch.resize(elements, 0.0);
        }
        work(&mut scratch[..elements]);
    });
}
