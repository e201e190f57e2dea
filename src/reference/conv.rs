//! Convolutions.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::matmul::{activated, sum};
use super::movement::{join, part};
use super::normalization::by_channel;
use super::sizes::{MOST_ELEMENTS, count, work};
use super::special::sigmoid;
use super::table::{Entry, many, one};
use super::window::{Taps, Window, kernel};

pub(super) const OPS: &[Entry] = &[
    one("Conv", 1, |cx| {
        let y = convolution(cx, cx.operand(0)?, cx.operand(1)?)?;
        with_bias(y, cx.optional(2))
    }),
    one("ConvTranspose", 1, conv_transpose),
    one("FusedConv", 1, fused_conv).microsoft(),
    many("CausalConvWithState", 27, causal),
    one("Inverse", 1, inverse).microsoft(),
];

/// The sizes of the two operands, checked against each other.
struct Sizes {
    batch: usize,
    groups: usize,
    /// Channels a group, of the operand and of the result.
    input: usize,
    output: usize,
}

pub(super) fn grouped(cx: &Cx<'_>) -> Result<usize, Fault> {
    match usize::try_from(cx.int_or("group", 1)) {
        Ok(groups) if (1..=MOST_ELEMENTS).contains(&groups) => Ok(groups),
        _ => mismatch!("{} groups", cx.int_or("group", 1)),
    }
}

/// `y[n, m, o…] = Σ x[n, c, o·stride + k·dilation - pad…] · w[m, c, k…]` over the channels `c` of
/// the group of `m`, of floats or integers.
pub(super) fn convolution(cx: &Cx<'_>, x: &Array, w: &Array) -> Result<Array, Fault> {
    let groups = grouped(cx)?;
    let ([batch, channels, space @ ..], [maps, input, ..]) = (x.dims(), w.dims()) else {
        return mismatch!("a convolution of {:?} by {:?}", x.dims(), w.dims());
    };
    if x.rank() != w.rank() || *channels != input * groups || maps % groups != 0 || space.is_empty()
    {
        return mismatch!("{groups} groups of {:?} by {:?}", x.dims(), w.dims());
    }
    let sizes = Sizes {
        batch: *batch,
        groups,
        input: *input,
        output: maps / groups,
    };
    let taps = Window::read(cx, &kernel(cx, w)?)?.taps(space)?;
    let space = count(space)?;
    let dims = [&[*batch, *maps], &taps.dims[..]].concat();
    work(&[count(&dims)?, *input, count(&w.dims()[2..])?])?;
    let elements = match (x.elements(), w.elements()) {
        (Elements::Floats(x), Elements::Floats(w)) => {
            Elements::Floats(convolved(x, w, &sizes, &taps, space, |sum, x, w| {
                sum + x * w
            }))
        }
        (Elements::Ints(x), Elements::Ints(w)) => {
            let add = |sum: i128, x: i128, w: i128| sum.wrapping_add(x.wrapping_mul(w));
            Elements::Ints(convolved(x, w, &sizes, &taps, space, add))
        }
        _ => return mismatch!("a convolution of types {} and {}", x.dtype(), w.dtype()),
    };
    Array::new(x.dtype(), &dims, elements)
}

fn convolved<T: Copy + Default>(
    x: &[T],
    w: &[T],
    sizes: &Sizes,
    taps: &Taps,
    space: usize,
    add: impl Fn(T, T, T) -> T,
) -> Vec<T> {
    let Sizes {
        batch,
        groups,
        input,
        output,
    } = *sizes;
    let mut y = Vec::new();
    for (sample, group) in (0..batch).flat_map(|n| (0..groups).map(move |g| (n, g))) {
        for map in 0..output {
            for window in taps.windows() {
                let mut sum = T::default();
                for channel in 0..input {
                    let x = &x[((sample * groups + group) * input + channel) * space..][..space];
                    let w = &w[((group * output + map) * input + channel) * window.len()..];
                    for (position, w) in window.iter().zip(w) {
                        if let Some(position) = position {
                            sum = add(sum, x[*position], *w);
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn with_bias(y: Array, bias: Option<&Array>) -> Result<Array, Fault> {
    match bias {
        Some(bias) => sum(&y, &by_channel(bias, y.rank())?),
        None => Ok(y),
    }
}

/// `y[n, m, i·stride + k·dilation - pad…] += x[n, c, i…] · w[c, m, k…]`, the transposed of a
/// convolution with the same attributes.
fn conv_transpose(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let groups = grouped(cx)?;
    let ([batch, channels, space @ ..], [rows, output, ..]) = (x.dims(), w.dims()) else {
        return mismatch!("a convolution of {:?} by {:?}", x.dims(), w.dims());
    };
    if x.rank() != w.rank() || channels != rows || channels % groups != 0 || space.is_empty() {
        return mismatch!("{groups} groups of {:?} by {:?}", x.dims(), w.dims());
    }
    let (taps, result) = Window::read(cx, &kernel(cx, w)?)?.transposed_taps(cx, space)?;
    let sizes = Sizes {
        batch: *batch,
        groups,
        input: channels / groups,
        output: *output,
    };
    let dims = [&[*batch, output * groups], &result[..]].concat();
    count(&dims)?;
    work(&[x.len(), *output, count(&w.dims()[2..])?])?;
    let data = scattered(
        x.as_floats()?,
        w.as_floats()?,
        &sizes,
        &taps,
        count(&result)?,
    );
    with_bias(Array::floats(x.dtype(), &dims, data)?, cx.optional(2))
}

fn scattered(x: &[f64], w: &[f64], sizes: &Sizes, taps: &Taps, space: usize) -> Vec<f64> {
    let Sizes {
        batch,
        groups,
        input,
        output,
    } = *sizes;
    let windows: usize = taps.dims.iter().product();
    let mut y = vec![0.0; batch * groups * output * space];
    for (plane, x) in x.chunks_exact(windows.max(1)).enumerate() {
        let (sample, channel) = (plane / (groups * input), plane % (groups * input));
        let group = channel / input;
        for map in 0..output {
            let y = &mut y[((sample * groups + group) * output + map) * space..][..space];
            for (window, x) in taps.windows().zip(x) {
                let w = &w[(channel * output + map) * window.len()..];
                for (position, w) in window.iter().zip(w) {
                    if let Some(position) = position {
                        y[*position] += x * w;
                    }
                }
            }
        }
    }
    y
}

/// `y = activation(conv(x, w) + b + z)`.
fn fused_conv(cx: &Cx<'_>) -> Result<Array, Fault> {
    let y = convolution(cx, cx.operand(0)?, cx.operand(1)?)?;
    let mut y = with_bias(y, cx.optional(2))?;
    if let Some(z) = cx.optional(3) {
        y = sum(&y, z)?;
    }
    let parameters = cx.floats("activation_params").unwrap_or_default();
    let parameter = |index: usize| parameters.get(index).map(|value| f64::from(*value));
    activated(
        &y,
        cx.string("activation").unwrap_or(""),
        parameter(0),
        parameter(1),
    )
}

/// A convolution of each channel with what came before it, and the last `k - 1` elements.
fn causal(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let ([n, c, _], [maps, 1, k]) = (x.dims(), w.dims()) else {
        return mismatch!("a convolution of {:?} by {:?}", x.dims(), w.dims());
    };
    if maps != c || *k == 0 {
        return mismatch!("a convolution of {:?} by {:?}", x.dims(), w.dims());
    }
    let state = match cx.optional(3) {
        Some(state) => state.clone(),
        None => Array::zeros(x.dtype(), &[*n, *c, k - 1])?,
    };
    if state.dims() != [*n, *c, k - 1] {
        return mismatch!("a state of {:?} for {:?}", state.dims(), x.dims());
    }
    let whole = join(&[&state, x], 2)?;
    let data = causal_rows(&whole, w.as_floats()?, *k)?;
    let y = with_bias(Array::floats(x.dtype(), x.dims(), data)?, cx.optional(2))?;
    let y = match cx.string("activation") {
        None | Some("none") => y,
        Some("silu" | "swish") => y.map(|x| x * sigmoid(x))?,
        Some(other) => return unsupported!("the activation `{other}`"),
    };
    let end = whole.dims()[2] + 1 - k;
    Ok(vec![y, part(&whole, 2, end, k - 1)?])
}

fn causal_rows(whole: &Array, w: &[f64], k: usize) -> Result<Vec<f64>, Fault> {
    let (rows, channels) = (whole.dims()[0] * whole.dims()[1], whole.dims()[1]);
    let data = whole.as_floats()?;
    let len = data.len() / rows.max(1);
    let mut y = Vec::new();
    for row in 0..rows {
        let kernel = &w[row % channels * k..][..k];
        let row = &data[row * len..][..len];
        let products = |window: &[f64]| window.iter().zip(kernel).map(|(x, w)| x * w).sum::<f64>();
        y.extend(row.windows(k).map(products));
    }
    Ok(y)
}

/// The inverses of matrices, by Gauss and Jordan with pivots.
fn inverse(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let [.., n, columns] = x.dims() else {
        return mismatch!("the inverse of {:?}", x.dims());
    };
    if n != columns {
        return mismatch!("the inverse of {:?}", x.dims());
    }
    work(&[x.len(), *n])?;
    let n = *n;
    let mut data = Vec::with_capacity(x.len());
    for matrix in x.as_floats()?.chunks_exact((n * n).max(1)) {
        data.extend(inverted(matrix, n)?);
    }
    Array::floats(x.dtype(), x.dims(), data)
}

fn inverted(matrix: &[f64], n: usize) -> Result<Vec<f64>, Fault> {
    let mut rows: Vec<Vec<f64>> = matrix.chunks_exact(n).map(<[f64]>::to_vec).collect();
    for (index, row) in rows.iter_mut().enumerate() {
        row.extend((0..n).map(|column| f64::from(column == index)));
    }
    for column in 0..n {
        let size = |row: &usize| rows[*row][column].abs();
        let pivot = (column..n)
            .max_by(|a, b| size(a).total_cmp(&size(b)))
            .unwrap_or(column);
        rows.swap(column, pivot);
        let factor = rows[column][column];
        if factor == 0.0 {
            return mismatch!("a matrix without an inverse");
        }
        rows[column].iter_mut().for_each(|x| *x /= factor);
        let pivot = rows[column].clone();
        for (index, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if index != column && factor != 0.0 {
                row.iter_mut()
                    .zip(&pivot)
                    .for_each(|(x, p)| *x -= factor * p);
            }
        }
    }
    Ok(rows.into_iter().flat_map(|row| row[n..].to_vec()).collect())
}
