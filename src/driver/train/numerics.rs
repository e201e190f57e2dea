//! Where numbers go wrong: the first value of a step that is not finite.

use super::errors;
use super::session::Engine;
use crate::diag::{Reported, Sink};
use crate::files;
use crate::graph::{Graph, NodeId, Patch, ValueId};
use crate::onnx;
use crate::passes;
use crate::runtime::{
    Activations, HostTensor, Kernels, Library, MemoryPattern, ModelSource, NamedTensors,
    Optimization, Options, Profiling, Replay, Session,
};
use std::path::Path;
use tempfile::NamedTempFile;

/// A value that is not finite, and what it was computed from.
pub(super) struct Culprit {
    /// Such as `Exp`.
    pub op_type: String,
    pub node: String,
    pub value: String,
    /// Such as `NaN in 3 of 128 elements`.
    pub what: String,
    /// Operands with the range of their elements.
    pub operands: Vec<String>,
}

/// Runs a training graph once, node by node and with every value as an output. `None` if all are
/// finite: the optimized graph may differ in its last digits.
pub(super) fn culprit(
    file: &Path,
    inputs: &NamedTensors,
    engine: Engine,
    library: &'static Library,
    sink: &mut Sink,
) -> Result<Option<Culprit>, Reported> {
    let mut model = onnx::import(file, sink)?.model;
    passes::infer(&mut model, sink)?;
    let graph = &model.graph;
    let order = graph.order().unwrap_or_default();
    let mut patch = Patch::new();
    for value in order.iter().flat_map(|node| floats(graph, *node)) {
        if !graph.is_output(value) {
            patch.output(value.into());
        }
    }
    if let Err(why) = model.graph.apply(patch) {
        return Err(sink.emit(errors::internal(&why.to_string())));
    }
    let folder = file.parent().unwrap_or(Path::new(""));
    let make = || files::temporary().tempfile_in(folder);
    let made = files::unfinished(make, NamedTempFile::path);
    let (copy, _unfinished) =
        made.map_err(|error| sink.emit(files::cannot_write(folder, &error)))?;
    onnx::save(&model, copy.path(), sink)?;
    let options = Options {
        threads: engine.threads,
        optimization: Optimization::Disabled,
        memory_pattern: MemoryPattern::Off,
        provider: engine.provider,
        products: engine.products,
        sums: engine.sums,
        activations: Activations::Exact,
        kernels: Kernels::Off,
        profiling: Profiling::Off,
        replay: Replay::Off,
    };
    let mut session = Session::open(library, ModelSource::Path(copy.path()), &options, sink)?;
    let found = session.run(inputs, sink)?;
    Ok(first(&model.graph, &order, inputs, &found))
}

/// The results of a node that are floats of a tensor.
fn floats(graph: &Graph, node: NodeId) -> Vec<ValueId> {
    let results = graph.results(node).into_iter().flatten();
    let is_float = |value: &ValueId| {
        let ty = graph.value(*value).ty.as_ref();
        ty.is_some_and(|ty| ty.dtype.is_float())
    };
    results.filter(is_float).collect()
}

/// What is wrong with some elements, if something is.
type Fault = fn(&[f64]) -> Option<String>;

/// A name, and which numbers are of it.
type Kind = (&'static str, fn(f64) -> bool);

/// Masks are -infinity, which counts only where there is nothing else. What is infinite comes before
/// what is NaN by it.
fn first(
    graph: &Graph,
    order: &[NodeId],
    inputs: &NamedTensors,
    found: &NamedTensors,
) -> Option<Culprit> {
    let tensor = |value: ValueId| {
        let value = graph.value(value);
        found.get(&value.name).or(inputs.get(&value.name))
    };
    let kinds: [Fault; 2] = [no_number, below_zero];
    kinds.into_iter().find_map(|what| {
        order.iter().find_map(|node| {
            floats(graph, *node).into_iter().find_map(|value| {
                let what = what(&tensor(value)?.to_f64s()?)?;
                Some(Culprit {
                    op_type: graph.node(*node).op.op_type.to_string(),
                    node: graph.node(*node).name.to_string(),
                    value: graph.value(value).name.to_string(),
                    what,
                    operands: operands(graph, *node, &tensor),
                })
            })
        })
    })
}

/// How many elements are NaN or infinity, if some are.
fn no_number(values: &[f64]) -> Option<String> {
    let kinds: [Kind; 2] = [
        ("NaN", f64::is_nan),
        ("infinity", |value| value == f64::INFINITY),
    ];
    let counts = kinds.map(|(kind, is_bad)| {
        let bad = values.iter().filter(|value| is_bad(**value)).count();
        (bad > 0).then(|| format!("{kind} in {bad}"))
    });
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    (!counts.is_empty()).then(|| format!("{} of {} elements", counts.join(" and "), values.len()))
}

fn below_zero(values: &[f64]) -> Option<String> {
    let bad = values.iter().filter(|value| **value == f64::NEG_INFINITY);
    let bad = bad.count();
    (bad > 0).then(|| format!("-infinity in {bad} of {} elements", values.len()))
}

fn operands<'t>(
    graph: &Graph,
    node: NodeId,
    tensor: &dyn Fn(ValueId) -> Option<&'t HostTensor>,
) -> Vec<String> {
    let operands = graph.operands(node).into_iter().flatten();
    let shown = operands.filter_map(|value| {
        let values = tensor(value)?.to_f64s()?;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let name = &graph.value(value).name;
        Some(format!("`{name}` lies between {least:e} and {most:e}"))
    });
    shown.collect()
}
