//! Where inputs start from: files of this repository.

use crate::targets::{Seeds, Target};
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use protobuf::Message;
use std::path::{Path, PathBuf};

/// Weights above this size say nothing to a reader of structure.
const LARGEST_WEIGHT: usize = 4096;

/// The inputs of a target, in the order of the names of their files.
pub fn of(target: &Target) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found: Vec<Vec<u8>> = match target.seeds {
        Seeds::Files(places) => places
            .iter()
            .flat_map(|(folder, ending)| below(&root.join(folder), ending))
            .collect(),
        Seeds::Made(make) => make(),
    };
    assert!(
        !found.is_empty(),
        "{} has something to start from",
        target.name
    );
    found
}

fn below(folder: &Path, ending: &str) -> Vec<Vec<u8>> {
    let wanted = |path: &Path| path.to_string_lossy().ends_with(ending);
    let found = files(folder).into_iter().filter(|(path, _)| wanted(path));
    match ending {
        ".onnx" => found.map(|(_, bytes)| without_weights(bytes)).collect(),
        _ => found.map(|(_, bytes)| bytes).collect(),
    }
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}

/// The model with its large initializers in a file that is not there.
fn without_weights(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(mut model) = ModelProto::parse_from_bytes(&bytes) else {
        return bytes;
    };
    if let Some(graph) = model.graph.as_mut() {
        let mut offset = 0;
        move_out(graph, &mut offset);
    }
    model.write_to_bytes().unwrap()
}

fn move_out(graph: &mut GraphProto, offset: &mut usize) {
    for tensor in &mut graph.initializer {
        if tensor.raw_data.len() > LARGEST_WEIGHT {
            refer(tensor, *offset);
            *offset += tensor.raw_data.len().next_multiple_of(LARGEST_WEIGHT);
            tensor.raw_data.clear();
        }
    }
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            let one = attribute.g.as_mut().into_iter();
            for inner in one.chain(&mut attribute.graphs) {
                move_out(inner, offset);
            }
        }
    }
}

fn refer(tensor: &mut TensorProto, offset: usize) {
    let length = tensor.raw_data.len().to_string();
    let entries = [
        ("location", "w.bin".to_owned()),
        ("offset", offset.to_string()),
        ("length", length),
    ];
    tensor.data_location = DataLocation::EXTERNAL.into();
    tensor.external_data = entries
        .map(|(key, value)| StringStringEntryProto {
            key: key.to_owned(),
            value,
            ..Default::default()
        })
        .to_vec();
}
