//! A base whose weights alone are in 8 bits: training on it is training on the rounded weights.

use crate::adapters::{distance, fixtures};
use crate::tolerances::TRAINING_HALVES;
use crate::training::{
    SMOOTH, batch, compiled_spec, number, rows, run, stateful, with_kernels, with_rate,
};
use peftc::diag::Sink;
use peftc::graph::{ExternalData, Graph, TensorData, ValueId};
use peftc::runtime::{NamedTensors, Optimization, Stateful};
use peftc::ty::DType;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn compiled(more: &[&str], folder: &Path) -> Value {
    let spec = fixtures().join("quickstart/tasks.peft");
    compiled_spec(&spec, "math_task", &[SMOOTH, more].concat(), folder)
}

fn graph(path: &Path) -> Graph {
    let imported = peftc::onnx::import(path, &mut Sink::new());
    imported.unwrap().model.graph
}

fn count(graph: &Graph, op: &str) -> usize {
    let nodes = graph.node_ids();
    nodes.filter(|node| graph.node(*node).op.is(op)).count()
}

/// Matrices that products of activations read, also in bodies, and where they lie: all but tables.
fn weights(graph: &Graph) -> Vec<(usize, usize, ExternalData)> {
    let is_of_product = |id: &ValueId| {
        let mut uses = graph.uses(*id).into_iter();
        !uses.any(|(node, _)| graph.node(node).op.is("Gather"))
    };
    let ids = graph.initializers().iter().copied();
    let found = ids.filter(is_of_product).filter_map(|id| {
        let tensor = graph.value(id).constant()?;
        match (&tensor.data, &tensor.dims[..]) {
            (TensorData::External(place), [k, n]) if tensor.dtype == DType::F32 => {
                Some((*k as usize, *n as usize, place.clone()))
            }
            _ => None,
        }
    });
    found.collect()
}

/// Rounds the weights of training graphs in their file: `W[k, n]` to a multiple of a 127th of the largest
/// element of its column. Answers with how many there are.
fn round_in_place(folder: &Path) -> usize {
    let weights = weights(&graph(&folder.join("step.onnx")));
    let path = folder.join("base.data");
    let mut data = std::fs::read(&path).unwrap();
    for (k, n, place) in &weights {
        let bytes = &mut data[place.offset as usize..][..place.length as usize];
        let mut values: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
            .collect();
        assert_eq!(values.len(), k * n);
        for column in 0..*n {
            let of_column = || (0..*k).map(move |row| row * n + column);
            let largest = of_column().map(|at| values[at].abs()).fold(0.0, f32::max);
            let step = largest / 127.0;
            for at in of_column() {
                values[at] = (values[at] / step).round() * step;
            }
        }
        for (four, value) in bytes.chunks_exact_mut(4).zip(values) {
            four.copy_from_slice(&value.to_le_bytes());
        }
    }
    std::fs::write(path, data).unwrap();
    weights.len()
}

/// Three steps: what each gives, and what the last one leaves.
fn steps(mut step: Stateful) -> Vec<NamedTensors> {
    let rows = rows("math_task.train.jsonl");
    let mut found: Vec<NamedTensors> = (1..=3)
        .map(|number| {
            let at = number as usize * 8;
            run(
                &mut step,
                &with_rate(batch(&rows[at..at + 8]), 1e-2, number),
            )
        })
        .collect();
    let left = step
        .fed()
        .map(|name| (name.to_owned(), step.get(name).unwrap()));
    found.push(NamedTensors(left.collect()));
    found
}

fn assert_equal(found: &[NamedTensors], expected: &[NamedTensors], what: &str) {
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (name, expected) in expected.iter() {
            let (difference, scale) = distance(found.get(name).unwrap(), expected);
            assert!(
                difference <= TRAINING_HALVES * scale.max(1e-3),
                "{what}, step {step}, {name}: {difference} of {scale}"
            );
        }
    }
}

/// Beside the plain graphs, whose weights are rounded in their file by the formula alone.
#[test]
fn steps_are_those_of_the_rounded_weights() {
    for more in [&[][..], &["--recompute"], &["--loss-pieces", "5"]] {
        let (plain, coded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (plain, coded) = (plain.path(), coded.path());
        let of_plain = compiled(more, plain);
        let base = ["--base", "int8_weights"];
        let of_coded = compiled(&[more, &base[..]].concat(), coded);
        assert_eq!(of_coded["training"]["base"], "int8_weights");
        let own = steps(stateful(plain, &of_plain, "step", Optimization::All));
        assert!(round_in_place(plain) >= 20);
        let expected = steps(stateful(plain, &of_plain, "step", Optimization::All));
        // What is rounded shows.
        assert_ne!(number(&own[0], "loss"), number(&expected[0], "loss"));
        for optimization in [Optimization::All, Optimization::Disabled] {
            let found = steps(stateful(coded, &of_coded, "step", optimization));
            assert_equal(&found, &expected, &format!("{more:?} {optimization:?}"));
        }
        let (fused, programs) = with_kernels(coded, &of_coded, "step");
        assert!(programs >= 10, "{programs}");
        assert_equal(&steps(fused), &expected, &format!("{more:?} with kernels"));
    }
}

/// ONNX Runtime makes floats of the codes at every step: not once for all when a session opens, and not by
/// a product that rounds activations.
#[test]
fn codes_stay_codes() {
    let folder = tempfile::tempdir().unwrap();
    let quickstart = fixtures().join("quickstart");
    compiled(&["--base", "int8_weights"], folder.path());
    let written = count(&graph(&folder.path().join("step.onnx")), "DequantizeLinear");
    assert!(written > 40, "{written}");
    for more in [&[][..], &["--no-kernels"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_peftc"))
            .args(["-q", "--format", "json", "bench", "train"])
            .args([quickstart.join("tasks.peft"), quickstart.join("model.onnx")])
            .args(["--adapter", "math_task", "--base", "int8_weights"])
            .args([
                "--batch", "2", "--length", "8", "--steps", "1", "--warmup", "1",
            ])
            .args(more)
            .arg("--profile")
            .arg(folder.path().join("trace.json"))
            .output()
            .expect("peftc starts");
        assert!(output.status.success(), "{output:?}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let operators = found["operators"].as_array().unwrap();
        let ran = |op: &str| {
            let mut operators = operators.iter();
            let of = operators.find(|operator| operator["op_type"] == op);
            of.map_or(0, |operator| operator["nodes"].as_u64().unwrap())
        };
        assert_eq!(ran("DequantizeLinear"), written as u64, "{more:?}");
        for rounding in [
            "MatMulNBits",
            "DynamicQuantizeMatMul",
            "DynamicQuantizeLinear",
        ] {
            assert_eq!(ran(rounding), 0, "{rounding} {more:?}");
        }
    }
}
