//! Fusions of ONNX Runtime (`com.microsoft`) other than attention and quantization.

use super::array::Array;
use super::cx::Cx;
use super::fault::{Fault, mismatch, unsupported};
use super::gather::take;
use super::movement::part;
use super::normalization::{layer, rms, standardized};
use super::rows::{along, permuted, stretch, zip_floats};
use super::special::{gelu, gelu_tanh, sigmoid, softmax};
use super::table::{Entry, many, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("Gelu", 1, |cx| cx.operand(0)?.map(gelu)).microsoft(),
    one("QuickGelu", 1, |cx| {
        let alpha = cx.float_or("alpha", 1.702);
        cx.operand(0)?.map(|x| x * sigmoid(alpha * x))
    })
    .microsoft(),
    one("FastGelu", 1, |cx| match cx.optional(1) {
        Some(bias) => add(cx.operand(0)?, bias)?.map(gelu_tanh),
        None => cx.operand(0)?.map(gelu_tanh),
    })
    .microsoft(),
    one("BiasGelu", 1, |cx| {
        add(cx.operand(0)?, cx.operand(1)?)?.map(gelu)
    })
    .microsoft(),
    one("BiasAdd", 1, |cx| {
        add(&add(cx.operand(0)?, cx.operand(1)?)?, cx.operand(2)?)
    })
    .microsoft(),
    one("BiasSoftmax", 1, bias_softmax).microsoft(),
    one("BiasSplitGelu", 1, bias_split_gelu).microsoft(),
    many("BiasDropout", 1, bias_dropout).microsoft(),
    many("SkipLayerNormalization", 1, skip_layer).microsoft(),
    many("SkipSimplifiedLayerNormalization", 1, skip_simplified).microsoft(),
    many("EmbedLayerNormalization", 1, embed).microsoft(),
    one("GroupNorm", 1, group_norm).microsoft(),
];

fn add(a: &Array, b: &Array) -> Result<Array, Fault> {
    zip_floats(a.dtype(), a, b, |a, b| a + b)
}

/// `y = softmax(x + bias)` over the axes from `axis` on. The bias is repeated over the axes just
/// before them with `is_inner_broadcast`, else over the first ones.
fn bias_softmax(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (x, bias) = (cx.operand(0)?, cx.operand(1)?);
    let axis = cx.axis_or("axis", 1, x.rank())?;
    let sum = add(x, bias)?;
    if sum.dims() != x.dims() {
        return mismatch!("a bias of {:?} for {:?}", bias.dims(), x.dims());
    }
    along(&sum, &(axis..x.rank()).collect::<Vec<_>>(), softmax)
}

/// `a, g = split(x + b); y = a · gelu(g)`.
fn bias_split_gelu(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = add(cx.operand(0)?, cx.operand(1)?)?;
    let Some((size, _)) = x.dims().split_last() else {
        return mismatch!("a tensor without axes");
    };
    let (axis, half) = (x.rank() - 1, size / 2);
    let gate = part(&x, axis, half, half)?;
    zip_floats(x.dtype(), &part(&x, axis, 0, half)?, &gate, |a, gate| {
        a * gelu(gate)
    })
}

/// `y = x + b + residual` at inference, and a mask that keeps everything.
fn bias_dropout(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let ratio = cx.single(3)?.unwrap_or(0.5);
    if cx.single(4)?.unwrap_or(0.0) != 0.0 && ratio != 0.0 {
        return unsupported!("a dropout with random numbers");
    }
    let mut y = add(cx.operand(0)?, cx.operand(1)?)?;
    if let Some(residual) = cx.optional(2) {
        y = add(&y, residual)?;
    }
    let mask = Array::ints(DType::Bool, y.dims(), vec![1; y.len()])?;
    Ok(vec![y, mask])
}

/// `x + skip + bias`, where the skip may lack the batch.
fn skipped(cx: &Cx<'_>, bias: usize) -> Result<Array, Fault> {
    let (x, skip) = (cx.operand(0)?, cx.operand(1)?);
    let sum = add(x, &stretch(skip, x.dims())?)?;
    match cx.optional(bias) {
        Some(bias) => add(&sum, &stretch(bias, x.dims())?),
        None => Ok(sum),
    }
}

/// `y, mean, inv_std, sum = norm(sum = x + skip + bias)`.
fn skip_layer(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let sum = skipped(cx, 4)?;
    let mut results = layer(cx, &sum, 2, Some(3), cx.float_or("epsilon", 1e-12))?;
    results.push(sum);
    Ok(results)
}

/// The same without a mean, which is taken as 0.
fn skip_simplified(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let sum = skipped(cx, 3)?;
    let [y, inverse] = rms(cx, &sum, 2, cx.float_or("epsilon", 1e-12))?;
    let mean = inverse.map(|_| 0.0)?;
    Ok(vec![y, mean, inverse, sum])
}

/// `y = norm(sum = word[ids] + position[0…] + segment[…])`, the number of tokens of each sample
/// that the mask keeps, and the sum.
fn embed(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let ids = cx.operand(0)?;
    let [batch, tokens] = ids.dims() else {
        return mismatch!("ids of {:?}", ids.dims());
    };
    let positions = match cx.optional(8) {
        Some(positions) => positions.clone(),
        None => Array::vector(&(0..*tokens as i64).collect::<Vec<_>>()),
    };
    let mut sum = add(
        &take(cx.operand(2)?, ids, 0)?,
        &take(cx.operand(3)?, &positions, 0)?,
    )?;
    if let (Some(segments), Some(table)) = (cx.optional(1), cx.optional(4)) {
        sum = add(&sum, &take(table, segments, 0)?)?;
    }
    let normal = layer(cx, &sum, 5, Some(6), cx.float_or("epsilon", 1e-12))?;
    let lens = match cx.optional(7) {
        Some(mask) => {
            let rows = mask.as_ints()?.chunks_exact((*tokens).max(1));
            rows.map(|row| row.iter().sum()).collect()
        }
        None => vec![0; *batch],
    };
    let Some(y) = normal.into_iter().next() else {
        return mismatch!("a normalization");
    };
    Ok(vec![y, Array::ints(DType::I32, &[*batch], lens)?, sum])
}

/// A group normalization with channels behind, and a SiLU behind it with `activation`.
fn group_norm(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let last = cx.int_or("channels_last", 1) != 0;
    let groups = cx.positive("groups")?;
    let epsilon = cx.float_or("epsilon", 1e-5);
    if x.rank() < 3 {
        return mismatch!("groups of channels of {:?}", x.dims());
    }
    let mut first = vec![0, x.rank() - 1];
    first.extend(1..x.rank() - 1);
    let moved = if last {
        permuted(x, &first)?
    } else {
        x.clone()
    };
    let (n, c, space) = (moved.dims()[0], moved.dims()[1], moved.dims()[2..].to_vec());
    if c % groups != 0 {
        return mismatch!("{groups} groups of {c} channels");
    }
    let area = super::sizes::count(&space)?;
    let grouped = moved.clone().reshaped(&[n, groups, c / groups * area])?;
    let normal = along(&grouped, &[2], |row| standardized(row, epsilon))?;
    let normal = normal.reshaped(moved.dims())?;
    let by_channel = |slot| super::normalization::by_channel(cx.operand(slot)?, x.rank());
    let scaled = zip_floats(x.dtype(), &normal, &by_channel(1)?, |x, gamma| x * gamma)?;
    let mut y = add(&scaled, &by_channel(2)?)?;
    if cx.flag("activation") {
        y = y.map(|x| x * sigmoid(x))?;
    }
    let mut back = vec![0];
    back.extend(2..x.rank());
    back.push(1);
    if last { permuted(&y, &back) } else { Ok(y) }
}

#[cfg(test)]
mod tests {
    use crate::graph::Attribute;
    use crate::reference::check::{eval, first, floats};
    use crate::reference::rows::permuted;

    /// ONNX Runtime runs these on other devices than the CPU; they are checked against what they fuse.
    #[test]
    fn fusions_give_what_their_parts_give() {
        let x = floats(&[1, 2, 2], &[0.5, -1.0, 2.0, 0.25]);
        let (bias, skip) = (floats(&[2], &[1.0, -2.0]), floats(&[1, 2, 2], &[1.0; 4]));
        let sum = first("Add", 14, &[&x, &bias], &[]);
        let added = first("com.microsoft:BiasAdd", 1, &[&x, &bias, &skip], &[]);
        assert_eq!(added, first("Add", 14, &[&sum, &skip], &[]));
        let axis = [Attribute::int("axis", 2)];
        let weights = first("com.microsoft:BiasSoftmax", 1, &[&x, &bias], &axis);
        assert_eq!(weights, first("Softmax", 13, &[&sum], &[]));
        let results = eval(
            "com.microsoft:BiasDropout",
            1,
            &[Some(&x), Some(&bias), Some(&skip)],
            &[],
            2,
        );
        let results = results.unwrap();
        assert_eq!(results[0], added);
        assert_eq!(results[1].to_f64s(), [1.0; 4]);
    }

    #[test]
    fn a_split_gelu_gates_the_first_half_with_the_second() {
        let (x, bias) = (floats(&[1, 1, 2], &[3.0, 0.5]), floats(&[2], &[0.0, 0.5]));
        let y = first("com.microsoft:BiasSplitGelu", 1, &[&x, &bias], &[]);
        let gate = first("Gelu", 20, &[&floats(&[1, 1, 1], &[1.0])], &[]);
        assert_eq!(y.to_f64s(), [3.0 * gate.to_f64s()[0]]);
    }

    #[test]
    fn groups_of_channels_may_lie_behind() {
        let data: Vec<f64> = (0..16).map(|i| f64::from(i * i % 7)).collect();
        let x = floats(&[1, 4, 2, 2], &data);
        let (gamma, beta) = (floats(&[4], &[1.0, 2.0, 3.0, 4.0]), floats(&[4], &[0.5; 4]));
        let groups = [Attribute::int("num_groups", 2)];
        let expected = first("GroupNormalization", 21, &[&x, &gamma, &beta], &groups);
        let groups = [Attribute::int("groups", 2), Attribute::int("activation", 0)];
        let last = permuted(&x, &[0, 2, 3, 1]).unwrap();
        let y = first(
            "com.microsoft:GroupNorm",
            1,
            &[&last, &gamma, &beta],
            &groups,
        );
        assert_eq!(permuted(&y, &[0, 3, 1, 2]).unwrap(), expected);
    }
}
