//! What a rule sees of a node and what it says about it.

use super::known::{Element, Known, MAX_ELEMENTS, MAX_EXPRESSION};
use crate::graph::{Attribute, AttributeValue, Tensor};
use crate::ty::{DType, Dim, Shape, TensorType};
use std::borrow::Cow;
use std::fmt;

/// The largest rank that rules look at; no runtime comes near it.
pub(super) const MAX_RANK: usize = 64;

/// What is known about one operand.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperandFacts<'a> {
    pub ty: Option<&'a TensorType>,
    /// The tensor, if it is a constant.
    pub constant: Option<&'a Tensor>,
    /// The elements, if shape arithmetic has followed them.
    pub known: Option<&'a Known>,
}

/// The operands of a node cannot fit together, whatever the symbols stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(pub String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a rule returns; the types are set on the context.
pub type Outcome = Result<(), Mismatch>;

/// One node while its results are inferred and folded.
pub struct InferCx<'a> {
    /// The version of the operator's domain that the model imports.
    pub opset: i64,
    attributes: &'a [Attribute],
    operands: &'a [Option<OperandFacts<'a>>],
    fresh: &'a mut dyn FnMut(usize, usize) -> Dim,
    /// By result slot; `None` where nothing is known.
    pub(super) types: Vec<Option<TensorType>>,
    pub(super) values: Vec<Option<Known>>,
}

impl<'a> InferCx<'a> {
    /// `fresh` makes a new symbol for an axis of a result.
    pub fn new(
        opset: i64,
        attributes: &'a [Attribute],
        operands: &'a [Option<OperandFacts<'a>>],
        results: usize,
        fresh: &'a mut dyn FnMut(usize, usize) -> Dim,
    ) -> Self {
        InferCx {
            opset,
            attributes,
            operands,
            fresh,
            types: vec![None; results],
            values: Vec::new(),
        }
    }

    /// The types and the values of the results, by slot; the second is empty where none is known.
    pub fn finish(self) -> (Vec<Option<TensorType>>, Vec<Option<Known>>) {
        (self.types, self.values)
    }

    // --- attributes -------------------------------------------------------------------------

    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeValue> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
            .map(|attribute| &attribute.value)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            AttributeValue::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    /// Whether an integer attribute is present and not 0.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.int_or(name, 0) != 0
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.attribute(name)? {
            AttributeValue::Ints(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn string(&self, name: &str) -> Option<&'a str> {
        match self.attribute(name)? {
            AttributeValue::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An attribute that holds ONNX's number of an element type.
    pub(super) fn dtype_attribute(&self, name: &str) -> Option<DType> {
        DType::from_number(i32::try_from(self.int(name)?).ok()?)
    }

    // --- operands ---------------------------------------------------------------------------

    /// How many operands the node lists, absent ones included.
    pub(super) fn operand_count(&self) -> usize {
        self.operands.len()
    }

    pub(super) fn result_count(&self) -> usize {
        self.types.len()
    }

    /// Whether the operand is present.
    pub(super) fn has(&self, operand: usize) -> bool {
        self.facts(operand).is_some()
    }

    fn facts(&self, operand: usize) -> Option<&'a OperandFacts<'a>> {
        self.operands.get(operand)?.as_ref()
    }

    pub(super) fn ty(&self, operand: usize) -> Option<&'a TensorType> {
        self.facts(operand)?.ty
    }

    pub(super) fn dtype(&self, operand: usize) -> Option<DType> {
        self.ty(operand).map(|ty| ty.dtype)
    }

    /// The sizes of an operand; a rank beyond [`MAX_RANK`] counts as unknown.
    pub(super) fn shape(&self, operand: usize) -> Option<&'a [Dim]> {
        let dims = self.ty(operand)?.shape.as_ref()?.0.as_slice();
        (dims.len() <= MAX_RANK).then_some(dims)
    }

    pub(super) fn rank(&self, operand: usize) -> Option<usize> {
        self.shape(operand).map(<[Dim]>::len)
    }

    /// The elements of a small operand.
    pub(super) fn known(&self, operand: usize) -> Option<Cow<'a, Known>> {
        let facts = self.facts(operand)?;
        match facts.known {
            Some(known) => Some(Cow::Borrowed(known)),
            None => Known::from_tensor(facts.constant?).map(Cow::Owned),
        }
    }

    /// The elements of a small operand, if all are numbers: axes, pads, splits.
    pub(super) fn numbers(&self, operand: usize) -> Option<Vec<i64>> {
        self.known(operand)?.numbers()
    }

    // --- results ----------------------------------------------------------------------------

    /// A size of a result that the rule cannot tell.
    pub(super) fn fresh(&mut self, result: usize, axis: usize) -> Dim {
        (self.fresh)(result, axis)
    }

    /// A shape of which only the rank is known.
    pub(super) fn fresh_shape(&mut self, result: usize, rank: usize) -> Vec<Dim> {
        (0..rank).map(|axis| self.fresh(result, axis)).collect()
    }

    /// Sets the type of a result; ignored if the node does not list so many. A size that is
    /// negative or takes too much to write down becomes a fresh one.
    pub(super) fn set(&mut self, result: usize, dtype: DType, dims: Vec<Dim>) {
        if result >= self.types.len() {
            return;
        }
        let dims = dims
            .into_iter()
            .enumerate()
            .map(|(axis, dim)| {
                if dim.size() > MAX_EXPRESSION || dim.known().is_some_and(|n| n < 0) {
                    self.fresh(result, axis)
                } else {
                    dim
                }
            })
            .collect();
        self.types[result] = Some(TensorType::new(dtype, Shape(dims)));
    }

    /// Sets the element type of a result of which not even the rank is known.
    pub(super) fn set_unranked(&mut self, result: usize, dtype: DType) {
        if let Some(slot) = self.types.get_mut(result) {
            *slot = Some(TensorType::unranked(dtype));
        }
    }

    /// Sets the type of a result with the shape if there is one.
    pub(super) fn set_maybe(&mut self, result: usize, dtype: DType, dims: Option<Vec<Dim>>) {
        match dims {
            Some(dims) => self.set(result, dtype, dims),
            None => self.set_unranked(result, dtype),
        }
    }

    /// Gives a result the type of an operand.
    pub(super) fn same_as(&mut self, result: usize, operand: usize) {
        if let (Some(slot), Some(facts)) = (
            self.types.get_mut(result),
            self.operands.get(operand).copied().flatten(),
        ) {
            *slot = facts.ty.cloned();
        }
    }

    /// Gives a result the shape of an operand with another element type.
    pub(super) fn same_shape_as(&mut self, result: usize, operand: usize, dtype: DType) {
        let dims = self.shape(operand).map(<[Dim]>::to_vec);
        self.set_maybe(result, dtype, dims);
    }

    /// The type that was inferred for a result; for folds.
    pub(super) fn result_type(&self, result: usize) -> Option<&TensorType> {
        self.types.get(result)?.as_ref()
    }

    /// The sizes of a result as numbers, if it is small enough to be followed; for folds.
    pub(super) fn small_dims(&self, result: usize) -> Option<Vec<i64>> {
        let dims = self.result_type(result)?.shape.as_ref()?.known()?;
        let elements = dims.iter().try_fold(1_i64, |n, d| n.checked_mul(*d))?;
        (elements >= 0 && elements <= MAX_ELEMENTS as i64).then_some(dims)
    }

    /// Sets the elements of a result whose type is inferred. Values that no element is known of,
    /// or that are not as many as the type says, are dropped.
    pub(super) fn set_elements(&mut self, result: usize, elements: Vec<Element>) -> Option<()> {
        let dims = self.small_dims(result)?;
        let dtype = self.result_type(result)?.dtype;
        let expected: i64 = dims.iter().product();
        let informs = elements.is_empty() || elements.iter().any(|e| *e != Element::Unknown);
        if expected as usize != elements.len() || !informs {
            return None;
        }
        if self.values.is_empty() {
            self.values = vec![None; self.types.len()];
        }
        self.values[result] = Some(Known {
            dtype,
            dims,
            elements,
        });
        Some(())
    }
}

/// A [`Mismatch`] with a formatted message.
macro_rules! mismatch {
    ($($argument:tt)*) => {
        Err($crate::ops::Mismatch(format!($($argument)*)))
    };
}
pub(super) use mismatch;
