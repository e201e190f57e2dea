//! Constants behind the nodes that exporters and quantizers put between a weight and its reader.

use super::level::{At, Levels};
use super::site::Quantization;
use crate::graph::{AttributeValue, Node, NodeId, Tensor};
use crate::ty::DType;
use smallvec::{SmallVec, smallvec};

/// Chains are a few nodes long; a longer one is no weight.
const LONGEST_CHAIN: usize = 12;

/// A constant as one operand slot reads it.
#[derive(Clone, Debug)]
pub(super) struct Constant<'m> {
    /// What holds the data: an initializer, an input with a default, or a `Constant` node's result.
    pub root: At,
    pub tensor: &'m Tensor,
    /// Dimensions as the reader sees them.
    pub dims: Vec<i64>,
    /// Element type as the reader sees it.
    pub dtype: DType,
    /// Whether an odd number of matrix transposes lies between.
    pub transposed: bool,
    pub quantization: Option<Quantization>,
    /// Every value from the reader to the root, the operand first; names may sit on any of them.
    pub values: Vec<At>,
}

impl<'m> Levels<'m> {
    /// The constant behind a value, seen through Identity, Cast, Transpose, Reshape and
    /// DequantizeLinear; `None` if any of it is computed from the model's inputs.
    pub fn constant(&self, operand: At) -> Option<Constant<'m>> {
        let mut steps: Vec<(usize, NodeId, &'m Node)> = Vec::new();
        // Most operands are computed: nothing is allocated for them.
        let mut values: SmallVec<[At; 4]> = smallvec![operand];
        let mut at = self.resolve(operand);
        let tensor = loop {
            if at != *values.last().expect("starts with the operand") {
                values.push(at);
            }
            if let Some(tensor) = self.graph(at.level).value(at.value).tensor() {
                break tensor;
            }
            let (level, node, data) = self.producer(at)?;
            if data.op.is("Constant") {
                break constant_node(data)?;
            }
            if steps.len() == LONGEST_CHAIN || !sees_through(data) {
                return None;
            }
            let value = self.graph(level).operand(node, 0)?;
            steps.push((level, node, data));
            at = self.resolve(At { level, value });
        };
        let mut constant = Constant {
            root: at,
            tensor,
            dims: tensor.dims.clone(),
            dtype: tensor.dtype,
            transposed: false,
            quantization: None,
            values: values.into_vec(),
        };
        for (level, node, data) in steps.into_iter().rev() {
            self.pass(&mut constant, level, node, data)?;
        }
        Some(constant)
    }

    /// Applies one node of the chain.
    fn pass(
        &self,
        constant: &mut Constant<'m>,
        level: usize,
        node: NodeId,
        data: &Node,
    ) -> Option<()> {
        match &*data.op.op_type {
            "Cast" => {
                constant.dtype = DType::from_number(i32::try_from(data.int("to")?).ok()?)?;
            }
            "Transpose" => constant.transpose(data.ints("perm"))?,
            "Reshape" => {
                let value = self.graph(level).operand(node, 1)?;
                let target = self.integers(At { level, value })?;
                constant.reshape(&target)?;
            }
            "DequantizeLinear" => {
                let value = self.graph(level).operand(node, 1)?;
                let scale = self.constant(At { level, value })?;
                constant.quantization = Some(Quantization {
                    op_type: "DequantizeLinear".to_owned(),
                    bits: constant.dtype.bits() as u32,
                    block_size: data.int("block_size").unwrap_or(0),
                });
                constant.dtype = scale.dtype;
            }
            // Codes of a constant; the scale that gives them back follows.
            "QuantizeLinear" => constant.dtype = DType::I8,
            _ => {}
        }
        Some(())
    }
}

impl Constant<'_> {
    fn transpose(&mut self, perm: Option<&[i64]>) -> Option<()> {
        let rank = self.dims.len();
        let identity = perm.is_some_and(|perm| perm.iter().copied().eq(0..rank as i64));
        if identity || rank < 2 {
            return Some(());
        }
        let reversed = perm.is_none_or(|perm| perm == [1, 0]);
        if rank != 2 || !reversed {
            return None;
        }
        self.dims.swap(0, 1);
        self.transposed = !self.transposed;
        Some(())
    }

    fn reshape(&mut self, target: &[i64]) -> Option<()> {
        let elements = product(&self.dims)?;
        let mut dims = target.to_vec();
        for (axis, dim) in dims.iter_mut().enumerate() {
            if *dim == 0 {
                *dim = *self.dims.get(axis)?;
            }
        }
        let known = product(dims.iter().filter(|dim| **dim >= 0))?;
        if let Some(free) = dims.iter_mut().find(|dim| **dim < 0) {
            *free = elements.checked_div(known)?;
        }
        if product(&dims)? != elements {
            return None;
        }
        self.dims = dims;
        Some(())
    }

    /// Whether it is a matrix, and which.
    pub fn matrix(&self) -> Option<(i64, i64)> {
        match self.dims[..] {
            [rows, columns] if rows > 0 && columns > 0 => Some((rows, columns)),
            _ => None,
        }
    }

    /// The number of elements if it is a vector, leading axes of size one aside.
    pub fn vector(&self) -> Option<i64> {
        let (last, leading) = self.dims.split_last()?;
        leading.iter().all(|dim| *dim == 1).then_some(*last)
    }
}

/// `None` on overflow: dimensions of a Reshape are input like any other.
fn product<'a>(dims: impl IntoIterator<Item = &'a i64>) -> Option<i64> {
    dims.into_iter()
        .try_fold(1i64, |product, dim| product.checked_mul(*dim))
}

fn sees_through(node: &Node) -> bool {
    const SEEN_THROUGH: &[&str] = &[
        "Identity",
        "Cast",
        "Transpose",
        "Reshape",
        "DequantizeLinear",
        "QuantizeLinear",
    ];
    matches!(&*node.op.domain, "" | "com.microsoft") && SEEN_THROUGH.contains(&&*node.op.op_type)
}

fn constant_node(node: &Node) -> Option<&Tensor> {
    match node.attribute("value")? {
        AttributeValue::Tensor(tensor) => Some(tensor),
        _ => None,
    }
}
