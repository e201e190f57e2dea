//! Sums over the last axis become products with a vector.
//!
//! On a GPU ONNX Runtime has cuDNN add numbers up in one order, which takes 57 µs for 512 rows of 512
//! numbers on an H200; a product takes 8, and keeps to one order, too.
//!
//! Requires: a graph that verifies. Ensures: `ReduceSum` and `ReduceMean` of `f32` over the last axis,
//! where its size is fixed and there are axes in front of it, are `MatMul` nodes. Values keep their names.

use super::errors;
use super::infer::infer_values;
use crate::diag::{Reported, Sink};
use crate::graph::{Graph, Model, NodeId, Operand, Tensor};
use crate::ops::Builder;
use crate::ty::DType;

/// Replaces the sums of a model; answers with how many these were.
pub fn sums_as_products(model: &mut Model, sink: &mut Sink) -> Result<usize, Reported> {
    let values = infer_values(model, sink)?;
    let build = Builder::new(&model.graph, values.all(), model.opset("").unwrap_or(1));
    let nodes = model.graph.node_ids();
    let sums: Vec<(NodeId, Sum)> = nodes
        .filter_map(|node| Some((node, Sum::of(&model.graph, &build, node)?)))
        .collect();
    for (node, sum) in &sums {
        sum.replace(&model.graph, &build, *node);
    }
    let patch = build.finish();
    match model.graph.apply(patch) {
        Ok(_) => Ok(sums.len()),
        Err(why) => Err(sink.emit(errors::patch_refused(&model.name, &why))),
    }
}

struct Sum {
    /// The size of the last axis.
    size: i64,
    /// What an element counts.
    share: f64,
    keeps: bool,
}

impl Sum {
    fn of(graph: &Graph, build: &Builder<'_>, node: NodeId) -> Option<Sum> {
        let of = graph.node(node);
        let is_mean = of.op.is("ReduceMean");
        if !is_mean && !of.op.is("ReduceSum") {
            return None;
        }
        let data = graph.operand(node, 0)?;
        let ty = graph.value(data).ty.as_ref()?;
        let dims = &ty.shape.as_ref()?.0;
        let size = dims.last()?.known().filter(|size| *size > 1)?;
        let last = dims.len() as i64 - 1;
        let axes = match graph.operand(node, 1) {
            Some(axes) => build.known(Operand::Existing(axes))?.numbers()?,
            None => of.ints("axes")?.to_vec(),
        };
        let is_last = axes == [-1] || axes == [last];
        let fits = ty.dtype == DType::F32 && last > 0 && is_last;
        fits.then_some(Sum {
            size,
            share: if is_mean { 1.0 / size as f64 } else { 1.0 },
            keeps: of.int("keepdims").unwrap_or(1) == 1,
        })
    }

    fn replace(&self, graph: &Graph, build: &Builder<'_>, node: NodeId) {
        let (Some(data), Some(result)) = (graph.operand(node, 0), graph.result(node, 0)) else {
            return;
        };
        let dims: &[i64] = match self.keeps {
            true => &[self.size, 1],
            false => &[self.size],
        };
        let shares = vec![self.share as f32; self.size as usize];
        let name = format!("{}.shares", graph.display_name(node));
        build.behind(node);
        let shares = build.constant(&name, Tensor::from_f32(dims, &shares));
        let sum = build.expr(data).matmul(shares);
        build.with_patch(|patch| patch.take_over(result, sum.operand));
    }
}
