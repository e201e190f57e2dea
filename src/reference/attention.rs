//! Attention and rotary embeddings of ONNX.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::heads::{
    Heads, Rotation, Scoring, appended, attend, merge_heads, scale, split_heads, visible,
};
use super::movement::join;
use super::sizes;
use super::table::{Entry, many, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    many("Attention", 23, attention),
    one("RotaryEmbedding", 23, rotary),
];

/// `y, k', v', scores`, of queries `[b, s, n·h]` or `[b, n, s, h]`; `y` has their layout.
fn attention(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let (q, k, v) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
    let is_merged = q.rank() == 3;
    let split = |x: &Array, heads: &str| match is_merged {
        true => split_heads(x, cx.positive(heads)?),
        false => Ok(x.clone()),
    };
    let heads = Heads {
        q: split(q, "q_num_heads")?,
        k: appended(cx.optional(4), &split(k, "kv_num_heads")?)?,
        v: appended(cx.optional(5), &split(v, "kv_num_heads")?)?,
    };
    let (&[b, _, s, _], &[_, _, t, _]) = (heads.q.dims(), heads.k.dims()) else {
        return mismatch!("queries of {:?} and keys of {:?}", q.dims(), k.dims());
    };
    let position = positions(cx, [b, s, t])?;
    let mask = cx.optional(3).map(|mask| added(mask, t)).transpose()?;
    let mut bias = vec![&position];
    bias.extend(&mask);
    let scoring = Scoring {
        scale: scale(cx, &heads),
        softcap: cx.float_or("softcap", 0.0),
        bias,
        sink: None,
    };
    let attended = attend(&heads, &scoring)?;
    let y = match is_merged {
        true => merge_heads(&attended.y)?,
        false => attended.y,
    };
    let shown = match cx.int_or("qk_matmul_output_mode", 0) {
        0 => attended.raw,
        1 => attended.capped,
        2 => attended.biased,
        3 => attended.weights,
        other => return unsupported!("scores of mode {other}"),
    };
    let dtype = q.dtype();
    Ok(vec![y.typed(dtype)?, heads.k, heads.v, shown.typed(dtype)?])
}

/// Which keys the positions allow: those before the query, within a window, within the length of
/// the sample.
fn positions(cx: &Cx<'_>, [b, s, t]: [usize; 3]) -> Result<Array, Fault> {
    let past = cx.optional(4).and_then(|past| past.dims().get(2)).copied();
    let lens = match cx.optional_numbers(6)? {
        Some(lens) if lens.len() == b => Some(sizes::sizes(&lens)?),
        Some(lens) => return mismatch!("{} lengths of {b} samples", lens.len()),
        None => None,
    };
    let offset = |sample: usize| match (past, &lens) {
        (Some(past), _) => past as i128,
        (None, Some(lens)) => lens[sample] as i128 - s as i128,
        (None, None) => 0,
    };
    let causal = cx.flag("is_causal");
    let window = |name| Some(i128::from(cx.int_or(name, -1))).filter(|size| *size >= 0);
    let (left, right) = (window("left_window_size"), window("right_window_size"));
    visible([b, s, t], f64::NEG_INFINITY, |sample, query, key| {
        let behind = offset(sample) + query as i128 - key as i128;
        (!causal || behind >= 0)
            && left.is_none_or(|left| behind <= left)
            && right.is_none_or(|right| -behind <= right)
            && lens.as_ref().is_none_or(|lens| key < lens[sample])
    })
}

/// A mask as what is added to the scores; keys beyond it are not seen.
fn added(mask: &Array, t: usize) -> Result<Array, Fault> {
    let data: Vec<f64> = match mask.dtype() {
        DType::Bool => {
            let one = |sees: &i128| if *sees != 0 { 0.0 } else { f64::NEG_INFINITY };
            mask.as_ints()?.iter().map(one).collect()
        }
        _ => mask.as_floats()?.to_vec(),
    };
    let mask = Array::floats(DType::F64, mask.dims(), data)?;
    let Some((last, outer)) = mask.dims().split_last() else {
        return Ok(mask);
    };
    if *last == 1 || *last >= t {
        return Ok(mask);
    }
    let dims = [outer, &[t - last]].concat();
    let hidden = vec![f64::NEG_INFINITY; sizes::count(&dims)?];
    join(
        &[&mask, &Array::floats(DType::F64, &dims, hidden)?],
        mask.rank() - 1,
    )
}

/// `[x1 cos - x2 sin, x1 sin + x2 cos]` of pairs of elements of each head.
fn rotary(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, cos, sin) = (cx.operand(0)?, cx.operand(1)?, cx.operand(2)?);
    let heads = match x.rank() {
        3 => split_heads(x, cx.positive("num_heads")?)?,
        _ => x.clone(),
    };
    let rotation = match cx.optional(3) {
        Some(positions) => Rotation::at(cos, sin, positions, cx.flag("interleaved"))?,
        None => Rotation {
            cos: cos.clone(),
            sin: sin.clone(),
            interleaved: cx.flag("interleaved"),
        },
    };
    let y = rotation.rotate(&heads)?;
    if x.rank() == 3 {
        merge_heads(&y)
    } else {
        Ok(y)
    }
}
