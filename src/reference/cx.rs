//! What an evaluation sees of a node.

use super::array::Array;
use super::fault::{Fault, mismatch};
use super::{Rounding, decode, sizes};
use crate::graph::{Attribute, AttributeValue};
use crate::ty::DType;

/// One node with its operands.
pub(super) struct Cx<'a> {
    /// The version of the operator's domain that the model imports.
    pub opset: i64,
    pub rounding: Rounding,
    attributes: &'a [Attribute],
    operands: &'a [Option<&'a Array>],
    /// How many results the node lists.
    pub results: usize,
}

impl<'a> Cx<'a> {
    pub fn new(
        opset: i64,
        rounding: Rounding,
        attributes: &'a [Attribute],
        operands: &'a [Option<&'a Array>],
        results: usize,
    ) -> Self {
        Cx {
            opset,
            rounding,
            attributes,
            operands,
            results,
        }
    }

    /// The same node with other operands.
    pub fn with<'b>(&'b self, operands: &'b [Option<&'b Array>]) -> Cx<'b> {
        Cx::new(
            self.opset,
            self.rounding,
            self.attributes,
            operands,
            self.results,
        )
    }

    // --- operands ---------------------------------------------------------------------------

    /// How many operands the node lists, absent ones included.
    pub fn count(&self) -> usize {
        self.operands.len()
    }

    /// An operand that may be absent.
    pub fn optional(&self, slot: usize) -> Option<&'a Array> {
        self.operands.get(slot).copied().flatten()
    }

    pub fn operand(&self, slot: usize) -> Result<&'a Array, Fault> {
        match self.optional(slot) {
            Some(array) => Ok(array),
            None => mismatch!("operand {slot} is absent"),
        }
    }

    /// Every operand of a node that may not leave any out.
    pub fn all(&self) -> Result<Vec<&'a Array>, Fault> {
        (0..self.count()).map(|slot| self.operand(slot)).collect()
    }

    /// The integers of an operand: axes, sizes, positions.
    pub fn numbers(&self, slot: usize) -> Result<Vec<i64>, Fault> {
        self.operand(slot)?.to_i64s()
    }

    /// The integers of an operand, if it is present.
    pub fn optional_numbers(&self, slot: usize) -> Result<Option<Vec<i64>>, Fault> {
        self.optional(slot).map(Array::to_i64s).transpose()
    }

    /// The only number of an operand.
    pub fn number(&self, slot: usize) -> Result<i64, Fault> {
        match self.numbers(slot)?.as_slice() {
            [number] => Ok(*number),
            numbers => mismatch!("{} numbers in operand {slot}, 1 is needed", numbers.len()),
        }
    }

    /// The only element of an operand as a float, if it is present.
    pub fn single(&self, slot: usize) -> Result<Option<f64>, Fault> {
        let Some(array) = self.optional(slot) else {
            return Ok(None);
        };
        match array.to_f64s().as_slice() {
            [value] => Ok(Some(*value)),
            values => mismatch!("{} elements in operand {slot}, 1 is needed", values.len()),
        }
    }

    // --- attributes -------------------------------------------------------------------------

    pub fn attribute(&self, name: &str) -> Option<&'a AttributeValue> {
        let mut all = self.attributes.iter();
        all.find(|a| a.name == name).map(|a| &a.value)
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            AttributeValue::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    /// Whether an integer attribute is present and not 0.
    pub fn flag(&self, name: &str) -> bool {
        self.int_or(name, 0) != 0
    }

    /// A size that has to be stated and positive.
    pub fn positive(&self, name: &str) -> Result<usize, Fault> {
        match self.int(name).map(usize::try_from) {
            Some(Ok(value)) if value > 0 => Ok(value),
            Some(_) => mismatch!("`{name}` is not positive"),
            None => mismatch!("no `{name}`"),
        }
    }

    /// A float attribute; ONNX states them in single precision, defaults included.
    pub fn float_or(&self, name: &str, default: f32) -> f64 {
        f64::from(self.float(name).unwrap_or(default))
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name)? {
            AttributeValue::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub fn floats(&self, name: &str) -> Option<&'a [f32]> {
        match self.attribute(name)? {
            AttributeValue::Floats(values) => Some(values),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.attribute(name)? {
            AttributeValue::Ints(values) => Some(values),
            _ => None,
        }
    }

    pub fn string(&self, name: &str) -> Option<&'a str> {
        match self.attribute(name)? {
            AttributeValue::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub fn strings(&self, name: &str) -> Option<Vec<&'a str>> {
        match self.attribute(name)? {
            AttributeValue::Strings(list) => list
                .iter()
                .map(|bytes| std::str::from_utf8(bytes).ok())
                .collect(),
            _ => None,
        }
    }

    /// A tensor attribute, read.
    pub fn tensor(&self, name: &str) -> Result<Option<Array>, Fault> {
        match self.attribute(name) {
            Some(AttributeValue::Tensor(tensor)) => {
                let Some(raw) = tensor.raw() else {
                    return mismatch!("the data of `{name}` is not in the model");
                };
                decode::decode(tensor.dtype, &tensor.dims, raw).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// An attribute that holds ONNX's number of an element type.
    pub fn dtype(&self, name: &str) -> Result<Option<DType>, Fault> {
        let Some(number) = self.int(name) else {
            return Ok(None);
        };
        match i32::try_from(number).ok().and_then(DType::from_number) {
            Some(dtype) => Ok(Some(dtype)),
            None => mismatch!("`{name}` is {number}, which is no element type"),
        }
    }

    /// An axis attribute, counted from either end.
    pub fn axis_or(&self, name: &str, default: i64, rank: usize) -> Result<usize, Fault> {
        sizes::axis(self.int_or(name, default), rank)
    }
}
