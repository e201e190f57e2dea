//! What the model states and what is inferred become one type.

use super::symbols::{is_open, mentions_open};
use crate::ty::{Dim, Proof, Shape, TensorType};

/// A statement of the model that cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    ElementType,
    Shape,
}

/// The inferred type with what only the statement tells, and whether the two contradict.
pub(super) fn merge(stated: &TensorType, inferred: TensorType) -> (TensorType, Option<Conflict>) {
    if stated.dtype != inferred.dtype {
        return (inferred, Some(Conflict::ElementType));
    }
    let (Some(stated_shape), Some(shape)) = (&stated.shape, &inferred.shape) else {
        let shape = inferred.shape.or_else(|| stated.shape.clone());
        return (TensorType { shape, ..inferred }, None);
    };
    if stated_shape == shape {
        return (inferred, None);
    }
    if stated_shape.rank() != shape.rank() {
        return (inferred, Some(Conflict::Shape));
    }
    let mut conflict = None;
    let dims = stated_shape
        .0
        .iter()
        .zip(&shape.0)
        .map(|(stated, inferred)| {
            if tells_more(stated, inferred) {
                return stated.clone();
            }
            if stated.compare(inferred) == Proof::Different {
                conflict = Some(Conflict::Shape);
            }
            inferred.clone()
        });
    let ty = TensorType::new(inferred.dtype, Shape(dims.collect()));
    (ty, conflict)
}

/// Whether the statement says something of a size that inference could not tell.
fn tells_more(stated: &Dim, inferred: &Dim) -> bool {
    match stated.known() {
        Some(_) => mentions_open(inferred),
        None => is_open(inferred) && !mentions_open(stated),
    }
}

/// A type that is true of both; `None` where nothing is known of one of them.
pub(super) fn join(
    a: Option<&TensorType>,
    b: Option<&TensorType>,
    mut fresh: impl FnMut(usize) -> Dim,
) -> Option<TensorType> {
    let (a, b) = (a?, b?);
    if a.dtype != b.dtype {
        return None;
    }
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) if a.rank() == b.rank() => {
            let pairs = a.0.iter().zip(&b.0).enumerate();
            let dims = pairs.map(|(axis, (a, b))| if a == b { a.clone() } else { fresh(axis) });
            Some(Shape(dims.collect()))
        }
        _ => None,
    };
    Some(TensorType {
        dtype: a.dtype,
        shape,
    })
}
