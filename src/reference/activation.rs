//! Activations, softmax, dropout at inference.

use super::array::{Array, Elements};
use super::cx::Cx;
use super::elementwise::{larger, smaller, unary};
use super::fault::{Fault, mismatch, unsupported};
use super::rows::{along, zip_floats};
use super::sizes;
use super::special::{gelu, gelu_tanh, log_sum_exp, sigmoid, softmax, softplus};
use super::table::{Entry, many, one};
use crate::ty::DType;

pub(super) const OPS: &[Entry] = &[
    one("Relu", 1, |cx| unary(cx, |x| larger(x, 0.0), |x| x.max(0))),
    one("Sigmoid", 1, |cx| cx.operand(0)?.map(sigmoid)),
    one("Tanh", 1, |cx| cx.operand(0)?.map(f64::tanh)),
    one("Softplus", 1, |cx| cx.operand(0)?.map(softplus)),
    one("Softsign", 1, |cx| {
        cx.operand(0)?.map(|x| x / (1.0 + x.abs()))
    }),
    one("Gelu", 20, |cx| match cx.string("approximate") {
        None | Some("none") => cx.operand(0)?.map(gelu),
        Some("tanh") => cx.operand(0)?.map(gelu_tanh),
        Some(other) => unsupported!("the approximation `{other}`"),
    }),
    one("Mish", 18, |cx| {
        cx.operand(0)?.map(|x| x * softplus(x).tanh())
    }),
    one("Swish", 24, |cx| {
        let alpha = cx.float_or("alpha", 1.0);
        cx.operand(0)?.map(|x| x * sigmoid(alpha * x))
    }),
    one("SwiGLU", 28, swiglu),
    one("HardSwish", 14, |cx| {
        cx.operand(0)?.map(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0))
    }),
    one("HardSigmoid", 1, |cx| {
        let (alpha, beta) = (cx.float_or("alpha", 0.2), cx.float_or("beta", 0.5));
        cx.operand(0)?.map(|x| (alpha * x + beta).clamp(0.0, 1.0))
    }),
    one("Elu", 1, |cx| {
        let alpha = cx.float_or("alpha", 1.0);
        cx.operand(0)?
            .map(|x| if x > 0.0 { x } else { alpha * x.exp_m1() })
    }),
    one("Selu", 1, |cx| {
        let alpha = cx.float_or("alpha", 1.673_263_2);
        let gamma = cx.float_or("gamma", 1.050_701);
        cx.operand(0)?
            .map(|x| gamma * if x > 0.0 { x } else { alpha * x.exp_m1() })
    }),
    one("Celu", 12, |cx| {
        let alpha = cx.float_or("alpha", 1.0);
        cx.operand(0)?.map(|x| {
            if x > 0.0 {
                x
            } else {
                alpha * (x / alpha).exp_m1()
            }
        })
    }),
    one("LeakyRelu", 1, |cx| {
        let alpha = cx.float_or("alpha", 0.01);
        cx.operand(0)?.map(|x| if x < 0.0 { alpha * x } else { x })
    }),
    one("ThresholdedRelu", 10, |cx| {
        let alpha = cx.float_or("alpha", 1.0);
        cx.operand(0)?.map(|x| if x > alpha { x } else { 0.0 })
    }),
    one("Shrink", 9, |cx| {
        let (lambda, bias) = (cx.float_or("lambd", 0.5), cx.float_or("bias", 0.0));
        cx.operand(0)?.map(|x| match x {
            _ if x < -lambda => x + bias,
            _ if x > lambda => x - bias,
            _ => 0.0,
        })
    }),
    one("Clip", 1, clip_by_attributes),
    one("Clip", 11, clip),
    one("Softmax", 1, |cx| by_rows(cx, softmax)),
    one("LogSoftmax", 1, |cx| {
        by_rows(cx, |row| {
            let sum = log_sum_exp(row);
            row.iter().map(|x| x - sum).collect()
        })
    }),
    one("Hardmax", 1, |cx| by_rows(cx, hardmax)),
    many("Dropout", 1, dropout_by_attributes),
    many("Dropout", 12, dropout),
];

/// `y = swish(gate) · up`.
fn swiglu(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (gate, up) = (cx.operand(0)?, cx.operand(1)?);
    let alpha = cx.float_or("alpha", 1.0);
    zip_floats(gate.dtype(), gate, up, |gate, up| {
        gate * sigmoid(alpha * gate) * up
    })
}

/// `y = min(max(x, least), most)`, with the bounds as attributes.
fn clip_by_attributes(cx: &Cx<'_>) -> Result<Array, Fault> {
    let (least, most) = (cx.float("min"), cx.float("max"));
    cx.operand(0)?.map(|x| {
        let x = least.map_or(x, |least| larger(x, least.into()));
        most.map_or(x, |most| smaller(x, most.into()))
    })
}

fn clip(cx: &Cx<'_>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    let elements = match x.elements() {
        Elements::Floats(data) => {
            let (least, most) = (cx.single(1)?, cx.single(2)?);
            let one = |x: &f64| {
                let x = least.map_or(*x, |least| larger(*x, least));
                most.map_or(x, |most| smaller(x, most))
            };
            Elements::Floats(data.iter().map(one).collect())
        }
        Elements::Ints(data) => {
            let bound = |slot| match cx.optional(slot).map(Array::as_ints).transpose()? {
                None => Ok(None),
                Some([bound]) => Ok(Some(*bound)),
                Some(bounds) => mismatch!("{} bounds, 1 is needed", bounds.len()),
            };
            let (least, most) = (bound(1)?, bound(2)?);
            let one = |x: &i128| {
                let x = least.map_or(*x, |least| least.max(*x));
                most.map_or(x, |most| most.min(x))
            };
            Elements::Ints(data.iter().map(one).collect())
        }
    };
    Array::new(x.dtype(), x.dims(), elements)
}

/// From opset 13 on along one axis; before over all axes from one on.
fn by_rows(cx: &Cx<'_>, f: impl Fn(&[f64]) -> Vec<f64>) -> Result<Array, Fault> {
    let x = cx.operand(0)?;
    if cx.opset >= 13 {
        let axis = cx.axis_or("axis", -1, x.rank())?;
        return along(x, &[axis], f);
    }
    let axis = match cx.int_or("axis", 1) {
        // It may stand behind the last one.
        behind if behind == x.rank() as i64 => x.rank(),
        axis => sizes::axis(axis, x.rank())?,
    };
    along(x, &(axis..x.rank()).collect::<Vec<_>>(), f)
}

/// 1 where the greatest element first is, else 0.
fn hardmax(row: &[f64]) -> Vec<f64> {
    let mut best = 0;
    for (index, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = index;
        }
    }
    (0..row.len())
        .map(|index| f64::from(index == best))
        .collect()
}

fn dropout_by_attributes(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    // Until opset 6 an attribute said whether it is a test; training was the default.
    if cx.opset < 7 && !cx.flag("is_test") {
        return unsupported!("a dropout with random numbers");
    }
    kept(cx, cx.operand(0)?.clone())
}

/// At inference `y = x`; in training with ratio 0, too.
fn dropout(cx: &Cx<'_>) -> Result<Vec<Array>, Fault> {
    let ratio = cx.single(1)?.unwrap_or(0.5);
    let training = cx.single(2)?.unwrap_or(0.0) != 0.0;
    if training && ratio != 0.0 {
        return unsupported!("a dropout with random numbers");
    }
    kept(cx, cx.operand(0)?.clone())
}

/// The operand and a mask that keeps everything.
fn kept(cx: &Cx<'_>, x: Array) -> Result<Vec<Array>, Fault> {
    let mask = match cx.opset {
        10.. => Array::ints(DType::Bool, x.dims(), vec![1; x.len()])?,
        _ => x.map(|_| 1.0)?,
    };
    Ok(vec![x, mask])
}
