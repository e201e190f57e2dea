//! The reference evaluator against ONNX Runtime: every fixture, as it is and with an adapter.

use crate::adapters::{distance, fixtures, outputs, recorded};
use crate::checker::{adapted, models};
use crate::inference::computed;
use crate::tolerances::{REFERENCE_RELATIVE, REFERENCE_RELATIVE_F16};
use onnx_protobuf::{GraphProto, ModelProto};
use peftc::diag::Sink;
use peftc::graph::ValueKind;
use peftc::onnx;
use peftc::reference::{self, Array, Failure, Options};
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::ty::DType;
use protobuf::Message;
use std::path::{Path, PathBuf};

pub(crate) fn array(tensor: &HostTensor) -> Array {
    reference::decode(tensor.dtype(), tensor.dims(), tensor.bytes()).unwrap()
}

/// What the reference computes for a model file.
fn evaluated(path: &Path, inputs: &NamedTensors) -> Result<NamedTensors, Failure> {
    let mut sink = Sink::new();
    let imported = onnx::import(path, &mut sink).unwrap();
    let weights = |tensor: &peftc::graph::Tensor| imported.weights.bytes(tensor).ok();
    let options = Options {
        weights: &weights,
        ..Options::default()
    };
    let graph = &imported.model.graph;
    let is_input = |name: &str| {
        let value = graph.find_value(name).map(|id| graph.value(id));
        value.is_some_and(|value| matches!(value.kind, ValueKind::Input { .. }))
    };
    let inputs: Vec<(&str, Array)> = inputs
        .iter()
        .filter(|(name, _)| is_input(name))
        .map(|(name, tensor)| (name, array(tensor)))
        .collect();
    let results = reference::run(&imported.model, &inputs, &options)?;
    let mut found = NamedTensors::default();
    for (name, result) in results {
        let dims: Vec<i64> = result.dims().iter().map(|n| *n as i64).collect();
        let raw: Vec<u8> = result
            .to_f64s()
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        found.push(name, HostTensor::new(DType::F64, &dims, raw).unwrap());
    }
    Ok(found)
}

/// The recorded inputs of a fixture.
pub(crate) fn inputs_of(name: &str, path: &Path) -> NamedTensors {
    match name {
        "quickstart" => {
            let mut all = recorded(&fixtures().join("quickstart/io.safetensors"), "");
            all.0.retain(|(name, _)| name != "logits");
            all
        }
        _ => recorded(&path.with_extension("io.safetensors"), "input."),
    }
}

/// The model with 4-bit products computed in the precision of their operands, as the reference
/// computes them: ONNX Runtime quantizes activations where `accuracy_level` is 4, and fuses
/// `DequantizeLinear` and `MatMul` into such products unless its rewriting is off.
fn exact_products(path: &Path, folder: &Path) -> PathBuf {
    fn change(graph: &mut GraphProto) {
        for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
            if attribute.name == "accuracy_level" {
                attribute.i = 0;
            }
        }
    }
    let mut proto = ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap();
    change(proto.graph.as_mut().unwrap());
    let changed = folder.join("exact.onnx");
    std::fs::write(&changed, proto.write_to_bytes().unwrap()).unwrap();
    changed
}

/// The adapted model with numbers where the adapter starts with zeros, so that it has an effect; how
/// many tensors those are.
fn with_effect(path: &Path) -> (PathBuf, usize) {
    let mut proto = ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap();
    let mut changed = 0;
    let tensors = &mut proto.graph.as_mut().unwrap().initializer;
    for tensor in tensors.iter_mut().filter(|t| t.name.ends_with(".B")) {
        changed += 1;
        let elements: i64 = tensor.dims.iter().product();
        let values = (0..elements).map(|i| 0.1 * (i as f32).sin());
        tensor.raw_data = match tensor.data_type {
            1 => values.flat_map(|x| x.to_le_bytes()).collect(),
            10 => values
                .flat_map(|x| half::f16::from_f32(x).to_le_bytes())
                .collect(),
            other => panic!("`{}` of type {other}", tensor.name),
        };
    }
    let path = path.with_file_name("with_effect.onnx");
    std::fs::write(&path, proto.write_to_bytes().unwrap()).unwrap();
    (path, changed)
}

/// The largest difference to ONNX Runtime, relative to the largest magnitude of the output.
fn check(name: &str, path: &Path, inputs: &NamedTensors) -> Result<f64, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let (path, expected) = match name.contains("int4") {
        true => {
            let path = exact_products(path, folder.path());
            let expected = computed(&path, inputs);
            (path, expected)
        }
        false => (path.to_owned(), outputs(path, inputs)),
    };
    let found = evaluated(&path, inputs)?;
    let mut worst = 0.0_f64;
    for (output, expected) in expected.iter() {
        let (difference, size) = distance(found.get(output).unwrap(), expected);
        let bound = match expected.dtype() {
            DType::F16 => REFERENCE_RELATIVE_F16,
            _ => REFERENCE_RELATIVE,
        };
        let relative = difference / size.max(f64::MIN_POSITIVE);
        assert!(
            relative <= bound,
            "{name}: `{output}` differs by {relative:e}"
        );
        worst = worst.max(relative);
    }
    Ok(worst)
}

/// Fixtures that the reference does not evaluate, with the operator that it lacks.
const LACKING: &[(&str, &str)] = &[];

#[test]
fn every_fixture_gives_what_onnx_runtime_gives() {
    let (mut lacking, mut adapters) = (Vec::new(), 0);
    for (name, path) in models() {
        let inputs = inputs_of(&name, &path);
        let folder = tempfile::tempdir().unwrap();
        let (output, changed) = with_effect(&adapted(&name, &path, folder.path()));
        adapters += usize::from(changed > 0);
        let both = check(&name, &path, &inputs)
            .and_then(|base| Ok((base, check(&name, &output, &inputs)?)));
        match both {
            Ok((base, with_adapter)) => eprintln!("{name}: {base:.1e}, adapted {with_adapter:.1e}"),
            Err(failure) => lacking.push((name, failure.to_string())),
        }
    }
    eprintln!("{lacking:#?}");
    let known = |(name, failure): &(String, String)| {
        let mut all = LACKING.iter();
        all.any(|(model, operator)| model == name && failure.contains(operator))
    };
    assert!(lacking.iter().all(known), "{lacking:#?}");
    assert_eq!(
        lacking.len(),
        LACKING.len(),
        "evaluated now: shorten the list"
    );
    // All but the two that no layer of has a name and a plain product.
    assert!(adapters >= 30, "{adapters} models with an adapter");
}
