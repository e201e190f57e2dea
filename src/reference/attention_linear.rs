//! Attention with a state in place of a softmax.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::heads::{merge_heads, split_heads};
use super::rows::stretch;
use super::sizes::{count, work};
use super::table::{Entry, many};

pub(super) const OPS: &[Entry] = &[many("LinearAttention", 27, linear)];

/// The terms that an update rule of a state has.
#[derive(Clone, Copy)]
struct Rule {
    decays: bool,
    corrects: bool,
}

impl Rule {
    fn read(cx: &Cx<'_>) -> Result<Self, Fault> {
        let (decays, corrects) = match cx.string("update_rule").unwrap_or("gated_delta") {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => return unsupported!("the update rule `{other}`"),
        };
        Ok(Rule { decays, corrects })
    }
}

/// The operands by heads: `q: [b, n, s, d]`, `k: [b, g, s, d]`, `v: [b, g, s, dv]`.
struct Operands {
    q: Array,
    k: Array,
    v: Array,
    /// Of each element of each key, `[b, g, s, d]`.
    decay: Vec<f64>,
    /// Of each key, `[b, g, s]`.
    beta: Vec<f64>,
    /// `[b, g, d, dv]`.
    state: Array,
    /// `b, n, g, s, d, dv`.
    sizes: [usize; 6],
}

impl Operands {
    fn read(cx: &Cx<'_>, rule: Rule) -> Result<Self, Fault> {
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
            let (q, k, v) = (q.dims(), k.dims(), v.dims());
            return mismatch!("queries {q:?}, keys {k:?}, values {v:?}");
        }
        let state = match cx.optional(3) {
            Some(state) => state.clone(),
            None => Array::zeros(q.dtype(), &[b, g, d, dv])?,
        };
        if state.dims() != [b, g, d, dv] {
            return mismatch!("a state of {:?}", state.dims());
        }
        Ok(Operands {
            decay: per_head(cx, 4, rule.decays, [b, g, s, d], 0.0)?,
            beta: per_head(cx, 5, rule.corrects, [b, g, s, 1], 1.0)?,
            sizes: [b, n, g, s, d, dv],
            q,
            k,
            v,
            state,
        })
    }
}

/// `S ← e^g S + β k ⊗ (v - (e^g S)ᵀ k)` and `y = scale · Sᵀ q` for each token, with the terms that
/// the rule has.
fn linear(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let rule = Rule::read(cx)?;
    let operands = Operands::read(cx, rule)?;
    let [b, n, g, s, d, dv] = operands.sizes;
    work(&[b, n, s, d, dv])?;
    let scale = match cx.float_or("scale", 0.0) {
        0.0 => 1.0 / (d as f64).sqrt(),
        scale => scale,
    };
    let (q, k) = (operands.q.as_floats()?, operands.k.as_floats()?);
    let v = operands.v.as_floats()?;
    let mut states = operands.state.as_floats()?.to_vec();
    let mut y = vec![0.0; count(&[b, n, s, dv])?];
    for (head, token) in (0..b * g).flat_map(|head| (0..s).map(move |token| (head, token))) {
        let state = &mut states[head * d * dv..][..d * dv];
        let at = head * s + token;
        let (key, value) = (&k[at * d..][..d], &v[at * dv..][..dv]);
        let decay = &operands.decay[at * d..][..d];
        step(state, key, value, decay, operands.beta[at], rule);
        for shared in 0..n / g {
            let row = (head * (n / g) + shared) * s + token;
            let query = &q[row * d..][..d];
            for column in 0..dv {
                let sum: f64 = (0..d).map(|i| query[i] * state[i * dv + column]).sum();
                y[row * dv + column] = scale * sum;
            }
        }
    }
    let y = merge_heads(&Array::floats(operands.q.dtype(), &[b, n, s, dv], y)?)?;
    let (dtype, dims) = (operands.state.dtype(), operands.state.dims());
    Ok(vec![y, Array::floats(dtype, dims, states)?])
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
    let total = count(&[b, g, s, d])?;
    let Some(x) = cx.optional(slot).filter(|_| wanted) else {
        return Ok(vec![default; total]);
    };
    let heads = match x.dims() {
        [.., 1] => split_heads(x, 1)?,
        _ => split_heads(x, g)?,
    };
    let heads = stretch(&heads, &[b, g, s, d])?;
    Ok(heads.as_floats()?.to_vec())
}
