//! The tensors of an adapter, as a file has them.

use super::errors;
use super::training::tensor_name;
use crate::adapt::Plan;
use crate::diag::{Reported, Sink};
use crate::graph::Tensor;
use crate::train::PlannedHead;
use crate::ty::DType;
use crate::weights::read_tensors;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The tensors of an adapter file: exactly those of the plan and of the head, in f32.
pub fn trained_values(
    plan: &Plan,
    head: Option<&PlannedHead>,
    path: &Path,
    sink: &mut Sink,
) -> Result<BTreeMap<String, Tensor>, Reported> {
    let (values, missing) = given_values(plan, head, path, sink)?;
    for name in missing {
        sink.emit(errors::missing_tensor(path, &name));
    }
    sink.failed()?;
    Ok(values)
}

/// Some tensors of an adapter, in f32, which the others do without.
pub(super) fn started_values(
    plan: &Plan,
    head: Option<&PlannedHead>,
    path: &Path,
    sink: &mut Sink,
) -> Result<BTreeMap<String, Tensor>, Reported> {
    let (values, _) = given_values(plan, head, path, sink)?;
    sink.failed()?;
    Ok(values)
}

/// The tensors of an adapter that a file has, each of the adapter's shape, and the names of those that
/// it lacks.
fn given_values(
    plan: &Plan,
    head: Option<&PlannedHead>,
    path: &Path,
    sink: &mut Sink,
) -> Result<(BTreeMap<String, Tensor>, Vec<String>), Reported> {
    let mut wanted: Vec<(String, Vec<i64>)> = Vec::new();
    wanted.extend(
        plan.parameters
            .iter()
            .map(|p| (p.name.clone(), p.dims.clone())),
    );
    if let Some(head) = head {
        let parameters = head.parameters().into_iter();
        wanted.extend(parameters.map(|(name, dims)| (tensor_name(head, name), dims)));
    }
    let mut values = BTreeMap::new();
    let mut given = BTreeSet::new();
    for tensor in read_tensors(path, sink)? {
        given.insert(tensor.name.clone());
        let Some((_, dims)) = wanted.iter().find(|(name, _)| *name == tensor.name) else {
            let known = wanted.iter().map(|(name, _)| name.as_str());
            sink.emit(errors::unknown_tensor(path, &tensor.name, known));
            continue;
        };
        if tensor.dims != *dims || tensor.dtype != DType::F32 {
            sink.emit(errors::tensor_does_not_fit(
                path,
                &tensor.name,
                tensor.dtype,
                &tensor.dims,
                dims,
            ));
            continue;
        }
        values.insert(
            tensor.name,
            Tensor::from_raw(tensor.dtype, &tensor.dims, tensor.data),
        );
    }
    let missing = wanted.into_iter().map(|(name, _)| name);
    let missing = missing.filter(|name| !given.contains(name)).collect();
    Ok((values, missing))
}
