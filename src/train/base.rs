//! The frozen base in fewer bits, for training only.
//!
//! A product `x W` with a constant `W[k, n]` is computed in 8 bits or in half precision.
//!
//! * **8 bits**: ONNX Runtime's `DynamicQuantizeMatMul`. `W` is stored as codes `q = round(W / s)` in
//!   `i8` with one scale a column, `s[n] = max_k |W[k, n]| / 63`, symmetric, so that no zero point is
//!   needed. Seven of the eight bits are used: processors without VNNI instructions add two products of
//!   an activation and a code in 16 bits that saturate, which full codes overflow (ONNX Runtime's
//!   "reduced range"); `x` is rounded to 8 bits a tensor when it arrives. The gradient takes rounding
//!   for the identity (straight-through: Bengio, Léonard, Courville, arXiv:1308.3432) and is itself a
//!   product with the same codes.
//! * **bfloat16 and float16**: `W` is stored in 16 bits, `x` is rounded to them, and so is the product; the
//!   same holds for the gradient. Sums over several products are made in 32 bits. This is what PyTorch's
//!   autocast does to linear layers. The range of bfloat16 is that of `f32`; with float16 gradients are
//!   scaled (see the graphs).
//!
//! The adapter, its gradients and the optimizer stay in 32 bits, and so does the adapted model that is
//! deployed. Weights of the adapter are never rounded. Products inside the bodies of `If` and `Loop`
//! keep their precision.

use super::{Base, errors};
use crate::diag::{Reported, Sink};
use crate::graph::{
    Attribute, ExternalData, Graph, Model, NewNode, NodeId, OpName, Operand, Patch, Tensor,
    TensorData, ValueId,
};
use crate::ops::MICROSOFT;
use crate::ty::{DType, TensorType};
use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

/// Smaller matrices gain nothing: quantizing what comes in costs more than the product.
const LEAST_ELEMENTS: u64 = 4096;

/// The largest code: `2 · 255 · 63` fits 16 bits with a sign.
const LARGEST: f32 = 63.0;

/// The first opset whose products can be in bfloat16.
const BF16_OPSET: i64 = 13;

/// Reads the bytes of a weight.
pub type ReadWeight<'a> = dyn Fn(&Tensor, &mut Sink) -> Result<Bytes, Reported> + 'a;
/// Keeps bytes in a file beside the graphs, and says where.
pub type Keep<'a> = dyn FnMut(&[u8], &mut Sink) -> Result<ExternalData, Reported> + 'a;

/// Where rounded weights come from, and where they go.
pub enum Rounding<'a> {
    /// They are read and kept in a file.
    Written(&'a ReadWeight<'a>, &'a mut Keep<'a>),
    /// Only their sizes count: what they are is read from nowhere, and kept nowhere.
    Planned,
}

/// A weight in fewer bits.
#[derive(Clone, Copy)]
enum Rounded {
    /// Codes `[k, n]` and scales `[n]`.
    Int8([Operand; 2]),
    /// `[k, n]`, in half precision.
    Half(DType, Operand),
}

/// Rounds the weights of a model in place, those of the named initializers excepted. What is not read
/// any more is removed. [`Base::Own`] changes nothing.
pub fn round_base(
    model: &mut Model,
    base: Base,
    excepted: &FxHashSet<&str>,
    mut rounding: Rounding<'_>,
    sink: &mut Sink,
) -> Result<(), Reported> {
    if base == Base::Own {
        return Ok(());
    }
    let opset = model.opset("").unwrap_or(1);
    if base == Base::Bf16 && opset < BF16_OPSET {
        return Err(sink.emit(errors::opset_without_bf16(&model.name, opset, BF16_OPSET)));
    }
    let products: Vec<Product> = model
        .graph
        .node_ids()
        .filter_map(|node| Product::of(&model.graph, node, excepted))
        .collect();
    let mut patch = Patch::new();
    let mut made: FxHashMap<(ValueId, bool), Option<Rounded>> = FxHashMap::default();
    let mut count = 0;
    for product in products {
        let key = (product.weight, product.is_transposed);
        let rounded = match made.get(&key) {
            Some(rounded) => *rounded,
            None => {
                let rounded = match &mut rounding {
                    Rounding::Written(read, keep) => {
                        product.rounded(base, &model.graph, &mut patch, *read, *keep, sink)?
                    }
                    Rounding::Planned => product.planned(base, &model.graph, &mut patch),
                };
                made.insert(key, rounded);
                rounded
            }
        };
        if let Some(rounded) = rounded {
            product.replace(&model.graph, &mut patch, rounded);
            count += 1;
        }
    }
    if count == 0 {
        return Err(sink.emit(errors::nothing_to_round(&model.name, base)));
    }
    if base == Base::Int8 && model.opset(MICROSOFT).is_none() {
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

    /// The weight in fewer bits; `None` for one that is not finite.
    fn rounded(
        &self,
        base: Base,
        graph: &Graph,
        patch: &mut Patch,
        read: &ReadWeight<'_>,
        keep: &mut Keep<'_>,
        sink: &mut Sink,
    ) -> Result<Option<Rounded>, Reported> {
        let value = graph.value(self.weight);
        let Some(tensor) = value.constant() else {
            return Ok(None);
        };
        let bytes = read(tensor, sink)?;
        let matrix = Matrix {
            bytes: &bytes,
            rows: tensor.dims[0] as usize,
            columns: tensor.dims[1] as usize,
            transpose: self.is_transposed,
        };
        let dims = self.dims(tensor);
        let name = &value.name;
        let mut kept = |dtype, bytes: &[u8], sink: &mut Sink| {
            Ok(Tensor {
                dtype,
                dims: dims.to_vec(),
                data: TensorData::External(keep(bytes, sink)?),
            })
        };
        let half = match base {
            Base::Bf16 => Some(DType::BF16),
            Base::F16 => Some(DType::F16),
            Base::Own | Base::Int8 => None,
        };
        if let Some(dtype) = half {
            let Some(bytes) = matrix.half(dtype) else {
                return Ok(None);
            };
            let tensor = kept(dtype, &bytes, sink)?;
            let weight = patch.constant(&format!("{name}.{}", base.name()), tensor);
            return Ok(Some(Rounded::Half(dtype, weight)));
        }
        let Some(Coded { codes, scales }) = matrix.int8() else {
            return Ok(None);
        };
        let codes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
        let codes = kept(DType::I8, &codes, sink)?;
        let scales = Tensor::from_f32(&[dims[1]], &scales);
        Ok(Some(Rounded::Int8([
            patch.constant(&format!("{name}.int8"), codes),
            patch.constant(&format!("{name}.scale"), scales),
        ])))
    }

    /// A weight in fewer bits, of which only the sizes are there.
    fn planned(&self, base: Base, graph: &Graph, patch: &mut Patch) -> Option<Rounded> {
        let value = graph.value(self.weight);
        let dims = self.dims(value.constant()?);
        let mut sized = |what: &str, dtype: DType, dims: &[i64]| {
            let sizes = dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(0));
            let elements = sizes.fold(1, u64::saturating_mul);
            let tensor = Tensor {
                dtype,
                dims: dims.to_vec(),
                data: TensorData::External(ExternalData {
                    location: String::new(),
                    offset: 0,
                    length: dtype.byte_len(elements).unwrap_or(u64::MAX),
                }),
            };
            patch.constant(&format!("{}.{what}", value.name), tensor)
        };
        let name = base.name();
        Some(match base {
            Base::Own => return None,
            Base::Bf16 => Rounded::Half(DType::BF16, sized(name, DType::BF16, &dims)),
            Base::F16 => Rounded::Half(DType::F16, sized(name, DType::F16, &dims)),
            Base::Int8 => Rounded::Int8([
                sized(name, DType::I8, &dims),
                sized("scale", DType::F32, &dims[1..]),
            ]),
        })
    }

    /// The sizes of a rounded weight, `[k, n]`.
    fn dims(&self, tensor: &Tensor) -> [i64; 2] {
        match self.is_transposed {
            true => [tensor.dims[1], tensor.dims[0]],
            false => [tensor.dims[0], tensor.dims[1]],
        }
    }

    fn replace(&self, graph: &Graph, patch: &mut Patch, rounded: Rounded) {
        let Some(result) = graph.result(self.node, 0) else {
            return;
        };
        let ty = graph.value(result).ty.clone();
        patch.behind(self.node);
        let new = match rounded {
            Rounded::Int8(weight) => self.in_int8(graph, patch, weight, ty),
            Rounded::Half(dtype, weight) => self.in_half(graph, patch, (dtype, weight), ty),
        };
        patch.take_over(result, new);
    }

    fn in_int8(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        [codes, scales]: [Operand; 2],
        ty: Option<TensorType>,
    ) -> Operand {
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
        patch.node(node, ty)
    }

    /// Every product rounds `x` for itself, so that the gradients of several are added in 32 bits;
    /// ONNX Runtime makes one of equal casts.
    fn in_half(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        (dtype, weight): (DType, Operand),
        ty: Option<TensorType>,
    ) -> Operand {
        let old = graph.node(self.node);
        let mut node = |op: &str, what: &str, attributes, inputs: Vec<Operand>, ty| {
            let node = NewNode {
                op: OpName::new("", op),
                name: format!("{}/{what}", old.name),
                attributes,
                inputs: inputs.into_iter().map(Some).collect(),
                metadata: old.metadata.clone(),
            };
            patch.node(node, ty)
        };
        let to = |dtype: DType| vec![Attribute::int("to", i64::from(dtype.number()))];
        let half = |ty: Option<&TensorType>| {
            ty.map(|ty| TensorType {
                dtype,
                ..ty.clone()
            })
        };
        let x_ty = half(graph.value(self.x).ty.as_ref());
        let x = node(
            "Cast",
            "x_half",
            to(dtype),
            vec![Operand::Existing(self.x)],
            x_ty,
        );
        let product = node(
            "MatMul",
            "half",
            Vec::new(),
            vec![x, weight],
            half(ty.as_ref()),
        );
        let product = node("Cast", "f32", to(DType::F32), vec![product], ty.clone());
        match self.bias {
            Some(bias) => node(
                "Add",
                "bias",
                Vec::new(),
                vec![product, Operand::Existing(bias)],
                ty,
            ),
            None => product,
        }
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

/// A matrix of little-endian floats, `[rows, columns]` as stored, `[k, n]` after transposing where that
/// is asked for.
struct Matrix<'b> {
    bytes: &'b [u8],
    rows: usize,
    columns: usize,
    transpose: bool,
}

/// A matrix `[k, n]` in 8 bits.
struct Coded {
    codes: Vec<i8>,
    /// By column.
    scales: Vec<f32>,
}

impl Matrix<'_> {
    /// By its place as stored.
    fn value(&self, row: usize, column: usize) -> f32 {
        let at = (row * self.columns + column) * 4;
        f32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("4 bytes"))
    }

    /// The place in `[k, n]` of a place as stored.
    fn place(&self, row: usize, column: usize) -> (usize, usize) {
        match self.transpose {
            true => (column, row),
            false => (row, column),
        }
    }

    /// `k` and `n`.
    fn sizes(&self) -> (usize, usize) {
        self.place(self.rows, self.columns)
    }

    /// Every element with its place as stored.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let columns = self.columns;
        (0..self.rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
    }

    fn is_finite(&self) -> bool {
        self.places()
            .all(|(row, column)| self.value(row, column).is_finite())
    }

    /// Rounded to the nearest of a type of 16 bits, ties to even; `None` if an element is not finite, or
    /// is beyond its range.
    fn half(&self, dtype: DType) -> Option<Vec<u8>> {
        let round = |value: f32| match dtype {
            DType::F16 => {
                let half = half::f16::from_f32(value);
                half.is_finite().then(|| half.to_le_bytes())
            }
            _ => {
                let half = half::bf16::from_f32(value);
                half.is_finite().then(|| half.to_le_bytes())
            }
        };
        let (k, n) = self.sizes();
        let mut bytes = vec![0; k * n * 2];
        for (row, column) in self.places() {
            let (inner, outer) = self.place(row, column);
            let at = (inner * n + outer) * 2;
            bytes[at..at + 2].copy_from_slice(&round(self.value(row, column))?);
        }
        Some(bytes)
    }

    /// `None` if an element is not finite.
    fn int8(&self) -> Option<Coded> {
        if !self.is_finite() {
            return None;
        }
        let (k, n) = self.sizes();
        let mut largest = vec![0.0_f32; n];
        for (row, column) in self.places() {
            let (_, outer) = self.place(row, column);
            largest[outer] = largest[outer].max(self.value(row, column).abs());
        }
        let scale = |largest: f32| match largest > 0.0 {
            true => largest / LARGEST,
            false => 1.0,
        };
        let scales: Vec<f32> = largest.into_iter().map(scale).collect();
        let mut codes = vec![0_i8; k * n];
        for (row, column) in self.places() {
            let (inner, outer) = self.place(row, column);
            let code = (self.value(row, column) / scales[outer]).round();
            codes[inner * n + outer] = code.clamp(-LARGEST, LARGEST) as i8;
        }
        Some(Coded { codes, scales })
    }
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

    fn matrix(bytes: &[u8], rows: usize, columns: usize, transpose: bool) -> Matrix<'_> {
        Matrix {
            bytes,
            rows,
            columns,
            transpose,
        }
    }

    #[test]
    fn a_column_is_rounded_by_its_largest_element() {
        let bytes = bytes(&[6.3, 10.0, -3.2, 5.2]);
        let rounded = matrix(&bytes, 2, 2, false).int8().unwrap();
        assert_eq!(rounded.codes, [63, 63, -32, 33]);
        assert_eq!(rounded.scales, [6.3 / 63.0, 10.0 / 63.0]);
    }

    #[test]
    fn a_transposed_matrix_has_the_codes_of_the_plain_one() {
        let plain = bytes(&[1.0, 2.0, 3.0, -4.0, 5.0, 0.5]);
        let stored = bytes(&[1.0, -4.0, 2.0, 5.0, 3.0, 0.5]);
        let (plain, stored) = (matrix(&plain, 2, 3, false), matrix(&stored, 3, 2, true));
        assert_eq!(plain.half(DType::BF16), stored.half(DType::BF16));
        assert_eq!(plain.half(DType::F16), stored.half(DType::F16));
        let (plain, stored) = (plain.int8().unwrap(), stored.int8().unwrap());
        assert_eq!(plain.codes, stored.codes);
        assert_eq!(plain.scales, stored.scales);
    }

    #[test]
    fn half_precision_rounds_to_even() {
        // Between 1 and the next number, 1 + 2^-7, lies 1 + 2^-8.
        let bytes = bytes(&[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
        let rounded = matrix(&bytes, 1, 2, false).half(DType::BF16).unwrap();
        let value = |at: usize| half::bf16::from_le_bytes([rounded[at], rounded[at + 1]]).to_f32();
        assert_eq!([value(0), value(2)], [1.0, 1.0 + 2.0 / 128.0]);
    }

    #[test]
    fn zeros_have_codes_and_infinities_none() {
        let zeros = bytes(&[0.0; 4]);
        let zeros = matrix(&zeros, 2, 2, false).int8().unwrap();
        assert_eq!((zeros.codes, zeros.scales), (vec![0; 4], vec![1.0; 2]));
        let infinite = bytes(&[1.0, f32::INFINITY]);
        let infinite = matrix(&infinite, 1, 2, false);
        assert!(infinite.int8().is_none() && infinite.half(DType::BF16).is_none());
        let large = bytes(&[1.0, 70_000.0]);
        let large = matrix(&large, 1, 2, false);
        assert!(large.half(DType::F16).is_none() && large.half(DType::BF16).is_some());
        let bad = bytes(&[1.0, f32::NAN]);
        assert!(matrix(&bad, 2, 1, true).int8().is_none());
    }
}
