//! What a graph looks like after the rewriting: modules in a row, and what is left over.

use crate::adapters::{compiled, model, outputs};
use crate::models::{float_value, model as proto};
use crate::tolerances::RECORDED_RELATIVE;
use onnx_protobuf::{GraphProto, ModelProto, NodeProto, TensorProto};
use peftc::diag::Sink;
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::ty::DType;
use peftc::weights::{NamedTensor, write_tensors};
use protobuf::Message;
use std::collections::BTreeSet;
use std::path::Path;

fn product(module: &str, input: &str, weight: &str, output: &str) -> NodeProto {
    NodeProto {
        name: format!("/{module}/MatMul"),
        op_type: "MatMul".into(),
        input: vec![input.into(), weight.into()],
        output: vec![output.into()],
        ..Default::default()
    }
}

fn square(name: &str, values: [f32; 4]) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: 1,
        dims: vec![2, 2],
        float_data: values.to_vec(),
        ..Default::default()
    }
}

/// `y = (x w1) w2`: the modules `a` and `b`, with nothing between them.
fn row() -> Vec<u8> {
    proto(GraphProto {
        name: "row".into(),
        node: vec![product("a", "x", "w1", "h"), product("b", "h", "w2", "y")],
        input: vec![float_value("x", &[Ok(1), Ok(2)])],
        output: vec![float_value("y", &[Ok(1), Ok(2)])],
        initializer: vec![
            square("w1", [1.0, 2.0, 3.0, 4.0]),
            square("w2", [0.5, -1.0, 1.5, 2.0]),
        ],
        ..Default::default()
    })
}

/// Two modules that read one weight: `y = x w`, `z = (x + x) w`.
fn tied() -> Vec<u8> {
    let sum = NodeProto {
        name: "sum".into(),
        op_type: "Add".into(),
        input: vec!["x".into(), "x".into()],
        output: vec!["double".into()],
        ..Default::default()
    };
    proto(GraphProto {
        name: "tied".into(),
        node: vec![
            product("a", "x", "w", "y"),
            sum,
            product("b", "double", "w", "z"),
        ],
        input: vec![float_value("x", &[Ok(1), Ok(2)])],
        output: ["y", "z"].map(|n| float_value(n, &[Ok(1), Ok(2)])).to_vec(),
        initializer: vec![square("w", [1.0, 2.0, 3.0, 4.0])],
        ..Default::default()
    })
}

fn written(folder: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join("base.onnx");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// `[1, 2]` times a row-major `[2, n]`, `n` from the length.
fn times(x: &[f64], matrix: &[f64]) -> Vec<f64> {
    let columns = matrix.len() / x.len();
    (0..columns)
        .map(|c| (0..x.len()).map(|r| x[r] * matrix[r * columns + c]).sum())
        .collect()
}

#[test]
fn a_module_reads_what_the_adapter_of_the_one_before_makes() {
    let folder = tempfile::tempdir().unwrap();
    let base = written(folder.path(), &row());
    let adapter = [
        ("a.A", [1, 2], [0.5_f64, -0.25]),
        ("a.B", [2, 1], [2.0, 1.0]),
        ("b.A", [1, 2], [-1.0, 0.75]),
        ("b.B", [2, 1], [0.5, -2.0]),
    ];
    let tensors: Vec<NamedTensor> = adapter
        .iter()
        .map(|(name, dims, values)| NamedTensor {
            name: (*name).to_owned(),
            dtype: DType::F32,
            dims: dims.to_vec(),
            data: values
                .iter()
                .flat_map(|v| (*v as f32).to_le_bytes())
                .collect::<Vec<u8>>()
                .into(),
        })
        .collect();
    let values = folder.path().join("values.safetensors");
    write_tensors(
        &values,
        &tensors,
        ("from", "test".to_owned()),
        &mut Sink::new(),
    )
    .unwrap();
    let spec =
        "use std::lora\nadapter t {\n  adapt \"a\", \"b\" with lora(rank = 1, alpha = 3)\n}\n";
    let adapted = compiled(spec, &base, Some(&values), folder.path());
    let mut inputs = NamedTensors::default();
    inputs.push("x", HostTensor::from_f32(&[1, 2], &[1.0, -2.0]));
    let found = outputs(&adapted, &inputs)
        .get("y")
        .unwrap()
        .to_f64s()
        .unwrap();

    let layer = |x: &[f64], weight: &[f64], a: &[f64], b: &[f64]| -> Vec<f64> {
        let inner = x.iter().zip(a).map(|(x, a)| x * a).sum::<f64>();
        let product = times(x, weight).into_iter();
        product.zip(b).map(|(y, b)| y + 3.0 * inner * b).collect()
    };
    let h = layer(
        &[1.0, -2.0],
        &[1.0, 2.0, 3.0, 4.0],
        &adapter[0].2,
        &adapter[1].2,
    );
    let y = layer(&h, &[0.5, -1.0, 1.5, 2.0], &adapter[2].2, &adapter[3].2);
    let scale = y.iter().fold(0.0_f64, |s, v| s.max(v.abs()));
    for (found, expected) in found.iter().zip(&y) {
        assert!(
            (found - expected).abs() <= RECORDED_RELATIVE * scale,
            "{found} is not {expected}"
        );
    }
}

/// Names of the weights and of the nodes of which no result is read.
fn left_over(path: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let model = ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap();
    let graph = model.graph;
    let read: BTreeSet<&String> = graph
        .node
        .iter()
        .flat_map(|node| &node.input)
        .chain(graph.output.iter().map(|value| &value.name))
        .collect();
    let weights = graph.initializer.iter().map(|t| t.name.clone()).collect();
    let unread = graph
        .node
        .iter()
        .filter(|node| !node.output.iter().any(|output| read.contains(output)))
        .map(|node| node.name.clone())
        .collect();
    (weights, unread)
}

#[test]
fn what_an_adapter_replaces_is_not_in_the_file() {
    for (name, statement) in [
        (
            "llama.dynamo",
            "adapt \"mlp.down_proj\" with ia3(feedforward = true)",
        ),
        ("llama.ts", "train \"lm_head\", \"model.norm\""),
        ("llama.genai_fp32", "train all norm"),
        ("bert.ts", "train all linear, \"pooler.dense\""),
        ("convnet.dynamo_bn", "train all conv"),
        ("t5.dynamo", "train \"relative_attention_bias\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let spec = format!("use std::ia3\nadapter t {{\n  {statement}\n}}\n");
        let adapted = compiled(&spec, &model(name), None, folder.path());
        let (before, after) = (left_over(&model(name)), left_over(&adapted));
        assert_eq!(before.1, after.1, "{name}: nodes without a reader");
    }
}

#[test]
fn a_replaced_weight_stays_while_another_module_reads_it() {
    for (targets, stays) in [("\"a\"", true), ("\"b\"", true), ("\"a\", \"b\"", false)] {
        let folder = tempfile::tempdir().unwrap();
        let base = written(folder.path(), &tied());
        let spec = format!("adapter t {{\n  train {targets}\n}}\n");
        let adapted = compiled(&spec, &base, None, folder.path());
        let (weights, unread) = left_over(&adapted);
        assert_eq!(weights.contains("w"), stays, "{targets}: {weights:?}");
        assert!(unread.is_empty(), "{targets}: {unread:?}");
    }
}
