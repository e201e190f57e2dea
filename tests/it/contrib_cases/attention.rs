//! Rotations and forms of attention.

use super::{caches, floats, ints, list, node, single};
use crate::mutated_cases::Node;
use peftc::reference::Array;
use peftc::ty::DType;

pub(super) fn rotations() -> Vec<Node> {
    let (cos, sin) = caches(9, 4);
    let rotary = |x: Array, positions: Array| {
        node(
            "RotaryEmbedding",
            vec![
                Some(x),
                Some(positions),
                Some(cos.clone()),
                Some(sin.clone()),
            ],
        )
    };
    let positions = || ints(DType::I64, &[2, 3], 1, 0, 9);
    let mut partial = rotary(floats(&[2, 3, 2 * 12], 1), positions());
    partial = partial.int("num_heads", 2).int("rotary_embedding_dim", 8);
    vec![
        rotary(floats(&[2, 3, 16], 1), positions()),
        rotary(floats(&[2, 3, 16], 1), positions()).int("interleaved", 1),
        rotary(floats(&[2, 2, 3, 8], 1), positions()),
        rotary(floats(&[2, 3, 16], 1), list(DType::I64, &[4])),
        partial,
    ]
}

pub(super) fn attentions() -> Vec<Node> {
    let x = |s: usize, h: usize, seed| Some(floats(&[2, s, h], seed));
    let multi =
        |operands: Vec<Option<Array>>| node("MultiHeadAttention", operands).int("num_heads", 2);
    let bias = Some(floats(&[24], 9));
    let lens = Some(list(DType::I32, &[3, 2]));
    let raw = Some(
        list(DType::I32, &[1, 1, 0, 1, 0, 1])
            .reshaped(&[2, 3])
            .unwrap(),
    );
    let cache = |seed| Some(floats(&[2, 2, 2, 4], seed));
    let scores = |s, t| Some(floats(&[1, 2, s, t], 8));
    let packed = |operands: Vec<Option<Array>>| node("Attention", operands).int("num_heads", 2);
    let (w, b) = (|| Some(floats(&[6, 24], 2)), || Some(floats(&[24], 3)));
    let past = Some(floats(&[2, 2, 2, 2, 4], 4));
    vec![
        multi(vec![x(3, 8, 1), x(3, 8, 2), x(3, 8, 3)]),
        multi(vec![x(2, 8, 1), x(3, 8, 2), x(3, 12, 3)]),
        multi(vec![x(3, 8, 1), x(3, 8, 2), x(3, 8, 3), bias.clone()]).float("scale", 0.3),
        multi(vec![x(3, 8, 1), x(3, 8, 2), x(3, 8, 3)]).int("unidirectional", 1),
        multi(vec![x(3, 8, 1), x(3, 8, 2), x(3, 8, 3), None, lens.clone()]),
        multi(vec![
            x(3, 8, 1),
            x(3, 8, 2),
            x(3, 8, 3),
            None,
            raw.clone(),
            scores(3, 3),
        ]),
        multi(vec![
            x(3, 8, 1),
            x(3, 8, 2),
            x(3, 8, 3),
            None,
            None,
            scores(3, 5),
            cache(5),
            cache(6),
        ])
        .results(3),
        packed(vec![x(3, 6, 1), w(), b()]).results(2),
        packed(vec![x(3, 6, 1), w(), b()]).int("unidirectional", 1),
        packed(vec![x(3, 6, 1), w(), b(), lens]),
        packed(vec![x(3, 6, 1), w(), b(), raw.clone(), None, scores(3, 3)]),
        packed(vec![x(3, 6, 1), w(), b(), None, past])
            .int("unidirectional", 1)
            .results(2),
        packed(vec![
            x(3, 6, 1),
            Some(floats(&[6, 20], 2)),
            Some(floats(&[20], 3)),
            raw,
        ])
        .ints("qkv_hidden_sizes", &[8, 8, 4]),
    ]
}

/// A step of so many tokens behind so many others, for two samples.
fn grouped(s: usize, past: usize) -> Node {
    let total = (s + past) as i128;
    let cache = |seed| (past > 0).then(|| floats(&[2, 2, past, 16], seed));
    let operands = vec![
        Some(floats(&[2, s, 64], 1)),
        Some(floats(&[2, s, 32], 2)),
        Some(floats(&[2, s, 32], 3)),
        cache(4),
        cache(5),
        Some(list(DType::I32, &[total - 1, total - 1])),
        Some(single(DType::I32, total)),
    ];
    node("GroupQueryAttention", operands)
        .int("num_heads", 4)
        .int("kv_num_heads", 2)
        .results(3)
}

pub(super) fn grouped_attentions() -> Vec<Node> {
    let with = |mut node: Node, more: Vec<Option<Array>>| {
        node.operands.extend(more);
        node
    };
    let (cos, sin) = caches(9, 8);
    let rotary = || vec![Some(cos.clone()), Some(sin.clone())];
    let mut packed = grouped(3, 0);
    packed.operands[0] = Some(floats(&[2, 3, 128], 1));
    packed.operands[1] = None;
    packed.operands[2] = None;
    let padding = || {
        let mut node = grouped(3, 0).results(1);
        node.operands[5] = Some(list(DType::I32, &[2, 1]));
        node
    };
    let sinks = vec![None, None, None, None, Some(floats(&[4], 7))];
    let bias = vec![None, None, None, Some(floats(&[1, 4, 3, 3], 7))];
    vec![
        grouped(3, 0),
        packed,
        grouped(1, 4),
        grouped(3, 0).float("scale", 0.2).float("softcap", 0.5),
        grouped(3, 0).int("local_window_size", 2),
        grouped(1, 6).int("local_window_size", 3),
        grouped(3, 0).int("smooth_softmax", 1),
        with(grouped(3, 0), sinks),
        with(grouped(3, 0), bias),
        with(grouped(3, 0), rotary()).int("do_rotary", 1),
        with(grouped(1, 4), rotary()).int("do_rotary", 1),
        with(grouped(3, 0), rotary())
            .int("do_rotary", 1)
            .int("rotary_interleaved", 1),
        with(padding(), rotary()).int("do_rotary", 1),
    ]
}
