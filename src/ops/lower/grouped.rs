//! Attention whose keys and values are shared by groups of heads, as ONNX Runtime has it.
//!
//! Caches are those of a step that every sample makes from the same length: nothing before the
//! first token, as in training, or as many tokens as the cache holds.

use super::LowerCx;
use super::heads::{Heads, Positions, Scoring, appended, attend, merge_heads, scale, split_heads};
use crate::graph::Attribute;
use crate::ops::build::{END, Expr, Refusal, refuse};
use crate::ops::grad::GradOutcome;
use crate::ops::registry::MICROSOFT;
use crate::ty::Dim;

/// `y, k', v', scores` of `q: [b, s, n·h]`, or `[b, s, (n + 2g)·h]` with everything packed.
pub fn grouped(cx: &mut LowerCx<'_>) -> GradOutcome {
    refuse_unknown(cx)?;
    let (n, g) = (cx.count("num_heads")?, cx.count("kv_num_heads")?);
    let [q, k, v] = operands(cx, n, g)?;
    let past = match cx.maybe_x(3) {
        Some(past) => past.dims()?.get(2).cloned().unwrap_or(Dim::from(0)),
        None => Dim::from(0),
    };
    let rotated = |x, heads| turned(cx, x, heads, &past);
    let (q, k) = (
        rotated(normalized(cx, q, n, 14)?, n)?,
        rotated(normalized(cx, k, g, 15)?, g)?,
    );
    let heads = Heads {
        q: split_heads(q, &Dim::from(n))?,
        k: appended(cx.maybe_x(3), split_heads(k, &Dim::from(g))?)?,
        v: appended(cx.maybe_x(4), split_heads(v, &Dim::from(g))?)?,
    };
    let positions = Positions {
        queries: heads.q.dims()?[2].clone(),
        keys: heads.k.dims()?[2].clone(),
        offset: past,
        causal: cx.int_or("causal", 1) != 0,
        // The window counts the query's own key.
        left: Some(cx.int_or("local_window_size", -1).saturating_sub(1)).filter(|left| *left >= 0),
        right: None,
    };
    let smooth = cx.int_or("smooth_softmax", 0) == 1;
    let zeros = || cx.build.zeros(heads.q.dtype(), &[Dim::from(n)]);
    let scoring = Scoring {
        scale: scale(cx.node.float("scale"), heads.q)?,
        softcap: cx.float_or("softcap", 0.0),
        bias: cx.maybe_x(10).into_iter().collect(),
        sees: positions.sees(cx.build)?,
        may_be_blind: false,
        sink: match cx.maybe_x(11) {
            Some(sink) => Some(sink),
            None if smooth => Some(zeros()?),
            None => None,
        },
    };
    let y = merge_heads(attend(&heads, &scoring)?.y)?;
    cx.set(0, y);
    cx.set(1, heads.k);
    cx.set(2, heads.v);
    Ok(())
}

/// What no lowering is written for.
fn refuse_unknown(cx: &LowerCx<'_>) -> GradOutcome {
    for name in ["sliding_window_cache", "kv_cache_bit_width"] {
        if cx.flag(name) {
            return refuse!("it has `{name}`");
        }
    }
    for name in ["k_quant_type", "v_quant_type"] {
        if cx.node.string(name).is_some_and(|kind| kind != "NONE") {
            return refuse!("its cache is quantized");
        }
    }
    if let Some(slot) = [12, 13, 16]
        .into_iter()
        .find(|slot| cx.maybe_x(*slot).is_some())
    {
        return refuse!("it has an operand {slot}");
    }
    match cx.is_read(3) {
        true => refuse!("its scores are read"),
        false => Ok(()),
    }
}

/// Queries, keys and values, each `[b, s, heads · h]`.
fn operands<'b>(cx: &LowerCx<'b>, n: i64, g: i64) -> Result<[Expr<'b>; 3], Refusal> {
    let q = cx.x(0)?;
    if let (Some(k), Some(v)) = (cx.maybe_x(1), cx.maybe_x(2)) {
        return Ok([q, k, v]);
    }
    let hidden = q.dims()?.last().and_then(Dim::known);
    let Some(h) = hidden.map(|hidden| hidden / (n + 2 * g)) else {
        return refuse!("the size of its heads is not known");
    };
    Ok([
        q.slice(2, 0, n * h),
        q.slice(2, n * h, (n + g) * h),
        q.slice(2, (n + g) * h, END),
    ])
}

/// `x / √(mean(x²) + ε) · weight` over each head, where the node has such a weight.
fn normalized<'b>(
    cx: &LowerCx<'b>,
    x: Expr<'b>,
    heads: i64,
    weight: usize,
) -> Result<Expr<'b>, Refusal> {
    let Some(weight) = cx.maybe_x(weight) else {
        return Ok(x);
    };
    let dims = x.dims()?;
    let count = Dim::from(heads);
    let size = dims[2].floor_div(&count);
    let apart = x.reshape(&[dims[0].clone(), dims[1].clone(), count, size])?;
    let epsilon = cx.node.float("qk_norm_epsilon").unwrap_or(1e-6);
    let attributes = vec![
        Attribute::float("epsilon", epsilon),
        Attribute::int("axis", -1),
    ];
    cx.build
        .node("SimplifiedLayerNormalization", &[apart, weight], attributes)
        .reshape(&dims)
}

/// The rotary embedding of `[b, s, heads · h]` at the positions behind the cache.
fn turned<'b>(cx: &LowerCx<'b>, x: Expr<'b>, heads: i64, past: &Dim) -> Result<Expr<'b>, Refusal> {
    if !cx.flag("do_rotary") {
        return Ok(x);
    }
    let (cos, sin) = (cx.x(7)?, cx.x(8)?);
    let positions = match cx.maybe_x(9) {
        Some(positions) => positions,
        // The first one.
        None => cx.build.size(past)?,
    };
    let dims = x.dims()?;
    let (size, turned) = (dims[2].floor_div(&Dim::from(heads)), cos.dims()?);
    let mut attributes = vec![Attribute::int(
        "interleaved",
        cx.int_or("rotary_interleaved", 0),
    )];
    let whole = turned.get(1).map(|half| half.clone() * Dim::from(2));
    if whole.as_ref() != Some(&size) {
        let Some(part) = whole.and_then(|part| part.known()) else {
            return refuse!("how much of a head it rotates is not known");
        };
        attributes.push(Attribute::int("num_heads", heads));
        attributes.push(Attribute::int("rotary_embedding_dim", part));
    }
    let operands = [x, positions, cos, sin].map(|e| Some(e.operand)).to_vec();
    let turned = cx
        .build
        .nodes(MICROSOFT, "RotaryEmbedding", operands, attributes, 1);
    Ok(turned[0])
}
