//! Attention and rotary embeddings, of ONNX and of ONNX Runtime.
//!
//! Letters: `b` batch, `s` queries, `l` keys, `p` cached keys, `t` keys in all, `n` heads, `g` heads
//! of keys and values, `h` size of a head, `v` size of a head of values.

use super::cx::{InferCx, Mismatch, Outcome, mismatch};
use super::fused::same;
use super::grad::{self, help};
use super::lower;
use super::registry::{Grad, OpDef, between, exactly, microsoft, op};
use crate::ty::{DType, Dim};

pub(super) const OPS: &[OpDef] = &[
    op(
        "Attention",
        23,
        between(3, 6),
        attention,
        Grad::Lower(lower::attention),
    )
    .results(between(1, 4)),
    op(
        "Attention",
        24,
        between(3, 7),
        attention,
        Grad::Lower(lower::attention),
    )
    .results(between(1, 4)),
    op(
        "RotaryEmbedding",
        23,
        between(3, 4),
        same,
        Grad::Rule(grad::fused::rotary),
    ),
    op(
        "LinearAttention",
        27,
        between(3, 6),
        linear_attention,
        Grad::Missing(help::OTHER),
    )
    .results(exactly(2)),
    microsoft(
        "RotaryEmbedding",
        exactly(4),
        same,
        Grad::Rule(grad::fused::rotary),
    ),
    microsoft(
        "GroupQueryAttention",
        between(7, 17),
        grouped,
        Grad::Lower(lower::grouped),
    )
    .results(between(1, 4)),
    microsoft(
        "MultiHeadAttention",
        between(1, 10),
        multi_head,
        Grad::Lower(lower::multi_head),
    )
    .results(between(1, 4)),
    microsoft(
        "Attention",
        between(2, 7),
        packed,
        Grad::Lower(lower::packed),
    )
    .results(between(1, 2)),
];

/// What every form of attention comes to.
struct Heads {
    b: Dim,
    s: Dim,
    /// Keys in all.
    t: Dim,
    n: Dim,
    g: Dim,
    h: Dim,
    v: Dim,
}

impl Heads {
    fn present_key(&self) -> Vec<Dim> {
        [&self.b, &self.g, &self.t, &self.h]
            .map(Dim::clone)
            .to_vec()
    }

    fn present_value(&self) -> Vec<Dim> {
        [&self.b, &self.g, &self.t, &self.v]
            .map(Dim::clone)
            .to_vec()
    }

    fn scores(&self) -> Vec<Dim> {
        [&self.b, &self.n, &self.s, &self.t]
            .map(Dim::clone)
            .to_vec()
    }

    /// `[b, s, n·v]`.
    fn output(&self) -> Vec<Dim> {
        vec![
            self.b.clone(),
            self.s.clone(),
            self.n.clone() * self.v.clone(),
        ]
    }

    /// The cache and the scores: results 1 to 3 of every form.
    fn set_further(&self, cx: &mut InferCx<'_>, dtype: DType, cache: DType) {
        cx.set(1, cache, self.present_key());
        cx.set(2, cache, self.present_value());
        cx.set(3, dtype, self.scores());
    }
}

/// A positive attribute as a size.
fn head_count(cx: &InferCx<'_>, name: &str) -> Option<Dim> {
    cx.int(name).filter(|count| *count > 0).map(Dim::from)
}

/// The number of cached keys: axis 2 of `[b, g, p, h]`, 0 without a cache.
fn cached(cx: &InferCx<'_>, operand: usize) -> Option<Dim> {
    match (cx.has(operand), cx.shape(operand)) {
        (false, _) => Some(Dim::from(0)),
        (true, Some([_, _, p, _])) => Some(p.clone()),
        _ => None,
    }
}

/// `y, k', v', scores = attention(q, k, v, mask, past_k, past_v)` with `q: [b, s, n·h]`, `k` and
/// `v: [b, l, g·h]`, or all of them `[b, heads, length, h]`; `y` has the layout of `q`.
fn attention(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let (Some(q), Some(k), Some(v)) = (cx.shape(0), cx.shape(1), cx.shape(2)) else {
        cx.set_unranked(0, dtype);
        return Ok(());
    };
    let heads = match (q, k, v) {
        ([b, s, q], [_, l, _], [_, _, v]) => {
            let (Some(n), Some(g)) = (
                head_count(cx, "q_num_heads"),
                head_count(cx, "kv_num_heads"),
            ) else {
                return mismatch!("tensors with 3 axes and no `q_num_heads` and `kv_num_heads`");
            };
            Heads {
                h: q.floor_div(&n),
                v: v.floor_div(&g),
                t: l.clone(),
                b: b.clone(),
                s: s.clone(),
                n,
                g,
            }
        }
        ([b, n, s, h], [_, g, l, _], [_, _, _, v]) => Heads {
            b: b.clone(),
            s: s.clone(),
            t: l.clone(),
            n: n.clone(),
            g: g.clone(),
            h: h.clone(),
            v: v.clone(),
        },
        _ => {
            return mismatch!(
                "queries, keys and values with {}, {} and {} axes",
                q.len(),
                k.len(),
                v.len()
            );
        }
    };
    let past = cached(cx, 4).unwrap_or_else(|| cx.fresh(1, 2));
    let heads = Heads {
        t: heads.t.clone() + past,
        ..heads
    };
    let output = match q.len() {
        3 => heads.output(),
        _ => [&heads.b, &heads.n, &heads.s, &heads.v]
            .map(Dim::clone)
            .to_vec(),
    };
    cx.set(0, dtype, output);
    let cache = cx.dtype(4).unwrap_or(dtype);
    heads.set_further(cx, dtype, cache);
    Ok(())
}

/// `y, state = attention(q, k, v, state)`: `[b, s, n·v]` and `[b, g, h, v]`.
fn linear_attention(cx: &mut InferCx<'_>) -> Outcome {
    let (Some(dtype), Some([b, s, _]), Some([_, _, k]), Some([_, _, v]), Some(n), Some(g)) = (
        cx.dtype(0),
        cx.shape(0),
        cx.shape(1),
        cx.shape(2),
        head_count(cx, "q_num_heads"),
        head_count(cx, "kv_num_heads"),
    ) else {
        return Ok(());
    };
    let (h, v) = (k.floor_div(&g), v.floor_div(&g));
    cx.set(0, dtype, vec![b.clone(), s.clone(), n * v.clone()]);
    let state = cx.dtype(3).unwrap_or(dtype);
    cx.set(1, state, vec![b.clone(), g, h, v]);
    Ok(())
}

/// `y, k', v', scores = gqa(q, k, v, past_k, past_v, lengths, total, …)` with `q: [b, s, n·h]`, or
/// `[b, s, (n + 2g)·h]` with the keys and values behind the queries and no `k`, `v`. The cache is
/// `[b, g, max(p, total), h]`: it grows unless it is a buffer that is large enough.
fn grouped(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let (Some(n), Some(g)) = (head_count(cx, "num_heads"), head_count(cx, "kv_num_heads")) else {
        return mismatch!("no `num_heads` or no `kv_num_heads`");
    };
    let Some(q) = cx.shape(0) else {
        let dims = cx.fresh_shape(0, 3);
        cx.set(0, dtype, dims);
        return Ok(());
    };
    let [b, s, hidden] = q else {
        return mismatch!("queries with {} axes, 3 are needed", q.len());
    };
    let parts = match cx.has(1) {
        true => n.clone(),
        false => n.clone() + g.clone() * Dim::from(2),
    };
    let h = hidden.floor_div(&parts);
    let total = cx.known(6).and_then(|known| known.single()?.int().cloned());
    let t = match (cached(cx, 3), total) {
        (Some(past), Some(total)) => past.larger(&total),
        _ => cx.fresh(1, 2),
    };
    let heads = Heads {
        b: b.clone(),
        s: s.clone(),
        t,
        n,
        g,
        v: h.clone(),
        h,
    };
    cx.set(0, dtype, heads.output());
    let cache = cx.dtype(3).unwrap_or(dtype);
    heads.set_further(cx, dtype, cache);
    if cx.int_or("kv_cache_bit_width", 0) != 0 {
        pack_cache(cx, &heads, cache);
    }
    Ok(())
}

/// A quantized cache holds several codes a byte: its last axis is the past's.
fn pack_cache(cx: &mut InferCx<'_>, heads: &Heads, dtype: DType) {
    for (result, past) in [(1, 3), (2, 4)] {
        let packed = cx.shape(past).and_then(|dims| dims.get(3).cloned());
        let packed = packed.unwrap_or_else(|| cx.fresh(result, 3));
        let dims = vec![heads.b.clone(), heads.g.clone(), heads.t.clone(), packed];
        cx.set(result, dtype, dims);
    }
}

/// `y, k', v', scores = mha(q, k, v, bias, padding, bias, past_k, past_v)` with `q: [b, s, n·h]`;
/// `k, v: [b, l, n·h]`, `[b, n, l, h]`, or packed as `[b, l, n, 2, h]` in `k`, or everything packed
/// as `[b, s, n, 3, h]` in `q`.
fn multi_head(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some(n) = head_count(cx, "num_heads") else {
        return mismatch!("no `num_heads`");
    };
    let Some(heads) = multi_head_sizes(cx, n)? else {
        let dims = cx.fresh_shape(0, 3);
        cx.set(0, dtype, dims);
        return Ok(());
    };
    cx.set(0, dtype, heads.output());
    heads.set_further(cx, dtype, dtype);
    Ok(())
}

fn multi_head_sizes(cx: &InferCx<'_>, n: Dim) -> Result<Option<Heads>, Mismatch> {
    let Some(q) = cx.shape(0) else {
        return Ok(None);
    };
    let (b, s, h) = match q {
        [b, s, hidden] => (b, s, hidden.floor_div(&n)),
        [b, s, _, _, h] => (b, s, h.clone()),
        _ => return mismatch!("queries with {} axes, 3 or 5 are needed", q.len()),
    };
    let keys = match (q.len(), cx.has(1), cx.shape(1)) {
        (5, ..) | (_, false, _) => Some(s.clone()),
        (_, _, Some([_, l, _] | [_, l, _, _, _] | [_, _, l, _])) => Some(l.clone()),
        _ => None,
    };
    let v = match (cx.has(2), cx.shape(2)) {
        (false, _) => Some(h.clone()),
        (_, Some([_, _, hidden])) => Some(hidden.floor_div(&n)),
        (_, Some([_, _, _, v])) => Some(v.clone()),
        _ => None,
    };
    // Keys with 4 axes are either a finished cache, which nothing is added to, or new keys.
    let past = cached(cx, 6);
    let (Some(keys), Some(v), Some(past)) = (keys, v, past) else {
        return Ok(None);
    };
    Ok(Some(Heads {
        b: b.clone(),
        s: s.clone(),
        t: keys + past,
        g: n.clone(),
        n,
        h,
        v,
    }))
}

/// `y, present = attention(x, w, bias, mask, past)` with `x: [b, s, in]`, `w: [in, 2·n·h + n·v]`:
/// `y: [b, s, n·v]`, `present: [2, b, n, p + s, h]`.
fn packed(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let Some([b, s, _]) = cx.shape(0) else {
        let dims = cx.fresh_shape(0, 3);
        cx.set(0, dtype, dims);
        return Ok(());
    };
    let fused = [1, 2]
        .into_iter()
        .find_map(|operand| cx.shape(operand)?.last().cloned());
    let hidden = match (cx.ints("qkv_hidden_sizes"), fused) {
        (Some([_, _, v]), _) => Dim::from(*v),
        (_, Some(fused)) => fused.floor_div(&Dim::from(3)),
        _ => cx.fresh(0, 2),
    };
    cx.set(0, dtype, vec![b.clone(), s.clone(), hidden.clone()]);
    let past = match (cx.has(4), cx.shape(4)) {
        (false, _) => Some(Dim::from(0)),
        (true, Some([_, _, _, p, _])) => Some(p.clone()),
        _ => None,
    };
    let t = match past {
        Some(past) if !cx.flag("past_present_share_buffer") => past + s.clone(),
        Some(buffer) => buffer,
        None => cx.fresh(1, 3),
    };
    let Some(n) = head_count(cx, "num_heads") else {
        return mismatch!("no `num_heads`");
    };
    let h = hidden.floor_div(&n);
    cx.set(1, dtype, vec![Dim::from(2), b.clone(), n, t, h]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::{check_infer, check_mismatch};

    #[test]
    fn attention_keeps_the_layout_of_its_queries() {
        let heads = [
            Attribute::int("q_num_heads", 8),
            Attribute::int("kv_num_heads", 2),
        ];
        let operands = ["f32[B, S, 64]", "f32[B, L, 16]", "f32[B, L, 16]"];
        let results = [
            "f32[B, S, 64]",
            "f32[B, 2, L, 8]",
            "f32[B, 2, L, 8]",
            "f32[B, 8, S, L]",
        ];
        check_infer("Attention", 23, &operands, &heads, &results);
        let past = [
            "f32[B, 8, S, 4]",
            "f32[B, 8, S, 4]",
            "f32[B, 8, S, 4]",
            "_",
            "f32[B, 8, P, 4]",
            "f32[B, 8, P, 4]",
        ];
        let results = [
            "f32[B, 8, S, 4]",
            "f32[B, 8, P + S, 4]",
            "f32[B, 8, P + S, 4]",
        ];
        check_infer("Attention", 23, &past, &[], &results);
        check_mismatch("Attention", 23, &operands, &[], "q_num_heads");
    }

    #[test]
    fn grouped_queries_may_be_packed() {
        let name = "com.microsoft:GroupQueryAttention";
        let heads = [
            Attribute::int("num_heads", 8),
            Attribute::int("kv_num_heads", 2),
        ];
        let cache = "f16[B, 2, P, 8]";
        let packed = [
            "f16[B, S, 96]",
            "_",
            "_",
            cache,
            cache,
            "i32[B]",
            "i32[] = T",
        ];
        let results = [
            "f16[B, S, 64]",
            "f16[B, 2, max(P, T), 8]",
            "f16[B, 2, max(P, T), 8]",
        ];
        check_infer(name, 1, &packed, &heads, &results);
        let kv = "f16[B, S, 16]";
        let apart = [
            "f16[B, S, 64]",
            kv,
            kv,
            cache,
            cache,
            "i32[B]",
            "i32[] = P + S",
        ];
        let results = [
            "f16[B, S, 64]",
            "f16[B, 2, P + S, 8]",
            "f16[B, 2, P + S, 8]",
        ];
        check_infer(name, 1, &apart, &heads, &results);
    }

    #[test]
    fn multi_head_attention_takes_packed_and_cached_keys() {
        let name = "com.microsoft:MultiHeadAttention";
        let heads = [Attribute::int("num_heads", 4)];
        let x = "f32[B, S, 32]";
        check_infer(
            name,
            1,
            &[x, "f32[B, L, 32]", "f32[B, L, 64]"],
            &heads,
            &["f32[B, S, 64]"],
        );
        check_infer(name, 1, &["f32[B, S, 4, 3, 8]"], &heads, &["f32[B, S, 32]"]);
        let cache = "f32[B, 4, P, 8]";
        let operands = [x, x, x, "_", "_", "_", cache, cache];
        check_infer(
            name,
            1,
            &operands,
            &heads,
            &[x, "f32[B, 4, P + S, 8]", "f32[B, 4, P + S, 8]"],
        );
        let crossed = [x, "f32[B, 4, L, 8]", "f32[B, 4, L, 8]"];
        check_infer(name, 1, &crossed, &heads, &[x, "f32[B, 4, L, 8]"]);
    }

    #[test]
    fn packed_attention_splits_its_weight() {
        let heads = [Attribute::int("num_heads", 4)];
        let operands = ["f32[B, S, 32]", "f32[32, 96]", "f32[96]"];
        check_infer(
            "com.microsoft:Attention",
            1,
            &operands,
            &heads,
            &["f32[B, S, 32]", "f32[2, B, 4, S, 8]"],
        );
    }

    #[test]
    fn rotary_embeddings_keep_the_shape() {
        let operands = ["f32[B, S, 32]", "i64[B, S]", "f32[M, 4]", "f32[M, 4]"];
        check_infer(
            "com.microsoft:RotaryEmbedding",
            1,
            &operands,
            &[],
            &["f32[B, S, 32]"],
        );
        check_infer(
            "RotaryEmbedding",
            23,
            &["f32[B, 4, S, 8]", "f32[M, 4]", "f32[M, 4]"],
            &[],
            &["f32[B, 4, S, 8]"],
        );
    }

    #[test]
    fn linear_attention_carries_a_state() {
        let heads = [
            Attribute::int("q_num_heads", 4),
            Attribute::int("kv_num_heads", 2),
        ];
        let operands = ["f32[B, S, 32]", "f32[B, S, 16]", "f32[B, S, 20]"];
        check_infer(
            "LinearAttention",
            27,
            &operands,
            &heads,
            &["f32[B, S, 40]", "f32[B, 2, 8, 10]"],
        );
    }
}
