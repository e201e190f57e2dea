//! Dense tensors: floats in f64 whatever width is declared, integers and booleans exact.

use super::fault::{Fault, mismatch, unsupported};
use super::sizes::count;
use crate::ty::DType;

/// A dense row-major tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// As declared; floats are held in f64 all the same.
    dtype: DType,
    dims: Vec<usize>,
    elements: Elements,
}

/// The elements by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    Floats(Vec<f64>),
    /// Integers, within the range of their type; booleans are 0 and 1.
    Ints(Vec<i128>),
}

/// The two kinds of elements that are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int,
}

/// The kind of a type; strings and complex numbers have none.
pub(super) fn kind(dtype: DType) -> Result<Kind, Fault> {
    match dtype {
        DType::String | DType::Complex64 | DType::Complex128 => {
            unsupported!("tensors of type {dtype}")
        }
        DType::Bool => Ok(Kind::Int),
        _ if dtype.is_int() => Ok(Kind::Int),
        _ => Ok(Kind::Float),
    }
}

/// An integer as its type holds it: the low bits; a boolean is 1 unless it is 0.
pub(super) fn wrap(dtype: DType, value: i128) -> i128 {
    let bits = dtype.bits();
    match dtype {
        DType::Bool => i128::from(value != 0),
        _ if bits == 0 || bits >= 128 => value,
        DType::U2 | DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
            value & ((1 << bits) - 1)
        }
        _ => (value << (128 - bits)) >> (128 - bits),
    }
}

/// The least and the greatest value of an integer type.
pub(super) fn range(dtype: DType) -> (i128, i128) {
    let bits = dtype.bits();
    match dtype {
        DType::Bool => (0, 1),
        DType::U2 | DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
            (0, (1 << bits) - 1)
        }
        _ => (
            -(1 << (bits.clamp(1, 64) - 1)),
            (1 << (bits.clamp(1, 64) - 1)) - 1,
        ),
    }
}

/// Rearranges elements of either kind with the same code: `each!(array, |data| …)`.
macro_rules! each {
    ($array:expr, |$data:ident| $body:expr) => {
        match $array.elements() {
            $crate::reference::Elements::Floats($data) => {
                $crate::reference::Elements::Floats($body)
            }
            $crate::reference::Elements::Ints($data) => $crate::reference::Elements::Ints($body),
        }
    };
}
pub(super) use each;

impl Array {
    /// A float tensor. `Err` when the type is no float or the dimensions ask for another number
    /// of elements.
    pub fn floats(dtype: DType, dims: &[usize], data: Vec<f64>) -> Result<Array, Fault> {
        Array::new(dtype, dims, Elements::Floats(data))
    }

    /// An integer or boolean tensor; the numbers are cut to the width of the type.
    pub fn ints(dtype: DType, dims: &[usize], data: Vec<i128>) -> Result<Array, Fault> {
        Array::new(dtype, dims, Elements::Ints(data))
    }

    /// A boolean tensor.
    pub fn bools(dims: &[usize], data: Vec<bool>) -> Result<Array, Fault> {
        let data = data.into_iter().map(i128::from).collect();
        Array::ints(DType::Bool, dims, data)
    }

    /// An i64 tensor of one axis.
    pub fn vector(values: &[i64]) -> Array {
        Array {
            dtype: DType::I64,
            dims: vec![values.len()],
            elements: Elements::Ints(values.iter().map(|v| i128::from(*v)).collect()),
        }
    }

    /// A float without axes.
    pub fn scalar(dtype: DType, value: f64) -> Result<Array, Fault> {
        Array::floats(dtype, &[], vec![value])
    }

    pub(super) fn new(
        dtype: DType,
        dims: &[usize],
        mut elements: Elements,
    ) -> Result<Array, Fault> {
        let expected = count(dims)?;
        let found = match &mut elements {
            Elements::Floats(data) => data.len(),
            Elements::Ints(data) => {
                data.iter_mut().for_each(|v| *v = wrap(dtype, *v));
                data.len()
            }
        };
        let fits = match elements {
            Elements::Floats(_) => kind(dtype)? == Kind::Float,
            Elements::Ints(_) => kind(dtype)? == Kind::Int,
        };
        if !fits {
            return mismatch!("the elements of a tensor are not of its type, {dtype}");
        }
        if expected != found {
            return mismatch!("{found} elements in a tensor of {dims:?}");
        }
        Ok(Array {
            dtype,
            dims: dims.to_vec(),
            elements,
        })
    }

    /// A tensor of zeros of any type that is evaluated.
    pub(super) fn zeros(dtype: DType, dims: &[usize]) -> Result<Array, Fault> {
        let elements = match kind(dtype)? {
            Kind::Float => Elements::Floats(vec![0.0; count(dims)?]),
            Kind::Int => Elements::Ints(vec![0; count(dims)?]),
        };
        Array::new(dtype, dims, elements)
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::Floats(data) => data.len(),
            Elements::Ints(data) => data.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The elements of a float tensor.
    pub fn as_floats(&self) -> Result<&[f64], Fault> {
        match &self.elements {
            Elements::Floats(data) => Ok(data),
            Elements::Ints(_) => mismatch!("a tensor of type {}, floats are needed", self.dtype),
        }
    }

    /// The elements of an integer or boolean tensor.
    pub fn as_ints(&self) -> Result<&[i128], Fault> {
        match &self.elements {
            Elements::Ints(data) => Ok(data),
            Elements::Floats(_) => {
                mismatch!("a tensor of type {}, integers are needed", self.dtype)
            }
        }
    }

    /// The elements as floats, whatever they are.
    pub fn to_f64s(&self) -> Vec<f64> {
        match &self.elements {
            Elements::Floats(data) => data.clone(),
            Elements::Ints(data) => data.iter().map(|v| *v as f64).collect(),
        }
    }

    /// The elements as i64; `Err` for floats and for numbers beyond i64.
    pub fn to_i64s(&self) -> Result<Vec<i64>, Fault> {
        let narrow = |value: &i128| {
            i64::try_from(*value)
                .map_err(|_| Fault::Mismatch(format!("the number {value} is too large")))
        };
        self.as_ints()?.iter().map(narrow).collect()
    }

    /// The same elements in another shape.
    pub fn reshaped(self, dims: &[usize]) -> Result<Array, Fault> {
        if count(dims)? != self.len() {
            return mismatch!("{} elements into a shape of {dims:?}", self.len());
        }
        Ok(Array {
            dims: dims.to_vec(),
            ..self
        })
    }

    /// The same elements under another type of their kind; integers are cut to its width.
    pub(super) fn typed(self, dtype: DType) -> Result<Array, Fault> {
        Array::new(dtype, &self.dims, self.elements)
    }

    /// A float tensor with a function applied to each element.
    pub(super) fn map(&self, f: impl Fn(f64) -> f64) -> Result<Array, Fault> {
        let data = self.as_floats()?.iter().map(|x| f(*x)).collect();
        Array::floats(self.dtype, &self.dims, data)
    }

    /// The elements at flat positions, in a new shape.
    pub(super) fn pick(&self, dims: &[usize], positions: &[usize]) -> Result<Array, Fault> {
        let elements = each!(self, |data| gather(data, positions)?);
        Array::new(self.dtype, dims, elements)
    }

    /// As [`Array::pick`], with the only element of `fill` where there is no position.
    pub(super) fn pick_or(
        &self,
        dims: &[usize],
        positions: &[Option<usize>],
        fill: &Array,
    ) -> Result<Array, Fault> {
        let elements = match (&self.elements, &fill.elements) {
            (Elements::Floats(data), Elements::Floats(fill)) => {
                Elements::Floats(gather_or(data, positions, fill)?)
            }
            (Elements::Ints(data), Elements::Ints(fill)) => {
                Elements::Ints(gather_or(data, positions, fill)?)
            }
            _ => return mismatch!("{} among elements of type {}", fill.dtype, self.dtype),
        };
        Array::new(self.dtype, dims, elements)
    }
}

fn gather<T: Copy>(data: &[T], positions: &[usize]) -> Result<Vec<T>, Fault> {
    let one = |position: &usize| data.get(*position).copied().ok_or_else(outside);
    positions.iter().map(one).collect()
}

fn gather_or<T: Copy>(
    data: &[T],
    positions: &[Option<usize>],
    fill: &[T],
) -> Result<Vec<T>, Fault> {
    let [fill] = fill else {
        return mismatch!("{} elements to fill with, 1 is needed", fill.len());
    };
    let one = |position: &Option<usize>| match position {
        Some(position) => data.get(*position).copied().ok_or_else(outside),
        None => Ok(*fill),
    };
    positions.iter().map(one).collect()
}

/// A position beyond the data: the walk that made it did not look at its bounds.
pub(super) fn outside() -> Fault {
    Fault::Mismatch("an index beyond the data".to_owned())
}
