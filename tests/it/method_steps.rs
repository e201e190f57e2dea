//! Training steps of the library's methods that do more than follow gradients, against the steps that
//! Hugging Face PEFT made (`fixtures/methods`): the training graph of a step, in double precision.

use crate::differentiated::{new_node, with_exact};
use crate::method_nets::loss;
use crate::methods::{Adapted, Case, Cases, adapted, error, named, recorded};
use crate::reference::array;
use crate::tolerances::{METHOD_GRADIENT, METHOD_STEPS};
use peftc::adapt::{Hooks, Read};
use peftc::autodiff::gradients;
use peftc::diag::Sink;
use peftc::graph::{Model, Operand, Patch, Tensor, ValueId};
use peftc::onnx;
use peftc::ops::Emitter;
use peftc::passes;
use peftc::reference::Array;
use peftc::runtime::NamedTensors;
use peftc::train::{
    Adam, Base, Memory, Optimizer, Parameter, Recipe, Role, Sgd, Task, TrainingGraph, graphs,
};
use peftc::ty::DType;
use serde_json::Value;
use std::collections::BTreeMap;

/// Gradient descent of a loss whose gradient by the output is what a label says, plain or by Adam.
fn recipe(description: &Value) -> Recipe {
    let plain = Optimizer::Sgd(Sgd {
        momentum: 0.0,
        nesterov: false,
        weight_decay: 0.0,
    });
    let epsilon = description["steps"]["epsilon"].as_f64();
    let adam = epsilon.map(|epsilon| {
        Optimizer::Adam(Adam {
            epsilon,
            ..Adam::default()
        })
    });
    Recipe {
        task: Task::Regression,
        output: Some("row".to_owned()),
        optimizer: adam.unwrap_or(plain),
        max_grad_norm: None,
        base: Base::Own,
        rates: Vec::new(),
        memory: Memory::default(),
    }
}

/// Puts the recorded loss as an output `[1, 1]` behind the model.
fn with_row(model: &mut Model, description: &Value, recording: &NamedTensors) {
    let total = loss(model, description, recording);
    let mut patch = Patch::new();
    patch.behind(model.graph.producer(total).unwrap());
    let dims = patch.constant("row.dims", Tensor::from_i64(&[2], &[1, 1]));
    let reshape = new_node("Reshape", &[Operand::Existing(total), dims], vec![]);
    let row = patch.node(reshape, None);
    patch.named_output(row, "row");
    model.graph.apply(patch).unwrap();
}

/// The graph of a step of training on the recorded loss.
fn step(
    adapted: &Adapted,
    model: &mut Model,
    description: &Value,
    recording: &NamedTensors,
) -> TrainingGraph {
    let mut sink = Sink::new();
    passes::infer(model, &mut sink).unwrap();
    with_row(model, description, recording);
    let tensors = adapted.tensors.iter().zip(&adapted.plan.parameters);
    let trained = tensors.filter(|(tensor, _)| tensor.trainable);
    let parameters = trained.map(|(tensor, planned)| Parameter {
        initializer: tensor.initializer.clone(),
        module: None,
        name: tensor.name.clone(),
        rate: planned.rate,
    });
    let hooks = Hooks::new(&adapted.plan, &adapted.loaded.modules, &adapted.tensors);
    let parameters: Vec<Parameter> = parameters.collect();
    graphs(model, &parameters, &hooks, &recipe(description), &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()))
        .step
}

fn floats(dims: &[usize], values: Vec<f64>) -> Array {
    Array::floats(DType::F32, dims, values).unwrap()
}

/// What a step is given at the start: parameters and states.
fn fed_at_start(graph: &TrainingGraph, adapted: &Adapted) -> BTreeMap<String, Array> {
    let ports = graph.inputs.iter();
    let fed = ports.filter(|port| matches!(port.role, Role::Parameter | Role::State));
    let start = fed.map(|port| {
        let dims = port.ty.shape.as_ref().unwrap().0.iter();
        let dims: Vec<usize> = dims.map(|dim| dim.known().unwrap() as usize).collect();
        let found = adapted.tensors.iter().find(|t| t.initializer == port.name);
        let values = match found {
            Some(tensor) => tensor.tensor.to_f64s().unwrap(),
            None => vec![0.0; dims.iter().product()],
        };
        (port.name.clone(), floats(&dims, values))
    });
    start.collect()
}

/// How far the parameters are off behind each of the recorded steps.
fn errors_of(cases: &Cases, case: &Case) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let (description, recording, adapted) = adapted(cases, case, folder.path());
    let mut model = adapted.loaded.model.clone();
    let graph = step(&adapted, &mut model, &description, &recording);
    let path = folder.path().join("step.onnx");
    onnx::save(&graph.model, &path, &mut Sink::new()).unwrap();
    let rate = description["steps"]["rate"].as_f64().unwrap();
    let count = description["steps"]["count"].as_i64().unwrap();
    let sites = description["sites"].as_object().unwrap().keys();
    let given: Vec<(String, Array)> = sites
        .map(|site| format!("input.{site}"))
        .map(|name| (name.clone(), array(recording.get(&name).unwrap())))
        .collect();
    let mut fed = fed_at_start(&graph, &adapted);
    with_exact(&path, |exact| {
        let run = |fed: &BTreeMap<String, Array>, label: f64, number: i64, wanted: &[&str]| {
            let mut inputs: Vec<(&str, Array)> = Vec::new();
            inputs.extend(
                given
                    .iter()
                    .map(|(name, array)| (name.as_str(), array.clone())),
            );
            inputs.extend(
                fed.iter()
                    .map(|(name, array)| (name.as_str(), array.clone())),
            );
            inputs.push(("labels", floats(&[1], vec![label])));
            inputs.push(("learning_rate", floats(&[], vec![rate])));
            let number = Array::ints(DType::I64, &[], vec![number.into()]).unwrap();
            inputs.push(("step", number));
            exact.run(&inputs, wanted)
        };
        let next: Vec<(&str, &str)> = graph
            .outputs
            .iter()
            .filter_map(|port| Some((port.name.as_str(), port.feeds.as_deref()?)))
            .collect();
        let names: Vec<&str> = next.iter().map(|(name, _)| *name).collect();
        (1..=count)
            .map(|number| {
                // A squared error of a half has a gradient of 1.
                let loss = run(&fed, 0.0, number, &["row"])[0][0];
                let found = run(&fed, loss - 0.5, number, &names);
                for ((_, input), values) in next.iter().zip(found) {
                    let dims = fed[*input].dims().to_vec();
                    fed.insert((*input).to_owned(), floats(&dims, values));
                }
                let prefix = format!("step.{number}.");
                let owners = (prefix.as_str(), &adapted.owners);
                let expected = named(cases, case, &description, &recording, owners);
                let compared = adapted.tensors.iter().filter(|tensor| tensor.trainable);
                compared
                    .map(|tensor| {
                        let values = fed[&tensor.initializer].to_f64s();
                        error(&values, &expected[&tensor.name].1)
                    })
                    .fold(0.0, f64::max)
            })
            .collect()
    })
}

#[test]
fn training_steps_are_pefts() {
    let cases = Cases::read();
    assert!(!cases.steps.is_empty());
    for case in &cases.steps {
        let errors = errors_of(&cases, case);
        let shown: Vec<String> = errors.iter().map(|error| format!("{error:.1e}")).collect();
        println!("| {} | {} |", case.recording, shown.join(" "));
        let far = errors.iter().position(|error| *error > METHOD_STEPS);
        if let Some(at) = far {
            panic!(
                "{}: step {} is off by {:e}",
                case.recording,
                at + 1,
                errors[at]
            );
        }
    }
}

/// How far the number that a method adds to the loss is off, and its gradients.
fn auxiliary_error(cases: &Cases, case: &Case) -> Option<f64> {
    let expected = recorded(case).1.get("auxiliary.loss")?.to_f64s().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (description, recording, adapted) = adapted(cases, case, folder.path());
    let mut model = adapted.loaded.model.clone();
    let mut sink = Sink::new();
    let hooks = Hooks::new(&adapted.plan, &adapted.loaded.modules, &adapted.tensors);
    let mut emitter = Emitter::new(model.opset("").unwrap());
    let find = |model: &Model, name: &str| model.graph.find_value(name).unwrap();
    let tensors = hooks.tensors().iter();
    let read = Read {
        tensors: tensors
            .map(|tensor| Some(find(&model, &tensor.initializer).into()))
            .collect(),
        draws: adapted
            .draws
            .iter()
            .map(|(draw, id)| (draw.clone(), (*id).into()))
            .collect(),
        ..Read::default()
    };
    let total = hooks.losses(&mut emitter, &read).expect("it has a loss");
    emitter.patch.named_output(total, "auxiliary");
    model.graph.apply(emitter.patch).unwrap();
    let total = find(&model, "auxiliary");
    let names: Vec<String> = hooks.in_losses().into_iter().map(str::to_owned).collect();
    let wrt: Vec<ValueId> = names.iter().map(|name| find(&model, name)).collect();
    let found = gradients(&mut model, total, &wrt, &mut sink).unwrap();
    let mut wanted = vec!["auxiliary".to_owned()];
    for id in found {
        model.graph.add_output(id);
        wanted.push(model.graph.value(id).name.to_string());
    }
    let path = folder.path().join("auxiliary.onnx");
    onnx::save(&model, &path, &mut sink).unwrap();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let found = with_exact(&path, |exact| exact.run(&[], &wanted));
    let owners = ("auxiliary.gradient.", &adapted.owners);
    let gradients = named(cases, case, &description, &recording, owners);
    assert_eq!(gradients.len(), names.len(), "{}", case.recording);
    let of = |name: &String| {
        let tensor = adapted.tensors.iter().find(|t| t.initializer == *name);
        &gradients[&tensor.unwrap().name].1
    };
    let errors = names.iter().zip(&found[1..]);
    let errors = errors.map(|(name, found)| error(found, of(name)));
    Some(errors.fold(error(&found[0], &expected), f64::max))
}

#[test]
fn terms_of_the_loss_are_pefts() {
    let cases = Cases::read();
    let mut checked = 0;
    for case in &cases.cases {
        let name = &case.recording;
        if let Some(error) = auxiliary_error(&cases, case) {
            println!("| {name} | {error:.1e} |");
            assert!(error <= METHOD_GRADIENT, "{name} is off by {error:e}");
            checked += 1;
        }
    }
    assert_eq!(checked, 3);
}
