//! Tensors in every way in which ONNX stores them: what peftc reads and writes again is what ONNX
//! Runtime reads of the original.

use crate::models::{float_value, model};
use crate::runtime::library;
use onnx_protobuf::{GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};
use peftc::diag::{Code, Sink};
use peftc::onnx;
use peftc::runtime::{HostTensor, ModelSource, NamedTensors, Options, Session};
use protobuf::Message;

/// What ONNX Runtime computes from the ones `x: f32[2]`.
fn run(bytes: &[u8]) -> NamedTensors {
    let mut sink = Sink::new();
    let source = ModelSource::Bytes {
        name: "test",
        bytes,
    };
    let inputs = NamedTensors(vec![("x".into(), HostTensor::from_f32(&[2], &[1.0; 2]))]);
    Session::open(library(), source, &Options::default(), &mut sink)
        .and_then(|mut session| session.run(&inputs, &mut sink))
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()))
}

/// The model as peftc reads and writes it, with the codes of what it says.
fn through(bytes: &[u8]) -> (Vec<u8>, Vec<Code>) {
    let mut sink = Sink::new();
    let imported = onnx::import_bytes("test.onnx", bytes.to_vec().into(), &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()));
    let mut written = Vec::new();
    onnx::write_model(&imported.model, &mut written).unwrap();
    let codes = sink.diagnostics().iter().map(|d| d.code).collect();
    (written, codes)
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    NodeProto {
        op_type: op.into(),
        input: strings(inputs),
        output: strings(outputs),
        ..Default::default()
    }
}

/// A matrix of three rows and two columns with the values 1, 2, … at these indices.
fn sparse(name: &str, indices: &[i64], dims: &[i64]) -> SparseTensorProto {
    let count = dims[0];
    let values = TensorProto {
        name: name.into(),
        data_type: 1,
        dims: vec![count],
        float_data: (1..=count).map(|i| i as f32).collect(),
        ..Default::default()
    };
    let indices = TensorProto {
        data_type: 7,
        dims: dims.to_vec(),
        int64_data: indices.to_vec(),
        ..Default::default()
    };
    SparseTensorProto {
        values: Some(values).into(),
        indices: Some(indices).into(),
        dims: vec![3, 2],
        ..Default::default()
    }
}

#[test]
fn sparse_initializers_are_the_dense_ones_that_onnx_runtime_makes_of_them() {
    let bytes = model(GraphProto {
        name: "sparse".into(),
        node: vec![
            node("Add", &["x", "flat"], &["a"]),
            node("Mul", &["a", "rows"], &["y"]),
        ],
        input: vec![float_value("x", &[Ok(2)])],
        output: vec![
            float_value("a", &[Ok(3), Ok(2)]),
            float_value("y", &[Ok(3), Ok(2)]),
        ],
        sparse_initializer: vec![
            sparse("flat", &[1, 4, 5], &[3]),
            sparse("rows", &[0, 1, 2, 0], &[2, 2]),
        ],
        ..Default::default()
    });
    let (written, codes) = through(&bytes);
    assert_eq!(codes, [Code::W0606]);
    let proto = ModelProto::parse_from_bytes(&written).unwrap();
    assert_eq!(proto.graph.sparse_initializer.len(), 0);
    assert_eq!(proto.graph.initializer.len(), 2);
    let expected = run(&bytes);
    let sums = expected.get("a").unwrap().to_f64s().unwrap();
    assert_eq!(sums, [1.0, 2.0, 1.0, 1.0, 3.0, 4.0]);
    assert_eq!(run(&written).0, expected.0);
}
