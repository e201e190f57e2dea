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
    many("LinearAttention", 27, linear),
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

/// The terms that an update rule of a state has.
#[derive(Clone, Copy)]
struct Rule {
    decays: bool,
    corrects: bool,
}

/// `S ← e^g S + β k ⊗ (v - (e^g S)ᵀ k)` and `y = scale · Sᵀ q` for each token, with the terms that
/// the rule has.
fn linear(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let rule = match cx.string("update_rule").unwrap_or("gated_delta") {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return unsupported!("the update rule `{other}`"),
    };
    let rule = Rule {
        decays: rule.0,
        corrects: rule.1,
    };
    let (n, g) = (cx.positive("q_num_heads")?, cx.positive("kv_num_heads")?);
    let q = split_heads(cx.operand(0)?, n)?;
    let (k, v) = (
        split_heads(cx.operand(1)?, g)?,
        split_heads(cx.operand(2)?, g)?,
    );
    let (&[b, _, s, d], &[.., dv]) = (q.dims(), v.dims()) else {
        return mismatch!("queries of {:?}", q.dims());
    };
    if n % g != 0 || k.dims() != [b, g, s, d] || v.dims() != [b, g, s, dv] {
        return mismatch!(
            "queries {:?}, keys {:?}, values {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    sizes::work(&[b, n, s, d, dv])?;
    let start = match cx.optional(3) {
        Some(state) => state.clone(),
        None => Array::zeros(cx.operand(0)?.dtype(), &[b, g, d, dv])?,
    };
    if start.dims() != [b, g, d, dv] {
        return mismatch!("a state of {:?}", start.dims());
    }
    let decay = per_head(cx, 4, rule.decays, [b, g, s, d], 0.0)?;
    let beta = per_head(cx, 5, rule.corrects, [b, g, s, 1], 1.0)?;
    let scale = match cx.float_or("scale", 0.0) {
        0.0 => 1.0 / (d as f64).sqrt(),
        scale => scale,
    };
    let mut states = start.as_floats()?.to_vec();
    let mut y = vec![0.0; sizes::count(&[b, n, s, dv])?];
    for head in 0..b * g {
        let state = &mut states[head * d * dv..][..d * dv];
        for token in 0..s {
            let at = head * s + token;
            let key = &k.as_floats()?[at * d..][..d];
            let value = &v.as_floats()?[at * dv..][..dv];
            let decay = &decay[at * d..][..d];
            step(state, key, value, decay, beta[at], rule);
            for shared in 0..n / g {
                let row = (head * (n / g) + shared) * s + token;
                let query = &q.as_floats()?[row * d..][..d];
                for column in 0..dv {
                    let sum: f64 = (0..d).map(|i| query[i] * state[i * dv + column]).sum();
                    y[row * dv + column] = scale * sum;
                }
            }
        }
    }
    let dtype = cx.operand(0)?.dtype();
    let y = merge_heads(&Array::floats(dtype, &[b, n, s, dv], y)?)?;
    Ok(vec![y, Array::floats(start.dtype(), start.dims(), states)?])
}

/// One token's update of a state `[d, dv]`.
fn step(state: &mut [f64], key: &[f64], value: &[f64], decay: &[f64], beta: f64, rule: Rule) {
    let dv = value.len();
    for (row, decay) in state.chunks_exact_mut(dv.max(1)).zip(decay) {
        row.iter_mut().for_each(|x| *x *= decay.exp());
    }
    let known = |column: usize| -> f64 {
        key.iter()
            .enumerate()
            .map(|(i, key)| key * state[i * dv + column])
            .sum()
    };
    let news: Vec<f64> = (0..dv)
        .map(|column| match rule.corrects {
            true => beta * (value[column] - known(column)),
            false => value[column],
        })
        .collect();
    for (row, key) in state.chunks_exact_mut(dv.max(1)).zip(key) {
        row.iter_mut()
            .zip(&news)
            .for_each(|(x, new)| *x += key * new);
    }
}

/// An operand `[b, s, g·d]`, `[b, s, g]` or `[b, s, 1]` as one number for each of `[b, g, s, d]`.
fn per_head(
    cx: &Cx<'_>,
    slot: usize,
    wanted: bool,
    [b, g, s, d]: [usize; 4],
    default: f64,
) -> Result<Vec<f64>, Fault> {
    let total = sizes::count(&[b, g, s, d])?;
    let Some(x) = cx.optional(slot).filter(|_| wanted) else {
        return Ok(vec![default; total]);
    };
    let heads = match x.dims() {
        [.., 1] => split_heads(x, 1)?,
        _ => split_heads(x, g)?,
    };
    let heads = super::rows::stretch(&heads, &[b, g, s, d])?;
    Ok(heads.as_floats()?.to_vec())
}
