//! Models in double precision: every float of a file is made a double.

use onnx_protobuf::{
    AttributeProto, GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto,
};
use peftc::runtime::{HostTensor, NamedTensors};
use peftc::ty::DType;
use protobuf::Message;
use std::path::{Path, PathBuf};

const FLOAT: i32 = 1;
const DOUBLE: i32 = 11;

/// Writes the model beside itself, in double precision. Initializers become inputs with a default,
/// so that a run can give them another value.
pub fn doubled(path: &Path) -> PathBuf {
    let mut model = ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap();
    let folder = path.parent().unwrap();
    let graph = model.graph.as_mut().unwrap();
    double_graph(graph, folder);
    let listed: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    for tensor in &graph.initializer {
        if tensor.data_type == DOUBLE && !listed.contains(&tensor.name) {
            graph.input.push(described(tensor));
        }
    }
    let to = path.with_extension("double.onnx");
    std::fs::write(&to, model.write_to_bytes().unwrap()).unwrap();
    to
}

fn described(tensor: &TensorProto) -> ValueInfoProto {
    let mut ty = TypeProto::new();
    let inner = ty.mut_tensor_type();
    inner.elem_type = tensor.data_type;
    let shape = inner.shape.mut_or_insert_default();
    for dim in &tensor.dims {
        let mut one = onnx_protobuf::tensor_shape_proto::Dimension::new();
        one.set_dim_value(*dim);
        shape.dim.push(one);
    }
    ValueInfoProto {
        name: tensor.name.clone(),
        type_: Some(ty).into(),
        ..Default::default()
    }
}

fn double_graph(graph: &mut GraphProto, folder: &Path) {
    graph
        .initializer
        .iter_mut()
        .for_each(|tensor| double_tensor(tensor, folder));
    graph.value_info.clear();
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(ty) = value.type_.as_mut() {
            let inner = ty.mut_tensor_type();
            if inner.elem_type == FLOAT {
                inner.elem_type = DOUBLE;
            }
        }
    }
    for node in &mut graph.node {
        let op = node.op_type.clone();
        for attribute in &mut node.attribute {
            double_attribute(&op, attribute, folder);
        }
    }
}

fn double_attribute(op: &str, attribute: &mut AttributeProto, folder: &Path) {
    if let Some(graph) = attribute.g.as_mut() {
        double_graph(graph, folder);
    }
    if let Some(tensor) = attribute.t.as_mut() {
        double_tensor(tensor, folder);
    }
    let names_type = matches!(
        (op, attribute.name.as_str()),
        ("Cast", "to") | (_, "dtype" | "stash_type")
    );
    if names_type && attribute.i == i64::from(FLOAT) {
        attribute.i = i64::from(DOUBLE);
    }
    if op == "Constant" && attribute.name.starts_with("value_float") {
        let values: Vec<f64> = match attribute.name.as_str() {
            "value_float" => vec![f64::from(attribute.f)],
            _ => attribute.floats.iter().map(|v| f64::from(*v)).collect(),
        };
        let dims = match attribute.name.as_str() {
            "value_float" => vec![],
            _ => vec![values.len() as i64],
        };
        *attribute = AttributeProto {
            name: "value".into(),
            type_: onnx_protobuf::attribute_proto::AttributeType::TENSOR.into(),
            t: Some(TensorProto {
                dims,
                data_type: DOUBLE,
                double_data: values,
                ..Default::default()
            })
            .into(),
            ..Default::default()
        };
    }
}

fn double_tensor(tensor: &mut TensorProto, folder: &Path) {
    if tensor.data_type != FLOAT {
        return;
    }
    let raw = match tensor.external_data.is_empty() {
        true => tensor.raw_data.clone(),
        false => read_external(tensor, folder),
    };
    let values: Vec<f64> = match raw.is_empty() {
        true => tensor.float_data.iter().map(|v| f64::from(*v)).collect(),
        false => raw
            .chunks_exact(4)
            .map(|c| f64::from(f32::from_le_bytes(c.try_into().unwrap())))
            .collect(),
    };
    *tensor = TensorProto {
        name: tensor.name.clone(),
        dims: tensor.dims.clone(),
        data_type: DOUBLE,
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    };
}

fn read_external(tensor: &TensorProto, folder: &Path) -> Vec<u8> {
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|entry| entry.key == key);
        found.map(|entry| entry.value.clone())
    };
    let bytes = std::fs::read(folder.join(entry("location").unwrap())).unwrap();
    let start: usize = entry("offset").map_or(0, |text| text.parse().unwrap());
    let length: usize = entry("length").unwrap().parse().unwrap();
    bytes[start..start + length].to_vec()
}

pub fn tensor(dims: &[i64], values: &[f64]) -> HostTensor {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    HostTensor::new(DType::F64, dims, bytes).unwrap()
}

/// The tensors with doubles for floats.
pub fn tensors(all: &NamedTensors) -> NamedTensors {
    let mut doubled = NamedTensors::default();
    for (name, found) in all.iter() {
        let found = match found.dtype() {
            DType::F32 => tensor(found.dims(), &found.to_f64s().unwrap()),
            _ => found.clone(),
        };
        doubled.push(name, found);
    }
    doubled
}
