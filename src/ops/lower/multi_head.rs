//! Attention of ONNX Runtime with as many heads of keys as of queries.

use super::LowerCx;
use super::heads::{
    Heads, Positions, Scoring, appended, attend, both, merge_heads, scale, split_heads,
};
use crate::ops::build::{Expr, Refusal, refuse};
use crate::ops::grad::GradOutcome;
use crate::ops::node_cx::MOST;
use crate::ty::{DType, Dim};

/// `y, k', v'` of queries `[b, s, n·h]`; keys and values apart, packed in `k`, or all in `q`.
pub fn multi_head(cx: &mut LowerCx<'_>) -> GradOutcome {
    if cx.maybe_x(8).is_some() || cx.maybe_x(9).is_some() || cx.is_read(3) {
        return refuse!("its cache is a buffer, or its scores are read");
    }
    let new = operands(cx, &Dim::from(cx.count("num_heads")?))?;
    let heads = Heads {
        q: new.q,
        k: appended(cx.maybe_x(6), new.k)?,
        v: appended(cx.maybe_x(7), new.v)?,
    };
    let y = masked(cx, &heads, cx.maybe_x(4), cx.maybe_x(5))?;
    cx.set(0, y);
    cx.set(1, heads.k);
    cx.set(2, heads.v);
    Ok(())
}

/// Queries, keys and values with their biases, by heads.
fn operands<'b>(cx: &LowerCx<'b>, n: &Dim) -> Result<Heads<'b>, Refusal> {
    let q = cx.x(0)?;
    let (k, v) = (cx.maybe_x(1), cx.maybe_x(2));
    let rank = |x: Option<Expr<'b>>| x.map(|x| x.rank()).transpose();
    let (q, k, v) = match (q.rank()?, rank(k)?, rank(v)?, k, v) {
        (5, None, None, ..) => (unpacked(q, 0)?, unpacked(q, 1)?, unpacked(q, 2)?),
        (3, Some(5), None, Some(kv), _) => (split_heads(q, n)?, unpacked(kv, 0)?, unpacked(kv, 1)?),
        (3, Some(4), Some(4), Some(k), Some(v)) => (split_heads(q, n)?, k, v),
        (3, Some(3), Some(3), Some(k), Some(v)) => {
            (split_heads(q, n)?, split_heads(k, n)?, split_heads(v, n)?)
        }
        (q, k, ..) => return refuse!("its queries have {q} axes and its keys {k:?}"),
    };
    let Some(bias) = cx.maybe_x(3) else {
        return Ok(Heads { q, k, v });
    };
    let size = |x: Expr<'b>| match x.dims()?.as_slice() {
        [_, n, _, h] => match (n.known(), h.known()) {
            (Some(n), Some(h)) if n <= MOST && h <= MOST / n.max(1) => Ok((n, h)),
            _ => refuse!("the size of its heads is not known"),
        },
        _ => refuse!("its heads have another rank"),
    };
    let add = |x: Expr<'b>, start: i64| {
        let (n, h) = size(x)?;
        let part = bias.slice(0, start, start + n * h);
        Ok(x + part.reshape(&[n, 1, h].map(Dim::from))?)
    };
    let (n, h) = size(k)?;
    // Finished keys of another sequence have their bias already.
    let finished = rank(cx.maybe_x(1))? == Some(4);
    Ok(Heads {
        q: add(q, 0)?,
        k: if finished { k } else { add(k, n * h)? },
        v: if finished { v } else { add(v, 2 * n * h)? },
    })
}

/// One part of `[b, s, n, parts, h]` as `[b, n, s, h]`.
fn unpacked(x: Expr<'_>, at: i64) -> Result<Expr<'_>, Refusal> {
    let part = x.slice(3, at, at + 1).squeeze(&[3]);
    Ok(part.transpose(&[0, 2, 1, 3]))
}

/// `y, present = attention(x w + bias, …)` with the weights of queries, keys and values side by
/// side.
pub fn packed(cx: &mut LowerCx<'_>) -> GradOutcome {
    if cx.flag("past_present_share_buffer") || cx.flag("do_rotary") || cx.maybe_x(6).is_some() {
        return refuse!("it shares a buffer with its caller, or rotates");
    }
    let n = Dim::from(cx.count("num_heads")?);
    let mut all = cx.x(0)?.matmul(cx.x(1)?);
    if let Some(bias) = cx.maybe_x(2) {
        all = all + bias;
    }
    let width = all.dims()?.last().and_then(Dim::known);
    let widths = match (cx.node.ints("qkv_hidden_sizes"), width) {
        (Some([q, k, v]), _) if [q, k, v].iter().all(|width| (0..=MOST).contains(*width)) => {
            [*q, *k, *v]
        }
        (None, Some(width)) => [width / 3; 3],
        _ => return refuse!("the size of its heads is not known"),
    };
    let mut start = 0;
    let mut parts = Vec::new();
    for width in widths {
        parts.push(split_heads(all.slice(2, start, start + width), &n)?);
        start += width;
    }
    let cached = |at: i64| {
        let past = cx.maybe_x(4);
        past.map(|past| past.slice(0, at, at + 1).squeeze(&[0]))
    };
    let heads = Heads {
        q: parts[0],
        k: appended(cached(0), parts[1])?,
        v: appended(cached(1), parts[2])?,
    };
    let y = masked(cx, &heads, cx.maybe_x(3), cx.maybe_x(5))?;
    cx.set(0, y);
    if cx.is_read(1) {
        let both = [heads.k.unsqueeze(&[0]), heads.v.unsqueeze(&[0])];
        cx.set(1, cx.build.concat(&both, 0));
    }
    Ok(())
}

/// Attention with a mask of padding, a bias, and with `unidirectional` no later keys.
fn masked<'b>(
    cx: &LowerCx<'b>,
    heads: &Heads<'b>,
    padding: Option<Expr<'b>>,
    bias: Option<Expr<'b>>,
) -> Result<Expr<'b>, Refusal> {
    let (queries, keys) = (heads.q.dims()?[2].clone(), heads.k.dims()?[2].clone());
    let positions = Positions {
        offset: keys.clone() - queries.clone(),
        queries,
        keys: keys.clone(),
        causal: cx.flag("unidirectional"),
        left: None,
        right: None,
    };
    let mut added: Vec<Expr<'b>> = bias.into_iter().collect();
    if let Some(mask) = padding {
        let sees = seen(mask, &heads.q.dims()?[0], &keys)?;
        let masked = cx.float_or("mask_filter_value", -10000.0);
        let zero = heads.q.number(0.0);
        added.push(sees.choose(zero, heads.q.number(masked)));
    }
    let scoring = Scoring {
        scale: scale(cx.node.float("scale"), heads.q)?,
        softcap: 0.0,
        bias: added,
        sees: both(positions.sees(cx.build)?, None),
        may_be_blind: false,
        sink: None,
    };
    merge_heads(attend(heads, &scoring)?.y)
}

/// A mask in one of its forms: lengths of samples, their ends and begins, or a number a key; as
/// truth values that broadcast to `[b, n, s, t]`.
fn seen<'b>(mask: Expr<'b>, batch: &Dim, keys: &Dim) -> Result<Expr<'b>, Refusal> {
    let dims = mask.dims()?;
    let counted = || mask.builder.count(keys);
    let column = |x: Expr<'b>| x.cast(DType::I64).unsqueeze(&[1, 2, 3]);
    match dims.as_slice() {
        [samples] if samples == batch => Ok(counted()?.is_less(column(mask))),
        [samples] if *samples == batch.clone() * Dim::from(2) => {
            let Some(count) = batch.known().filter(|count| *count <= MOST) else {
                return refuse!("its mask has begins and ends of a symbolic batch");
            };
            let (ends, begins) = (mask.slice(0, 0, count), mask.slice(0, count, 2 * count));
            let counted = counted()?;
            let behind = counted.is_less(column(begins)).not();
            Ok(counted.is_less(column(ends)).and(behind))
        }
        [_, _] => Ok(mask.cast(DType::Bool).unsqueeze(&[1, 2])),
        [_, _, _] => Ok(mask.cast(DType::Bool).unsqueeze(&[1])),
        _ => refuse!("its mask has the shape {dims:?}"),
    }
}
