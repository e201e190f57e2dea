//! Names of sizes that nothing is known of.

use crate::ty::{Dim, Shape, Symbol, TensorType};
use rustc_hash::FxHashSet;

/// Makes open symbols, no two of the same name.
#[derive(Default)]
pub(super) struct Symbols {
    taken: FxHashSet<Symbol>,
}

impl Symbols {
    /// A new size of an axis of a value. Branches may have values of the same name: later ones
    /// get a number.
    pub(super) fn open(&mut self, value: &str, axis: usize) -> Dim {
        let dim = Dim::open(value, axis);
        if self.take(&dim) {
            return dim;
        }
        (2..)
            .map(|number: u32| Dim::open(&format!("{value}#{number}"), axis))
            .find(|dim| self.take(dim))
            .expect("some number is free")
    }

    fn take(&mut self, dim: &Dim) -> bool {
        dim.as_symbol()
            .is_some_and(|symbol| self.taken.insert(symbol.clone()))
    }

    /// A stated type with open sizes of its own: what a subgraph states may be named alike
    /// elsewhere.
    pub(super) fn own(&mut self, value: &str, stated: &TensorType) -> TensorType {
        let Some(shape) = &stated.shape else {
            return stated.clone();
        };
        let dims = shape.0.iter().enumerate().map(|(axis, dim)| {
            if is_open(dim) {
                self.open(value, axis)
            } else {
                dim.clone()
            }
        });
        TensorType::new(stated.dtype, Shape(dims.collect()))
    }
}

/// Whether a size is one that the model does not name.
pub(super) fn is_open(dim: &Dim) -> bool {
    dim.as_symbol().is_some_and(Symbol::is_open)
}

/// Whether a size depends on one that the model does not name.
pub(super) fn mentions_open(dim: &Dim) -> bool {
    dim.known().is_none() && dim.symbols().iter().any(Symbol::is_open)
}
