//! Recurrent layers.

use super::cx::{InferCx, Outcome, mismatch};
use super::grad::help;
use super::registry::{Grad, OpDef, between, op};
use crate::ty::Dim;

pub(super) const OPS: &[OpDef] = &[
    op(
        "RNN",
        1,
        between(3, 6),
        recurrent,
        Grad::Missing(help::RECURRENT),
    )
    .results(between(0, 2)),
    op(
        "GRU",
        1,
        between(3, 6),
        recurrent,
        Grad::Missing(help::RECURRENT),
    )
    .results(between(0, 2)),
    op(
        "LSTM",
        1,
        between(3, 8),
        recurrent,
        Grad::Missing(help::RECURRENT),
    )
    .results(between(0, 3)),
];

/// `y, h, c = layer(x, w, r)` with `x: [s, b, in]` and `d` directions of `hidden_size`:
/// `y: [s, d, b, hidden]`, `h` and `c: [d, b, hidden]`; with `layout = 1` the batch comes first.
fn recurrent(cx: &mut InferCx<'_>) -> Outcome {
    let Some(dtype) = cx.dtype(0) else {
        return Ok(());
    };
    let batch_first = cx.flag("layout");
    let (s, b) = match cx.shape(0) {
        Some([first, second, _]) if batch_first => (second.clone(), first.clone()),
        Some([first, second, _]) => (first.clone(), second.clone()),
        Some(dims) => return mismatch!("a tensor with {} axes, 3 are needed", dims.len()),
        None => (cx.fresh(0, 0), cx.fresh(0, 2)),
    };
    let d = Dim::from(match cx.string("direction") {
        Some("bidirectional") => 2,
        _ => 1,
    });
    // The recurrence weight is [d, gates · hidden, hidden].
    let hidden = match (cx.int("hidden_size"), cx.shape(2)) {
        (Some(hidden), _) => Dim::from(hidden),
        (None, Some([_, _, hidden])) => hidden.clone(),
        _ => cx.fresh(0, 3),
    };
    let (sequence, state) = if batch_first {
        (
            vec![b.clone(), s, d.clone(), hidden.clone()],
            vec![b, d, hidden],
        )
    } else {
        (
            vec![s, d.clone(), b.clone(), hidden.clone()],
            vec![d, b, hidden],
        )
    };
    cx.set(0, dtype, sequence);
    cx.set(1, dtype, state.clone());
    cx.set(2, dtype, state);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::ops::check::check_infer;

    #[test]
    fn states_have_one_entry_a_direction() {
        let hidden = Attribute::int("hidden_size", 16);
        let operands = ["f32[S, B, 8]", "f32[1, 64, 8]", "f32[1, 64, 16]"];
        let results = ["f32[S, 1, B, 16]", "f32[1, B, 16]", "f32[1, B, 16]"];
        check_infer(
            "LSTM",
            14,
            &operands,
            std::slice::from_ref(&hidden),
            &results,
        );
        let both = [
            Attribute::string("direction", "bidirectional"),
            Attribute::int("layout", 1),
        ];
        let operands = ["f32[B, S, 8]", "f32[2, 48, 8]", "f32[2, 48, 16]"];
        check_infer(
            "GRU",
            14,
            &operands,
            &both,
            &["f32[B, S, 2, 16]", "f32[B, 2, 16]"],
        );
    }
}
