//! Emits standard ONNX nodes into a patch, in the form that the model's opset asks for.

use crate::graph::{Attribute, NewNode, OpName, Operand, Patch, Tensor};
use crate::ty::{DType, TensorType};
use rustc_hash::FxHashMap;

/// A patch under construction with the names and the opset of its model.
pub(super) struct Emitter {
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

    /// A number of the given float type, of rank 0.
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

    /// A reduction over one axis; the axes became an operand in opset 13 for ReduceSum and in 18
    /// for the others.
    pub fn reduce(&mut self, op_type: &str, value: Operand, axis: i64, keep: bool) -> Operand {
        let keep = Attribute::int("keepdims", i64::from(keep));
        let as_operand = self.opset >= if op_type == "ReduceSum" { 13 } else { 18 };
        if as_operand {
            let axes = self.ints(&[axis]);
            self.node(op_type, &[value, axes], vec![keep])
        } else {
            self.node(
                op_type,
                &[value],
                vec![Attribute::ints("axes", [axis]), keep],
            )
        }
    }

    pub fn slice(&mut self, value: Operand, axis: i64, start: i64, end: i64) -> Operand {
        if self.opset < 10 {
            let attributes = vec![
                Attribute::ints("axes", [axis]),
                Attribute::ints("starts", [start]),
                Attribute::ints("ends", [end]),
            ];
            return self.node("Slice", &[value], attributes);
        }
        let (starts, ends, axes) = (self.ints(&[start]), self.ints(&[end]), self.ints(&[axis]));
        self.node("Slice", &[value, starts, ends, axes], Vec::new())
    }

    pub fn unsqueeze(&mut self, value: Operand, axis: i64) -> Operand {
        if self.opset < 13 {
            return self.node("Unsqueeze", &[value], vec![Attribute::ints("axes", [axis])]);
        }
        let axes = self.ints(&[axis]);
        self.node("Unsqueeze", &[value, axes], Vec::new())
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

/// One float in little-endian form.
pub(super) fn encode_float(value: f64, dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(value).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        _ => (value as f32).to_le_bytes().to_vec(),
    }
}
