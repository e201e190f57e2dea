//! Recurrent layers.

use super::array::Array;
use super::cells::{Cell, GRU, Gates, Kind, LSTM, RNN, State, activations, dot};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::movement::join;
use super::rows::permuted;
use super::sizes::{self, count, work};
use super::table::{Entry, many};

pub(super) const OPS: &[Entry] = &[
    many("RNN", 1, |cx| layers(cx, &RNN)),
    many("GRU", 1, |cx| layers(cx, &GRU)),
    many("LSTM", 1, |cx| layers(cx, &LSTM)),
];

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
