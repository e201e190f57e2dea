//! Dropout that a resumed run repeats: masks are a function of a seed, not of a generator's state.
//!
//! ONNX's own Dropout draws from a generator that lives in the session, so the masks of a step depend
//! on every step before. Here the mask of an element is a hash of its index, of the node and of the
//! input `seed`, in integer arithmetic that gives the same bits everywhere. A trainer passes another
//! seed every step.

use crate::graph::{Graph, Node, NodeId, ValueId};
use crate::ops::{Builder, DRAW, Expr, NOISE, Refusal};
use crate::ty::{DType, Dim};

/// A prime below 2³¹: squares of what is below it fit into 64 bits.
const PRIME: f64 = 2_147_483_647.0;
/// A primitive root of it (Park and Miller's second multiplier).
const ROOT: f64 = 48_271.0;

/// What tells the angles of noise from its radii.
const ANGLES: usize = 1 << 20;

/// A dropout of the adapter, or noise.
pub(super) struct Dropout {
    pub result: ValueId,
    operand: ValueId,
    kind: Kind,
    /// What a loss knows it by.
    pub draw: Option<String>,
}

enum Kind {
    /// How likely an element is dropped.
    Dropout(f64),
    /// Standard normal numbers in place of the elements.
    Noise,
}

/// The dropouts that an adapter has brought: nodes that no file had. Those of the base are left as
/// they are, the identity.
pub(super) fn dropouts(graph: &Graph) -> Vec<Dropout> {
    let order = graph.order().unwrap_or_default();
    let added = order.into_iter().filter(|node| {
        let node = graph.node(*node);
        (node.op.is("Dropout") || is_noise(node)) && node.origin.is_none()
    });
    added.filter_map(|node| read(graph, node)).collect()
}

fn is_noise(node: &Node) -> bool {
    node.metadata(NOISE.0) == Some(NOISE.1)
}

fn read(graph: &Graph, node: NodeId) -> Option<Dropout> {
    let kind = if is_noise(graph.node(node)) {
        Kind::Noise
    } else {
        Kind::Dropout(match graph.operand(node, 1) {
            Some(ratio) => graph.value(ratio).constant()?.to_f64s()?.first().copied()?,
            None => f64::from(graph.node(node).float("ratio")?),
        })
    };
    Some(Dropout {
        result: graph.result(node, 0)?,
        operand: graph.operand(node, 0)?,
        kind,
        draw: graph.node(node).metadata(DRAW).map(str::to_owned),
    })
}

/// Emits x · keep / (1 − p), where `keep` is 0 with probability p; or normal numbers by Box and
/// Muller. `number` tells nodes apart.
pub(super) fn dropped<'b>(
    build: &'b Builder<'b>,
    dropout: &Dropout,
    seed: Expr<'b>,
    number: usize,
) -> Result<Expr<'b>, Refusal> {
    let x = build.expr(match dropout.kind {
        Kind::Dropout(_) => dropout.operand,
        Kind::Noise => dropout.result,
    });
    let dims = x.dims()?;
    match dropout.kind {
        Kind::Dropout(probability) => {
            let hash = hashes(build, &dims, seed, number)?;
            let dropped = hash.is_less(build.scalar((probability * PRIME).round(), DType::I64));
            let keep = dropped.not().cast(x.dtype()).reshape(&dims)?;
            Ok(x * keep * (1.0 / (1.0 - probability)))
        }
        Kind::Noise => {
            // In (0, 1), so that the logarithm is finite.
            let unit = |hash: Expr<'b>| (hash.cast(DType::F32) + 0.5) * (1.0 / (PRIME + 1.0));
            let radius = unit(hashes(build, &dims, seed, number)?);
            let angle = unit(hashes(build, &dims, seed, number + ANGLES)?);
            let radius = (radius.apply("Log") * -2.0).apply("Sqrt");
            let turn = (angle * std::f64::consts::TAU).apply("Cos");
            (radius * turn).cast(x.dtype()).reshape(&dims)
        }
    }
}

/// A number below [`PRIME`] for every element, in their order.
fn hashes<'b>(
    build: &'b Builder<'b>,
    dims: &[Dim],
    seed: Expr<'b>,
    number: usize,
) -> Result<Expr<'b>, Refusal> {
    let integer = |value: f64| build.scalar(value, DType::I64);
    let prime = integer(PRIME);
    let modulo = |value: Expr<'b>| value.apply2("Mod", prime);
    let count = dims
        .iter()
        .fold(Dim::from(1), |count, dim| count * dim.clone());
    let count_value = build.sizes(std::slice::from_ref(&count))?.reshape(&[])?;
    let index = build
        .node(
            "Range",
            &[integer(0.0), count_value, integer(1.0)],
            Vec::new(),
        )
        .stated(&[count]);
    let start = modulo(seed * integer(ROOT) + integer(number as f64 * 7919.0 + 1.0));
    // Two squarings: neighbours end up with nothing in common, which multiplying alone would not do.
    let first = modulo(index + start);
    let second = modulo(modulo(first * first + start) * integer(ROOT));
    Ok(modulo(second * second + index))
}
