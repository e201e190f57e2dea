//! What every form of attention shares. Letters: `b` batch, `s` queries, `t` keys, `n` heads, `g`
//! heads of keys and values, `h` size of a head, `v` size of a head of values.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::gather::take;
use super::matmul::{matmul, transposed};
use super::movement::{join, part};
use super::rows::{along, permuted, stretch, zip_floats};
use super::sizes::{count, for_each};
use crate::ty::DType;

/// The operands of attention: `[b, n, s, h]`, `[b, g, t, h]`, `[b, g, t, v]`.
pub(super) struct Heads {
    pub q: Array,
    pub k: Array,
    pub v: Array,
}

/// How scores become weights.
pub(super) struct Scoring<'a> {
    pub scale: f64,
    /// Scores are drawn together to within this, if it is positive.
    pub softcap: f64,
    /// What is added behind that; broadcasts to `[b, n, s, t]`.
    pub bias: Vec<&'a Array>,
    /// A further score of each head that takes weight and gives no value.
    pub sink: Option<&'a Array>,
}

/// Attention and its steps, each `[b, n, s, t]` but for the result, `[b, n, s, v]`.
pub(super) struct Attended {
    pub raw: Array,
    pub capped: Array,
    pub biased: Array,
    pub weights: Array,
    pub y: Array,
}

/// `[b, s, n·h]` as `[b, n, s, h]`.
pub(super) fn split_heads(x: &Array, n: usize) -> Result<Array, Fault> {
    match x.dims() {
        [b, s, hidden] if n > 0 && hidden % n == 0 => {
            let apart = x.clone().reshaped(&[*b, *s, n, hidden / n])?;
            permuted(&apart, &[0, 2, 1, 3])
        }
        dims => mismatch!("{n} heads of {dims:?}"),
    }
}

/// `[b, n, s, h]` as `[b, s, n·h]`.
pub(super) fn merge_heads(x: &Array) -> Result<Array, Fault> {
    match x.dims() {
        [b, n, s, h] => permuted(x, &[0, 2, 1, 3])?.reshaped(&[*b, *s, n * h]),
        dims => mismatch!("heads of {dims:?}"),
    }
}

/// The keys or values behind those of a cache, if there is one.
pub(super) fn appended(past: Option<&Array>, new: &Array) -> Result<Array, Fault> {
    match past {
        Some(past) => join(&[past, new], 2),
        None => Ok(new.clone()),
    }
}

/// Each head of keys or values as often as heads of queries share it.
fn shared(x: &Array, n: usize) -> Result<Array, Fault> {
    let [b, g, t, h] = *x.dims() else {
        return mismatch!("heads of {:?}", x.dims());
    };
    if g == 0 || !n.is_multiple_of(g) {
        return mismatch!("{n} heads of queries for {g} of keys");
    }
    let apart = x.clone().reshaped(&[b, g, 1, t, h])?;
    stretch(&apart, &[b, g, n / g, t, h])?.reshaped(&[b, n, t, h])
}

/// `y = softmax(cap(scale · q kᵀ) + bias) v`; a query that sees no key gets zeros.
pub(super) fn attend(heads: &Heads, scoring: &Scoring<'_>) -> Result<Attended, Fault> {
    let [_, n, _, _] = *heads.q.dims() else {
        return mismatch!("queries of {:?}", heads.q.dims());
    };
    let (k, v) = (shared(&heads.k, n)?, shared(&heads.v, n)?);
    let raw = matmul(&heads.q, &transposed(&k, true)?)?.map(|x| x * scoring.scale)?;
    let cap = scoring.softcap;
    let capped = match cap > 0.0 {
        true => raw.map(|x| cap * (x / cap).tanh())?,
        false => raw.clone(),
    };
    let mut biased = capped.clone();
    for bias in &scoring.bias {
        biased = zip_floats(
            raw.dtype(),
            &biased,
            &stretch(bias, raw.dims())?,
            |x, bias| x + bias,
        )?;
    }
    let weights = match scoring.sink {
        Some(sink) => with_sink(&biased, sink)?,
        None => along(&biased, &[3], weights)?,
    };
    let y = matmul(&weights, &v)?.typed(heads.v.dtype())?;
    Ok(Attended {
        raw,
        capped,
        biased,
        weights,
        y,
    })
}

/// The softmax of a row; zeros where every score is negative infinity.
fn weights(row: &[f64]) -> Vec<f64> {
    match row.iter().all(|x| *x == f64::NEG_INFINITY) {
        true => vec![0.0; row.len()],
        false => super::special::softmax(row),
    }
}

/// The softmax of each row with the score of its head beside it.
fn with_sink(scores: &Array, sink: &Array) -> Result<Array, Fault> {
    let [b, n, s, _] = *scores.dims() else {
        return mismatch!("scores of {:?}", scores.dims());
    };
    let sink = stretch(
        &sink.clone().reshaped(&[1, sink.len(), 1, 1])?,
        &[b, n, s, 1],
    )?;
    let both = join(&[scores, &sink.typed(scores.dtype())?], 3)?;
    let all = along(&both, &[3], weights)?;
    part(&all, 3, 0, scores.dims()[3])
}

/// 0 where a query may see a key, else `masked`: `[b, 1, s, t]`.
pub(super) fn visible(
    [b, s, t]: [usize; 3],
    masked: f64,
    sees: impl Fn(usize, usize, usize) -> bool,
) -> Result<Array, Fault> {
    let mut data = Vec::with_capacity(count(&[b, s, t])?);
    for_each(&[b, s, t], |at| {
        data.push(if sees(at[0], at[1], at[2]) {
            0.0
        } else {
            masked
        });
        Ok(())
    })?;
    Array::floats(DType::F64, &[b, 1, s, t], data)
}

/// The stated scale, or `1/√h`.
pub(super) fn scale(cx: &Cx<'_>, heads: &Heads) -> f64 {
    let h = heads.q.dims().last().copied().unwrap_or(1);
    match cx.float("scale") {
        // ONNX Runtime writes 0 for the default.
        Some(scale) if scale != 0.0 => f64::from(scale),
        _ => 1.0 / (h as f64).sqrt(),
    }
}

/// A rotation of pairs of elements: `cos` and `sin` of each position, `[b or 1, s, d/2]`.
pub(super) struct Rotation {
    pub cos: Array,
    pub sin: Array,
    pub interleaved: bool,
}

impl Rotation {
    /// The rows of two caches `[positions, d/2]` at positions `[b, s]`.
    pub fn at(
        cos: &Array,
        sin: &Array,
        positions: &Array,
        interleaved: bool,
    ) -> Result<Self, Fault> {
        Ok(Rotation {
            cos: take(cos, positions, 0)?,
            sin: take(sin, positions, 0)?,
            interleaved,
        })
    }

    /// Rotates the first `d` elements of each head of `[b, n, s, h]`.
    pub fn rotate(&self, x: &Array) -> Result<Array, Fault> {
        let ([b, _, s, h], [_, tokens, half]) = (x.dims(), self.cos.dims()) else {
            return mismatch!("{:?} rotated by {:?}", x.dims(), self.cos.dims());
        };
        let (b, s, h, half) = (*b, *s, *h, *half);
        if half * 2 > h || *tokens != s || self.sin.dims() != self.cos.dims() {
            return mismatch!("{:?} rotated by {:?}", x.dims(), self.cos.dims());
        }
        let cos = stretch(&self.cos, &[b, s, half])?;
        let sin = stretch(&self.sin, &[b, s, half])?;
        let (cos, sin) = (cos.as_floats()?, sin.as_floats()?);
        let mut data = x.as_floats()?.to_vec();
        let per_sample = x.dims()[1] * s;
        for (row, head) in data.chunks_exact_mut(h.max(1)).enumerate() {
            let token = row / per_sample.max(1) * s + row % s;
            for pair in 0..half {
                let (first, second) = match self.interleaved {
                    true => (2 * pair, 2 * pair + 1),
                    false => (pair, pair + half),
                };
                let (c, i) = (cos[token * half + pair], sin[token * half + pair]);
                let (real, imaginary) = (head[first], head[second]);
                head[first] = c * real - i * imaginary;
                head[second] = i * real + c * imaginary;
            }
        }
        Array::floats(x.dtype(), x.dims(), data)
    }
}
