//! Convolutions and embeddings.

use super::call::{Call, Here};
use super::constant::Constant;
use super::site::{Layout, Obstacle, Quantization, SiteKind};
use crate::graph::ValueId;

/// `Conv` and its fused and quantized forms.
pub(super) fn conv<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let quantized = here.is("QLinearConv");
    let (weight_slot, bias_slot) = if quantized { (3, 8) } else { (1, 2) };
    let mut weight = here.constant(weight_slot)?;
    let input = here.computed(0)?;
    if weight.dims.len() < 3 {
        return None;
    }
    let (out, inner) = (weight.dims[0], weight.dims[1]);
    let obstacle = if quantized {
        weight.quantization = Some(Quantization {
            op_type: "QLinearConv".to_owned(),
            bits: weight.dtype.bits() as u32,
            block_size: 0,
        });
        Some(Obstacle::QuantizedActivations)
    } else {
        here.node
            .string("activation")
            .map(|name| Obstacle::FusedActivation(name.to_owned()))
    };
    Some(Call {
        level: here.level,
        node: here.id,
        kind: SiteKind::Conv,
        input,
        output: here.result()?,
        weight,
        layout: Layout::Conv,
        bias: here.constant(bias_slot),
        in_features: inner.checked_mul(here.int("group", 1))?,
        out_features: out,
        parts: Vec::new(),
        obstacle,
        nearby: Vec::new(),
    })
}

/// `Gather` of rows of a float matrix.
pub(super) fn gather<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let weight = here.constant(0)?;
    if here.int("axis", 0) != 0 || !weight.dtype.is_float() || here.is_scalar(1) {
        return None;
    }
    // Tables of sines and cosines are buffers, computed constants, or written in the code.
    let named = weight
        .values
        .iter()
        .all(|at| !here.levels.name(*at).contains("/Constant"));
    let ids = here.operand(1)?;
    named.then(|| embedding(here, weight, ids))?
}

/// `com.microsoft:GatherBlockQuantized`.
pub(super) fn gather_quantized<'m>(here: Here<'_, 'm>) -> Option<Call<'m>> {
    let mut weight = here.constant(0)?;
    let scales = here.constant(2)?;
    let bits = here.int("bits", 4);
    if here.int("gather_axis", 0) != 0 || weight.dims.len() < 2 || !matches!(bits, 2 | 4 | 8) {
        return None;
    }
    let rows = weight.dims[0];
    let stored: i64 = weight.dims[1..]
        .iter()
        .try_fold(1i64, |product, dim| product.checked_mul(*dim))?;
    // Bytes hold several codes each; the sub-byte types count codes.
    let codes = if weight.dtype.bits() == 8 {
        8 / bits
    } else {
        1
    };
    weight.dims = vec![rows, stored.checked_mul(codes)?];
    weight.quantization = Some(Quantization {
        op_type: "GatherBlockQuantized".to_owned(),
        bits: bits as u32,
        block_size: here.int("block_size", 128),
    });
    weight.dtype = scales.dtype;
    let ids = here.operand(1)?;
    embedding(here, weight, ids)
}

/// `com.microsoft:EmbedLayerNormalization`: up to three tables in one node.
pub(super) fn embed_layer_norm<'m>(here: Here<'_, 'm>) -> Vec<Call<'m>> {
    const TABLES: &[(usize, usize)] = &[(0, 2), (7, 3), (1, 4)];
    TABLES
        .iter()
        .filter_map(|(ids, table)| {
            // Position ids may be absent: the node counts them itself.
            let ids = here.operand(*ids).or_else(|| here.operand(0))?;
            let mut call = embedding(here, here.constant(*table)?, ids)?;
            call.obstacle = Some(Obstacle::FusedEmbedding);
            Some(call)
        })
        .collect()
}

fn embedding<'m>(here: Here<'_, 'm>, weight: Constant<'m>, ids: ValueId) -> Option<Call<'m>> {
    let (rows, columns) = weight.matrix()?;
    Some(Call {
        level: here.level,
        node: here.id,
        kind: SiteKind::Embedding,
        input: ids,
        output: here.result()?,
        weight,
        layout: Layout::OutIn,
        bias: None,
        in_features: rows,
        out_features: columns,
        parts: Vec::new(),
        obstacle: None,
        nearby: Vec::new(),
    })
}

impl Here<'_, '_> {
    /// Whether an operand is known to be a scalar: one row is picked, as indexing code does.
    fn is_scalar(&self, slot: usize) -> bool {
        let Some(value) = self.operand(slot) else {
            return false;
        };
        let at = self.levels.resolve(self.value(value));
        self.levels
            .graph(at.level)
            .value(at.value)
            .ty
            .as_ref()
            .and_then(|ty| ty.shape.as_ref())
            .is_some_and(|shape| shape.rank() == 0)
    }
}
