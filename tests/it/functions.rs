//! Local functions: inlined models compute what the functions computed, and adapters go into calls.

use crate::adapters::{compiled, distance, fixtures, model, outputs, recorded};
use crate::tolerances::{RECORDED_RELATIVE, START_ABSOLUTE};
use peftc::diag::Sink;
use peftc::onnx;
use peftc::weights::{read_tensors, write_tensors};

/// The recorded inputs and outputs of a fixture, or either.
fn recording(name: &str, prefix: &str) -> peftc::runtime::NamedTensors {
    let file = format!("{name}.io.safetensors");
    recorded(&fixtures().join("models").join(file), prefix)
}

#[test]
fn an_inlined_model_computes_what_was_recorded() {
    for name in ["synthetic.function", "synthetic.function_attributes"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inlined.onnx");
        let mut sink = Sink::new();
        let imported = onnx::import(&model(name), &mut sink).unwrap();
        onnx::save(&imported.model, &path, &mut sink).unwrap();
        let found = outputs(&path, &recording(name, "input."));
        let expected = recording(name, "output.");
        assert!(expected.iter().count() > 0);
        for (output, tensor) in expected.iter() {
            let (difference, scale) = distance(found.get(output).unwrap(), tensor);
            assert!(
                difference <= RECORDED_RELATIVE * scale,
                "{name}: {difference:e}"
            );
        }
    }
}

#[test]
fn both_calls_of_a_function_are_adapted() {
    const SPEC: &str = "use std::lora\nadapter a {\n  adapt \"fc*\" with lora(rank = 2)\n}\n";
    let name = "synthetic.function";
    let folder = tempfile::tempdir().unwrap();
    let inputs = recording(name, "input.");
    let base = outputs(&model(name), &inputs);
    let difference = |values: Option<&std::path::Path>| {
        let adapted = compiled(SPEC, &model(name), values, folder.path());
        let found = outputs(&adapted, &inputs);
        distance(found.get("y").unwrap(), base.get("y").unwrap()).0
    };
    assert!(difference(None) <= START_ABSOLUTE);
    let mut sink = Sink::new();
    let start = folder.path().join("out/adapter.safetensors");
    let start = read_tensors(&start, &mut sink).unwrap();
    for call in ["fc1", "fc2"] {
        let mut tensors = start.clone();
        let b = tensors
            .iter_mut()
            .find(|tensor| tensor.name == format!("{call}.B"))
            .unwrap();
        b.data = 0.5f32.to_le_bytes().repeat(b.data.len() / 4).into();
        let values = folder.path().join(format!("{call}.safetensors"));
        write_tensors(&values, &tensors, ("a", "b".to_owned()), &mut sink).unwrap();
        assert!(difference(Some(&values)) > 1e-2, "{call}");
    }
}
