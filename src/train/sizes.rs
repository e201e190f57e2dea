//! How large the values of a graph are for a batch.

use crate::graph::Graph;
use crate::ty::{Dim, Symbol, TensorType};
use rustc_hash::FxHashSet;

/// The sizes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSizes {
    pub rows: usize,
    /// Of a row.
    pub tokens: usize,
}

impl Default for BatchSizes {
    /// What decides where no batch is known.
    fn default() -> Self {
        BatchSizes {
            rows: 4,
            tokens: 256,
        }
    }
}

/// Numbers for the sizes that a graph leaves open.
pub(super) struct Sizes {
    batch: BatchSizes,
    /// The symbols of first axes of inputs.
    rows: FxHashSet<Symbol>,
}

impl Sizes {
    /// The first axis of an input is that of rows, other open sizes are those of tokens.
    pub fn of(graph: &Graph, batch: BatchSizes) -> Sizes {
        let inputs = graph.inputs().iter();
        let types = inputs.filter_map(|input| graph.value(*input).ty.as_ref());
        let firsts = types.filter_map(|ty| ty.shape.as_ref()?.0.first()?.as_symbol().cloned());
        let rows = firsts.collect();
        Sizes { batch, rows }
    }

    fn dim(&self, dim: &Dim) -> u64 {
        let number = |symbol: &Symbol| {
            let size = match self.rows.contains(symbol) {
                true => self.batch.rows,
                false => self.batch.tokens,
            };
            Some(Dim::from(i64::try_from(size).unwrap_or(i64::MAX)))
        };
        let size = dim.substitute(&number).known().unwrap_or(1);
        u64::try_from(size).unwrap_or(0)
    }

    /// Bytes of a value; 0 where its shape is not known.
    pub fn bytes(&self, ty: &TensorType) -> u64 {
        let Some(shape) = &ty.shape else {
            return 0;
        };
        let sizes = shape.0.iter().map(|dim| self.dim(dim));
        let elements = sizes.fold(1_u64, u64::saturating_mul);
        ty.dtype.byte_len(elements).unwrap_or(0)
    }
}
