//! Recurrent layers.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::matmul::activated;
use super::movement::join;
use super::rows::permuted;
use super::sizes::{self, count, work};
use super::table::{Entry, many};

pub(super) const OPS: &[Entry] = &[
    many("RNN", 1, |cx| layers(cx, &RNN)),
    many("GRU", 1, |cx| layers(cx, &GRU)),
    many("LSTM", 1, |cx| layers(cx, &LSTM)),
];

/// A kind of cell.
struct Kind {
    gates: usize,
    activations: &'static [&'static str],
    /// From the gates' sums of inputs and of states to the next state.
    step: fn(&Cell, Gates<'_>, &mut State) -> Result<(), Fault>,
    has_cell: bool,
}

const RNN: Kind = Kind {
    gates: 1,
    activations: &["Tanh"],
    step: rnn,
    has_cell: false,
};
const GRU: Kind = Kind {
    gates: 3,
    activations: &["Sigmoid", "Tanh"],
    step: gru,
    has_cell: false,
};
const LSTM: Kind = Kind {
    gates: 4,
    activations: &["Sigmoid", "Tanh", "Tanh"],
    step: lstm,
    has_cell: true,
};

/// One direction of a layer.
struct Cell {
    size: usize,
    /// `[gates·h, input]` and `[gates·h, h]`, by rows.
    w: Vec<f64>,
    r: Vec<f64>,
    /// `[2·gates·h]`: of inputs, then of states.
    bias: Vec<f64>,
    /// `[3·h]`, or nothing.
    peepholes: Vec<f64>,
    activations: Vec<Activation>,
    clip: Option<f64>,
    linear_before_reset: bool,
    coupled: bool,
}

struct Activation {
    name: String,
    alpha: Option<f64>,
    beta: Option<f64>,
}

/// What a cell carries for one sample.
#[derive(Clone)]
struct State {
    h: Vec<f64>,
    c: Vec<f64>,
}

/// `W x` and `R h` with their biases, gate by gate.
struct Gates<'a> {
    x: &'a [f64],
    h: &'a [f64],
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
                let x = Array::floats(crate::ty::DType::F64, &[values.len()], values)?;
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

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The direction of a pass over the sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// The sizes of a layer.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
}

/// `y: [steps, directions, batch, h]`, the last `h` and, of an LSTM, the last `c`:
/// `[directions, batch, h]`; with `layout` 1 the batch is first everywhere.
fn layers(cx: &Cx<'_>, kind: &Kind) -> Result<Vec<Array>, Fault> {
    let batch_first = cx.flag("layout");
    let x = match batch_first {
        true if cx.operand(0)?.rank() == 3 => permuted(cx.operand(0)?, &[1, 0, 2])?,
        _ => cx.operand(0)?.clone(),
    };
    let (&[steps, batch, input], &[_, _, hidden]) = (x.dims(), cx.operand(2)?.dims()) else {
        return mismatch!("a layer over {:?}", x.dims());
    };
    let sizes = Sizes {
        steps,
        batch,
        input,
        hidden,
    };
    let directions: &[Direction] = match cx.string("direction").unwrap_or("forward") {
        "forward" => &[Direction::Forward],
        "reverse" => &[Direction::Backward],
        "bidirectional" => &[Direction::Forward, Direction::Backward],
        other => return unsupported!("the direction `{other}`"),
    };
    let lens = match cx.optional_numbers(4)? {
        Some(lens) if lens.len() == batch => sizes::sizes(&lens)?,
        Some(lens) => return mismatch!("{} lengths of {batch} sequences", lens.len()),
        None => vec![steps; batch],
    };
    work(&[
        steps,
        batch,
        kind.gates * hidden,
        input.saturating_add(hidden),
        directions.len(),
    ])?;
    let mut passes = Vec::new();
    for (index, direction) in directions.iter().enumerate() {
        let cell = cell(cx, kind, &sizes, index, directions.len())?;
        let states = states(cx, kind, &sizes, index, directions.len(), batch_first)?;
        passes.push(pass(&x, kind, &cell, states, &lens, *direction, &sizes)?);
    }
    results(cx, kind, &sizes, passes, batch_first)
}

/// The rows of one direction of an operand, which has so many elements a direction.
fn side(array: &Array, index: usize, directions: usize, len: usize) -> Result<Vec<f64>, Fault> {
    if array.len() != directions * len {
        return mismatch!(
            "{:?} in {directions} directions of {len} elements",
            array.dims()
        );
    }
    Ok(array.as_floats()?[index * len..][..len].to_vec())
}

fn cell(
    cx: &Cx<'_>,
    kind: &Kind,
    sizes: &Sizes,
    index: usize,
    directions: usize,
) -> Result<Cell, Fault> {
    let (h, rows) = (sizes.hidden, kind.gates * sizes.hidden);
    let bias = match cx.optional(3) {
        Some(bias) => side(bias, index, directions, 2 * rows)?,
        None => vec![0.0; 2 * rows],
    };
    let peepholes = match cx.optional(7).filter(|_| kind.has_cell) {
        Some(weights) => side(weights, index, directions, 3 * h)?,
        None => Vec::new(),
    };
    Ok(Cell {
        size: h,
        w: side(cx.operand(1)?, index, directions, rows * sizes.input)?,
        r: side(cx.operand(2)?, index, directions, rows * h)?,
        bias,
        peepholes,
        activations: activations(cx, kind, index),
        clip: cx.float("clip").map(f64::from),
        linear_before_reset: cx.flag("linear_before_reset"),
        coupled: cx.flag("input_forget"),
    })
}

/// Parameters of activations are listed for those that have any, in their order.
fn activations(cx: &Cx<'_>, kind: &Kind, index: usize) -> Vec<Activation> {
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

/// The initial state of every sample.
fn states(
    cx: &Cx<'_>,
    kind: &Kind,
    sizes: &Sizes,
    index: usize,
    directions: usize,
    batch_first: bool,
) -> Result<Vec<State>, Fault> {
    let rows = |slot: usize, has: bool| -> Result<Vec<f64>, Fault> {
        let len = sizes.batch * sizes.hidden;
        let Some(array) = cx.optional(slot).filter(|_| has) else {
            return Ok(vec![0.0; count(&[len])?]);
        };
        match batch_first && array.rank() == 3 {
            true => side(&permuted(array, &[1, 0, 2])?, index, directions, len),
            false => side(array, index, directions, len),
        }
    };
    let (h, c) = (rows(5, true)?, rows(6, kind.has_cell)?);
    let row = |data: &[f64], at: usize| data[at * sizes.hidden..][..sizes.hidden].to_vec();
    let one = |at| State {
        h: row(&h, at),
        c: row(&c, at),
    };
    Ok((0..sizes.batch).map(one).collect())
}

/// What a pass gives: `h` of every step and sample, and the last states.
struct Pass {
    y: Vec<f64>,
    states: Vec<State>,
}

fn pass(
    x: &Array,
    kind: &Kind,
    cell: &Cell,
    mut states: Vec<State>,
    lens: &[usize],
    direction: Direction,
    sizes: &Sizes,
) -> Result<Pass, Fault> {
    let (rows, h, data) = (kind.gates * sizes.hidden, sizes.hidden, x.as_floats()?);
    // Behind the end of a sequence there are zeros.
    let mut y = vec![0.0; count(&[sizes.steps, sizes.batch, h])?];
    for (sample, state) in states.iter_mut().enumerate() {
        let len = lens[sample].min(sizes.steps);
        for step in 0..len {
            let step = match direction {
                Direction::Forward => step,
                Direction::Backward => len - 1 - step,
            };
            let at = step * sizes.batch + sample;
            let x = &data[at * sizes.input..][..sizes.input];
            let of_x = sums(&cell.w, x, &cell.bias[..rows]);
            let of_h = sums(&cell.r, &state.h, &cell.bias[rows..]);
            (kind.step)(cell, Gates { x: &of_x, h: &of_h }, state)?;
            y[at * h..][..h].copy_from_slice(&state.h);
        }
    }
    Ok(Pass { y, states })
}

/// `W x + b` by rows.
fn sums(weight: &[f64], x: &[f64], bias: &[f64]) -> Vec<f64> {
    if x.is_empty() {
        return bias.to_vec();
    }
    let rows = weight.chunks_exact(x.len());
    rows.zip(bias)
        .map(|(row, bias)| dot(row, x) + bias)
        .collect()
}

fn results(
    cx: &Cx<'_>,
    kind: &Kind,
    sizes: &Sizes,
    passes: Vec<Pass>,
    batch_first: bool,
) -> Result<Vec<Array>, Fault> {
    let dtype = cx.operand(0)?.dtype();
    let Sizes {
        steps,
        batch,
        hidden,
        ..
    } = *sizes;
    let y: Vec<Array> = passes
        .iter()
        .map(|pass| Array::floats(dtype, &[steps, 1, batch, hidden], pass.y.clone()))
        .collect::<Result<_, _>>()?;
    let y = join(&y.iter().collect::<Vec<_>>(), 1)?;
    let last = |of: fn(&State) -> &Vec<f64>| {
        let data = passes
            .iter()
            .flat_map(|pass| &pass.states)
            .flat_map(of)
            .copied()
            .collect();
        Array::floats(dtype, &[passes.len(), batch, hidden], data)
    };
    let mut all = vec![y, last(|state| &state.h)?];
    if kind.has_cell {
        all.push(last(|state| &state.c)?);
    }
    if batch_first {
        all[0] = permuted(&all[0], &[2, 0, 1, 3])?;
        for state in &mut all[1..] {
            *state = permuted(state, &[1, 0, 2])?;
        }
    }
    Ok(all)
}
