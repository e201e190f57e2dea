//! Adapted fixtures with their gradients, in the reference and in ONNX Runtime.

use crate::adapters::{fixtures, model};
use crate::runtime::library;
use crate::values::checkpoint;
use peftc::adapt;
use peftc::autodiff::gradients;
use peftc::diag::{Reported, Sink, SourceMap, render};
use peftc::driver::{ModelOptions, PlanOptions, Session};
use peftc::graph::{
    Attribute, Model, NewNode, OpName, Operand, Patch, Tensor, TensorData, ValueId,
};
use peftc::onnx;
use peftc::reference::{self, Array, Evaluator, Rounding};
use peftc::runtime::{
    Activations, HostTensor, ModelSource, NamedTensors, Optimization, Options, Session as Running,
};
use peftc::ty::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A model whose gradients are outputs.
pub(crate) struct Trained {
    folder: tempfile::TempDir,
    /// By parameter, the output that is its gradient.
    pub gradients: BTreeMap<String, String>,
    pub loss: String,
    /// What the parameters are.
    pub values: NamedTensors,
}

impl Trained {
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("trained.onnx")
    }
}

/// Numbers between -1 and 1 that depend on the name alone.
pub(crate) fn noise(name: &str, count: usize) -> Vec<f64> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    };
    (0..count + 8).map(|_| next()).skip(8).collect()
}

pub(crate) fn floats(name: &str, dims: &[i64], scale: f64) -> HostTensor {
    let count = dims.iter().product::<i64>() as usize;
    let noise = noise(name, count);
    let values: Vec<f32> = noise.iter().map(|v| (v * scale) as f32).collect();
    HostTensor::from_f32(dims, &values)
}

pub(crate) fn new_node(op_type: &str, inputs: &[Operand], attributes: Vec<Attribute>) -> NewNode {
    NewNode {
        op: OpName::new("", op_type),
        name: op_type.to_owned(),
        attributes,
        inputs: inputs.iter().map(|i| Some(*i)).collect(),
        metadata: Vec::new(),
    }
}

/// Appends `loss = Σ projection · output`, with the projection as an input in single precision.
pub(crate) fn project(model: &mut Model) -> ValueId {
    let output = model.graph.outputs()[0];
    let mut ty = model.graph.value(output).ty.clone().unwrap();
    ty.dtype = DType::F32;
    let mut patch = Patch::new();
    patch.behind(model.graph.producer(output).unwrap());
    let weights = patch.input("projection", ty, None);
    let to = vec![Attribute::int("to", i64::from(DType::F32.number()))];
    let wide = patch.node(new_node("Cast", &[output.into()], to), None);
    let product = patch.node(new_node("Mul", &[wide, weights], vec![]), None);
    let drop = vec![Attribute::int("keepdims", 0)];
    let loss = patch.node(new_node("ReduceSum", &[product], drop), None);
    patch.output(loss);
    let applied = model.graph.apply(patch).unwrap();
    let Operand::New(index) = loss else {
        unreachable!()
    };
    applied.values[index as usize]
}

type Differentiated = (BTreeMap<String, String>, String, NamedTensors);

/// A fixture's file.
pub(crate) fn fixture(name: &str) -> PathBuf {
    match name {
        "quickstart" => fixtures().join("quickstart/model.onnx"),
        _ => model(name),
    }
}

/// How its modules are named.
fn model_options(name: &str) -> ModelOptions {
    ModelOptions {
        weights: match name {
            // An optimizer has dropped every name.
            "llama.dynamo_ortbasic" => vec![checkpoint()],
            _ => Vec::new(),
        },
        ..ModelOptions::default()
    }
}

/// Adapts a fixture and differentiates a loss by all tensors of the adapter.
pub(crate) fn trained(
    name: &str,
    spec: &str,
    loss: impl Fn(&mut Model) -> ValueId,
    values: impl Fn(&str, &[i64]) -> HostTensor,
) -> Trained {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let folder = tempfile::tempdir().unwrap();
    let mut session = Session {
        sources: &mut sources,
        sink: &mut sink,
    };
    let result = differentiate(name, spec, folder.path(), &mut session, &loss, &values);
    let (gradients, loss, values) = result.unwrap_or_else(|_| {
        let all = sink.diagnostics().iter();
        let text: String = all
            .map(|d| render::render(d, &sources, render::Style::PLAIN))
            .collect();
        panic!("{name}: {text}")
    });
    Trained {
        folder,
        gradients,
        loss,
        values,
    }
}

fn differentiate(
    name: &str,
    spec: &str,
    folder: &Path,
    session: &mut Session<'_>,
    loss: &dyn Fn(&mut Model) -> ValueId,
    values: &dyn Fn(&str, &[i64]) -> HostTensor,
) -> Result<Differentiated, Reported> {
    let path = folder.join("spec.peft");
    std::fs::write(&path, spec).unwrap();
    let spec = session.spec(&path)?;
    let adapter = session.adapters(&spec, &[])?[0];
    let loaded = session.model(&fixture(name), &model_options(name))?;
    let (loaded, planned) = session.plan(&spec, adapter, loaded, &PlanOptions::default())?;
    let mut loaded = loaded.into_owned();
    let sink = &mut *session.sink;
    let (mut tensors, mut named) = (BTreeMap::new(), NamedTensors::default());
    for parameter in &planned.plan.parameters {
        let tensor = values(&parameter.name, &parameter.dims);
        let raw = Tensor::from_raw(DType::F32, &parameter.dims, tensor.bytes().clone());
        tensors.insert(parameter.name.clone(), raw);
        named.push(parameter.name.clone(), tensor);
    }
    let weights = &loaded.weights;
    let read = |tensor: &Tensor, sink: &mut Sink| weights.read(tensor, sink);
    let (model, modules) = (&mut loaded.model, &loaded.modules);
    let starts = adapt::Starts::new(0, &read, &tensors);
    let adapted = adapt::apply(&planned.plan, model, modules, &starts, sink)?;
    peftc::passes::infer(model, sink)?;
    let loss = loss(model);
    let trained = adapted.tensors.iter();
    let wrt: Vec<ValueId> = trained
        .map(|tensor| model.graph.find_value(&tensor.initializer).unwrap())
        .collect();
    let found = gradients(model, loss, &wrt, sink)?;
    let mut outputs = BTreeMap::new();
    for (tensor, id) in adapted.tensors.iter().zip(found) {
        model.graph.add_output(id);
        let output = model.graph.value(id).name.to_string();
        outputs.insert(tensor.initializer.clone(), output);
    }
    assert!(model.graph.verify().is_empty());
    for location in external(model) {
        let from = fixtures().join("models").join(&location);
        std::fs::copy(from, folder.join(&location)).unwrap();
    }
    onnx::save(model, &folder.join("trained.onnx"), sink)?;
    Ok((outputs, model.graph.value(loss).name.to_string(), named))
}

fn external(model: &Model) -> BTreeSet<String> {
    let graph = &model.graph;
    let tensors = graph.initializers().iter();
    tensors
        .filter_map(|id| match &graph.value(*id).tensor()?.data {
            TensorData::External(data) => Some(data.location.clone()),
            _ => None,
        })
        .collect()
}

/// What ONNX Runtime computes in single precision.
pub(crate) fn execute(
    path: &Path,
    inputs: &NamedTensors,
    optimization: Optimization,
) -> NamedTensors {
    let mut sink = Sink::new();
    let options = Options {
        optimization,
        activations: Activations::Exact,
        ..Options::default()
    };
    let opened = Running::open(library(), ModelSource::Path(path), &options, &mut sink);
    let outputs = opened.and_then(|mut session| session.run(inputs, &mut sink));
    outputs.unwrap_or_else(|_| panic!("{}: {:#?}", path.display(), sink.diagnostics()))
}

pub(crate) fn length(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// What the reference computes in double precision.
pub(crate) struct Exact<'m> {
    evaluator: Evaluator<'m>,
}

impl Exact<'_> {
    pub(crate) fn run(&self, inputs: &[(&str, Array)], names: &[&str]) -> Vec<Vec<f64>> {
        let found = self.evaluator.values(inputs, names);
        let found = found.unwrap_or_else(|why| panic!("{why}"));
        found
            .into_iter()
            .map(|(_, array)| array.to_f64s())
            .collect()
    }
}

/// Runs a check with the reference of a model file.
pub(crate) fn with_exact<T>(path: &Path, check: impl FnOnce(&Exact<'_>) -> T) -> T {
    with_reference(path, Rounding::None, check)
}

/// The same, where casts may round.
pub(crate) fn with_reference<T>(
    path: &Path,
    rounding: Rounding,
    check: impl FnOnce(&Exact<'_>) -> T,
) -> T {
    let imported = onnx::import(path, &mut Sink::new()).unwrap();
    let weights = |tensor: &Tensor| imported.weights.bytes(tensor).ok();
    let options = reference::Options {
        weights: &weights,
        rounding,
    };
    let evaluator = Evaluator::new(&imported.model, &options).unwrap();
    check(&Exact { evaluator })
}

/// Has products with few-bit weights computed in the precision of their operands, as the reference
/// computes them. Those that are differentiated are anyway.
pub(crate) fn exact_products(model: &mut Model) {
    let mut patch = Patch::new();
    for node in model.graph.node_ids() {
        patch.drop_attribute(node, "accuracy_level");
    }
    model.graph.apply(patch).unwrap();
}

/// Whether a model has an input of this name.
pub(crate) fn reads(path: &Path, input: &str) -> bool {
    let imported = onnx::import(path, &mut Sink::new()).unwrap();
    let graph = &imported.model.graph;
    let mut inputs = graph.inputs().iter();
    inputs.any(|id| &*graph.value(*id).name == input)
}
