//! Adapters on layers inside the bodies of `If`, `Loop` and `Scan`, in ONNX Runtime.

use crate::adapters::{distance, fixtures, model, outputs, recorded};
use crate::tolerances::{RECORDED_RELATIVE, START_ABSOLUTE};
use onnx_protobuf::{ModelProto, TensorProto};
use peftc::diag::Sink;
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::ty::DType;
use peftc::weights::{NamedTensor, read_tensors, write_tensors};
use protobuf::Message;
use std::path::{Path, PathBuf};
use std::process::Command;

const SPEC: &str =
    "use std::lora\nadapter a {\n  adapt all linear with lora(rank = 2, alpha = 6)\n}\n";
/// Alpha over rank.
const SCALE: f32 = 3.0;

/// What holds a body, its layers with whether their weight is `[in, out]`, and the fixture.
const FIXTURES: &[(&str, &[(&str, bool)])] = &[
    ("synthetic.if", &[("proj", true), ("side", true)]),
    (
        "synthetic.loop",
        &[("cell.state", true), ("cell.input", true)],
    ),
    (
        "synthetic.scan",
        &[("cell.state", false), ("cell.input", true)],
    ),
];

/// The fixture with LoRA on its layers, with these values or the start values.
fn adapted(name: &str, values: Option<&Path>, folder: &Path) -> PathBuf {
    let spec = folder.join("a.peft");
    std::fs::write(&spec, SPEC).unwrap();
    let mut compile = Command::new(env!("CARGO_BIN_EXE_peftc"));
    compile.arg("compile").args([&spec, &model(name)]);
    if let Some(values) = values {
        compile.arg("--values").arg(values);
    }
    let out = compile.arg("-o").arg(folder).output().unwrap();
    let talk = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {talk}");
    folder.join("model.onnx")
}

/// The adapter's tensors after a compile, `B` replaced by numbers that are not zero.
fn trained(adapter: &Path, sink: &mut Sink) -> Vec<NamedTensor> {
    let mut tensors = read_tensors(adapter, sink).unwrap();
    for tensor in tensors.iter_mut().filter(|t| t.name.ends_with(".B")) {
        let count = tensor.dims.iter().product::<i64>();
        let numbers = (0..count).map(|i| (i * 7 % 11 - 5) as f32 / 20.0);
        let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        tensor.data = bytes.into();
    }
    tensors
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.chunks_exact(4);
    words
        .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// Every initializer whose name starts with the layer's and `.weight`, in the graph and its bodies.
fn weights<'a>(proto: &'a mut ModelProto, layer: &str) -> Vec<&'a mut TensorProto> {
    let graph = proto.graph.as_mut().unwrap();
    let nodes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
    let inner = nodes.filter_map(|attribute| attribute.g.as_mut());
    let all = inner.flat_map(|body| &mut body.initializer);
    let start = format!("{layer}.weight");
    all.chain(&mut graph.initializer)
        .filter(|tensor| tensor.name.starts_with(&start))
        .collect()
}

/// The base with `scale · B A` added to the weights, computed here.
fn merged(name: &str, adapter: &[NamedTensor], folder: &Path) -> PathBuf {
    let mut proto = ModelProto::parse_from_bytes(&std::fs::read(model(name)).unwrap()).unwrap();
    let (_, layers) = FIXTURES.iter().find(|(n, _)| *n == name).unwrap();
    for (layer, transposed) in *layers {
        let find = |short: &str| {
            let wanted = format!("{layer}.{short}");
            adapter.iter().find(|t| t.name == wanted).unwrap()
        };
        let (a, b) = (find("A"), find("B"));
        let (rank, ins, outs) = (a.dims[0] as usize, a.dims[1] as usize, b.dims[0] as usize);
        let (a, b) = (floats(&a.data), floats(&b.data));
        let mut found = weights(&mut proto, layer);
        assert_eq!(found.len(), 1, "{name}: {layer}");
        let mut weight = floats(&found[0].raw_data);
        for (out, input) in (0..outs).flat_map(|out| (0..ins).map(move |input| (out, input))) {
            let sum: f32 = (0..rank)
                .map(|r| b[out * rank + r] * a[r * ins + input])
                .sum();
            let at = if *transposed {
                input * outs + out
            } else {
                out * ins + input
            };
            weight[at] += SCALE * sum;
        }
        found[0].raw_data = weight.iter().flat_map(|w| w.to_le_bytes()).collect();
    }
    let path = folder.join("merged.onnx");
    std::fs::write(&path, proto.write_to_bytes().unwrap()).unwrap();
    path
}

/// The inputs of the recording; for an `If` once for each branch.
fn inputs(name: &str) -> Vec<NamedTensors> {
    let file = format!("{name}.io.safetensors");
    let inputs = recorded(&fixtures().join("models").join(file), "input.");
    if name != "synthetic.if" {
        return vec![inputs];
    }
    let with = |flag: u8| {
        let mut all = NamedTensors::default();
        for (name, tensor) in inputs.0.clone() {
            let flag = HostTensor::new(DType::Bool, &[], vec![flag]).unwrap();
            all.push(name.clone(), if name == "flag" { flag } else { tensor });
        }
        all
    };
    vec![with(0), with(1)]
}

/// The largest difference over all outputs, and the largest magnitude.
fn differences(found: &Path, expected: &Path, inputs: &NamedTensors) -> (f64, f64) {
    let (found, expected) = (outputs(found, inputs), outputs(expected, inputs));
    assert!(expected.iter().count() > 0);
    expected
        .iter()
        .fold((0.0, 0.0), |(most, scale), (name, tensor)| {
            let (difference, magnitude) = distance(found.get(name).unwrap(), tensor);
            (f64::max(most, difference), f64::max(scale, magnitude))
        })
}

#[test]
fn layers_in_bodies_start_as_the_base() {
    for (name, _) in FIXTURES {
        let folder = tempfile::tempdir().unwrap();
        let adapted = adapted(name, None, folder.path());
        for inputs in inputs(name) {
            let (difference, _) = differences(&adapted, &model(name), &inputs);
            assert!(difference <= START_ABSOLUTE, "{name}: {difference:e}");
        }
    }
}

#[test]
fn trained_layers_in_bodies_compute_what_their_merged_weights_do() {
    for (name, _) in FIXTURES {
        let (start, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut sink = Sink::new();
        adapted(name, None, start.path());
        let tensors = trained(&start.path().join("adapter.safetensors"), &mut sink);
        let values = start.path().join("values.safetensors");
        write_tensors(&values, &tensors, ("from", "test".to_owned()), &mut sink).unwrap();
        let adapted = adapted(name, Some(&values), folder.path());
        let merged = merged(name, &tensors, folder.path());
        for inputs in inputs(name) {
            let (change, _) = differences(&adapted, &model(name), &inputs);
            assert!(change > 0.05, "{name}: the adapter changes {change:e} only");
            let (difference, scale) = differences(&adapted, &merged, &inputs);
            let bound = RECORDED_RELATIVE * scale;
            assert!(difference <= bound, "{name}: {difference:e} at {scale}");
        }
    }
}
