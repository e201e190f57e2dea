//! Gradients of adapted exports, end to end.
//!
//! LoRA on all linear layers with random values, and as loss a random projection of the first
//! output. The reference evaluates the graph that peftc emits in double precision, and the adapted
//! model itself for central differences in a random direction. ONNX Runtime runs the emitted graph
//! in single precision, optimized and not.

use crate::adapters::{fixtures, model as fixture, recorded};
use crate::reference::array;
use crate::runtime::library;
use crate::tolerances::{GRADIENT_DIFFERENCE, GRADIENT_HALF, GRADIENT_SINGLE};
use peftc::adapt;
use peftc::autodiff::gradients;
use peftc::diag::{Reported, Sink, SourceMap, render};
use peftc::driver::{ModelOptions, PlanOptions, Session};
use peftc::graph::{
    Attribute, Model, NewNode, OpName, Operand, Patch, Tensor, TensorData, ValueId,
};
use peftc::onnx;
use peftc::reference::{self, Array, Evaluator};
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
    let mut loaded = session.model(&fixture(name), &ModelOptions::default())?;
    let planned = session.plan(&spec, adapter, &loaded, &PlanOptions::default())?;
    let sink = &mut *session.sink;
    let (mut tensors, mut named) = (BTreeMap::new(), NamedTensors::default());
    for parameter in &planned.plan.parameters {
        let tensor = values(&parameter.name, &parameter.dims);
        let raw = Tensor::from_raw(DType::F32, &parameter.dims, tensor.bytes().clone());
        tensors.insert(parameter.name.clone(), raw);
        named.push(parameter.name.clone(), tensor);
    }
    let weights = &loaded.weights;
    let read = |tensor: &Tensor, sink: &mut Sink| {
        weights
            .bytes(tensor)
            .map_err(|diagnostic| sink.emit(*diagnostic))
    };
    let (model, modules) = (&mut loaded.model, &loaded.modules);
    let adapted = adapt::apply(&planned.plan, model, modules, 0, &read, &tensors, sink)?;
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

/// The recorded inputs and the projection.
fn inputs(name: &str) -> NamedTensors {
    let recording = fixtures()
        .join("models")
        .join(format!("{name}.io.safetensors"));
    let mut inputs = recorded(&recording, "input.");
    let outputs = recorded(&recording, "output.");
    let (_, first) = outputs.iter().next().unwrap();
    inputs.push("projection", floats("projection", first.dims(), 1.0));
    inputs
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
    let imported = onnx::import(path, &mut Sink::new()).unwrap();
    let weights = |tensor: &Tensor| imported.weights.bytes(tensor).ok();
    let options = reference::Options {
        weights: &weights,
        ..reference::Options::default()
    };
    let evaluator = Evaluator::new(&imported.model, &options).unwrap();
    check(&Exact { evaluator })
}

/// Has products with few-bit weights computed in the precision of their operands, as the reference
/// computes them. Those that are differentiated are anyway.
fn exact_products(model: &mut Model) {
    let mut patch = Patch::new();
    for node in model.graph.node_ids() {
        patch.drop_attribute(node, "accuracy_level");
    }
    model.graph.apply(patch).unwrap();
}

/// The gradients of a fixture, checked against central differences and in ONNX Runtime.
fn check(name: &str, spec: &str) {
    let values = |parameter: &str, dims: &[i64]| floats(parameter, dims, 0.3);
    let loss = |model: &mut Model| {
        exact_products(model);
        project(model)
    };
    let trained = trained(name, spec, loss, values);
    let inputs = inputs(name);
    let parameters: Vec<&str> = trained.gradients.keys().map(String::as_str).collect();
    let outputs: Vec<&str> = trained.gradients.values().map(String::as_str).collect();
    let exact = with_exact(&trained.path(), |exact| {
        let given: Vec<(&str, Array)> = inputs.iter().map(|(name, t)| (name, array(t))).collect();
        let found = exact.run(&given, &outputs);
        along_a_direction(name, exact, &given, &trained, &parameters, &found);
        found
    });
    let scale = exact.iter().map(|g| length(g)).fold(0.0, f64::max);
    let bound = match name.contains("fp16") {
        true => GRADIENT_HALF,
        false => GRADIENT_SINGLE,
    };
    for optimization in [Optimization::Disabled, Optimization::All] {
        let found = execute(&trained.path(), &inputs, optimization);
        for ((parameter, output), exact) in parameters.iter().zip(&outputs).zip(&exact) {
            let found = found.get(output).unwrap().to_f64s().unwrap();
            let difference: Vec<f64> = found.iter().zip(exact).map(|(a, b)| a - b).collect();
            assert!(
                length(&difference) <= bound * scale,
                "{name}: the gradient of {parameter} differs by {:e} at a scale of {scale}, \
                 {optimization:?}",
                length(&difference)
            );
        }
    }
}

/// The change of the loss along a direction in which every parameter has its share.
fn along_a_direction(
    name: &str,
    exact: &Exact<'_>,
    inputs: &[(&str, Array)],
    trained: &Trained,
    parameters: &[&str],
    gradients: &[Vec<f64>],
) {
    for turn in ["first", "second"] {
        let mut directions = Vec::new();
        let (mut analytic, mut size) = (0.0, 0.0);
        for (parameter, gradient) in parameters.iter().zip(gradients) {
            let length = length(gradient);
            assert!(length > 0.0, "{name}: {parameter} has no gradient");
            let direction: Vec<f64> = noise(&format!("{turn} {parameter}"), gradient.len())
                .iter()
                .map(|v| v / length)
                .collect();
            let share: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            analytic += share;
            size += share.abs();
            directions.push(direction);
        }
        // As long as the parameters themselves differ by about the step.
        let longest = directions
            .iter()
            .flatten()
            .fold(0.0_f64, |m, v| m.max(v.abs()));
        let step = 1e-5 / longest;
        let loss_at = |step: f64| {
            let mut moved = inputs.to_vec();
            for (parameter, direction) in parameters.iter().zip(&directions) {
                let tensor = trained.values.get(parameter).unwrap();
                let values = tensor.to_f64s().unwrap();
                let values = values.iter().zip(direction).map(|(x, v)| x + step * v);
                let dims: Vec<usize> = tensor.dims().iter().map(|n| *n as usize).collect();
                let array = Array::floats(DType::F32, &dims, values.collect()).unwrap();
                moved.push((parameter, array));
            }
            exact.run(&moved, &[&trained.loss])[0][0]
        };
        let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        assert!(
            (numeric - analytic).abs() <= GRADIENT_DIFFERENCE * size,
            "{name}: the loss changes by {numeric}, the gradients say {analytic}, of {size}"
        );
    }
}

const LORA: &str = "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 4)\n}\n";

#[test]
fn lora_on_all_linear_layers_of_dynamo_exports() {
    for name in [
        "llama.dynamo",
        "llama.dynamo_external",
        "llama.dynamo_noopt",
        "llama.fp16.dynamo",
        "qwen2.dynamo",
        "gpt2.dynamo",
        "bert.dynamo",
        "t5.dynamo",
        "vit.dynamo",
    ] {
        check(name, LORA);
    }
}

#[test]
fn lora_on_all_linear_layers_of_torchscript_exports() {
    for name in [
        "llama.ts",
        "llama.ts_nofold",
        "llama.optimum_past",
        "qwen2.ts",
        "gpt2.ts",
        "bert.ts",
        "t5.ts",
        "t5.optimum_encoder",
        "vit.ts",
    ] {
        check(name, LORA);
    }
}

#[test]
fn lora_on_all_linear_layers_of_the_genai_builder() {
    for name in [
        "llama.genai_fp32",
        "llama.genai_int4",
        "llama.genai_int4_qdq",
    ] {
        check(name, LORA);
    }
}
