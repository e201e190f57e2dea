//! Attention whose keys and values are shared by groups of heads, as ONNX Runtime has it.

use super::array::Array;
use super::attention_fused::counted;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::heads::{Heads, Rotation, Scoring, attend, merge_heads, scale, split_heads, visible};
use super::movement::part;
use super::rows::{along, stretch, zip_floats};
use super::sizes;
use super::table::{Entry, many};

pub(super) const OPS: &[Entry] = &[many("GroupQueryAttention", 1, grouped).microsoft()];

/// The tokens of a step.
struct Lengths {
    /// How many keys each sample had before.
    past: Vec<usize>,
    /// How many it has now.
    keys: Vec<usize>,
    /// How many the longest has.
    total: usize,
}

/// `y, k', v', scores` of `q: [b, s, n·h]`, or `[b, s, (n + 2g)·h]` with everything packed.
fn grouped(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    if cx.flag("sliding_window_cache") || cx.flag("kv_cache_bit_width") {
        return unsupported!("quantized caches and caches of a window");
    }
    let (n, g) = (cx.positive("num_heads")?, cx.positive("kv_num_heads")?);
    let dtype = cx.operand(0)?.dtype();
    let mut new = operands(cx, n, g)?;
    let &[b, _, s, _] = new.q.dims() else {
        return mismatch!("queries of {:?}", new.q.dims());
    };
    let lengths = lengths(cx, b, s)?;
    if let (Some(q), Some(k)) = (cx.optional(14), cx.optional(15)) {
        let epsilon = cx.float_or("qk_norm_epsilon", 1e-6);
        new.q = normalized(&new.q, q, epsilon)?;
        new.k = normalized(&new.k, k, epsilon)?;
    }
    if cx.flag("do_rotary") {
        let rotation = rotation(cx, &lengths, b, s)?;
        new.q = rotation.rotate(&new.q)?;
        new.k = rotation.rotate(&new.k)?;
    }
    let heads = Heads {
        k: written(cx.optional(3), &new.k, &lengths)?,
        v: written(cx.optional(4), &new.v, &lengths)?,
        q: new.q,
    };
    let cut = |x: &Array| part(x, 2, 0, lengths.total);
    let seen = Heads {
        k: cut(&heads.k)?,
        v: cut(&heads.v)?,
        q: heads.q.clone(),
    };
    let attended = attend_to(cx, &seen, &lengths, [b, s, n])?;
    let shown = match cx.int_or("qk_output", 0) {
        1 => attended.1,
        _ => attended.2,
    };
    let y = merge_heads(&attended.0)?.typed(dtype)?;
    Ok(vec![y, heads.k, heads.v, shown.typed(dtype)?])
}

fn operands(cx: &Cx<'_>, n: usize, g: usize) -> Result<Heads, Fault> {
    let q = cx.operand(0)?;
    if let (Some(k), Some(v)) = (cx.optional(1), cx.optional(2)) {
        return Ok(Heads {
            q: split_heads(q, n)?,
            k: split_heads(k, g)?,
            v: split_heads(v, g)?,
        });
    }
    let all = split_heads(q, n.saturating_add(g.saturating_mul(2)))?;
    Ok(Heads {
        q: part(&all, 1, 0, n)?,
        k: part(&all, 1, n, g)?,
        v: part(&all, 1, n + g, g)?,
    })
}

/// A step that brings every token is the first, and its samples are padded behind; a later one
/// brings the last tokens of each sample.
fn lengths(cx: &Cx<'_>, b: usize, s: usize) -> Result<Lengths, Fault> {
    let last = cx.numbers(5)?;
    let total = sizes::size(cx.number(6)?)?;
    if last.len() != b || total < s {
        return mismatch!(
            "{} lengths of {b} samples, and {total} tokens for {s}",
            last.len()
        );
    }
    let (mut past, mut keys) = (vec![0; b], Vec::new());
    for (past, last) in past.iter_mut().zip(last) {
        let len = sizes::size(last)?.saturating_add(1);
        match len.checked_sub(s) {
            _ if len > total => return mismatch!("{len} keys of {total}"),
            _ if s == total => {}
            Some(before) => *past = before,
            None => return mismatch!("{len} keys, {s} of them new"),
        }
        keys.push(len);
    }
    Ok(Lengths { past, keys, total })
}

/// `x / √(mean(x²) + ε) · weight` over each head.
fn normalized(x: &Array, weight: &Array, epsilon: f64) -> Result<Array, Fault> {
    let normal = along(x, &[3], |row| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        row.iter().map(|x| x / (mean + epsilon).sqrt()).collect()
    })?;
    zip_floats(
        x.dtype(),
        &normal,
        &stretch(weight, x.dims())?,
        |x, weight| x * weight,
    )
}

fn rotation(cx: &Cx<'_>, lengths: &Lengths, b: usize, s: usize) -> Result<Rotation, Fault> {
    let firsts: Vec<i64> = lengths.past.iter().map(|past| *past as i64).collect();
    let positions = match cx.optional(9) {
        Some(positions) => stretch(positions, &[b, s])?,
        None => counted(&firsts, s)?,
    };
    Rotation::at(
        cx.operand(7)?,
        cx.operand(8)?,
        &positions,
        cx.flag("rotary_interleaved"),
    )
}

/// The cache with the new keys or values behind those that each sample has; it grows unless it is
/// a buffer that is large enough.
fn written(past: Option<&Array>, new: &Array, lengths: &Lengths) -> Result<Array, Fault> {
    let &[b, g, s, h] = new.dims() else {
        return mismatch!("heads of {:?}", new.dims());
    };
    let len = past
        .and_then(|past| past.dims().get(2).copied())
        .unwrap_or(0);
    let size = len.max(lengths.total);
    if past.is_some_and(|past| past.dims() != [b, g, len, h]) {
        return mismatch!(
            "a cache of {:?} for {:?}",
            past.map(Array::dims),
            new.dims()
        );
    }
    let fits = |past: &usize| past.saturating_add(s) <= size;
    if b != lengths.past.len() || !lengths.past.iter().all(fits) {
        return mismatch!("{s} new keys of {b} samples among {size}");
    }
    let mut data = vec![0.0; sizes::count(&[b, g, size, h])?];
    for head in 0..b * g {
        let rows = &mut data[head * size * h..][..size * h];
        if let Some(past) = past {
            rows[..len * h].copy_from_slice(&past.as_floats()?[head * len * h..][..len * h]);
        }
        let start = lengths.past[head / g] * h;
        rows[start..start + s * h].copy_from_slice(&new.as_floats()?[head * s * h..][..s * h]);
    }
    Array::floats(new.dtype(), &[b, g, size, h], data)
}

/// The result, and the scores before and behind the softmax.
fn attend_to(
    cx: &Cx<'_>,
    heads: &Heads,
    lengths: &Lengths,
    [b, s, n]: [usize; 3],
) -> Result<(Array, Array, Array), Fault> {
    let causal = cx.int_or("causal", 1) != 0;
    let window = usize::try_from(cx.int_or("local_window_size", -1)).ok();
    let position = visible(
        [b, s, lengths.total],
        f64::NEG_INFINITY,
        |sample, query, key| {
            let own = lengths.past[sample] + query;
            let inside = window.is_none_or(|window| key.saturating_add(window) > own);
            key < lengths.keys[sample] && (!causal || key <= own && inside)
        },
    )?;
    let smooth = match cx.int_or("smooth_softmax", 0) {
        1 => Some(Array::zeros(heads.q.dtype(), &[n])?),
        _ => None,
    };
    let mut bias = vec![&position];
    bias.extend(cx.optional(10));
    let scoring = Scoring {
        scale: scale(cx, heads),
        softcap: cx.float_or("softcap", 0.0),
        bias,
        sink: cx.optional(11).or(smooth.as_ref()),
    };
    let attended = attend(heads, &scoring)?;
    Ok((attended.y, attended.biased, attended.weights))
}
