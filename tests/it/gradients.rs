//! Gradients of adapted exports, end to end.
//!
//! LoRA on all linear layers with random values, and as loss a random projection of the first
//! output. The graph that peftc emits is run in double precision (every float of the file is made a
//! double), where central differences of its own loss say what the gradients are.

use crate::adapters::{fixtures, model as fixture, recorded};
use crate::doubled::doubled;
use crate::runtime::library;
use crate::tolerances::{GRADIENT_DIFFERENCE, GRADIENT_OPTIMIZED};
use peftc::adapt;
use peftc::autodiff::gradients;
use peftc::diag::{Reported, Sink, SourceMap, render};
use peftc::driver::{ModelOptions, PlanOptions, Session};
use peftc::graph::{
    Attribute, Model, NewNode, OpName, Operand, Patch, Tensor, TensorData, ValueId,
};
use peftc::onnx;
use peftc::runtime::{
    HostTensor, ModelSource, NamedTensors, Optimization, Options, Session as Running,
};
use peftc::ty::DType;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A model whose gradients are outputs.
struct Trained {
    folder: tempfile::TempDir,
    /// By parameter, the output that is its gradient.
    gradients: BTreeMap<String, String>,
    loss: String,
    values: NamedTensors,
}

impl Trained {
    fn path(&self) -> PathBuf {
        self.folder.path().join("trained.onnx")
    }
}

/// Numbers between -1 and 1 that depend on the name alone.
fn noise(name: &str, count: usize) -> Vec<f64> {
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

fn floats(name: &str, dims: &[i64], scale: f64) -> HostTensor {
    let count = dims.iter().product::<i64>() as usize;
    let values: Vec<f32> = noise(name, count)
        .iter()
        .map(|v| (v * scale) as f32)
        .collect();
    HostTensor::from_f32(dims, &values)
}

fn new_node(op_type: &str, inputs: &[Operand], attributes: Vec<Attribute>) -> NewNode {
    NewNode {
        op: OpName::new("", op_type),
        name: op_type.to_owned(),
        attributes,
        inputs: inputs.iter().map(|i| Some(*i)).collect(),
        metadata: Vec::new(),
    }
}

/// Appends `loss = Σ projection · output`, with the projection as an input.
fn project(model: &mut Model) -> ValueId {
    let output = model.graph.outputs()[0];
    let ty = model.graph.value(output).ty.clone().unwrap();
    let mut patch = Patch::new();
    patch.behind(model.graph.producer(output).unwrap());
    let weights = patch.input("projection", ty, None);
    let product = patch.node(new_node("Mul", &[output.into(), weights], vec![]), None);
    let drop = vec![Attribute::int("keepdims", 0)];
    let loss = patch.node(new_node("ReduceSum", &[product], drop), None);
    patch.output(loss);
    let applied = model.graph.apply(patch).unwrap();
    let Operand::New(index) = loss else {
        unreachable!()
    };
    applied.values[index as usize]
}

/// Adapts a fixture and differentiates it by all tensors of the adapter.
fn trained(name: &str, spec: &str) -> Trained {
    let (mut sources, mut sink) = (SourceMap::new(), Sink::new());
    let folder = tempfile::tempdir().unwrap();
    let result = differentiate(name, spec, folder.path(), &mut sources, &mut sink);
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

type Differentiated = (BTreeMap<String, String>, String, NamedTensors);

fn differentiate(
    name: &str,
    spec: &str,
    folder: &Path,
    sources: &mut SourceMap,
    sink: &mut Sink,
) -> Result<Differentiated, Reported> {
    let path = folder.join("spec.peft");
    std::fs::write(&path, spec).unwrap();
    let mut session = Session { sources, sink };
    let spec = session.spec(&path)?;
    let adapter = session.adapters(&spec, &[])?[0];
    let mut loaded = session.model(&fixture(name), &ModelOptions::default())?;
    let planned = session.plan(&spec, adapter, &loaded, &PlanOptions::default())?;
    let mut values = BTreeMap::new();
    let mut named = NamedTensors::default();
    for parameter in &planned.plan.parameters {
        let dims: Vec<i64> = parameter.dims.to_vec();
        let tensor = floats(&parameter.name, &dims, 0.3);
        let raw = Tensor::from_raw(DType::F32, &dims, tensor.bytes().clone());
        values.insert(parameter.name.clone(), raw);
        named.push(parameter.name.clone(), tensor);
    }
    let weights = &loaded.weights;
    let read = |tensor: &Tensor, sink: &mut Sink| {
        weights
            .bytes(tensor)
            .map_err(|diagnostic| sink.emit(*diagnostic))
    };
    let (model, modules) = (&mut loaded.model, &loaded.modules);
    let adapted = adapt::apply(&planned.plan, model, modules, 0, &read, &values, sink)?;
    peftc::passes::infer(model, sink)?;
    let loss = project(model);
    let wrt: Vec<ValueId> = adapted
        .tensors
        .iter()
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

fn external(model: &Model) -> std::collections::BTreeSet<String> {
    let graph = &model.graph;
    let tensors = graph.initializers().iter();
    tensors
        .filter_map(|id| match &graph.value(*id).tensor()?.data {
            TensorData::External(data) => Some(data.location.clone()),
            _ => None,
        })
        .collect()
}

fn open(path: &Path, optimization: Optimization) -> Running {
    let mut sink = Sink::new();
    let options = Options {
        optimization,
        ..Options::default()
    };
    Running::open(library(), ModelSource::Path(path), &options, &mut sink)
        .unwrap_or_else(|_| panic!("{}: {:#?}", path.display(), sink.diagnostics()))
}

fn run(session: &mut Running, inputs: &NamedTensors) -> NamedTensors {
    let mut sink = Sink::new();
    session
        .run(inputs, &mut sink)
        .unwrap_or_else(|_| panic!("{:#?}", sink.diagnostics()))
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

fn length(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Every gradient of a fixture in single precision, optimized and not, and in double precision
/// against central differences in a random direction.
fn check(name: &str, spec: &str) {
    let trained = trained(name, spec);
    let inputs = inputs(name);
    let plain = run(&mut open(&trained.path(), Optimization::Disabled), &inputs);
    let optimized = run(&mut open(&trained.path(), Optimization::All), &inputs);
    let exact_path = doubled(&trained.path());
    let mut exact = open(&exact_path, Optimization::Disabled);
    let inputs = crate::doubled::tensors(&inputs);
    let found = run(&mut exact, &inputs);
    let get = |tensors: &NamedTensors, name: &str| tensors.get(name).unwrap().to_f64s().unwrap();
    let scale = trained
        .gradients
        .values()
        .map(|output| length(&get(&found, output)))
        .fold(0.0, f64::max);
    for (parameter, output) in &trained.gradients {
        let gradient = get(&found, output);
        assert!(
            length(&gradient) > 0.0,
            "{name}: {parameter} has no gradient"
        );
        for run in [&plain, &optimized] {
            let difference: Vec<f64> = get(run, output)
                .iter()
                .zip(&gradient)
                .map(|(a, b)| a - b)
                .collect();
            assert!(
                length(&difference) <= GRADIENT_OPTIMIZED * scale,
                "{name}: {parameter} differs by {:e} of {scale}",
                length(&difference)
            );
        }
        let value = trained.values.get(parameter).unwrap().to_f64s().unwrap();
        let direction = noise(&format!("direction {parameter}"), value.len());
        let mut loss_at = |step: f64| {
            let moved: Vec<f64> = value
                .iter()
                .zip(&direction)
                .map(|(x, v)| x + step * v)
                .collect();
            let mut inputs = inputs.clone();
            let dims = trained.values.get(parameter).unwrap().dims();
            inputs.push(parameter.clone(), crate::doubled::tensor(dims, &moved));
            get(&run(&mut exact, &inputs), &trained.loss)[0]
        };
        let step = 1e-5;
        let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        let analytic: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
        let bound = GRADIENT_DIFFERENCE * length(&gradient) * length(&direction);
        assert!(
            (numeric - analytic).abs() <= bound,
            "{name}: along {parameter} the loss changes by {numeric}, the gradient says {analytic}"
        );
    }
}

const LORA: &str = "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 4)\n}\n";

#[test]
fn llama_of_the_dynamo_exporter() {
    check("llama.dynamo", LORA);
}
