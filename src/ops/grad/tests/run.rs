//! Running a model under test: in the reference, and in ONNX Runtime.

use super::text::bytes;
use crate::diag::Sink;
use crate::graph::Model;
use crate::onnx::write_model;
use crate::passes;
use crate::reference::{self, Array};
use crate::runtime::{
    self, HostTensor, Kernels, ModelSource, NamedTensors, Network, Optimization, Options, Session,
    Surroundings, Wanted,
};
use crate::ty::DType;

/// A tensor by name.
#[derive(Clone)]
pub(super) struct Named {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<i64>,
    pub values: Vec<f64>,
}

/// What the reference computes for the outputs.
#[track_caller]
pub(super) fn evaluate(model: &Model, inputs: &[Named]) -> Vec<Named> {
    let arrays: Vec<(&str, Array)> = inputs
        .iter()
        .map(|input| {
            let raw = bytes(input.dtype, &input.values);
            let array = reference::decode(input.dtype, &input.dims, &raw).unwrap();
            (input.name.as_str(), array)
        })
        .collect();
    let options = reference::Options::default();
    let found = reference::run(model, &arrays, &options).unwrap_or_else(|why| panic!("{why}"));
    let named = found.into_iter().map(|(name, array)| Named {
        name,
        dtype: array.dtype(),
        dims: array.dims().iter().map(|size| *size as i64).collect(),
        values: array.to_f64s(),
    });
    named.collect()
}

/// What ONNX Runtime computes for the outputs where neighbouring nodes run programs; `None` where none do.
pub(super) fn execute_fused(model: &Model, inputs: &[Named]) -> Option<Result<Vec<Named>, String>> {
    let mut model = model.clone();
    let count = passes::fuse(&mut model, &mut Sink::new()).unwrap();
    (count > 0).then(|| execute(&model, inputs, Optimization::All))
}

/// What ONNX Runtime computes for the outputs, or its words if it does not take the model.
pub(super) fn execute(
    model: &Model,
    inputs: &[Named],
    optimization: Optimization,
) -> Result<Vec<Named>, String> {
    let surroundings = Surroundings::new(|name| std::env::var_os(name), None);
    let library = runtime::ready(&surroundings, Wanted::Cpu, Network::Allowed, &mut |_| {})
        .unwrap_or_else(|diagnostic| panic!("{diagnostic:#?}"));
    let mut written = Vec::new();
    write_model(model, &mut written).unwrap();
    let options = Options {
        optimization,
        threads: std::num::NonZeroUsize::new(1),
        kernels: Kernels::On,
        ..Options::default()
    };
    let mut sink = Sink::new();
    let source = ModelSource::Bytes {
        name: "check",
        bytes: &written,
    };
    let mut given = NamedTensors::default();
    for input in inputs {
        let raw = bytes(input.dtype, &input.values);
        let tensor = HostTensor::new(input.dtype, &input.dims, raw).unwrap();
        given.push(input.name.clone(), tensor);
    }
    let opened = Session::open(library, source, &options, &mut sink);
    let outputs = opened.and_then(|mut session| session.run(&given, &mut sink));
    let outputs = outputs.map_err(|_| {
        let found = &sink.diagnostics()[0];
        format!("{} {:?}", found.message, found.notes)
    })?;
    let named = outputs.iter().map(|(name, tensor)| Named {
        name: name.to_owned(),
        dtype: tensor.dtype(),
        dims: tensor.dims().to_vec(),
        values: tensor.to_f64s().unwrap(),
    });
    Ok(named.collect())
}
