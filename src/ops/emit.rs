//! Emits standard ONNX nodes into a patch, in the form that the model's opset asks for.

use super::form::{self, Form};
use crate::graph::{Attribute, NewNode, OpName, Operand, Patch, Tensor};
use crate::ty::{DType, TensorType};
use rustc_hash::FxHashMap;

/// The mark of a node that training replaces with standard normal numbers.
pub const NOISE: (&str, &str) = ("peftc.noise", "normal");
/// The key under which such a node has the name of its draw.
pub const DRAW: &str = "peftc.draw";

/// A patch under construction with the names and the opset of its model.
pub struct Emitter {
    pub patch: Patch,
    pub opset: i64,
    /// In front of the names of emitted nodes.
    pub scope: String,
    /// Small constants, each made once a graph.
    scalars: FxHashMap<(u64, DType), Operand>,
    integers: FxHashMap<Vec<i64>, Operand>,
}

impl Emitter {
    pub fn new(opset: i64) -> Self {
        Emitter {
            patch: Patch::new(),
            opset,
            scope: String::new(),
            scalars: FxHashMap::default(),
            integers: FxHashMap::default(),
        }
    }

    /// A node with one result.
    pub fn node(
        &mut self,
        op_type: &str,
        inputs: &[Operand],
        attributes: Vec<Attribute>,
    ) -> Operand {
        self.typed(op_type, inputs, attributes, None)
    }

    pub fn typed(
        &mut self,
        op_type: &str,
        inputs: &[Operand],
        attributes: Vec<Attribute>,
        ty: Option<TensorType>,
    ) -> Operand {
        let node = self.new_node(
            "",
            op_type,
            inputs.iter().map(|i| Some(*i)).collect(),
            attributes,
        );
        self.patch.node(node, ty)
    }

    pub fn new_node(
        &self,
        domain: &str,
        op_type: &str,
        inputs: Vec<Option<Operand>>,
        attributes: Vec<Attribute>,
    ) -> NewNode {
        NewNode {
            op: OpName::new(domain, op_type),
            name: format!("{}/{op_type}", self.scope),
            attributes,
            inputs,
            metadata: Vec::new(),
        }
    }

    /// A node that marks where no gradient flows; it computes nothing.
    pub fn stop_gradient(&mut self, value: Operand) -> Operand {
        let mut node = self.new_node("", "Identity", vec![Some(value)], Vec::new());
        node.metadata
            .push(("peftc.gradient".to_owned(), "stop".to_owned()));
        self.patch.node(node, None)
    }

    /// Zeros of a value's shape, or of these dims, marked with a name: in training there is noise in their
    /// place.
    pub fn noise(
        &mut self,
        like: Option<Operand>,
        dims: &[i64],
        dtype: DType,
        name: String,
    ) -> Operand {
        let zero = self.scalar(0.0, dtype);
        let (op_type, inputs) = match like {
            Some(like) => ("Mul", vec![Some(like), Some(zero)]),
            None => ("Expand", vec![Some(zero), Some(self.ints(dims))]),
        };
        let mut node = self.new_node("", op_type, inputs, Vec::new());
        node.metadata.push((NOISE.0.to_owned(), NOISE.1.to_owned()));
        node.metadata.push((DRAW.to_owned(), name));
        self.patch.node(node, None)
    }

    /// A number of the given type, a float or an i32 or i64, of rank 0.
    pub fn scalar(&mut self, value: f64, dtype: DType) -> Operand {
        if let Some(found) = self.scalars.get(&(value.to_bits(), dtype)) {
            return *found;
        }
        let tensor = Tensor::from_raw(dtype, &[], encode_float(value, dtype));
        let operand = self
            .patch
            .constant(&format!("peftc.{dtype}.{value}"), tensor);
        self.scalars.insert((value.to_bits(), dtype), operand);
        operand
    }

    /// A vector of integers.
    pub fn ints(&mut self, values: &[i64]) -> Operand {
        if let Some(found) = self.integers.get(values) {
            return *found;
        }
        let text: Vec<String> = values.iter().map(i64::to_string).collect();
        let tensor = Tensor::from_i64(&[values.len() as i64], values);
        let operand = self
            .patch
            .constant(&format!("peftc.i64.{}", text.join("_")), tensor);
        self.integers.insert(values.to_vec(), operand);
        operand
    }

    /// A node that takes integer lists, in the form of the model's opset.
    fn formed(&mut self, op_type: &str, value: Operand, form: Form) -> Operand {
        let mut inputs = vec![value];
        for list in &form.lists {
            inputs.push(self.ints(list));
        }
        self.node(op_type, &inputs, form.attributes)
    }

    /// A reduction over one axis.
    pub fn reduce(&mut self, op_type: &str, value: Operand, axis: i64, keep: bool) -> Operand {
        let form = form::reduce(self.opset, op_type, &[axis], keep);
        self.formed(op_type, value, form)
    }

    pub fn slice(&mut self, value: Operand, axis: i64, start: i64, end: i64) -> Operand {
        let form = form::slice(self.opset, &[axis], &[start], &[end]);
        self.formed("Slice", value, form)
    }

    /// Zeros around a value: how many in front of every axis, then how many behind.
    pub fn pad(&mut self, value: Operand, pads: &[i64]) -> Operand {
        let form = form::pad(self.opset, pads);
        self.formed("Pad", value, form)
    }

    pub fn unsqueeze(&mut self, value: Operand, axis: i64) -> Operand {
        let form = form::squeeze(self.opset, &[axis]);
        self.formed("Unsqueeze", value, form)
    }

    pub fn cast(&mut self, value: Operand, to: DType) -> Operand {
        self.node(
            "Cast",
            &[value],
            vec![Attribute::int("to", i64::from(to.number()))],
        )
    }

    /// The size of one axis as a vector of one integer. A negative axis counts from the end.
    pub fn size(&mut self, value: Operand, axis: i64) -> Operand {
        let shape = self.node("Shape", &[value], Vec::new());
        let axis = self.ints(&[axis]);
        self.node("Gather", &[shape, axis], Vec::new())
    }
}

/// One number in little-endian form.
pub fn encode_float(value: f64, dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        DType::I64 => (value as i64).to_le_bytes().to_vec(),
        DType::I32 => (value as i32).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        _ => (value as f32).to_le_bytes().to_vec(),
    }
}
