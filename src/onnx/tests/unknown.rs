//! Fields that ONNX does not define are reported, carried, and never dropped silently.

use super::build::*;
use super::*;
use crate::graph::{NewNode, OpName, Operand, Patch, Tensor};
use crate::onnx::proto::*;
use crate::onnx::save;
use crate::onnx::schema::{self, Schema, Unknown};
use crate::onnx::wire::{Payload, Records, put_header};

/// Field 99, a varint.
const RECORD: [u8; 3] = [0x98, 0x06, 0x01];

/// The message with one more field in it and in every message in it.
fn sprinkled(schema: &Schema, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in Records::new(bytes).map(Result::unwrap) {
        let inner = schema.nested.iter().find(|(f, _)| *f == record.field);
        match (inner, record.value) {
            (Some((field, inner)), Payload::Bytes(range)) => {
                let message = sprinkled(inner, &bytes[range]);
                put_header(*field, message.len() as u64, &mut out);
                out.extend(message);
            }
            _ => out.extend(&bytes[record.place]),
        }
    }
    out.extend(RECORD);
    out
}

fn entry() -> Vec<StringStringEntryProto> {
    vec![StringStringEntryProto {
        key: text("k"),
        value: text("v"),
    }]
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto {
        name: text(name),
        r#type: Some(kind),
        doc_string: text("an attribute"),
        ..AttributeProto::default()
    }
}

fn sparse() -> SparseTensorProto {
    SparseTensorProto {
        values: Some(floats("s", &[0])),
        indices: None,
        dims: vec![2],
    }
}

/// Attributes of every type but graphs.
fn attributes() -> Vec<AttributeProto> {
    let mut all = vec![
        attribute("int", attribute_type::INT),
        attribute("t", attribute_type::TENSOR),
    ];
    all[0].i = Some(3);
    all[1].t = Some(TensorProto {
        metadata_props: entry(),
        doc_string: text("a tensor"),
        ..floats("", &[1])
    });
    let mut tensors = attribute("tensors", attribute_type::TENSORS);
    tensors.tensors = vec![floats("", &[1]), floats("", &[2])];
    let mut one = attribute("sparse", attribute_type::SPARSE_TENSOR);
    one.sparse_tensor = Some(sparse());
    let mut ty = attribute("type", attribute_type::TYPE_PROTO);
    ty.tp = info("x", Some(&[1])).r#type;
    all.extend([tensors, one, ty]);
    all
}

/// [`small`] with an item of every kind; its first node computes `h`.
fn rich() -> ModelProto {
    let body = GraphProto {
        node: vec![node("MatMul", &["x", "w"], &["b"])],
        name: text("body"),
        initializer: vec![floats("inner", &[1])],
        output: vec![info("b", None)],
        ..GraphProto::default()
    };
    let mut model = small_with(|graph| {
        graph.node[0].metadata_props = entry();
        graph.node[0].attribute = attributes();
        graph.node[0].device_configurations = vec![NodeDeviceConfigurationProto {
            configuration_id: text("two"),
            sharding_spec: vec![ShardingSpecProto::default()],
            pipeline_stage: Some(1),
        }];
        graph.metadata_props = entry();
        graph.quantization_annotation = vec![TensorAnnotation {
            tensor_name: text("w"),
            quant_parameter_tensor_names: entry(),
        }];
        let mut choice = node("If", &["x"], &["c"]);
        choice.attribute = vec![attribute("then_branch", attribute_type::GRAPH)];
        choice.attribute[0].g = Some(body.encode_to_vec().into());
        graph.node.push(choice);
    });
    model.metadata_props = entry();
    model.training_info = vec![TrainingInfoProto {
        algorithm: Some(body),
        ..TrainingInfoProto::default()
    }];
    model.configuration = vec![DeviceConfigurationProto::default()];
    model
}

fn unknown(bytes: &[u8]) -> Unknown {
    let mut all = Unknown::default();
    all.count(&schema::MODEL, bytes);
    all
}

fn total(unknown: &Unknown) -> usize {
    unknown.0.values().sum()
}

fn sprinkled_rich() -> Bytes {
    let bytes = Bytes::from(sprinkled(&schema::MODEL, &rich().encode_to_vec()));
    let all = unknown(&bytes);
    assert!(all.0.keys().all(|(_, field)| *field == 99));
    assert!(all.0.len() >= 16 && total(&all) > 50, "{all:?}");
    bytes
}

#[test]
fn unknown_fields_are_reported_and_written_as_they_were() {
    let bytes = sprinkled_rich();
    let mut sink = Sink::new();
    let imported = import_bytes("test.onnx", bytes.clone(), &mut sink).unwrap();
    let [one] = sink.diagnostics() else {
        panic!("{:#?}", sink.diagnostics())
    };
    assert_eq!(one.code, Code::W0607);
    for words in [
        "99 of `AttributeProto` (6 times)",
        "99 of `GraphProto` (3 times)",
    ] {
        assert!(one.message.contains(words), "{}", one.message);
    }
    assert_eq!(written(&imported.model), bytes);
}

/// Imports the bytes, puts a node behind the first one, and compares what is lost with what is said.
#[test]
fn what_is_written_anew_keeps_its_unknown_fields_or_says_so() {
    let before = sprinkled_rich();
    let mut sink = Sink::new();
    let mut model = import_bytes("test.onnx", before.clone(), &mut sink)
        .unwrap()
        .model;
    let graph = &mut model.graph;
    let add = |inputs| NewNode {
        op: OpName::new("", "Add"),
        name: "new".to_owned(),
        attributes: Vec::new(),
        inputs,
        metadata: Vec::new(),
    };
    // The first node computes another name then, and so does the weight.
    for name in ["h", "w"] {
        let value = graph.find_value(name).unwrap();
        let mut patch = Patch::new();
        let delta = patch.constant("delta", Tensor::from_f32(&[1], &[0.0]));
        let sum = patch.node(add(vec![Some(Operand::Original(value)), Some(delta)]), None);
        patch.replace_uses(value, sum);
        graph.apply(patch).unwrap();
    }
    let choice = graph.producer(graph.find_value("c").unwrap()).unwrap();
    graph.edit_subgraph(choice, 0, 0, |body| {
        let value = body.find_value("b").unwrap();
        let mut patch = Patch::new();
        let sum = patch.node(
            add(vec![
                Some(Operand::Original(value)),
                Some(Operand::Original(value)),
            ]),
            None,
        );
        patch.replace_uses(value, sum);
        body.apply(patch).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let mut sink = Sink::new();
    save(&model, &path, &mut sink).unwrap();
    let after = std::fs::read(&path).unwrap();
    let (had, has) = (unknown(&before), unknown(&after));
    let lost: Vec<(&str, usize)> = had
        .0
        .iter()
        .map(|(key, count)| (key.0, count - has.0.get(key).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect();
    // The entries of the first node's metadata and of a tensor's metadata.
    assert_eq!(lost, [("StringStringEntryProto", 2)]);
    let [one] = sink.diagnostics() else {
        panic!("{:#?}", sink.diagnostics())
    };
    assert_eq!(one.code, Code::W0608);
    assert!(
        one.message
            .ends_with("99 of `StringStringEntryProto` (2 times)"),
        "{}",
        one.message
    );
    // What the IR does not hold is kept, too.
    let again = ModelProto::decode(&after[..]).unwrap().graph.unwrap();
    let mut nodes = again.node.iter();
    let node = nodes.find(|node| node.output == ["h.base"]).unwrap();
    assert_eq!(node.device_configurations.len(), 1);
    assert!(node.attribute.iter().all(|a| a.doc_string.is_some()));
    assert_eq!(
        node.attribute[1].t.as_ref().unwrap().doc_string,
        text("a tensor")
    );
    assert_eq!(
        node.attribute[3].sparse_tensor,
        rich().graph.unwrap().node[0].attribute[3].sparse_tensor
    );
}

#[test]
fn unknown_fields_of_a_sparse_initializer_are_lost_and_it_is_said() {
    let model = small_with(|graph| graph.sparse_initializer = vec![sparse()]);
    let bytes = Bytes::from(sprinkled(&schema::MODEL, &model.encode_to_vec()));
    let (_, codes) = accepted_with_warnings(bytes);
    assert_eq!(codes, [Code::W0606, Code::W0607, Code::W0608]);
}
