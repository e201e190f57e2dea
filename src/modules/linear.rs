//! Linear layers in the spellings of exporters, optimizers and quantizers.

use super::boundary::{self, Boundary};
use super::call::{Call, Here};
use super::constant::Constant;
use super::site::{Layout, Obstacle, Quantization, SiteKind};
use crate::graph::ValueId;

/// Which operand is what, for one operator.
struct Form {
    input: usize,
    weight: usize,
    layout: Layout,
    bias: Option<usize>,
    obstacle: Option<Obstacle>,
}

impl Form {
    fn new(input: usize, weight: usize, layout: Layout) -> Self {
        Form {
            input,
            weight,
            layout,
            bias: None,
            obstacle: None,
        }
    }

    fn bias(self, slot: usize) -> Self {
        Form {
            bias: Some(slot),
            ..self
        }
    }
}

/// `MatMul`: the weight is the right operand, or the left one of a transposed product.
pub(super) fn matmul<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    standard(here, Form::new(0, 1, Layout::InOut)).or_else(|| left_matmul(here))
}

/// `Gemm` with `y = x W + b`; other scales are no linear layer.
pub(super) fn gemm<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let one = |name| here.node.float(name).is_none_or(|value| value == 1.0);
    let plain = one("alpha") && (one("beta") || here.operand(2).is_none());
    if !plain || here.int("transA", 0) != 0 {
        return None;
    }
    let mut form = Form::new(0, 1, right_layout(here)).bias(2);
    form.obstacle = here
        .node
        .string("activation")
        .map(|name| Obstacle::FusedActivation(name.to_owned()));
    standard(here, form)
}

/// `com.microsoft:FusedMatMul` without a scale.
pub(super) fn fused_matmul<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let scaled = here.node.float("alpha").is_some_and(|alpha| alpha != 1.0);
    let turned = ["transA", "transBatchA", "transBatchB"]
        .iter()
        .any(|name| here.int(name, 0) != 0);
    if scaled || turned {
        return None;
    }
    standard(here, Form::new(0, 1, right_layout(here)))
}

fn right_layout(here: Here<'_, '_>) -> Layout {
    if here.int("transB", 0) != 0 {
        Layout::OutIn
    } else {
        Layout::InOut
    }
}

/// Integer products: the float input in front of the quantization, the float output behind it.
pub(super) fn integer_matmul<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let op_type = here.node.op.op_type.to_string();
    let form = match &*op_type {
        "MatMulIntegerToFloat" => Form::new(0, 1, Layout::InOut).bias(6),
        "DynamicQuantizeMatMul" => Form::new(0, 1, Layout::InOut).bias(4),
        "QLinearMatMul" => Form::new(0, 3, Layout::InOut),
        _ => Form::new(0, 1, Layout::InOut),
    };
    let mut input = here.computed(form.input)?;
    let mut obstacle = None;
    match &*op_type {
        "MatMulInteger" | "MatMulIntegerToFloat" => {
            match here
                .producer(input)
                .filter(|p| p.is("DynamicQuantizeLinear"))
            {
                Some(quantizer) => input = quantizer.operand(0)?,
                None => obstacle = Some(Obstacle::QuantizedActivations),
            }
        }
        "QLinearMatMul" => obstacle = Some(Obstacle::QuantizedActivations),
        _ => {}
    }
    let mut result = here.result()?;
    if op_type == "MatMulInteger" {
        match dequantized(here, result) {
            Some(float) => result = float,
            None => obstacle = Some(Obstacle::QuantizedActivations),
        }
    }
    let mut weight = here.constant(form.weight)?;
    weight.quantization = Some(Quantization {
        bits: weight.dtype.bits() as u32,
        op_type,
        block_size: 0,
    });
    let mut call = assemble(here, &form, input, result, weight)?;
    call.obstacle = obstacle;
    Some(call)
}

/// The value behind the `Cast` and `Mul` that scale an integer product back.
fn dequantized(here: Here<'_, '_>, product: ValueId) -> Option<ValueId> {
    let (cast, _) = here
        .sole_user(product)
        .filter(|(user, _)| user.is("Cast"))?;
    let (scale, _) = here
        .sole_user(cast.result()?)
        .filter(|(user, _)| user.is("Mul"))?;
    scale.result()
}

/// `com.microsoft:MatMulNBits`: codes packed as `[out, blocks, bytes]`.
pub(super) fn matmul_nbits<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let mut weight = here.constant(1)?;
    let (out, inner) = (here.node.int("N")?, here.node.int("K")?);
    weight.dims = vec![out, inner];
    weight.quantization = Some(Quantization {
        op_type: here.node.op.op_type.to_string(),
        bits: u32::try_from(here.int("bits", 4)).ok()?,
        block_size: here.int("block_size", 0),
    });
    if let Some(scales) = here.constant(2) {
        weight.dtype = scales.dtype;
    }
    let form = Form::new(0, 1, Layout::OutIn).bias(5);
    let input = here.computed(0)?;
    assemble(here, &form, input, here.result()?, weight)
}

fn standard<'m>(here: Here<'_, 'm>, form: Form) -> Option<Call<'m>> {
    let weight = here.constant(form.weight)?;
    let input = here.computed(form.input)?;
    // Integer matrices are codes or shape arithmetic, not a layer's weight.
    if !weight.dtype.is_float() {
        return None;
    }
    assemble(here, &form, input, here.result()?, weight)
}

fn assemble<'m>(
    here: Here<'_, 'm>,
    form: &Form,
    input: ValueId,
    result: ValueId,
    weight: Constant<'m>,
) -> Option<Call<'m>> {
    let (rows, columns) = weight.matrix()?;
    let (out_features, in_features) = match form.layout {
        Layout::OutIn => (rows, columns),
        _ => (columns, rows),
    };
    let bias = match form.bias.and_then(|slot| here.operand(slot)) {
        Some(operand) => {
            let bias = here.levels.constant(here.value(operand))?;
            // Something else than a bias is added inside: the output is not the module's.
            (bias.vector() == Some(out_features)).then_some(bias.clone())?;
            Some(bias)
        }
        None => None,
    };
    let boundary = boundary::find(
        here,
        Boundary {
            input,
            output: result,
            bias,
            nearby: Vec::new(),
        },
        in_features,
        out_features,
    );
    Some(Call {
        level: here.level,
        node: here.id,
        kind: SiteKind::Linear,
        input: boundary.input,
        output: boundary.output,
        weight,
        layout: form.layout,
        bias: boundary.bias,
        in_features,
        out_features,
        parts: Vec::new(),
        obstacle: form.obstacle.clone(),
        nearby: boundary.nearby,
    })
}

/// `Transpose(x)`, `W · xᵀ`, `Transpose`: a linear layer seen from the side. A product that is not
/// transposed on both sides contracts over another axis than the last and is no linear layer.
fn left_matmul<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let weight = here.constant(0)?;
    let (out_features, in_features) = weight.matrix()?;
    let inner = here.computed(1)?;
    let before = here.producer(inner).filter(|node| swaps_last_two(*node))?;
    let (behind, _) = here
        .sole_user(here.result()?)
        .filter(|(node, _)| swaps_last_two(*node))?;
    Some(Call {
        level: here.level,
        node: here.id,
        kind: SiteKind::Linear,
        input: before.operand(0)?,
        output: behind.result()?,
        weight,
        layout: Layout::OutIn,
        bias: None,
        in_features,
        out_features,
        parts: Vec::new(),
        obstacle: None,
        nearby: vec![before.id, behind.id],
    })
}

fn swaps_last_two(here: Here<'_, '_>) -> bool {
    if !here.is("Transpose") {
        return false;
    }
    let Some(perm) = here.node.ints("perm") else {
        return false;
    };
    let rank = perm.len() as i64;
    rank >= 2
        && perm[..perm.len() - 2].iter().copied().eq(0..rank - 2)
        && perm[perm.len() - 2..] == [rank - 1, rank - 2]
}
