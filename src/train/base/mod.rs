//! The frozen base in fewer bits, for training only.
//!
//! A product `x W` with a constant `W[k, n]` is computed in 8 bits, with weights of 8 bits, or in half
//! precision.
//!
//! * **8 bits** (`int8`): ONNX Runtime's `DynamicQuantizeMatMul`. `W` is stored as codes `q = round(W / s)` in
//!   `i8` with one scale a column, `s[n] = max_k |W[k, n]| / 63`, symmetric, so that no zero point is
//!   needed. Seven of the eight bits are used: processors without VNNI instructions add two products of
//!   an activation and a code in 16 bits that saturate, which full codes overflow (ONNX Runtime's
//!   "reduced range"); `x` is rounded to 8 bits a tensor when it arrives. The gradient takes rounding
//!   for the identity (straight-through: Bengio, Léonard, Courville, arXiv:1308.3432) and is itself a
//!   product with the same codes. Only CPUs have the operator.
//! * **Weights of 8 bits** (`int8_weights`): `W` is stored as such codes, and a `DequantizeLinear` makes
//!   floats of them in front of the product, which is computed in 32 bits; so is its gradient. No
//!   processor adds codes up here, so that all of them are used, `s[n] = max_k |W[k, n]| / 127` (the
//!   vector-wise absmax of Dettmers et al., arXiv:2208.07339), and `x` is not rounded: the graph is that
//!   of the weights `s q`, to the bit. Every product has a `DequantizeLinear` of its own at the front of
//!   the graph ([`apart`]): its floats are there while the product runs, and not from the forward pass to
//!   the backward one. With a Llama of 30 M parameters a session whose weights are 122 MiB of floats, and
//!   twice as much packed, takes 241 MiB at most; of these codes, of which there are 27 MiB beside a table
//!   of 16, it takes 83 (one row of 16 tokens, ONNX Runtime 1.32 on a CPU).
//! * **bfloat16 and float16**: `W` is stored in 16 bits, `x` is rounded to them, and so is the product; the
//!   same holds for the gradient. Sums over several products are made in 32 bits. This is what PyTorch's
//!   autocast does to linear layers. The range of bfloat16 is that of `f32`; with float16 gradients are
//!   scaled (see the graphs).
//!
//! The adapter, its gradients and the optimizer stay in 32 bits, and so does the adapted model that is
//! deployed. Weights of the adapter are never rounded. Products inside the bodies of `If` and `Loop`
//! keep their precision.

mod apart;
mod matrix;
#[cfg(test)]
mod tests;

pub(super) use apart::apart;

use super::{Base, errors};
use crate::diag::{Reported, Sink};
use crate::graph::{
    Attribute, ExternalData, Graph, Model, NewNode, NodeId, OpName, Operand, Patch, Tensor,
    TensorData, ValueId,
};
use crate::ops::MICROSOFT;
use crate::ty::{DType, Dim, Shape, TensorType};
use bytes::Bytes;
use matrix::{Coded, Matrix};
use rustc_hash::{FxHashMap, FxHashSet};

/// Smaller matrices gain nothing: quantizing what comes in costs more than the product.
const LEAST_ELEMENTS: u64 = 4096;

/// The largest code of a product in 8 bits: `2 · 255 · 63` fits 16 bits with a sign.
const LARGEST_OF_PRODUCT: f32 = 63.0;

/// The largest code of a weight alone.
const LARGEST: f32 = 127.0;

/// The first opset whose products can be in bfloat16, and whose `DequantizeLinear` takes a scale a column.
const LEAST_OPSET: i64 = 13;

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
    /// The floats of codes, `[k, n]`.
    Floats(Operand),
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
    if matches!(base, Base::Bf16 | Base::Int8Weights) && opset < LEAST_OPSET {
        let diagnostic = errors::opset_without(&model.name, base, opset, LEAST_OPSET);
        return Err(sink.emit(diagnostic));
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
            Base::Own | Base::Int8 | Base::Int8Weights => None,
        };
        if let Some(dtype) = half {
            let Some(bytes) = matrix.half(dtype) else {
                return Ok(None);
            };
            let tensor = kept(dtype, &bytes, sink)?;
            let weight = patch.constant(&format!("{name}.{}", base.name()), tensor);
            return Ok(Some(Rounded::Half(dtype, weight)));
        }
        let most = match base {
            Base::Int8Weights => LARGEST,
            _ => LARGEST_OF_PRODUCT,
        };
        let Some(Coded { codes, scales }) = matrix.coded(most) else {
            return Ok(None);
        };
        let codes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
        let codes = kept(DType::I8, &codes, sink)?;
        let scales = Tensor::from_f32(&[dims[1]], &scales);
        let coded = [
            patch.constant(&format!("{name}.int8"), codes),
            patch.constant(&format!("{name}.scale"), scales),
        ];
        Ok(Some(of_codes(base, name, coded, &dims, patch)))
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
            Base::Int8 | Base::Int8Weights => {
                let coded = [
                    sized("int8", DType::I8, &dims),
                    sized("scale", DType::F32, &dims[1..]),
                ];
                of_codes(base, &value.name, coded, &dims, patch)
            }
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
            Rounded::Floats(weight) => self.with_floats(graph, patch, weight, ty),
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

    /// The same product with another weight, which is not transposed.
    fn with_floats(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        weight: Operand,
        ty: Option<TensorType>,
    ) -> Operand {
        let old = graph.node(self.node);
        let mut inputs = vec![Some(Operand::Existing(self.x)), Some(weight)];
        inputs.extend(self.bias.map(|bias| Some(Operand::Existing(bias))));
        let node = NewNode {
            op: old.op.clone(),
            name: format!("{}/floats", old.name),
            // Those of a `Gemm` that differ from the default are refused, but for `transB`.
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

/// Codes and scales as the base has them.
fn of_codes(
    base: Base,
    name: &str,
    coded: [Operand; 2],
    dims: &[i64; 2],
    patch: &mut Patch,
) -> Rounded {
    match base {
        Base::Int8Weights => Rounded::Floats(floats(name, coded, dims, patch)),
        _ => Rounded::Int8(coded),
    }
}

/// The floats `[k, n]` of codes with a scale a column.
fn floats(name: &str, coded: [Operand; 2], dims: &[i64; 2], patch: &mut Patch) -> Operand {
    let shape = Shape(dims.iter().map(|dim| Dim::from(*dim)).collect());
    let node = NewNode {
        op: OpName::new("", "DequantizeLinear"),
        name: format!("{name}/floats"),
        // The last axis: of one that is called 1, ONNX Runtime makes a `MatMulNBits` together with the
        // product, which rounds activations unless a session says otherwise.
        attributes: vec![Attribute::int("axis", -1)],
        inputs: coded.map(Some).to_vec(),
        metadata: Vec::new(),
    };
    let ty = TensorType::new(DType::F32, shape);
    patch.front().node(node, Some(ty))
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
