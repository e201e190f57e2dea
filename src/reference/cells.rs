//! Cells of recurrent layers: one step of one sample.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::matmul::activated;
use crate::ty::DType;

/// A kind of cell.
pub(super) struct Kind {
    pub gates: usize,
    pub activations: &'static [&'static str],
    /// From the gates' sums of inputs and of states to the next state.
    pub step: fn(&Cell, Gates<'_>, &mut State) -> Result<(), Fault>,
    pub has_cell: bool,
}

pub(super) const RNN: Kind = Kind {
    gates: 1,
    activations: &["Tanh"],
    step: rnn,
    has_cell: false,
};
pub(super) const GRU: Kind = Kind {
    gates: 3,
    activations: &["Sigmoid", "Tanh"],
    step: gru,
    has_cell: false,
};
pub(super) const LSTM: Kind = Kind {
    gates: 4,
    activations: &["Sigmoid", "Tanh", "Tanh"],
    step: lstm,
    has_cell: true,
};

/// One direction of a layer.
pub(super) struct Cell {
    pub size: usize,
    /// `[gates·h, input]` and `[gates·h, h]`, by rows.
    pub w: Vec<f64>,
    pub r: Vec<f64>,
    /// `[2·gates·h]`: of inputs, then of states.
    pub bias: Vec<f64>,
    /// `[3·h]`, or nothing.
    pub peepholes: Vec<f64>,
    pub activations: Vec<Activation>,
    pub clip: Option<f64>,
    pub linear_before_reset: bool,
    pub coupled: bool,
}

pub(super) struct Activation {
    name: String,
    alpha: Option<f64>,
    beta: Option<f64>,
}

/// What a cell carries for one sample.
#[derive(Clone)]
pub(super) struct State {
    pub h: Vec<f64>,
    pub c: Vec<f64>,
}

/// `W x` and `R h` with their biases, gate by gate.
pub(super) struct Gates<'a> {
    pub x: &'a [f64],
    pub h: &'a [f64],
}

impl Cell {
    /// The values, clipped, through an activation.
    fn activate(&self, which: usize, values: Vec<f64>) -> Result<Vec<f64>, Fault> {
        let clipped = values.into_iter().map(|x| match self.clip {
            Some(clip) => x.max(-clip).min(clip),
            None => x,
        });
        self.apply(which, clipped.collect())
    }

    fn apply(&self, which: usize, values: Vec<f64>) -> Result<Vec<f64>, Fault> {
        let Some(activation) = self.activations.get(which) else {
            return mismatch!("{} activations", self.activations.len());
        };
        let (alpha, beta) = (
            activation.alpha.unwrap_or(1.0),
            activation.beta.unwrap_or(0.0),
        );
        match activation.name.as_str() {
            "Affine" => Ok(values.into_iter().map(|x| alpha * x + beta).collect()),
            "ScaledTanh" => {
                let beta = activation.beta.unwrap_or(1.0);
                Ok(values
                    .into_iter()
                    .map(|x| alpha * (beta * x).tanh())
                    .collect())
            }
            "ThresholdedRelu" => Ok(values
                .into_iter()
                .map(|x| if x >= alpha { x } else { 0.0 })
                .collect()),
            name => {
                let x = Array::floats(DType::F64, &[values.len()], values)?;
                Ok(activated(&x, name, activation.alpha, activation.beta)?.to_f64s())
            }
        }
    }

    /// The sums of gate `gate`.
    fn sums(&self, gates: &Gates<'_>, gate: usize) -> Vec<f64> {
        let range = gate * self.size..(gate + 1) * self.size;
        let pairs = gates.x[range.clone()].iter().zip(&gates.h[range]);
        pairs.map(|(x, h)| x + h).collect()
    }

    /// The sums with the weighted state of the cell added.
    fn peeped(&self, mut sums: Vec<f64>, which: usize, c: &[f64]) -> Vec<f64> {
        let weights = self.peepholes.get(which * self.size..).unwrap_or_default();
        for ((sum, weight), c) in sums.iter_mut().zip(weights).zip(c) {
            *sum += weight * c;
        }
        sums
    }
}

/// `h = f(W x + R h)`.
fn rnn(cell: &Cell, gates: Gates<'_>, state: &mut State) -> Result<(), Fault> {
    state.h = cell.activate(0, cell.sums(&gates, 0))?;
    Ok(())
}

/// `h = (1 - z) · n + z · h` with `z, r = f(W x + R h)` and `n = g(W x + R (r · h))`, or
/// `n = g(W x + r · (R h))`.
fn gru(cell: &Cell, gates: Gates<'_>, state: &mut State) -> Result<(), Fault> {
    let size = cell.size;
    let z = cell.activate(0, cell.sums(&gates, 0))?;
    let r = cell.activate(0, cell.sums(&gates, 1))?;
    let x = &gates.x[2 * size..];
    let inner: Vec<f64> = match cell.linear_before_reset {
        true => gates.h[2 * size..]
            .iter()
            .zip(&r)
            .map(|(h, r)| h * r)
            .collect(),
        false => {
            let reset: Vec<f64> = state.h.iter().zip(&r).map(|(h, r)| h * r).collect();
            let rows = cell.r[2 * size * size..].chunks_exact(size.max(1));
            let bias = &cell.bias[5 * size..];
            rows.zip(bias)
                .map(|(row, bias)| dot(row, &reset) + bias)
                .collect()
        }
    };
    let n = cell.activate(1, x.iter().zip(inner).map(|(x, h)| x + h).collect())?;
    for ((h, z), n) in state.h.iter_mut().zip(z).zip(n) {
        *h = (1.0 - z) * n + z * *h;
    }
    Ok(())
}

/// `c = f · c + i · g`, `h = o · tanh(c)` with gates in the order `i, o, f, g`.
fn lstm(cell: &Cell, gates: Gates<'_>, state: &mut State) -> Result<(), Fault> {
    let sums = |gate| cell.sums(&gates, gate);
    let i = cell.activate(0, cell.peeped(sums(0), 0, &state.c))?;
    let f = match cell.coupled {
        true => i.iter().map(|i| 1.0 - i).collect(),
        false => cell.activate(0, cell.peeped(sums(2), 2, &state.c))?,
    };
    let g = cell.activate(1, sums(3))?;
    for (((c, f), i), g) in state.c.iter_mut().zip(f).zip(i).zip(g) {
        *c = f * *c + i * g;
    }
    let o = cell.activate(0, cell.peeped(sums(1), 1, &state.c))?;
    // The clip bounds what goes into the gates, not the state of the cell.
    let shown = cell.apply(2, state.c.clone())?;
    state.h = o.iter().zip(shown).map(|(o, c)| o * c).collect();
    Ok(())
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Parameters of activations are listed for those that have any, in their order.
pub(super) fn activations(cx: &Cx<'_>, kind: &Kind, index: usize) -> Vec<Activation> {
    let stated = cx.strings("activations");
    let names: Vec<&str> = match &stated {
        Some(names) => names.clone(),
        None => kind.activations.repeat(index + 1),
    };
    let mut alphas = cx.floats("activation_alpha").unwrap_or_default().iter();
    let mut betas = cx.floats("activation_beta").unwrap_or_default().iter();
    let with_alpha = [
        "Affine",
        "LeakyRelu",
        "ThresholdedRelu",
        "ScaledTanh",
        "HardSigmoid",
        "Elu",
    ];
    let with_beta = ["Affine", "ScaledTanh", "HardSigmoid"];
    let mut all = Vec::new();
    for name in names {
        let take = |all: &mut std::slice::Iter<'_, f32>, has: bool| match has {
            true => all.next().map(|value| f64::from(*value)),
            false => None,
        };
        all.push(Activation {
            name: name.to_owned(),
            alpha: take(&mut alphas, with_alpha.contains(&name)),
            beta: take(&mut betas, with_beta.contains(&name)),
        });
    }
    let skipped = index * kind.activations.len();
    all.into_iter().skip(skipped).collect()
}
