//! The frozen base in 8 bits, for training only.
//!
//! A product `x W` with a constant `W[k, n]` becomes ONNX Runtime's `DynamicQuantizeMatMul`. `W` is
//! stored as codes `q = round(W / s)` in `i8` with one scale a column, `s[n] = max_k |W[k, n]| / 63`,
//! symmetric, so that no zero point is needed. Seven of the eight bits are used: processors without
//! VNNI instructions add two products of an activation and a code in 16 bits that saturate, which full
//! codes overflow (ONNX Runtime's "reduced range"); `x` is rounded to 8 bits a tensor when it arrives. The
//! gradient takes rounding for the identity (straight-through: Bengio, Léonard, Courville,
//! arXiv:1308.3432) and is itself a product with the same codes.
//!
//! The adapter, its gradients and the optimizer stay in 32 bits, and so does the adapted model that is
//! deployed. Weights of the adapter are never rounded. Products inside the bodies of `If` and `Loop`
//! keep their precision.

use super::errors;
use crate::diag::{Reported, Sink};
use crate::graph::{
    ExternalData, Graph, Model, NewNode, NodeId, OpName, Operand, Patch, Tensor, TensorData,
    ValueId,
};
use crate::ops::MICROSOFT;
use crate::ty::DType;
use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

/// Smaller matrices gain nothing: quantizing what comes in costs more than the product.
const LEAST_ELEMENTS: u64 = 4096;

/// The largest code: `2 · 255 · 63` fits 16 bits with a sign.
const LARGEST: f32 = 63.0;

/// Reads the bytes of a weight.
pub type ReadWeight<'a> = dyn Fn(&Tensor, &mut Sink) -> Result<Bytes, Reported> + 'a;
/// Keeps bytes in a file beside the graphs, and says where.
pub type Keep<'a> = dyn FnMut(&[u8], &mut Sink) -> Result<ExternalData, Reported> + 'a;

/// Rounds the weights of a model in place, those of the named initializers excepted. What is not read
/// any more is removed.
pub fn round_base(
    model: &mut Model,
    excepted: &FxHashSet<&str>,
    read: &ReadWeight<'_>,
    keep: &mut Keep<'_>,
    sink: &mut Sink,
) -> Result<(), Reported> {
    let products: Vec<Product> = model
        .graph
        .node_ids()
        .filter_map(|node| Product::of(&model.graph, node, excepted))
        .collect();
    let mut patch = Patch::new();
    let mut made: FxHashMap<(ValueId, bool), Option<[Operand; 2]>> = FxHashMap::default();
    let mut count = 0;
    for product in products {
        let key = (product.weight, product.is_transposed);
        let codes = match made.get(&key) {
            Some(codes) => *codes,
            None => {
                let codes = product.codes(&model.graph, &mut patch, read, keep, sink)?;
                made.insert(key, codes);
                codes
            }
        };
        if let Some(codes) = codes {
            product.replace(&model.graph, &mut patch, codes);
            count += 1;
        }
    }
    if count == 0 {
        return Err(sink.emit(errors::nothing_to_round(&model.name)));
    }
    if model.opset(MICROSOFT).is_none() {
        model.opsets.push((MICROSOFT.to_owned(), 1));
    }
    match model.graph.apply(patch) {
        Ok(_) => Ok(()),
        Err(why) => Err(sink.emit(errors::internal(&why))),
    }
}

/// A product of activations with a constant matrix.
struct Product {
    node: NodeId,
    x: ValueId,
    weight: ValueId,
    /// Whether the weight is `[n, k]`.
    is_transposed: bool,
    bias: Option<ValueId>,
}

impl Product {
    fn of(graph: &Graph, node: NodeId, excepted: &FxHashSet<&str>) -> Option<Product> {
        let op = &graph.node(node).op;
        let x = graph.operand(node, 0)?;
        let (weight, mut is_transposed) = constant(graph, graph.operand(node, 1)?)?;
        let mut bias = None;
        if op.is("Gemm") {
            let of = graph.node(node);
            let is_one = |name| of.float(name).is_none_or(|value| value == 1.0);
            if of.int("transA").unwrap_or(0) != 0 || !is_one("alpha") || !is_one("beta") {
                return None;
            }
            is_transposed ^= of.int("transB").unwrap_or(0) != 0;
            bias = graph.operand(node, 2);
        } else if !op.is("MatMul") {
            return None;
        }
        let tensor = graph.value(weight).constant()?;
        let fits = tensor.dtype == DType::F32
            && tensor.dims.len() == 2
            && tensor.elements() >= LEAST_ELEMENTS
            && !excepted.contains(&*graph.value(weight).name);
        let columns = tensor.dims.get(usize::from(!is_transposed)).copied();
        let bias_fits = bias.is_none_or(|bias| {
            let ty = graph.value(bias).ty.as_ref();
            let shape = ty.and_then(|ty| ty.shape.as_ref());
            shape.is_some_and(|shape| shape.rank() == 1 && shape.0[0].known() == columns)
        });
        let is_constant = graph.value(x).constant().is_some();
        (fits && bias_fits && !is_constant).then_some(Product {
            node,
            x,
            weight,
            is_transposed,
            bias,
        })
    }

    /// Codes `[k, n]` and scales `[n]`; `None` for a weight that is not finite.
    fn codes(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        read: &ReadWeight<'_>,
        keep: &mut Keep<'_>,
        sink: &mut Sink,
    ) -> Result<Option<[Operand; 2]>, Reported> {
        let value = graph.value(self.weight);
        let Some(tensor) = value.constant() else {
            return Ok(None);
        };
        let bytes = read(tensor, sink)?;
        let [rows, columns] = [0, 1].map(|axis| tensor.dims[axis] as usize);
        let Some(rounded) = round(&bytes, rows, columns, self.is_transposed) else {
            return Ok(None);
        };
        let dims = match self.is_transposed {
            true => [tensor.dims[1], tensor.dims[0]],
            false => [tensor.dims[0], tensor.dims[1]],
        };
        let codes: Vec<u8> = rounded.codes.iter().map(|code| *code as u8).collect();
        let codes = Tensor {
            dtype: DType::I8,
            dims: dims.to_vec(),
            data: TensorData::External(keep(&codes, sink)?),
        };
        let scales = Tensor::from_f32(&[dims[1]], &rounded.scales);
        let name = &value.name;
        Ok(Some([
            patch.constant(&format!("{name}.int8"), codes),
            patch.constant(&format!("{name}.scale"), scales),
        ]))
    }

    fn replace(&self, graph: &Graph, patch: &mut Patch, [codes, scales]: [Operand; 2]) {
        let Some(result) = graph.result(self.node, 0) else {
            return;
        };
        let old = graph.node(self.node);
        let mut inputs = vec![Some(Operand::Existing(self.x)), Some(codes), Some(scales)];
        if let Some(bias) = self.bias {
            inputs.extend([None, Some(Operand::Existing(bias))]);
        }
        let node = NewNode {
            op: OpName::new(MICROSOFT, "DynamicQuantizeMatMul"),
            name: format!("{}/int8", old.name),
            attributes: Vec::new(),
            inputs,
            metadata: old.metadata.clone(),
        };
        patch.behind(self.node);
        let new = patch.node(node, graph.value(result).ty.clone());
        patch.take_over(result, new);
    }
}

/// The constant behind an operand, and whether it is read transposed.
fn constant(graph: &Graph, operand: ValueId) -> Option<(ValueId, bool)> {
    if graph.value(operand).constant().is_some() {
        return Some((operand, false));
    }
    let transpose = graph.producer(operand)?;
    let node = graph.node(transpose);
    let perm = node.ints("perm").unwrap_or(&[1, 0]);
    let source = graph.operand(transpose, 0)?;
    (node.op.is("Transpose") && perm == [1, 0] && graph.value(source).constant().is_some())
        .then_some((source, true))
}

/// A matrix `[k, n]` in 8 bits.
struct Rounded {
    codes: Vec<i8>,
    /// By column.
    scales: Vec<f32>,
}

/// Rounds a matrix of little-endian floats, `[rows, columns]` as stored, `[k, n]` after transposing
/// where that is asked for. `None` if an element is not finite.
fn round(bytes: &[u8], rows: usize, columns: usize, transpose: bool) -> Option<Rounded> {
    let value = |index: usize| {
        let at = index * 4;
        f32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
    };
    let (k, n) = match transpose {
        true => (columns, rows),
        false => (rows, columns),
    };
    let mut largest = vec![0.0_f32; n];
    for row in 0..rows {
        for column in 0..columns {
            let element = value(row * columns + column);
            if !element.is_finite() {
                return None;
            }
            let of = &mut largest[if transpose { row } else { column }];
            *of = of.max(element.abs());
        }
    }
    let scale = |largest: f32| {
        if largest > 0.0 {
            largest / LARGEST
        } else {
            1.0
        }
    };
    let scales: Vec<f32> = largest.into_iter().map(scale).collect();
    let mut codes = vec![0_i8; k * n];
    for row in 0..rows {
        for column in 0..columns {
            let (inner, outer) = if transpose {
                (column, row)
            } else {
                (row, column)
            };
            let code = (value(row * columns + column) / scales[outer]).round();
            codes[inner * n + outer] = code.clamp(-LARGEST, LARGEST) as i8;
        }
    }
    Some(Rounded { codes, scales })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn a_column_is_rounded_by_its_largest_element() {
        let rounded = round(&bytes(&[6.3, 10.0, -3.2, 5.2]), 2, 2, false).unwrap();
        assert_eq!(rounded.codes, [63, 63, -32, 33]);
        assert_eq!(rounded.scales, [6.3 / 63.0, 10.0 / 63.0]);
    }

    #[test]
    fn a_transposed_matrix_has_the_codes_of_the_plain_one() {
        let plain = round(&bytes(&[1.0, 2.0, 3.0, -4.0, 5.0, 0.5]), 2, 3, false).unwrap();
        let stored = round(&bytes(&[1.0, -4.0, 2.0, 5.0, 3.0, 0.5]), 3, 2, true).unwrap();
        assert_eq!(plain.codes, stored.codes);
        assert_eq!(plain.scales, stored.scales);
    }

    #[test]
    fn zeros_have_codes_and_infinities_none() {
        let zeros = round(&bytes(&[0.0; 4]), 2, 2, false).unwrap();
        assert_eq!((zeros.codes, zeros.scales), (vec![0; 4], vec![1.0; 2]));
        assert!(round(&bytes(&[1.0, f32::INFINITY]), 1, 2, false).is_none());
        assert!(round(&bytes(&[1.0, f32::NAN]), 2, 1, true).is_none());
    }
}
