//! Activations that exporters write as chains of nodes.
//!
//! A chain is what a value is computed from with elementwise operators, numbers and one other value.
//! Whether it is a certain function is told by values at some points: however it is written, two
//! short formulas that agree there are the same.
//!
//! Recognized, a chain has the gradient of the activation that it is, computed from the chain's
//! operand alone. None of its inner values is kept for the backward pass, and ONNX Runtime can make
//! one node of them: node by node, the gradient would read each.

use super::GradCx;
use super::activation::{GELU_CUBIC, gelu_parts, gelu_tanh};
use crate::graph::{NodeId, ValueId};
use crate::ops::build::{Expr, Refusal};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_2_SQRT_PI};

/// The longest chain that is looked at.
const LONGEST: usize = 12;
/// Where functions are compared, and how closely: the chain's constants are in single precision.
const POINTS: [f64; 11] = [-40.0, -3.1, -1.7, -0.9, -0.3, 0.2, 0.7, 1.3, 2.2, 3.7, 40.0];
const CLOSE: f64 = 2e-6;

/// `y = f(x)`, where the node is the last product of a chain: `dx = dy · f'(x)`, given to `x`.
/// Returns whether it is one.
pub(super) fn activation(cx: &mut GradCx<'_>) -> Result<bool, Refusal> {
    let Some((function, x)) = Chain::find(cx, cx.id()) else {
        return Ok(false);
    };
    let dy = cx.thin_dy()?;
    let (_, slope) = function.again(cx.build.expr(x), false);
    cx.give_to(x, dy * slope);
    Ok(true)
}

/// `y = f(x) · u`, where a chain computes the first factor: `dx = dy · u · f'(x)`, `du = dy · f(x)`.
/// Returns whether it does.
pub(super) fn gated(cx: &mut GradCx<'_>) -> Result<bool, Refusal> {
    let graph = cx.build.graph();
    let found = (0..2).find_map(|slot| {
        let factor = graph.operand(cx.id(), slot)?;
        let is_passed = cx.is_active(factor) && !cx.is_wanted(factor);
        let node = graph.producer(factor).filter(|_| is_passed)?;
        let op = &graph.node(node).op;
        let (function, x) = op.is("Mul").then(|| Chain::find(cx, node)).flatten()?;
        Some((function, x, 1 - slot))
    });
    let Some((function, x, other)) = found else {
        return Ok(false);
    };
    let (u, dy) = (cx.x(other)?, cx.thin_dy()?);
    // What depends on `x` alone comes first: ONNX Runtime then computes it last.
    let (value, slope) = function.again(cx.build.expr(x), cx.needs(other));
    cx.give_to(x, dy * u * slope);
    if let Some(value) = value {
        cx.give(other, || dy * value);
    }
    Ok(true)
}

/// What a chain may compute.
#[derive(Clone, Copy)]
enum Activation {
    /// `x · σ(x)`.
    Silu,
    /// `x · Φ(x)` with the normal distribution.
    Gelu,
    /// The same by its approximation with `tanh`.
    GeluTanh,
}

impl Activation {
    const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

    fn at(self, x: f64) -> f64 {
        match self {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                let inner = FRAC_2_PI.sqrt() * (x + GELU_CUBIC * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }
        }
    }

    /// Its value, where that is needed, and its slope, computed from `x`.
    fn again(self, x: Expr<'_>, needs_value: bool) -> (Option<Expr<'_>>, Expr<'_>) {
        let (value, slope) = match self {
            Activation::Silu => {
                // The chain has σ(x), which ONNX Runtime would keep if it were computed again, and
                // has no 1 - σ(x) = σ(-x).
                let rest = (-x).sigmoid();
                let factor = 1.0 - rest;
                let value = x * factor;
                (value, factor + value * rest)
            }
            Activation::Gelu => {
                let (below, slope) = gelu_parts(x);
                return (needs_value.then(|| x * below), slope);
            }
            Activation::GeluTanh => gelu_tanh(x),
        };
        (Some(value), slope)
    }
}

/// The error function: by its Maclaurin series where that is exact enough, and 1 beyond.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..150 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * FRAC_2_SQRT_PI
}

/// A chain that ends at a node.
struct Chain<'c, 'b> {
    cx: &'c GradCx<'b>,
    end: NodeId,
}

/// The nodes from the end of a chain back to its operand.
#[derive(Default)]
struct Walk {
    nodes: Vec<NodeId>,
    /// What they read, but for numbers.
    values: Vec<ValueId>,
    /// Whether they read something else than each other's results, numbers and the operand.
    is_open: bool,
}

impl<'b> Chain<'_, 'b> {
    /// What the shortest chain that ends at a node and has an activation in it computes, and of which
    /// value; `None` also where a gradient is asked for or held up within it.
    fn find(cx: &GradCx<'b>, end: NodeId) -> Option<(Activation, ValueId)> {
        let chain = Chain { cx, end };
        let graph = cx.build.graph();
        let is_activation = |node: &NodeId| {
            let op = &graph.node(*node).op;
            ["Sigmoid", "Erf", "Tanh"].iter().any(|name| op.is(name))
        };
        let walks = chain.back_to(None).values.into_iter();
        let walks = walks.map(|x| (x, chain.back_to(Some(x))));
        let (x, walk) = walks
            .filter(|(_, walk)| !walk.is_open && walk.nodes.iter().any(is_activation))
            .min_by_key(|(_, walk)| walk.nodes.len())?;
        let mut functions = Activation::ALL.into_iter();
        let function = functions.find(|function| chain.computes(*function, x))?;
        let inner = walk.nodes.iter().filter(|node| **node != end);
        let mut inner = inner.flat_map(|node| graph.results(*node)).flatten();
        let may_pass = inner.all(|value| cx.is_active(value) && !cx.is_wanted(value));
        (cx.is_active(x) && may_pass).then_some((function, x))
    }

    /// Walks back, to a value and not beyond, or as far as chains are looked at.
    fn back_to(&self, operand: Option<ValueId>) -> Walk {
        let graph = self.cx.build.graph();
        let mut walk = Walk {
            nodes: vec![self.end],
            ..Walk::default()
        };
        let mut at = 0;
        while at < walk.nodes.len() {
            for value in graph.operands(walk.nodes[at]).into_iter().flatten() {
                if walk.values.contains(&value) || self.number(value).is_some() {
                    continue;
                }
                walk.values.push(value);
                match graph.producer(value) {
                    _ if operand == Some(value) => {}
                    Some(node) if walk.nodes.len() < LONGEST => walk.nodes.push(node),
                    _ => walk.is_open = true,
                }
            }
            at += 1;
        }
        walk
    }

    /// A number that is the same in every step: what is trained is none.
    fn number(&self, value: ValueId) -> Option<f64> {
        match self.cx.is_active(value) {
            true => None,
            false => self.cx.build.known(value.into())?.single()?.float(),
        }
    }

    fn computes(&self, function: Activation, operand: ValueId) -> bool {
        POINTS.iter().all(|x| {
            let expected = function.at(*x);
            self.result(self.end, operand, *x)
                .is_some_and(|found| (found - expected).abs() <= CLOSE * (1.0 + expected.abs()))
        })
    }

    /// The result of a node where the chain's operand is `x`.
    fn result(&self, node: NodeId, operand: ValueId, x: f64) -> Option<f64> {
        let graph = self.cx.build.graph();
        let numbers: Option<Vec<f64>> = graph
            .operands(node)
            .into_iter()
            .map(|value| match value? {
                value if value == operand => Some(x),
                value => self
                    .number(value)
                    .or_else(|| self.result(graph.producer(value)?, operand, x)),
            })
            .collect();
        apply(&graph.node(node).op.op_type, &numbers?)
    }
}

/// What a link of a chain computes.
fn apply(op_type: &str, operands: &[f64]) -> Option<f64> {
    Some(match (op_type, operands) {
        ("Mul", [a, b]) => a * b,
        ("Add", [a, b]) => a + b,
        ("Sub", [a, b]) => a - b,
        ("Div", [a, b]) => a / b,
        ("Pow", [a, b]) => a.powf(*b),
        ("Neg", [a]) => -a,
        ("Sigmoid", [a]) => 1.0 / (1.0 + (-a).exp()),
        ("Tanh", [a]) => a.tanh(),
        ("Erf", [a]) => erf(*a),
        _ => return None,
    })
}
