//! Finds every call of a layer: one look at each node.

use super::call::{Call, Here};
use super::constant::Constant;
use super::level::Levels;
use super::{fused, linear, norm, table};

/// Every call in the order of the file, subgraphs behind the graphs that hold them.
pub(super) fn calls<'m>(levels: &Levels<'m>) -> Vec<Call<'m>> {
    // As a rule a weight has one call, and most initializers are weights.
    let weights = levels
        .0
        .iter()
        .map(|level| level.graph.initializers().len());
    let mut found = Vec::with_capacity(weights.sum());
    for (level, entry) in levels.0.iter().enumerate() {
        for node in entry.graph.node_ids() {
            let here = Here::new(levels, level, node);
            if matches!(&*here.node.op.domain, "" | "com.microsoft") {
                look_at(here, &mut found);
            }
        }
    }
    found.retain(|call| !is_buffer(levels, &call.weight));
    found
}

fn look_at<'m>(here: Here<'_, 'm>, found: &mut Vec<Call<'m>>) {
    let call = match &*here.node.op.op_type {
        "MatMul" => linear::matmul(here),
        "Gemm" | "FusedGemm" => linear::gemm(here),
        "FusedMatMul" | "TransposeMatMul" => linear::fused_matmul(here),
        "MatMulNBits" => linear::matmul_nbits(here),
        "MatMulInteger" | "MatMulIntegerToFloat" | "DynamicQuantizeMatMul" | "QLinearMatMul" => {
            linear::integer_matmul(here)
        }
        "Attention" if &*here.node.op.domain == "com.microsoft" => fused::attention(here),
        "Conv" | "FusedConv" | "QLinearConv" => table::conv(here),
        "Gather" => table::gather(here),
        "GatherBlockQuantized" => table::gather_quantized(here),
        "EmbedLayerNormalization" => {
            found.extend(table::embed_layer_norm(here));
            norm::embed(here)
        }
        "LayerNormalization"
        | "RMSNormalization"
        | "SimplifiedLayerNormalization"
        | "GroupNormalization"
        | "BatchNormalization" => norm::one_node(here),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => norm::skip(here),
        "Mul" => norm::decomposed(here),
        _ => None,
    };
    if let Some(mut call) = call {
        if call.parts.is_empty() && call.kind == super::SiteKind::Linear {
            call.parts = fused::packed_attention(here, call.output, call.out_features);
        }
        found.push(call);
    }
}

/// Whether the exporter says that a constant is a buffer, such as a table of rotary frequencies.
fn is_buffer(levels: &Levels<'_>, weight: &Constant<'_>) -> bool {
    const KIND: &str = "pkg.torch.export.graph_signature.InputSpec.kind";
    let root = weight.root;
    levels.graph(root.level).value(root.value).metadata(KIND) == Some("BUFFER")
}
