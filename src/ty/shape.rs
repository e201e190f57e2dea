//! Shapes and tensor types.

use super::{DType, Dim, Proof};
use std::fmt;

/// The dimensions of a tensor of known rank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    pub fn new(dims: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        Shape(dims.into_iter().map(Into::into).collect())
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements.
    pub fn elements(&self) -> Dim {
        self.0
            .iter()
            .fold(Dim::from(1), |product, dim| product * dim.clone())
    }

    /// Every dimension as a number, if all are known.
    pub fn known(&self) -> Option<Vec<i64>> {
        self.0.iter().map(Dim::known).collect()
    }

    /// Whether two shapes are the same: different when the ranks or any pair of dimensions differ.
    pub fn compare(&self, other: &Shape) -> Proof {
        if self.rank() != other.rank() {
            return Proof::Different;
        }
        self.0
            .iter()
            .zip(&other.0)
            .fold(Proof::Equal, |proof, (a, b)| proof.and(a.compare(b)))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, dim) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// Element type and, where the rank is known, shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: DType,
    /// `None` when not even the rank is known.
    pub shape: Option<Shape>,
}

impl TensorType {
    pub fn new(dtype: DType, shape: Shape) -> Self {
        TensorType {
            dtype,
            shape: Some(shape),
        }
    }

    pub fn unranked(dtype: DType) -> Self {
        TensorType { dtype, shape: None }
    }

    /// Whether two types are the same; unknown where a rank is not known.
    pub fn compare(&self, other: &TensorType) -> Proof {
        if self.dtype != other.dtype {
            return Proof::Different;
        }
        match (&self.shape, &other.shape) {
            (Some(a), Some(b)) => a.compare(b),
            _ => Proof::Unknown,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            Some(shape) => write!(f, "{}{shape}", self.dtype),
            None => write!(f, "{}[?]", self.dtype),
        }
    }
}
