//! What the model stores of a module, as a method sees it: weight and bias in torch's layout.

use super::apply::graph_at;
use super::errors;
use super::initial::WeightReader;
use super::numeric::Dense;
use super::plan::PlannedParameter;
use super::refusal::excerpt;
use crate::diag::{Diagnostic, Reported, Sink};
use crate::graph::{Graph, Model, Tensor, ValueId, ValueKind, decode_floats};
use crate::modules::{Layout, Scope, Site, SiteKind};

/// The base weight in torch's layout, less what the parameter's slice leaves out.
pub(super) fn base_weight(
    site: &Site,
    parameter: &PlannedParameter,
    model: &Model,
    weights: &WeightReader<'_>,
    sink: &mut Sink,
) -> Result<Dense, Reported> {
    let graph = graph_at(model, &site.scope);
    let stored = (&site.weight.scope, site.weight.value);
    let values = floats(site, stored, parameter, model, weights, sink)?;
    let torch_layout = (site.weight.layout == Layout::OutIn) != is_transposed(graph, site);
    let rows = parameter_rows(site, parameter);
    let (input, output) = (site.in_features as usize, total_outputs(values.len(), site));
    let dense = match site.kind {
        SiteKind::Norm => {
            return Ok(Dense {
                dims: vec![values.len()],
                data: values,
            });
        }
        SiteKind::Embedding => {
            let columns = rows.len();
            let data = values
                .chunks(site.out_features as usize)
                .flat_map(|row| &row[rows.clone()])
                .copied()
                .collect();
            return Ok(Dense {
                dims: vec![input, columns],
                data,
            });
        }
        SiteKind::Conv => {
            let rows = site.out_features as usize;
            return Ok(Dense {
                dims: vec![rows, values.len() / rows.max(1)],
                data: values,
            });
        }
        _ if torch_layout => Dense {
            dims: vec![rows.len(), input],
            data: values[rows.start * input..rows.end * input].to_vec(),
        },
        _ => {
            let data = rows
                .clone()
                .flat_map(|row| (0..input).map(move |column| (row, column)))
                .map(|(row, column)| values[column * output + row])
                .collect();
            Dense {
                dims: vec![rows.len(), input],
                data,
            }
        }
    };
    Ok(dense)
}

/// Output features of the whole weight, of which a fused member has a part.
fn total_outputs(elements: usize, site: &Site) -> usize {
    elements / (site.in_features as usize).max(1)
}

/// The rows of the whole weight that belong to the module, or to the part of it that is adapted.
pub(super) fn parameter_rows(site: &Site, parameter: &PlannedParameter) -> std::ops::Range<usize> {
    let own = site.slice.clone().unwrap_or(0..site.out_features);
    match &parameter.slice {
        Some(part) => (own.start + part.start) as usize..(own.start + part.end) as usize,
        None => own.start as usize..own.end as usize,
    }
}

pub(super) fn base_bias(
    site: &Site,
    bias: ValueId,
    parameter: &PlannedParameter,
    model: &Model,
    weights: &WeightReader<'_>,
    sink: &mut Sink,
) -> Result<Dense, Reported> {
    let values = floats(site, (&site.scope, bias), parameter, model, weights, sink)?;
    let rows = parameter_rows(site, parameter);
    let data = values
        .get(rows.clone())
        .map_or(values.clone(), <[f64]>::to_vec);
    Ok(Dense {
        dims: vec![data.len()],
        data,
    })
}

fn floats(
    site: &Site,
    (scope, value): (&Scope, ValueId),
    parameter: &PlannedParameter,
    model: &Model,
    weights: &WeightReader<'_>,
    sink: &mut Sink,
) -> Result<Vec<f64>, Reported> {
    let Some(tensor) = constant(model, scope, value) else {
        return Err(sink.emit(unusable(site, parameter, model, "it is not a constant")));
    };
    let bytes = weights(tensor, sink)?;
    match decode_floats(tensor.dtype, &bytes) {
        Some(values) => Ok(values),
        None => {
            let why = format!("its type is {}", tensor.dtype);
            Err(sink.emit(unusable(site, parameter, model, &why)))
        }
    }
}

pub(super) fn unusable(
    site: &Site,
    parameter: &PlannedParameter,
    model: &Model,
    why: &str,
) -> Diagnostic {
    errors::unreadable_weight(parameter.span, &site.path, why).excerpt(excerpt(model, site))
}

/// The constant behind a value; a captured one is looked up in the graphs around it.
pub(super) fn constant<'m>(model: &'m Model, scope: &Scope, value: ValueId) -> Option<&'m Tensor> {
    let graph = graph_at(model, scope);
    let found = graph.value(value);
    if !matches!(found.kind, ValueKind::Captured) {
        return found.tensor();
    }
    (0..scope.0.len()).rev().find_map(|depth| {
        let outer = graph_at(model, &Scope(scope.0[..depth].to_vec()));
        outer.value(outer.find_value(&found.name)?).tensor()
    })
}

/// Whether an odd number of transposes lies between the initializer and the site's operand.
fn is_transposed(graph: &Graph, site: &Site) -> bool {
    let mut value = site.weight.operand;
    let mut odd = false;
    while value != site.weight.value {
        let Some(node) = graph.producer(value) else {
            break;
        };
        odd ^= graph.node(node).op.is("Transpose");
        let Some(operand) = graph.operand(node, 0) else {
            break;
        };
        value = operand;
    }
    odd
}
