//! What a session takes and gives: names and types of its inputs and outputs.

use super::raw;
use crate::ty::{Dim, Shape, TensorType};
use ort::value::{Outlet, ValueType};

/// An input or output of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// `None` when the value is a sequence, a map or an optional. A dimension without a name and
    /// size is a symbol of its own, `<name>.<axis>`.
    pub ty: Option<TensorType>,
    /// ONNX Runtime's words for the type, for messages.
    pub words: String,
}

impl Port {
    pub(super) fn new(outlet: &Outlet) -> Port {
        Port::from_type(outlet.name(), outlet.dtype())
    }

    pub(super) fn from_type(name: &str, ty: &ValueType) -> Port {
        Port {
            name: name.to_owned(),
            ty: tensor_type(name, ty),
            words: ty.to_string(),
        }
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.ty {
            Some(ty) => write!(f, "{}: {ty}", self.name),
            None => write!(f, "{}: {}", self.name, self.words),
        }
    }
}

fn tensor_type(name: &str, ty: &ValueType) -> Option<TensorType> {
    let ValueType::Tensor {
        ty,
        shape,
        dimension_symbols,
    } = ty
    else {
        return None;
    };
    let dims = shape.iter().enumerate().map(|(axis, size)| {
        let symbol = dimension_symbols.get(axis).map_or("", |s| s.as_str());
        match size {
            0.. => Dim::from(*size),
            _ if symbol.is_empty() => Dim::symbol(&format!("{name}.{axis}")),
            _ => Dim::symbol(symbol),
        }
    });
    let dtype = raw::dtype(*ty)?;
    // ONNX Runtime says the same of a scalar and of a tensor of unknown rank.
    Some(if shape.is_empty() {
        TensorType::unranked(dtype)
    } else {
        TensorType::new(dtype, Shape(dims.collect()))
    })
}
