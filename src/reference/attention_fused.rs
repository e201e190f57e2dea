//! Attention of ONNX Runtime (`com.microsoft`).

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::heads::{
    Heads, Rotation, Scoring, appended, attend, merge_heads, scale, split_heads, visible,
};
use super::matmul::{matmul, sum};
use super::movement::{join, part};
use super::rows::permuted;
use super::sizes;
use super::table::{Entry, many, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("RotaryEmbedding", 1, rotary).microsoft(),
    many("MultiHeadAttention", 1, multi_head).microsoft(),
    many("Attention", 1, packed).microsoft(),
];

/// As ONNX's, with positions before the caches: one a token, or the first.
fn rotary(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, cos, sin) = (cx.operand(0)?, cx.operand(2)?, cx.operand(3)?);
    if cx.flag("is_packed_batching") {
        return unsupported!("packed batches");
    }
    let heads = match (x.dims(), cx.int_or("num_heads", 0)) {
        ([_, _, hidden], 0) => {
            let size = 2 * cos.dims().last().copied().unwrap_or(0);
            split_heads(x, hidden.checked_div(size).unwrap_or(0))?
        }
        ([_, _, _], _) => split_heads(x, cx.positive("num_heads")?)?,
        _ => x.clone(),
    };
    let &[b, _, s, _] = heads.dims() else {
        return mismatch!("a rotation of {:?}", x.dims());
    };
    let positions = match cx.numbers(1)?.as_slice() {
        [first] if b * s != 1 => counted(&vec![*first; b], s)?,
        _ => cx.operand(1)?.clone().reshaped(&[b, s])?,
    };
    let y = Rotation::at(cos, sin, &positions, cx.flag("interleaved"))?.rotate(&heads)?;
    if x.rank() == 3 {
        merge_heads(&y)
    } else {
        Ok(y)
    }
}

/// `s` positions of each sample from its first on: `[b, s]`.
pub(super) fn counted(firsts: &[i64], s: usize) -> Result<Array, Fault> {
    sizes::count(&[firsts.len(), s])?;
    let all = firsts
        .iter()
        .flat_map(|first| (0..s as i128).map(move |i| i128::from(*first) + i));
    Array::ints(DType::I64, &[firsts.len(), s], all.collect())
}

/// `y, k', v'` of queries `[b, s, n·h]`; keys and values apart, packed in `k`, or all in `q`.
fn multi_head(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let n = cx.positive("num_heads")?;
    let dtype = cx.operand(0)?.dtype();
    let new = multi_head_operands(cx, n)?;
    let heads = Heads {
        k: appended(cx.optional(6), &new.k)?,
        v: appended(cx.optional(7), &new.v)?,
        q: new.q,
    };
    let past = heads.k.dims()[2].saturating_sub(new.k.dims()[2]);
    let y = masked(cx, &heads, past, cx.optional(4), cx.optional(5))?;
    Ok(vec![y.typed(dtype)?, heads.k, heads.v])
}

/// Queries, keys and values with their biases, by heads.
fn multi_head_operands(cx: &Cx<'_>, n: usize) -> Result<Heads, Fault> {
    let q = cx.operand(0)?;
    // `[b, s, n, parts, h]`: one part as `[b, n, s, h]`.
    let unpacked = |x: &Array, at: usize| {
        let one = part(x, 3, at, 1)?;
        let &[b, s, n, _, h] = one.dims() else {
            return mismatch!("packed heads of {:?}", x.dims());
        };
        permuted(&one.reshaped(&[b, s, n, h])?, &[0, 2, 1, 3])
    };
    let (q, k, v) = match (q.rank(), cx.optional(1), cx.optional(2)) {
        (5, None, None) => (unpacked(q, 0)?, unpacked(q, 1)?, unpacked(q, 2)?),
        (3, Some(kv), None) if kv.rank() == 5 => {
            (split_heads(q, n)?, unpacked(kv, 0)?, unpacked(kv, 1)?)
        }
        (3, Some(k), Some(v)) if k.rank() == 4 => (split_heads(q, n)?, k.clone(), v.clone()),
        (3, Some(k), Some(v)) => (split_heads(q, n)?, split_heads(k, n)?, split_heads(v, n)?),
        _ => return mismatch!("queries of {:?} without fitting keys", q.dims()),
    };
    let size = |x: &Array| match *x.dims() {
        [_, n, _, h] => Ok(n * h),
        _ => mismatch!("heads of {:?}", x.dims()),
    };
    let (first, second, third) = (size(&q)?, size(&k)?, size(&v)?);
    let Some(bias) = cx.optional(3) else {
        return Ok(Heads { q, k, v });
    };
    let add = |x: &Array, start: usize| {
        let [_, n, _, h] = *x.dims() else {
            return mismatch!("heads of {:?}", x.dims());
        };
        sum(x, &part(bias, 0, start, n * h)?.reshaped(&[1, n, 1, h])?)
    };
    if bias.rank() != 1 || bias.len() != first + second + third {
        return mismatch!("a bias of {:?}", bias.dims());
    }
    // Finished keys of another sequence have their bias already.
    let finished = cx.optional(1).is_some_and(|k| k.rank() == 4);
    let (k, v) = match finished {
        true => (k, v),
        false => (add(&k, first)?, add(&v, first + second)?),
    };
    Ok(Heads {
        q: add(&q, 0)?,
        k,
        v,
    })
}

/// `y, present = attention(x w + bias, …)` with the weights of queries, keys and values side by
/// side.
fn packed(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    if cx.flag("past_present_share_buffer") || cx.flag("do_rotary") {
        return unsupported!("shared buffers and rotations of packed attention");
    }
    let n = cx.positive("num_heads")?;
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let mut all = matmul(x, w)?;
    if let Some(bias) = cx.optional(2) {
        all = sum(&all, bias)?;
    }
    let &[_, _, width] = all.dims() else {
        return mismatch!("attention of {:?}", x.dims());
    };
    let widths = match cx.ints("qkv_hidden_sizes") {
        Some(stated) => sizes::sizes(stated)?,
        None => vec![width / 3; 3],
    };
    let &[q, k, v] = widths.as_slice() else {
        return mismatch!("`qkv_hidden_sizes` {widths:?}");
    };
    let side = |start, len| split_heads(&part(&all, 2, start, len)?, n);
    let cached = |at| match cx.optional(4) {
        Some(past) => {
            let one = part(past, 0, at, 1)?;
            let dims = one.dims()[1..].to_vec();
            one.reshaped(&dims).map(Some)
        }
        None => Ok(None),
    };
    let heads = Heads {
        q: side(0, q)?,
        k: appended(cached(0)?.as_ref(), &side(q, k)?)?,
        v: appended(cached(1)?.as_ref(), &side(q.saturating_add(k), v)?)?,
    };
    let past = heads.k.dims()[2].saturating_sub(heads.q.dims()[2]);
    let y = masked(cx, &heads, past, cx.optional(3), cx.optional(5))?;
    let mut results = vec![y.typed(x.dtype())?];
    // Keys and values side by side, which only heads of one size can be.
    if heads.k.dims() == heads.v.dims() {
        let lead = |x: &Array| x.clone().reshaped(&[&[1], x.dims()].concat());
        results.push(join(&[&lead(&heads.k)?, &lead(&heads.v)?], 0)?);
    }
    Ok(results)
}

/// Attention with a mask of padding, a bias, and with `unidirectional` no later keys.
fn masked(
    cx: &Cx<'_>,
    heads: &Heads,
    past: usize,
    padding: Option<&Array>,
    bias: Option<&Array>,
) -> Result<Array, Fault> {
    let (&[b, _, s, _], &[_, _, t, _]) = (heads.q.dims(), heads.k.dims()) else {
        return mismatch!("heads of {:?}", heads.q.dims());
    };
    let padding = match padding {
        Some(mask) => Some(seen(cx, mask, [b, s, t])?),
        None => None,
    };
    let causal = match cx.flag("unidirectional") {
        true => Some(visible([b, s, t], f64::NEG_INFINITY, |_, query, key| {
            key <= past + query
        })?),
        false => None,
    };
    let scoring = Scoring {
        scale: scale(cx, heads),
        softcap: 0.0,
        bias: padding.iter().chain(&causal).chain(bias).collect(),
        sink: None,
    };
    merge_heads(&attend(heads, &scoring)?.y)
}

/// A mask in one of its forms: lengths of samples, their ends and begins, or a number a key.
fn seen(cx: &Cx<'_>, mask: &Array, [b, s, t]: [usize; 3]) -> Result<Array, Fault> {
    let masked = cx.float_or("mask_filter_value", -10000.0);
    let numbers = mask.to_i64s()?;
    match mask.dims() {
        [samples] if *samples == b => visible([b, s, t], masked, |sample, _, key| {
            (key as i64) < numbers[sample]
        }),
        [samples] if *samples == 2 * b => visible([b, s, t], masked, |sample, _, key| {
            (numbers[sample + b]..numbers[sample]).contains(&(key as i64))
        }),
        [samples, keys] if (*samples, *keys) == (b, t) => {
            visible([b, s, t], masked, |sample, _, key| {
                numbers[sample * t + key] != 0
            })
        }
        [samples, queries, keys] if (*samples, *queries, *keys) == (b, s, t) => {
            visible([b, s, t], masked, |sample, query, key| {
                numbers[(sample * s + query) * t + key] != 0
            })
        }
        dims => unsupported!("a mask of {dims:?} over {b} samples, {s} queries and {t} keys"),
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::reference::check::{eval, fault, first, floats};
    use crate::reference::movement::join;
    use crate::reference::{Array, check};

    fn x(seed: f64) -> Array {
        let data: Vec<f64> = (0..16).map(|i| (f64::from(i) * seed).sin()).collect();
        floats(&[1, 2, 8], &data)
    }

    /// ONNX Runtime packs heads on other devices than the CPU.
    #[test]
    fn packed_heads_are_those_apart() {
        let name = "com.microsoft:MultiHeadAttention";
        let heads = [Attribute::int("num_heads", 2)];
        let (q, k, v) = (x(1.1), x(2.3), x(0.7));
        let expected = first(name, 1, &[&q, &k, &v], &heads);
        let apart = |x: &Array| x.clone().reshaped(&[1, 2, 2, 1, 4]).unwrap();
        let (q5, k5, v5) = (apart(&q), apart(&k), apart(&v));
        let all = join(&[&q5, &k5, &v5], 3).unwrap();
        assert_eq!(first(name, 1, &[&all], &heads), expected);
        let keys = join(&[&k5, &v5], 3).unwrap();
        assert_eq!(first(name, 1, &[&q, &keys], &heads), expected);
    }

    #[test]
    fn keys_without_a_fitting_form_are_refused() {
        let heads = [Attribute::int("num_heads", 2)];
        let q = x(1.0);
        let words = fault("com.microsoft:MultiHeadAttention", 1, &[&q, &q], &heads);
        assert_eq!(words, "queries of [1, 2, 8] without fitting keys");
        let mask = check::ints(&[3], &[1, 2, 3]);
        let operands = [Some(&q), Some(&q), Some(&q), None, Some(&mask)];
        let refused = eval("com.microsoft:MultiHeadAttention", 1, &operands, &heads, 1);
        let words = refused.unwrap_err().to_string();
        assert!(words.contains("does not evaluate a mask of [3]"), "{words}");
    }
}
