//! The tensors of PEFT as those that a spec asks for.

use super::export::kernel;
use super::form::{foreign_dims, padded, transposed};
use super::sorted::{Sorted, names_of, tensor_name};
use super::{MODEL, SHARED, TOOL, errors};
use crate::adapt::{Starts, start_values};
use crate::diag::{Diagnostic, Reported, Sink};
use crate::driver::session::{Loaded, Planned};
use crate::graph::{Tensor, decode_floats};
use crate::hir::{Foreign, Form, Method};
use crate::ty::DType;
use crate::weights::NamedTensor;
use std::collections::{BTreeMap, BTreeSet};

/// Positions up to here are numbers of f32.
const EXACT: f64 = 16_777_216.0;

/// The tensors that the written spec asks for.
pub(super) fn own_tensors(
    planned: &Planned,
    loaded: &Loaded,
    sorted: &Sorted,
    method: &Method,
    sink: &mut Sink,
) -> Result<Vec<NamedTensor>, Reported> {
    let plan = &planned.plan;
    let mut found: BTreeMap<&str, NamedTensor> = BTreeMap::new();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut derived: BTreeSet<usize> = BTreeSet::new();
    for planned in &plan.sites {
        let site = &loaded.modules.sites[planned.site];
        let kernel = kernel(site, loaded);
        for at in &planned.methods {
            let foreign = at.instance.foreign.get(TOOL).map_or(&[][..], Vec::as_slice);
            for (number, index) in at.parameters.iter().enumerate() {
                let parameter = &plan.parameters[*index];
                let mut is_named = false;
                for theirs in foreign.iter().filter(|theirs| theirs.parameter == number) {
                    is_named = true;
                    if theirs.name.is_empty() {
                        derived.insert(*index);
                        continue;
                    }
                    let is_inside = parameter.module.is_some() || theirs.everywhere;
                    let tensor = match is_inside {
                        true => {
                            let key = (site.path.clone(), theirs.name.clone());
                            sorted.tensors.get(&key)
                        }
                        false => sorted.shared.get(&theirs.name),
                    };
                    let Some(tensor) = tensor else {
                        sink.emit(errors::missing(&match is_inside {
                            true => tensor_name(&site.path, &theirs.name),
                            false => format!("{SHARED}{}", theirs.name),
                        }));
                        continue;
                    };
                    used.insert(&tensor.name);
                    let axes = (kernel.as_slice(), site.in_features);
                    match own_tensor(&parameter.name, &parameter.dims, tensor, theirs, axes) {
                        Ok(ours) => match found.get(parameter.name.as_str()) {
                            Some(first) if first.data != ours.data => {
                                sink.emit(errors::not_one(&tensor.name));
                            }
                            _ => {
                                found.insert(&parameter.name, ours);
                            }
                        },
                        Err(fault) => {
                            sink.emit(fault);
                        }
                    }
                }
                if !is_named {
                    let name = format!("{MODEL}{}.{}", site.path, parameter.parameter);
                    sink.emit(errors::missing(&name));
                }
            }
        }
    }
    let all = sorted.tensors.values().chain(sorted.shared.values());
    let others = names_of(method, false);
    let matters = |tensor: &&NamedTensor| {
        let mut others = others.iter();
        !others.any(|name| tensor.name.ends_with(&format!(".{name}")))
    };
    let all = all.filter(matters);
    for tensor in all.filter(|tensor| !used.contains(tensor.name.as_str())) {
        sink.emit(errors::unknown_tensor(&tensor.name, &method.name.node));
    }
    sink.failed()?;
    if !derived.is_empty() {
        let starts = started(planned, loaded, sink)?;
        for index in derived {
            let (parameter, start) = (&plan.parameters[index], &starts[index]);
            let ours = NamedTensor {
                name: parameter.name.clone(),
                dtype: DType::F32,
                dims: parameter.dims.clone(),
                data: start.raw().cloned().unwrap_or_default(),
            };
            found.insert(&parameter.name, ours);
        }
    }
    Ok(found.into_values().collect())
}

/// What the tensors of a plan start as: those that follow from the base model stay that.
pub(super) fn started(
    planned: &Planned,
    loaded: &Loaded,
    sink: &mut Sink,
) -> Result<Vec<Tensor>, Reported> {
    let reader = |tensor: &Tensor, sink: &mut Sink| loaded.weights.read(tensor, sink);
    let nothing = BTreeMap::new();
    let starts = Starts::new(0, &reader, &nothing);
    let (plan, model, modules) = (&planned.plan, &loaded.model, &loaded.modules);
    start_values(plan, model, modules, &starts, sink)
}

fn own_tensor(
    name: &str,
    dims: &[i64],
    theirs: &NamedTensor,
    foreign: &Foreign,
    (kernel, width): (&[i64], i64),
) -> Result<NamedTensor, Diagnostic> {
    let elements = match foreign.numbers {
        DType::F32 => decode_floats(theirs.dtype, &theirs.data),
        _ => decode_positions(theirs, foreign.form, width),
    };
    let elements = elements.ok_or_else(|| match foreign.numbers {
        DType::F32 => errors::not_numbers(&theirs.name),
        _ => errors::not_positions(&theirs.name),
    })?;
    let wanted = foreign_dims(foreign.form, dims, kernel);
    // PEFT has had vectors with and without an axis of 1.
    let solid = |dims: &[i64]| {
        dims.iter()
            .copied()
            .filter(|dim| *dim != 1)
            .collect::<Vec<_>>()
    };
    let mut values: Vec<f32> = elements.into_iter().map(|value| value as f32).collect();
    let fits = foreign.padded && theirs.dims.len() == wanted.len();
    if let Some(filled) = fits
        .then(|| padded(&values, &theirs.dims, &wanted))
        .flatten()
    {
        values = filled;
    } else if solid(&wanted) != solid(&theirs.dims) {
        return Err(errors::misfit(&theirs.name, &theirs.dims, &wanted));
    }
    if let (Form::Transposed, [rows, _]) = (foreign.form, dims) {
        values = transposed(&values, *rows as usize);
    }
    Ok(NamedTensor {
        name: name.to_owned(),
        dtype: DType::F32,
        dims: dims.to_vec(),
        data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
    })
}

/// Whole numbers from 0, which PEFT has saved as floats, too.
fn decode_positions(theirs: &NamedTensor, form: Form, width: i64) -> Option<Vec<f64>> {
    let four = theirs.data.chunks_exact(4);
    let eight = theirs.data.chunks_exact(8);
    let elements: Vec<f64> = match theirs.dtype {
        DType::I32 => four
            .map(|c| f64::from(i32::from_le_bytes(c.try_into().expect("4 bytes"))))
            .collect(),
        DType::I64 => eight
            .map(|c| i64::from_le_bytes(c.try_into().expect("8 bytes")) as f64)
            .collect(),
        other => decode_floats(other, &theirs.data)?,
    };
    let elements = match form {
        Form::Places => {
            let width = width.max(1) as f64;
            let pairs = elements.into_iter();
            pairs
                .flat_map(|place| [(place / width).floor(), place % width])
                .collect()
        }
        _ => elements,
    };
    let is_position = |value: &f64| (0.0..=EXACT).contains(value) && value.fract() == 0.0;
    elements.iter().all(is_position).then_some(elements)
}
