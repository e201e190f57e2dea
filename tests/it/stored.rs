//! Tensors in every way in which ONNX stores them: what peftc reads and writes again is what ONNX
//! Runtime reads of the original.

use crate::models::{float_value, model};
use crate::runtime::library;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
};
use peftc::diag::{Code, Sink};
use peftc::graph::{NewNode, OpName, Operand, Patch};
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

/// The model written by peftc after `w` has been renamed, so that it is no longer as it was found.
fn with_renamed_weight(bytes: &[u8]) -> Vec<u8> {
    let mut sink = Sink::new();
    let mut model = onnx::import_bytes("test.onnx", bytes.to_vec().into(), &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()))
        .model;
    let weight = model.graph.find_value("w").unwrap();
    let mut patch = Patch::new();
    let same = NewNode {
        op: OpName::new("", "Identity"),
        name: "same".to_owned(),
        attributes: Vec::new(),
        inputs: vec![Some(Operand::Original(weight))],
        metadata: Vec::new(),
    };
    let same = patch.node(same, None);
    patch.replace_uses(weight, same);
    model.graph.apply(patch).unwrap();
    let mut written = Vec::new();
    onnx::write_model(&model, &mut written).unwrap();
    written
}

/// Three elements of an element type in the field that ONNX prescribes for it.
fn typed(number: i32, fill: impl FnOnce(&mut TensorProto)) -> TensorProto {
    let mut tensor = TensorProto {
        name: "w".into(),
        data_type: number,
        dims: vec![3],
        ..Default::default()
    };
    fill(&mut tensor);
    tensor
}

fn int32(number: i32, entries: &[i32]) -> TensorProto {
    typed(number, |tensor| tensor.int32_data = entries.to_vec())
}

/// A tensor of every element type that ONNX Runtime can cast, with its elements as f32.
fn kinds() -> Vec<(TensorProto, [f32; 3])> {
    let counted = [1.0, 2.0, 3.0];
    vec![
        (typed(1, |t| t.float_data = counted.to_vec()), counted),
        (int32(2, &[1, 2, 255]), [1.0, 2.0, 255.0]),
        (int32(3, &[1, -2, -128]), [1.0, -2.0, -128.0]),
        (int32(4, &[1, 2, 65535]), [1.0, 2.0, 65535.0]),
        (int32(5, &[1, -2, -32768]), [1.0, -2.0, -32768.0]),
        (int32(6, &[1, -2, 3]), [1.0, -2.0, 3.0]),
        (
            typed(7, |t| t.int64_data = vec![1, -2, 3]),
            [1.0, -2.0, 3.0],
        ),
        (
            typed(8, |t| {
                t.string_data = vec![b"1".to_vec(), b"-2".to_vec(), b"3".to_vec()]
            }),
            [1.0, -2.0, 3.0],
        ),
        (int32(9, &[1, 0, 1]), [1.0, 0.0, 1.0]),
        // f16: 1, -2, 0.5.
        (int32(10, &[0x3c00, 0xc000, 0x3800]), [1.0, -2.0, 0.5]),
        (
            typed(11, |t| t.double_data = vec![1.0, -2.0, 3.0]),
            [1.0, -2.0, 3.0],
        ),
        (typed(12, |t| t.uint64_data = vec![1, 2, 3]), counted),
        (typed(13, |t| t.uint64_data = vec![1, 2, 3]), counted),
        // bf16: 1, -2, 0.5.
        (int32(16, &[0x3f80, 0xc000, 0x3f00]), [1.0, -2.0, 0.5]),
        // f8e4m3fn and its kin: 1, -2, 0.5.
        (int32(17, &[0x38, 0xc0, 0x30]), [1.0, -2.0, 0.5]),
        (int32(18, &[0x40, 0xc8, 0x38]), [1.0, -2.0, 0.5]),
        (int32(19, &[0x3c, 0xc0, 0x38]), [1.0, -2.0, 0.5]),
        (int32(20, &[0x40, 0xc4, 0x3c]), [1.0, -2.0, 0.5]),
        // Two to an entry, the first in the low bits; four for 2-bit types.
        (int32(21, &[0xf1, 0x03]), [1.0, 15.0, 3.0]),
        (int32(22, &[0xf1, 0x08]), [1.0, -1.0, -8.0]),
        (int32(24, &[127, 128, 126]), [1.0, 2.0, 0.5]),
        (int32(25, &[0b10_1101]), [1.0, 3.0, 2.0]),
        (int32(26, &[0b10_1101]), [1.0, -1.0, -2.0]),
    ]
}

/// `y` is `w` as f32.
fn cast(weight: TensorProto) -> Vec<u8> {
    let mut cast = node("Cast", &["w"], &["y"]);
    cast.attribute = vec![AttributeProto {
        name: "to".into(),
        type_: AttributeType::INT.into(),
        i: 1,
        ..Default::default()
    }];
    let bytes = model(GraphProto {
        name: "cast".into(),
        node: vec![cast, node("Identity", &["x"], &["z"])],
        input: vec![float_value("x", &[Ok(2)])],
        output: vec![float_value("y", &[Ok(3)]), float_value("z", &[Ok(2)])],
        initializer: vec![weight],
        ..Default::default()
    });
    let mut proto = ModelProto::parse_from_bytes(&bytes).unwrap();
    (proto.ir_version, proto.opset_import[0].version) = (13, 25);
    proto.write_to_bytes().unwrap()
}

#[test]
fn every_element_type_in_its_own_field_is_written_raw_with_the_same_elements() {
    for (tensor, expected) in kinds() {
        let number = tensor.data_type;
        let bytes = cast(tensor.clone());
        let (unchanged, codes) = through(&bytes);
        assert_eq!(codes, []);
        let unchanged = ModelProto::parse_from_bytes(&unchanged).unwrap();
        assert_eq!(unchanged.graph.initializer[0], tensor, "{number}");
        let written = with_renamed_weight(&bytes);
        let again = ModelProto::parse_from_bytes(&written).unwrap();
        let weight = &again.graph.initializer[0];
        assert_ne!(weight.name, "w");
        assert!(
            weight.int32_data.is_empty() && weight.int64_data.is_empty(),
            "{number}"
        );
        for bytes in [&bytes, &written] {
            let found = run(bytes).get("y").unwrap().to_f64s().unwrap();
            assert_eq!(found, expected.map(f64::from), "element type {number}");
        }
    }
}

/// `y = |x w|`, with changes.
fn product(change: impl FnOnce(&mut ModelProto)) -> Vec<u8> {
    let weight = TensorProto {
        name: "w".into(),
        data_type: 1,
        dims: vec![2],
        float_data: vec![-1.0, 2.0],
        ..Default::default()
    };
    let bytes = model(GraphProto {
        name: "product".into(),
        node: vec![
            node("Mul", &["x", "w"], &["h"]),
            node("Abs", &["h"], &["y"]),
        ],
        input: vec![float_value("x", &[Ok(2)])],
        output: vec![float_value("y", &[Ok(2)])],
        initializer: vec![weight],
        ..Default::default()
    });
    let mut proto = ModelProto::parse_from_bytes(&bytes).unwrap();
    change(&mut proto);
    proto.write_to_bytes().unwrap()
}

/// What peftc writes of the model is read by ONNX Runtime, and computes what it should.
#[track_caller]
fn check_product(codes: &[Code], change: impl FnOnce(&mut ModelProto)) {
    let (written, said) = through(&product(change));
    assert_eq!(said, codes);
    for bytes in [&written, &with_renamed_weight(&written)] {
        let found = run(bytes).get("y").unwrap().to_f64s().unwrap();
        assert_eq!(found, [1.0, 2.0]);
    }
}

#[test]
fn oddly_written_graphs_become_ones_that_onnx_runtime_reads() {
    check_product(&[], |_| {});
    let nodes = |model: &mut ModelProto, change: fn(&mut Vec<NodeProto>)| {
        change(&mut model.graph.as_mut().unwrap().node);
    };
    let same_name = |model: &mut ModelProto| {
        nodes(model, |all| {
            all.iter_mut().for_each(|node| node.name = "n".into())
        });
    };
    check_product(&[Code::W0609], same_name);
    check_product(&[Code::W0501], |model| nodes(model, |all| all.reverse()));
    check_product(&[], |model| {
        nodes(model, |all| {
            all.iter_mut()
                .for_each(|node| node.domain = "ai.onnx".into())
        });
        model.opset_import[0].domain = "ai.onnx".into();
    });
    check_product(&[Code::W0602], |model| {
        model
            .graph
            .as_mut()
            .unwrap()
            .input
            .push(float_value("w", &[Ok(2)]));
    });
    check_product(&[Code::W0605], |model| {
        let graph = model.graph.as_mut().unwrap();
        graph.input.push(graph.input[0].clone());
    });
}
