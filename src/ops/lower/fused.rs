//! Fusions of ONNX Runtime other than attention.

use super::LowerCx;
use crate::graph::{Attribute, AttributeValue};
use crate::ops::build::{END, Expr, Refusal, refuse};
use crate::ops::grad::GradOutcome;
use crate::ty::{DType, Dim};

/// `x + skip + bias`.
fn skipped<'b>(cx: &LowerCx<'b>, bias: usize) -> Result<Expr<'b>, Refusal> {
    let sum = cx.x(0)? + cx.x(1)?;
    Ok(match cx.maybe_x(bias) {
        Some(bias) => sum + bias,
        None => sum,
    })
}

fn epsilon(cx: &LowerCx<'_>) -> Attribute {
    Attribute::float("epsilon", cx.node.float("epsilon").unwrap_or(1e-12))
}

/// `y, mean, inv_std, sum = norm(sum = x + skip + bias)`.
pub fn skip_layer_norm(cx: &mut LowerCx<'_>) -> GradOutcome {
    let sum = skipped(cx, 4)?;
    let mut operands = vec![Some(sum.operand), Some(cx.x(2)?.operand)];
    operands.extend(cx.maybe_x(3).map(|bias| Some(bias.operand)));
    let attributes = vec![epsilon(cx), Attribute::int("axis", -1)];
    let count = statistics(cx, 3);
    let found = cx
        .build
        .nodes("", "LayerNormalization", operands, attributes, count);
    for (slot, result) in found.into_iter().enumerate() {
        cx.set(slot, result);
    }
    cx.set(3, sum);
    Ok(())
}

/// How many results a normalization has to give.
fn statistics(cx: &LowerCx<'_>, all: usize) -> usize {
    if cx.is_read(1) || cx.is_read(2) {
        all
    } else {
        1
    }
}

/// The same without a mean.
pub fn skip_rms_norm(cx: &mut LowerCx<'_>) -> GradOutcome {
    if cx.is_read(1) {
        return refuse!("its mean is read");
    }
    let sum = skipped(cx, 3)?;
    let operands = vec![Some(sum.operand), Some(cx.x(2)?.operand)];
    let attributes = vec![epsilon(cx), Attribute::int("axis", -1)];
    let count = statistics(cx, 2);
    let found = cx.build.nodes(
        "",
        "SimplifiedLayerNormalization",
        operands,
        attributes,
        count,
    );
    cx.set(0, found[0]);
    if let Some(inverse) = found.get(1) {
        cx.set(2, *inverse);
    }
    cx.set(3, sum);
    Ok(())
}

/// `y = norm(sum = word[ids] + position[0…] + segment[…])`, how many tokens of each sample the mask
/// keeps, and the sum.
pub fn embed_norm(cx: &mut LowerCx<'_>) -> GradOutcome {
    let build = cx.build;
    let ids = cx.x(0)?;
    let tokens = ids.dims()?;
    let [batch, count] = tokens.as_slice() else {
        return refuse!("its ids have {} axes", tokens.len());
    };
    let row = |table: Expr<'_>, ids: Expr<'_>| build.node("Gather", &[table, ids], Vec::new());
    let positions = match cx.maybe_x(8) {
        Some(positions) => positions,
        None => build.count(count)?,
    };
    let mut sum = row(cx.x(2)?, ids) + row(cx.x(3)?, positions);
    if let (Some(segments), Some(table)) = (cx.maybe_x(1), cx.maybe_x(4)) {
        sum = sum + row(table, segments);
    }
    let attributes = vec![epsilon(cx), Attribute::int("axis", -1)];
    let y = build.node("LayerNormalization", &[sum, cx.x(5)?, cx.x(6)?], attributes);
    cx.set(0, y);
    if cx.is_read(1) {
        let kept = match cx.maybe_x(7) {
            Some(mask) => mask.cast(DType::I32).sum_dropping(&[1]),
            None => build.zeros(DType::I32, std::slice::from_ref(batch))?,
        };
        cx.set(1, kept);
    }
    cx.set(2, sum);
    Ok(())
}

/// `a, g = split(x + b); y = a · gelu(g)`.
pub fn bias_split_gelu(cx: &mut LowerCx<'_>) -> GradOutcome {
    let x = cx.x(0)? + cx.x(1)?;
    let dims = x.dims()?;
    let Some(size) = dims.last().and_then(Dim::known) else {
        return refuse!("the size of its last axis is not known");
    };
    let axis = dims.len() - 1;
    let (a, g) = (x.slice(axis, 0, size / 2), x.slice(axis, size / 2, END));
    let below = (g * std::f64::consts::FRAC_1_SQRT_2).apply("Erf") * 0.5 + 0.5;
    cx.set(0, a * (g * below));
    Ok(())
}

/// `Y = α op(A) op(B)`: `transA`, `transB` exchange the last two axes; `transBatchA`, `transBatchB`
/// first move the first axis behind the batch axes.
pub fn fused_matmul(cx: &mut LowerCx<'_>) -> GradOutcome {
    let (a, b) = (cx.x(0)?, cx.x(1)?);
    let a = turned(a, cx.flag("transA"), cx.flag("transBatchA"))?;
    let b = turned(b, cx.flag("transB"), cx.flag("transBatchB"))?;
    cx.set(0, a.matmul(b) * cx.float_or("alpha", 1.0));
    Ok(())
}

fn turned(x: Expr<'_>, last_two: bool, batch: bool) -> Result<Expr<'_>, Refusal> {
    let rank = x.rank()?;
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank >= 3 && batch {
        perm[..rank - 1].rotate_left(1);
    }
    if rank >= 2 && last_two {
        perm.swap(rank - 2, rank - 1);
    }
    Ok(x.transpose(&perm))
}

/// A node without the attributes of an activation, and that activation behind it.
fn plain<'b>(cx: &LowerCx<'b>, op_type: &str, operands: &[Expr<'b>]) -> Expr<'b> {
    let attributes = cx.node.attributes.iter();
    let own = attributes.filter(|attribute| !attribute.name.starts_with("activation"));
    cx.build.node(op_type, operands, own.cloned().collect())
}

fn activated<'b>(cx: &LowerCx<'b>, x: Expr<'b>, params: &[f32]) -> Result<Expr<'b>, Refusal> {
    let Some(name) = cx.node.string("activation").filter(|name| !name.is_empty()) else {
        return Ok(x);
    };
    let param = |at: usize, name: &str| params.get(at).map(|value| Attribute::float(name, *value));
    let attributes = match name {
        "Relu" | "Sigmoid" | "Tanh" | "Softplus" | "Softsign" => Vec::new(),
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => param(0, "alpha").into_iter().collect(),
        "HardSigmoid" => [param(0, "alpha"), param(1, "beta")]
            .into_iter()
            .flatten()
            .collect(),
        "Clip" => {
            let bound = |at: usize| params.get(at).map(|v| x.number(f64::from(*v)).operand);
            let operands = vec![Some(x.operand), bound(0), bound(1)];
            return Ok(cx.build.nodes("", "Clip", operands, Vec::new(), 1)[0]);
        }
        "HardSwish" => Vec::new(),
        other => return refuse!("its activation `{other}` is not known"),
    };
    Ok(x.with(name, attributes))
}

/// `Gemm` with an activation behind it.
pub fn fused_gemm(cx: &mut LowerCx<'_>) -> GradOutcome {
    let mut operands = vec![cx.x(0)?, cx.x(1)?];
    operands.extend(cx.maybe_x(2));
    let names = ["activation_alpha", "activation_beta", "activation_gamma"];
    let params: Vec<f32> = names.iter().map_while(|name| cx.node.float(name)).collect();
    let product = plain(cx, "Gemm", &operands);
    cx.set(0, activated(cx, product, &params)?);
    Ok(())
}

/// `Conv` with a sum and an activation behind it.
pub fn fused_conv(cx: &mut LowerCx<'_>) -> GradOutcome {
    let mut operands = vec![cx.x(0)?, cx.x(1)?];
    operands.extend(cx.maybe_x(2));
    let params: &[f32] = match cx.node.attribute("activation_params") {
        Some(AttributeValue::Floats(params)) => params,
        _ => &[],
    };
    let mut y = plain(cx, "Conv", &operands);
    if let Some(other) = cx.maybe_x(3) {
        y = y + other;
    }
    cx.set(0, activated(cx, y, params)?);
    Ok(())
}

/// A group normalization, by default with channels behind, and a SiLU behind it with `activation`.
pub fn group_norm(cx: &mut LowerCx<'_>) -> GradOutcome {
    let (x, scale, bias) = (cx.x(0)?, cx.x(1)?, cx.x(2)?);
    let dims = x.dims()?;
    let groups = Dim::from(cx.int_or("groups", 1).max(1));
    let last = cx.int_or("channels_last", 1) != 0;
    let (Some(batch), Some(channels), true) = (
        dims.first(),
        if last { dims.last() } else { dims.get(1) },
        dims.len() >= 3,
    ) else {
        return refuse!("it normalizes a tensor with {} axes", dims.len());
    };
    let inner = match last {
        true => &dims[1..dims.len() - 1],
        false => &dims[2..],
    };
    let space = inner.iter().fold(Dim::from(1), |n, dim| n * dim.clone());
    let share = channels.floor_div(&groups);
    let (apart, axes) = match last {
        true => (vec![batch.clone(), space, groups, share], [1, 3]),
        false => (vec![batch.clone(), groups, share, space], [2, 3]),
    };
    let rows = x.cast(DType::F32).reshape(&apart)?;
    let centred = rows - rows.mean_keeping(&axes);
    let variance = centred.square().mean_keeping(&axes);
    let epsilon = cx.float_or("epsilon", f64::from(1e-5_f32));
    let normal = (centred / (variance + epsilon).sqrt()).reshape(&dims)?;
    let by_channel = |vector: Expr<'_>| match last {
        true => vector.operand,
        false => {
            let behind: Vec<usize> = (1..dims.len() - 1).collect();
            vector.unsqueeze(&behind).operand
        }
    };
    let (scale, bias) = (
        cx.build.expr(by_channel(scale)).cast(DType::F32),
        cx.build.expr(by_channel(bias)).cast(DType::F32),
    );
    let mut y = normal * scale + bias;
    if cx.flag("activation") {
        y = y * y.sigmoid();
    }
    cx.set(0, y.cast(x.dtype()));
    Ok(())
}
