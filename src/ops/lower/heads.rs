//! What every form of attention shares. Letters: `b` batch, `s` queries, `t` keys, `n` heads, `g`
//! heads of keys and values, `h` size of a head, `v` size of a head of values.

use crate::graph::Attribute;
use crate::ops::build::{Builder, END, Expr, Refusal, refuse};
use crate::ty::{DType, Dim};

/// The operands of attention: `[b, n, s, h]`, `[b, g, t, h]`, `[b, g, t, v]`.
#[derive(Clone, Copy)]
pub(super) struct Heads<'b> {
    pub q: Expr<'b>,
    pub k: Expr<'b>,
    pub v: Expr<'b>,
}

/// How scores become weights.
pub(super) struct Scoring<'b> {
    pub scale: f64,
    /// Scores are drawn together to within this, if it is positive.
    pub softcap: f64,
    /// What is added behind that; each broadcasts to `[b, n, s, t]`.
    pub bias: Vec<Expr<'b>>,
    /// Which keys a query sees; `None` for all. Broadcasts to `[b, n, s, t]`.
    pub sees: Option<Expr<'b>>,
    /// Whether there may be a query that sees no key: it gets zeros.
    pub may_be_blind: bool,
    /// A further score of each head that takes weight and gives no value, `[n]`.
    pub sink: Option<Expr<'b>>,
}

/// Attention and its steps, each `[b, n, s, t]` but for the result, `[b, n, s, v]`.
pub(super) struct Attended<'b> {
    pub raw: Expr<'b>,
    pub capped: Expr<'b>,
    pub biased: Expr<'b>,
    pub weights: Expr<'b>,
    pub y: Expr<'b>,
}

/// `[b, s, n·h]` as `[b, n, s, h]`.
pub(super) fn split_heads<'b>(x: Expr<'b>, n: &Dim) -> Result<Expr<'b>, Refusal> {
    let dims = x.dims()?;
    let [b, s, hidden] = dims.as_slice() else {
        return refuse!("it splits a tensor with {} axes into heads", dims.len());
    };
    let apart = [b.clone(), s.clone(), n.clone(), hidden.floor_div(n)];
    Ok(x.reshape(&apart)?.transpose(&[0, 2, 1, 3]))
}

/// `[b, n, s, h]` as `[b, s, n·h]`.
pub(super) fn merge_heads(x: Expr<'_>) -> Result<Expr<'_>, Refusal> {
    let dims = x.dims()?;
    let [b, n, s, h] = dims.as_slice() else {
        return refuse!("it merges the heads of a tensor with {} axes", dims.len());
    };
    let together = [b.clone(), s.clone(), n.clone() * h.clone()];
    x.transpose(&[0, 2, 1, 3]).reshape(&together)
}

/// The keys or values behind those of a cache, if there is one.
pub(super) fn appended<'b>(past: Option<Expr<'b>>, new: Expr<'b>) -> Result<Expr<'b>, Refusal> {
    let Some(past) = past else {
        return Ok(new);
    };
    let (old, own) = (past.dims()?, new.dims()?);
    if old.len() != 4 || own.len() != 4 {
        return refuse!("its cache has {} axes", old.len());
    }
    let mut dims = own.clone();
    dims[2] = old[2].clone() + own[2].clone();
    Ok(new.builder.concat(&[past, new], 2).stated(&dims))
}

/// `y = softmax(cap(scale · q kᵀ) + bias) v`. Heads of queries that share keys are rows of one
/// product, so that no key is repeated.
pub(super) fn attend<'b>(
    heads: &Heads<'b>,
    scoring: &Scoring<'b>,
) -> Result<Attended<'b>, Refusal> {
    let build = heads.q.builder;
    let sizes = Sizes::read(heads)?;
    let rows = sizes.rows(heads.q * scoring.scale, &sizes.h)?;
    let raw = rows
        .matmul(heads.k.transpose_last()?)
        .reshape(&sizes.scores())?;
    let capped = match scoring.softcap {
        cap if cap > 0.0 => (raw * (1.0 / cap)).tanh() * cap,
        _ => raw,
    };
    let mut biased = capped;
    for bias in &scoring.bias {
        biased = biased + bias.cast(raw.dtype());
    }
    if let Some(sees) = scoring.sees {
        biased = sees.choose(biased, lowest(biased));
    }
    let mut weights = match scoring.sink {
        None => softmax(biased),
        Some(sink) => {
            let mut dims = sizes.scores();
            dims[3] = Dim::from(1);
            let column = sink.cast(raw.dtype()).unsqueeze(&[0, 2, 3]).expand(&dims)?;
            // In front, so that what is cut off has a known size.
            let both = softmax(build.concat(&[column, biased], 3));
            both.slice(3, 1, END).stated(&sizes.scores())
        }
    };
    if let (Some(sees), true) = (scoring.sees, scoring.may_be_blind) {
        let rank = sees.rank()?;
        let any = sees
            .cast(weights.dtype())
            .reduce_keeping("ReduceMax", &[rank - 1]);
        weights = weights * any;
    }
    let y = sizes.rows(weights, &sizes.t)?.matmul(heads.v);
    Ok(Attended {
        raw,
        capped,
        biased,
        weights,
        y: y.reshape(&sizes.result())?,
    })
}

fn softmax(x: Expr<'_>) -> Expr<'_> {
    x.with("Softmax", vec![Attribute::int("axis", -1)])
}

/// The lowest number of a type: no score is below it.
fn lowest(x: Expr<'_>) -> Expr<'_> {
    x.number(match x.dtype() {
        DType::F16 => -65504.0,
        DType::F64 => f64::MIN,
        // Within bf16, too.
        _ => -3.0e38,
    })
}

struct Sizes {
    b: Dim,
    n: Dim,
    g: Dim,
    s: Dim,
    t: Dim,
    h: Dim,
    v: Dim,
}

impl Sizes {
    fn read(heads: &Heads<'_>) -> Result<Sizes, Refusal> {
        let (q, k, v) = (heads.q.dims()?, heads.k.dims()?, heads.v.dims()?);
        let ([b, n, s, h], [_, g, t, _], [_, _, _, v]) = (q.as_slice(), k.as_slice(), v.as_slice())
        else {
            return refuse!(
                "its heads have {}, {} and {} axes",
                q.len(),
                k.len(),
                v.len()
            );
        };
        Ok(Sizes {
            b: b.clone(),
            n: n.clone(),
            g: g.clone(),
            s: s.clone(),
            t: t.clone(),
            h: h.clone(),
            v: v.clone(),
        })
    }

    /// `[b, n, s, …]` as `[b, g, n/g · s, …]`.
    fn rows<'b>(&self, x: Expr<'b>, last: &Dim) -> Result<Expr<'b>, Refusal> {
        let shared = self.n.floor_div(&self.g) * self.s.clone();
        x.reshape(&[self.b.clone(), self.g.clone(), shared, last.clone()])
    }

    fn scores(&self) -> Vec<Dim> {
        [&self.b, &self.n, &self.s, &self.t]
            .map(Dim::clone)
            .to_vec()
    }

    fn result(&self) -> Vec<Dim> {
        [&self.b, &self.n, &self.s, &self.v]
            .map(Dim::clone)
            .to_vec()
    }
}

/// Which keys the positions allow: `[s, t]`. Query `i` stands at `offset + i`.
pub(super) struct Positions {
    pub queries: Dim,
    pub keys: Dim,
    /// How many keys there are before the first query.
    pub offset: Dim,
    pub causal: bool,
    /// How many keys before a query it sees, and how many behind.
    pub left: Option<i64>,
    pub right: Option<i64>,
}

impl Positions {
    /// `None` where every query sees every key.
    pub(super) fn sees<'b>(&self, build: &'b Builder<'b>) -> Result<Option<Expr<'b>>, Refusal> {
        let right = match (self.causal, self.right) {
            (true, Some(right)) => Some(right.min(0)),
            (true, None) => Some(0),
            (false, right) => right,
        };
        if right.is_none() && self.left.is_none() {
            return Ok(None);
        }
        let mut queries = build.count(&self.queries)?;
        if self.offset.known() != Some(0) {
            queries = queries + build.size(&self.offset)?;
        }
        let (queries, keys) = (
            queries.unsqueeze(&[1]),
            build.count(&self.keys)?.unsqueeze(&[0]),
        );
        let mut sees = None;
        if let Some(right) = right {
            sees = Some((queries + right as f64).is_less(keys).not());
        }
        if let Some(left) = self.left {
            let near = keys.is_less(queries - left as f64).not();
            sees = Some(sees.map_or(near, |sees: Expr<'b>| sees.and(near)));
        }
        Ok(sees)
    }
}

/// Both, where there are two.
pub(super) fn both<'b>(a: Option<Expr<'b>>, b: Option<Expr<'b>>) -> Option<Expr<'b>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.and(b)),
        (a, b) => a.or(b),
    }
}

/// The stated scale, or `1/√h`; ONNX Runtime writes 0 for the default.
pub(super) fn scale(stated: Option<f32>, q: Expr<'_>) -> Result<f64, Refusal> {
    if let Some(scale) = stated.filter(|scale| *scale != 0.0) {
        return Ok(f64::from(scale));
    }
    match q.dims()?.last().and_then(Dim::known) {
        Some(h) if h > 0 => Ok(1.0 / (h as f64).sqrt()),
        _ => refuse!("the size of its heads is not known"),
    }
}
