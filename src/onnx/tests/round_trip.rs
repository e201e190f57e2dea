//! What is not changed is written as it was.

use super::build::*;
use super::*;
use crate::graph::{NewNode, OpName, Operand, Patch, Tensor, ValueKind};
use crate::onnx::proto::*;
use crate::ty::Dim;
use onnx_protobuf::Message as _;
use std::path::{Path, PathBuf};

/// A no-op import and export of the model gives the same bytes.
fn check_identical(model: &ModelProto) {
    let bytes = serialized(model);
    let (imported, _) = accepted_with_warnings(bytes.clone());
    assert_eq!(written(&imported.model), bytes);
}

#[test]
fn a_small_model_is_written_as_it_was() {
    check_identical(&small());
}

#[test]
fn explicit_defaults_and_every_model_field_are_kept() {
    let mut model = small();
    model.domain = text("");
    model.model_version = Some(0);
    model.doc_string = text("");
    model.metadata_props = vec![StringStringEntryProto {
        key: text("a"),
        value: None,
    }];
    model.opset_import = vec![opset("ai.onnx", 20), opset("com.microsoft", 1)];
    model.training_info = vec![TrainingInfoProto::default()];
    model.configuration = vec![DeviceConfigurationProto {
        name: text("two"),
        num_devices: Some(2),
        device: strings(&["a", "b"]),
    }];
    check_identical(&model);
}

#[test]
fn every_graph_field_is_kept() {
    check_identical(&small_with(|graph| {
        graph.doc_string = text("a graph");
        graph.quantization_annotation = vec![TensorAnnotation {
            tensor_name: text("w"),
            quant_parameter_tensor_names: Vec::new(),
        }];
        graph.metadata_props = vec![StringStringEntryProto {
            key: text("k"),
            value: text("v"),
        }];
        // Infos of initializers, of outputs and of nothing at all.
        graph.value_info.push(info("w", None));
        graph.value_info.push(info("y", None));
        graph.value_info.insert(0, info("gone", None));
    }));
}

#[test]
fn the_order_of_defaults_and_initializers_is_the_files() {
    check_identical(&small_with(|graph| {
        graph.initializer.push(floats("b", &[1]));
        graph.initializer.push(floats("a", &[1]));
        graph.input.push(info("a", Some(&[1])));
        graph.input.push(info("b", Some(&[1])));
    }));
}

#[test]
fn constants_that_early_versions_list_as_inputs_stay_listed() {
    let mut model = small_with(|graph| graph.input.insert(0, info("w", Some(&[2, 3]))));
    model.ir_version = Some(3);
    check_identical(&model);
    let imported = accepted(&model);
    let id = imported.graph.find_value("w").unwrap();
    assert!(imported.graph.value(id).constant().is_some());
}

#[test]
fn an_output_may_be_listed_twice_and_described_differently() {
    check_identical(&small_with(|graph| {
        graph.output.push(info("y", None));
        graph.output.push(info("x", None));
    }));
}

#[test]
fn unknown_fields_are_carried() {
    let mut bytes = small().encode_to_vec();
    // Field 99 of the model, a varint.
    bytes.extend([0x98, 0x06, 0x01]);
    let (imported, _) = accepted_with_warnings(Bytes::from(bytes.clone()));
    assert_eq!(written(&imported.model), bytes);
}

#[test]
fn sorted_nodes_are_written_for_unsorted_ones_and_it_is_said() {
    let model = small_with(|graph| graph.node.reverse());
    let (imported, codes) = accepted_with_warnings(serialized(&model));
    assert_eq!(codes, [Code::W0501]);
    assert_eq!(written(&imported.model), serialized(&small()));
}

#[test]
fn an_input_that_is_listed_twice_is_written_once_and_it_is_said() {
    let model = small_with(|graph| graph.input.push(graph.input[0].clone()));
    let (imported, codes) = accepted_with_warnings(serialized(&model));
    assert_eq!(codes, [Code::W0605]);
    assert_eq!(written(&imported.model), serialized(&small()));
}

#[test]
fn overridable_initializers_are_defaults_and_it_is_said_once() {
    let model = small_with(|graph| {
        graph.input.push(info("w", None));
        graph.initializer.push(floats("c", &[1]));
        graph.input.push(info("c", None));
    });
    let (imported, codes) = accepted_with_warnings(serialized(&model));
    assert_eq!(codes, [Code::W0602]);
    let graph = imported.model.graph;
    let id = graph.find_value("w").unwrap();
    assert!(matches!(
        graph.value(id).kind,
        ValueKind::Input { default: Some(_) }
    ));
}

#[test]
fn names_of_dimensions_are_symbols_and_open_ones_are_not_written() {
    let dims = |values: Vec<Option<DimensionValue>>| TensorShapeProto {
        dim: values
            .into_iter()
            .map(|value| Dimension {
                value,
                denotation: None,
            })
            .collect(),
    };
    let shape = dims(vec![
        Some(DimensionValue::DimParam("batch".to_owned())),
        None,
        Some(DimensionValue::DimValue(2)),
    ]);
    let mut model = accepted(&small_with(|graph| {
        let tensor = type_proto::Tensor {
            elem_type: Some(1),
            shape: Some(shape.clone()),
        };
        graph.input[0].r#type = Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            denotation: None,
        });
    }));
    let x = model.graph.find_value("x").unwrap();
    let ty = model.graph.value(x).ty.clone().unwrap();
    assert_eq!(ty.shape.as_ref().unwrap().0[0], Dim::symbol("batch"));
    // A new input of the same type is written with the same openness.
    let mut patch = Patch::new();
    patch.input("x2", ty, None);
    model.graph.apply(patch).unwrap();
    let again = ModelProto::decode(&written(&model)[..]).unwrap();
    assert_eq!(
        again.graph.unwrap().input[1].r#type.as_ref().unwrap().value,
        {
            Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: Some(1),
                shape: Some(shape),
            }))
        }
    );
}

#[test]
fn a_patch_changes_its_own_items_only() {
    let mut model = accepted(&small());
    let h = model.graph.find_value("h").unwrap();
    let mut patch = Patch::new();
    patch.behind(model.graph.producer(h).unwrap());
    let delta = patch.constant("delta", Tensor::from_f32(&[1], &[0.0]));
    let sum = patch.node(
        NewNode {
            op: OpName::new("", "Add"),
            name: "lora".to_owned(),
            attributes: Vec::new(),
            inputs: vec![Some(Operand::Original(h)), Some(delta)],
            metadata: Vec::new(),
        },
        None,
    );
    patch.replace_uses(h, sum);
    model.graph.apply(patch).unwrap();
    let bytes = written(&model);
    let again = onnx_protobuf::ModelProto::parse_from_bytes(&bytes).unwrap();
    let nodes: Vec<(&str, &[String], &[String])> = again
        .graph
        .node
        .iter()
        .map(|node| (node.op_type.as_str(), &node.input[..], &node.output[..]))
        .collect();
    assert_eq!(
        nodes,
        [
            (
                "MatMul",
                &strings(&["x", "w"])[..],
                &strings(&["h.base"])[..]
            ),
            ("Add", &strings(&["h.base", "delta"]), &strings(&["h"])),
            ("Relu", &strings(&["h"]), &strings(&["y"])),
        ]
    );
    assert_eq!(again.graph.initializer.len(), 2);
    assert_eq!(again.graph.initializer[1].raw_data, [0; 4]);
    // The model that was written is a good one.
    accepted_with_warnings(Bytes::from(bytes));
}

/// Every model of the fixtures, and of the folder named by `PEFTC_MODELS` if there is one.
fn corpus() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")];
    folders.extend(std::env::var_os("PEFTC_MODELS").map(PathBuf::from));
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            match path.extension() {
                Some(extension) if extension == "onnx" => found.push(path),
                _ if path.is_dir() => folders.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The independent reader agrees with ours about what a model says.
fn check_witness(path: &Path, bytes: &[u8], model: &Model) {
    let witness = onnx_protobuf::ModelProto::parse_from_bytes(bytes).unwrap();
    let name = path.display();
    assert_eq!(witness.graph.node.len(), model.graph.node_count(), "{name}");
    let order = model.graph.order().unwrap();
    for (theirs, ours) in witness.graph.node.iter().zip(order) {
        let node = model.graph.node(ours);
        assert_eq!(theirs.op_type, *node.op.op_type, "{name}");
        let operands: Vec<String> = model
            .graph
            .operands(ours)
            .iter()
            .map(|id| id.map_or(String::new(), |id| model.graph.value(id).name.to_string()))
            .collect();
        assert_eq!(theirs.input, operands, "{name}");
    }
}

#[test]
fn real_models_are_written_as_they_were() {
    let faults: Vec<String> = corpus()
        .iter()
        .filter_map(|path| {
            let fault = check_real(path).err()?;
            Some(format!("{}: {fault}", path.display()))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn check_real(path: &Path) -> Result<(), String> {
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let mut sink = Sink::new();
    let imported = import_bytes("test.onnx", bytes.clone(), &mut sink)
        .map_err(|_| sink.diagnostics()[0].message.clone())?;
    assert!(imported.model.graph.verify().is_empty());
    let out = written(&imported.model);
    let rewritten = [Code::W0501, Code::W0605];
    let is_same = !sink
        .diagnostics()
        .iter()
        .any(|d| rewritten.contains(&d.code));
    let found = onnx_protobuf::ModelProto::parse_from_bytes(&bytes).unwrap();
    if is_same && found.functions.is_empty() && out != bytes {
        return Err("written differently".to_owned());
    }
    let (again, _) = accepted_with_warnings(Bytes::from(out.clone()));
    if written(&again.model) != out {
        return Err("written differently once more".to_owned());
    }
    check_witness(path, &out, &imported.model);
    Ok(())
}
