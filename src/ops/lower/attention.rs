//! Attention of ONNX.

use super::LowerCx;
use super::heads::{
    Heads, Positions, Scoring, appended, attend, both, merge_heads, scale, split_heads,
};
use crate::ops::build::{Expr, Refusal, refuse};
use crate::ops::grad::GradOutcome;
use crate::ty::{DType, Dim};

/// `y, k', v', scores` of queries `[b, s, n·h]` or `[b, n, s, h]`; `y` has their layout.
pub fn attention(cx: &mut LowerCx<'_>) -> GradOutcome {
    let (q, k, v) = (cx.x(0)?, cx.x(1)?, cx.x(2)?);
    let is_merged = q.rank()? == 3;
    let split = |x, heads: &str| match (is_merged, cx.node.int(heads)) {
        (false, _) => Ok(x),
        (true, Some(count)) if count > 0 => split_heads(x, &Dim::from(count)),
        _ => refuse!("it has no `{heads}`"),
    };
    if cx.maybe_x(6).is_some() {
        return refuse!("its keys are in a cache of its caller's");
    }
    let heads = Heads {
        q: split(q, "q_num_heads")?,
        k: appended(cx.maybe_x(4), split(k, "kv_num_heads")?)?,
        v: appended(cx.maybe_x(5), split(v, "kv_num_heads")?)?,
    };
    let scoring = scoring(cx, &heads)?;
    let attended = attend(&heads, &scoring)?;
    let y = match is_merged {
        true => merge_heads(attended.y)?,
        false => attended.y,
    };
    cx.set(0, y);
    cx.set(1, heads.k);
    cx.set(2, heads.v);
    match cx.int_or("qk_matmul_output_mode", 0) {
        0 => cx.set(3, attended.raw),
        1 => cx.set(3, attended.capped),
        3 => cx.set(3, attended.weights),
        // The scores with masked ones at negative infinity.
        _ if cx.is_read(3) => return refuse!("its masked scores are read"),
        _ => cx.set(3, attended.biased),
    }
    Ok(())
}

fn scoring<'b>(cx: &LowerCx<'b>, heads: &Heads<'b>) -> Result<Scoring<'b>, Refusal> {
    let (queries, keys) = (heads.q.dims()?[2].clone(), heads.k.dims()?[2].clone());
    let window = |name| Some(cx.int_or(name, -1)).filter(|size| *size >= 0);
    let offset = match cx.maybe_x(4) {
        Some(past) => past.dims()?[2].clone(),
        None => Dim::from(0),
    };
    let positions = Positions {
        queries,
        keys: keys.clone(),
        offset,
        causal: cx.flag("is_causal"),
        left: window("left_window_size"),
        right: window("right_window_size"),
    };
    let mut sees = positions.sees(cx.build)?;
    let mut bias = Vec::new();
    let mask = cx.maybe_x(3);
    if let Some(mask) = mask {
        fits(mask, &keys)?;
        match mask.dtype() {
            DType::Bool => sees = both(sees, Some(mask)),
            _ => bias.push(mask),
        }
    }
    Ok(Scoring {
        scale: scale(cx.node.float("scale"), heads.q)?,
        softcap: cx.float_or("softcap", 0.0),
        bias,
        sees,
        may_be_blind: mask.is_some() || positions.left.is_some(),
        sink: None,
    })
}

/// Refuses a mask that does not cover all keys.
fn fits(mask: Expr<'_>, keys: &Dim) -> Result<(), Refusal> {
    let dims = mask.dims()?;
    match dims.last() {
        Some(last) if last != keys && last.known() != Some(1) => {
            refuse!("its mask covers {last} keys of {keys}")
        }
        _ => Ok(()),
    }
}
