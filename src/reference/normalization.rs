//! Normalizations.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::fault::{Fault, mismatch};
use super::rows::{Rows, along, reduced_dims, stretch, zip_floats};
use super::table::{Entry, many, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    // ONNX Runtime takes it before opset 17, too.
    many("LayerNormalization", 1, |cx| {
        layer(cx, cx.operand(0)?, 1, Some(2), cx.float_or("epsilon", 1e-5))
    }),
    many("SimplifiedLayerNormalization", 1, simplified),
    many("SimplifiedLayerNormalization", 1, simplified).microsoft(),
    one("RMSNormalization", 23, |cx| {
        let [y, _] = rms(cx, cx.operand(0)?, 1, cx.float_or("epsilon", 1e-5))?;
        Ok(y)
    }),
    one("InstanceNormalization", 1, instance),
    one("GroupNormalization", 18, group),
    many("BatchNormalization", 1, batch),
    one("LpNormalization", 1, lp),
    one("LRN", 1, lrn),
    one("MeanVarianceNormalization", 9, |cx| {
        let x = cx.operand(0)?;
        let axes = cx.ints("axes").unwrap_or(&[0, 2, 3]);
        let axes = super::sizes::axes(axes, x.rank())?;
        along(x, &axes, |row| {
            let (mean, variance) = moments(row);
            // The definition adds 1e-9 to the deviation.
            row.iter()
                .map(|x| (x - mean) / (variance.sqrt() + 1e-9))
                .collect()
        })
    }),
];

/// Mean and biased variance.
fn moments(row: &[f64]) -> (f64, f64) {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / row.len() as f64;
    (mean, variance)
}

/// The axes from `axis` on.
fn behind(cx: &Cx<'_>, rank: usize) -> Result<Vec<usize>, Fault> {
    Ok((cx.axis_or("axis", -1, rank)?..rank).collect())
}

/// `y = (x - mean) / √(var + ε) · scale + bias` over the axes from `axis` on, with the mean and
/// the inverse deviation.
pub(super) fn layer(
    cx: &Cx<'_>,
    x: &Array,
    scale: usize,
    bias: Option<usize>,
    epsilon: f64,
) -> Result<Vec<Array>, Fault> {
    let axes = behind(cx, x.rank())?;
    let rows = Rows::over(x, &axes)?;
    let (mut data, mut means, mut inverses) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows.floats()? {
        let (mean, variance) = moments(row);
        let inverse = 1.0 / (variance + epsilon).sqrt();
        data.extend(row.iter().map(|x| (x - mean) * inverse));
        means.push(mean);
        inverses.push(inverse);
    }
    let normal = rows.back(x.dtype(), Elements::Floats(data))?;
    let y = scaled(
        &normal,
        cx.operand(scale)?,
        bias.and_then(|slot| cx.optional(slot)),
    )?;
    let stash = cx.dtype("stash_type")?.unwrap_or(DType::F32);
    let dims = reduced_dims(x.dims(), &axes, true);
    Ok(vec![
        y,
        Array::floats(stash, &dims, means)?,
        Array::floats(stash, &dims, inverses)?,
    ])
}

/// `y = x · scale + bias`, which broadcast to `x`.
fn scaled(x: &Array, scale: &Array, bias: Option<&Array>) -> Result<Array, Fault> {
    let y = zip_floats(x.dtype(), x, &stretch(scale, x.dims())?, |x, scale| {
        x * scale
    })?;
    match bias {
        Some(bias) => zip_floats(x.dtype(), &y, &stretch(bias, x.dims())?, |y, bias| y + bias),
        None => Ok(y),
    }
}

/// `y = x / √(mean(x²) + ε) · scale` over the axes from `axis` on, and `1 / √…`.
pub(super) fn rms(cx: &Cx<'_>, x: &Array, scale: usize, epsilon: f64) -> Result<[Array; 2], Fault> {
    let axes = behind(cx, x.rank())?;
    let rows = Rows::over(x, &axes)?;
    let (mut data, mut inverses) = (Vec::new(), Vec::new());
    for row in rows.floats()? {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let inverse = 1.0 / (mean + epsilon).sqrt();
        data.extend(row.iter().map(|x| x * inverse));
        inverses.push(inverse);
    }
    let normal = rows.back(x.dtype(), Elements::Floats(data))?;
    let y = scaled(&normal, cx.operand(scale)?, None)?;
    let dims = reduced_dims(x.dims(), &axes, true);
    Ok([y, Array::floats(DType::F32, &dims, inverses)?])
}

fn simplified(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let x = cx.operand(0)?;
    Ok(rms(cx, x, 1, cx.float_or("epsilon", 1e-5))?.to_vec())
}

/// One number a channel in the shape `[1, c, 1…]`.
pub(super) fn by_channel(array: &Array, rank: usize) -> Result<Array, Fault> {
    if rank < 2 || array.rank() != 1 {
        return mismatch!(
            "{:?} as channels of a tensor with {rank} axes",
            array.dims()
        );
    }
    let mut dims = vec![1; rank];
    dims[1] = array.len();
    array.clone().reshaped(&dims)
}

/// `y = (x - mean) / √(var + ε) · scale + bias` over the space of each sample and channel.
fn instance(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let epsilon = cx.float_or("epsilon", 1e-5);
    let space: Vec<usize> = (2..x.rank()).collect();
    let normal = along(x, &space, |row| standardized(row, epsilon))?;
    let scale = by_channel(cx.operand(1)?, x.rank())?;
    scaled(
        &normal,
        &scale,
        Some(&by_channel(cx.operand(2)?, x.rank())?),
    )
}

pub(super) fn standardized(row: &[f64], epsilon: f64) -> Vec<f64> {
    let (mean, variance) = moments(row);
    let inverse = 1.0 / (variance + epsilon).sqrt();
    row.iter().map(|x| (x - mean) * inverse).collect()
}

/// As an instance normalization, over channels in groups; scale and bias are one number a group
/// until opset 20, then one a channel.
fn group(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let groups = cx.positive("num_groups")?;
    let [n, c, space @ ..] = x.dims() else {
        return mismatch!("groups of channels of {:?}", x.dims());
    };
    if c % groups != 0 {
        return mismatch!("{groups} groups of {c} channels");
    }
    let epsilon = cx.float_or("epsilon", 1e-5);
    let grouped = [&[*n, groups, c / groups], space].concat();
    let axes: Vec<usize> = (2..grouped.len()).collect();
    let normal = along(&x.clone().reshaped(&grouped)?, &axes, |row| {
        standardized(row, epsilon)
    })?;
    let (scale, bias) = (cx.operand(1)?, cx.operand(2)?);
    if cx.opset < 21 {
        let scale = by_channel(scale, grouped.len())?;
        let bias = by_channel(bias, grouped.len())?;
        return scaled(&normal, &scale, Some(&bias))?.reshaped(x.dims());
    }
    let normal = normal.reshaped(x.dims())?;
    let scale = by_channel(scale, x.rank())?;
    scaled(&normal, &scale, Some(&by_channel(bias, x.rank())?))
}

/// `y = (x - mean) / √(var + ε) · scale + bias` with stored statistics, or in training with those
/// of the batch, which move the stored ones.
fn batch(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let x = cx.operand(0)?;
    let (mean, variance) = (cx.operand(3)?, cx.operand(4)?);
    // Before opset 14 further results made it training; before 7 `is_test` said that it is none.
    let training = match cx.opset {
        14.. => cx.flag("training_mode"),
        7.. => cx.results > 1,
        _ => !cx.flag("is_test"),
    };
    if !training {
        let y = batch_with(cx, x, mean, variance)?;
        return Ok(vec![y, mean.clone(), variance.clone()]);
    }
    let axes: Vec<usize> = (0..x.rank()).filter(|axis| *axis != 1).collect();
    let rows = Rows::over(x, &axes)?;
    let (means, variances): (Vec<f64>, Vec<f64>) = rows.floats()?.into_iter().map(moments).unzip();
    let own_mean = Array::floats(mean.dtype(), &[means.len()], means)?;
    let own_variance = Array::floats(variance.dtype(), &[variances.len()], variances)?;
    let momentum = cx.float_or("momentum", 0.9);
    let moved = |old, new| {
        zip_floats(DType::F32, old, new, |o, n| {
            momentum * o + (1.0 - momentum) * n
        })
    };
    Ok(vec![
        batch_with(cx, x, &own_mean, &own_variance)?,
        moved(mean, &own_mean)?.typed(mean.dtype())?,
        moved(variance, &own_variance)?.typed(variance.dtype())?,
        own_mean,
        own_variance,
    ])
}

fn batch_with(cx: &Cx<'_>, x: &Array, mean: &Array, variance: &Array) -> Result<Array, Fault> {
    let epsilon = cx.float_or("epsilon", 1e-5);
    // A vector of features without space is a batch of them.
    let channels = |array: &Array| match x.rank() {
        1 => Ok(array.clone()),
        rank => by_channel(array, rank),
    };
    let centred = zip_floats(x.dtype(), x, &channels(mean)?, |x, mean| x - mean)?;
    let normal = zip_floats(x.dtype(), &centred, &channels(variance)?, |x, variance| {
        x / (variance + epsilon).sqrt()
    })?;
    scaled(
        &normal,
        &channels(cx.operand(1)?)?,
        Some(&channels(cx.operand(2)?)?),
    )
}

/// `y = x / ‖x‖ₚ` along an axis; 0 where the norm is.
fn lp(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let axis = cx.axis_or("axis", -1, x.rank())?;
    let p = cx.int_or("p", 2);
    along(x, &[axis], |row| {
        let norm = match p {
            1 => row.iter().map(|x| x.abs()).sum::<f64>(),
            _ => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
        };
        let one = |x: &f64| if norm == 0.0 { 0.0 } else { x / norm };
        row.iter().map(one).collect()
    })
}

/// `y = x / (bias + α/size · Σ x²)^β` over `size` neighbouring channels.
fn lrn(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let size = cx.positive("size")?;
    let (alpha, beta) = (cx.float_or("alpha", 1e-4), cx.float_or("beta", 0.75));
    let bias = cx.float_or("bias", 1.0);
    if x.rank() < 2 {
        return mismatch!("channels of {:?}", x.dims());
    }
    along(x, &[1], |row| {
        let one = |(at, x): (usize, &f64)| {
            let before = at.saturating_sub((size - 1) / 2);
            let end = at.saturating_add(size / 2 + 1).min(row.len());
            let squares: f64 = row[before..end].iter().map(|x| x * x).sum();
            x / (bias + alpha / size as f64 * squares).powf(beta)
        };
        row.iter().enumerate().map(one).collect()
    })
}

#[cfg(test)]
mod tests {
    use crate::reference::check::{eval, first, floats};

    #[test]
    fn a_layer_is_centred_and_scaled() {
        let (x, one) = (floats(&[1, 2], &[3.0, 5.0]), floats(&[2], &[1.0, 10.0]));
        let operands = [Some(&x), Some(&one), Some(&one)];
        let results = eval("LayerNormalization", 17, &operands, &[], 3).unwrap();
        let inverse = 1.0 / (1.0 + f64::from(1e-5_f32)).sqrt();
        assert_eq!(
            results[0],
            floats(&[1, 2], &[1.0 - inverse, 10.0 + 10.0 * inverse])
        );
        assert_eq!(results[1], floats(&[1, 1], &[4.0]));
        assert_eq!(results[2], floats(&[1, 1], &[inverse]));
    }

    #[test]
    fn the_simplified_form_is_not_centred() {
        let (x, scale) = (floats(&[2], &[3.0, 4.0]), floats(&[2], &[1.0, 2.0]));
        let inverse = 1.0 / (12.5 + f64::from(1e-5_f32)).sqrt();
        let y = first("RMSNormalization", 23, &[&x, &scale], &[]);
        assert_eq!(y, floats(&[2], &[3.0 * inverse, 4.0 * inverse * 2.0]));
    }
}
