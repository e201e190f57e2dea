//! Small constant tensors whose elements may be symbolic: the values of shape arithmetic.

use crate::graph::Tensor;
use crate::ty::{DType, Dim};

/// The largest tensor whose elements are followed.
pub const MAX_ELEMENTS: usize = 256;

/// The largest expression that is followed; see [`Dim::size`]. Anything larger counts as unknown.
pub const MAX_EXPRESSION: usize = 64;

/// A tensor of known sizes whose elements are known in part.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub dtype: DType,
    pub dims: Vec<i64>,
    /// Row-major, as many as the dimensions say.
    pub elements: Vec<Element>,
}

/// One element of a known tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    Unknown,
    /// An integer, also where it is held as a float; booleans are 0 and 1.
    Int(Dim),
    /// A float that is no integer.
    Float(f64),
}

impl Element {
    /// The dimension, if it is an integer of which something is known.
    pub fn int(&self) -> Option<&Dim> {
        match self {
            Element::Int(dim) => Some(dim),
            _ => None,
        }
    }

    /// The number, if it is an integer without symbols.
    pub fn number(&self) -> Option<i64> {
        self.int().and_then(Dim::known)
    }

    /// The number as a float, if it has no symbols.
    pub fn float(&self) -> Option<f64> {
        match self {
            Element::Float(value) => Some(*value),
            Element::Int(dim) => dim.known().map(|value| value as f64),
            Element::Unknown => None,
        }
    }

    /// An element from a float: an integer if it is one.
    pub fn from_float(value: f64) -> Element {
        // Beyond 2^53 a float no longer tells integers apart.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
            Element::Int(Dim::from(value as i64))
        } else {
            Element::Float(value)
        }
    }

    /// The element, or unknown if it takes too much to write down.
    pub fn bounded(dim: Dim) -> Element {
        if dim.size() > MAX_EXPRESSION {
            Element::Unknown
        } else {
            Element::Int(dim)
        }
    }
}

impl Known {
    /// A tensor of one axis.
    pub fn vector(dtype: DType, elements: Vec<Element>) -> Self {
        Known {
            dtype,
            dims: vec![elements.len() as i64],
            elements,
        }
    }

    /// A tensor without axes.
    pub fn scalar(dtype: DType, element: Element) -> Self {
        Known {
            dtype,
            dims: Vec::new(),
            elements: vec![element],
        }
    }

    /// Reads a small inline constant; `None` for large ones, strings and data in other files.
    pub fn from_tensor(tensor: &Tensor) -> Option<Self> {
        if tensor.elements() > MAX_ELEMENTS as u64 {
            return None;
        }
        let elements = match tensor.to_i64s() {
            Some(values) => values
                .into_iter()
                .map(|value| Element::Int(Dim::from(value)))
                .collect(),
            None => tensor
                .to_f64s()?
                .into_iter()
                .map(Element::from_float)
                .collect(),
        };
        Some(Known {
            dtype: tensor.dtype,
            dims: tensor.dims.clone(),
            elements,
        })
    }

    /// The only element, whatever the rank.
    pub fn single(&self) -> Option<&Element> {
        match self.elements.as_slice() {
            [element] => Some(element),
            _ => None,
        }
    }

    /// Every element as a number, if all are.
    pub fn numbers(&self) -> Option<Vec<i64>> {
        self.elements.iter().map(Element::number).collect()
    }
}
