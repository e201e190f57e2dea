//! Tensors and types: sizes, data and places that contradict each other.

use super::graph::some;
use super::{EDGES, any_name};
use crate::random::Random;
use crate::text;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::tensor_shape_proto::{Dimension, dimension};
use onnx_protobuf::type_proto::{Optional, Sequence, SparseTensor, Tensor, Value};
use onnx_protobuf::{
    GraphProto, SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
};
use protobuf::MessageField;

const LOCATIONS: &[&str] = &[
    "w.bin",
    "./w.bin",
    "m.onnx",
    "../w.bin",
    "/etc/passwd",
    "",
    ".",
    "none.bin",
    "a/../w.bin",
    "w.bin\0",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "64",
    "4194304",
    "4194305",
    "1099511627776",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "",
    "1e3",
];

/// An initializer, or one that turns sparse.
pub fn change_some(graph: &mut GraphProto, random: &mut Random) {
    if random.once_in(12) && !graph.initializer.is_empty() {
        let at = random.below(graph.initializer.len());
        let dense = graph.initializer.remove(at);
        graph.sparse_initializer.push(sparse(dense, random));
    } else if let Some(tensor) = some(&mut graph.initializer, random) {
        change(tensor, random);
    }
}

pub fn change(tensor: &mut TensorProto, random: &mut Random) {
    match random.below(11) {
        0 | 1 => match some(&mut tensor.dims, random) {
            Some(dim) => *dim = *random.pick(EDGES),
            None => tensor.dims.push(*random.pick(EDGES)),
        },
        2 => tensor.dims.push(*random.pick(EDGES)),
        3 => drop(tensor.dims.pop()),
        4 => tensor.dims.reverse(),
        5 => tensor.data_type = random.below(30) as i32,
        6 => {
            let length = tensor.raw_data.len() + 4;
            tensor.raw_data.resize(random.below(length), 1);
        }
        7 => typed_data(tensor, random),
        8 => external(tensor, random),
        9 => text::flip(&mut tensor.raw_data, random),
        _ => {
            // What it declares is nowhere.
            let name = std::mem::take(&mut tensor.name);
            *tensor = declared(name, random);
        }
    }
}

/// A tensor that says to be large.
pub fn declared(name: String, random: &mut Random) -> TensorProto {
    let mut tensor = TensorProto {
        name,
        data_type: 1 + random.below(25) as i32,
        ..Default::default()
    };
    for _ in 0..random.below(4) {
        tensor.dims.push(*random.pick(EDGES));
    }
    match random.below(4) {
        0 => external(&mut tensor, random),
        1 => typed_data(&mut tensor, random),
        2 => tensor.raw_data = vec![0; random.below(64)],
        _ => {}
    }
    tensor
}

fn typed_data(tensor: &mut TensorProto, random: &mut Random) {
    let count = match random.below(3) {
        0 => tensor
            .dims
            .iter()
            .fold(1_i64, |n, d| n.saturating_mul(*d))
            .clamp(0, 4096) as usize,
        1 => tensor.raw_data.len() / 4,
        _ => random.below(9),
    };
    if random.once_in(2) {
        tensor.raw_data.clear();
    }
    match random.below(5) {
        0 => tensor.float_data = vec![0.5; count],
        1 => tensor.int32_data = vec![*random.pick(EDGES) as i32; count],
        2 => tensor.int64_data = vec![*random.pick(EDGES); count],
        3 => tensor.uint64_data = vec![*random.pick(EDGES) as u64; count],
        _ => tensor.string_data = vec![b"\xff".to_vec(); count],
    }
}

fn external(tensor: &mut TensorProto, random: &mut Random) {
    if random.once_in(3) {
        tensor.raw_data.clear();
    }
    tensor.data_location = DataLocation::EXTERNAL.into();
    let (key, values) = match random.below(5) {
        0 => ("location", LOCATIONS),
        1 => ("offset", NUMBERS),
        2 => ("length", NUMBERS),
        3 => ("checksum", NUMBERS),
        _ => ("unknown", LOCATIONS),
    };
    let value = (*random.pick(values)).to_owned();
    let found = tensor.external_data.iter_mut().find(|e| e.key == key);
    match found {
        Some(entry) if !random.once_in(6) => entry.value = value,
        _ => tensor.external_data.push(StringStringEntryProto {
            key: key.to_owned(),
            value,
            ..Default::default()
        }),
    }
}

fn sparse(dense: TensorProto, random: &mut Random) -> SparseTensorProto {
    let mut values = declared(dense.name.clone(), random);
    values.data_type = dense.data_type;
    values.dims = vec![1];
    values.raw_data.clone_from(&dense.raw_data);
    values.raw_data.truncate(4);
    let mut dims = dense.dims;
    if random.once_in(2) {
        dims.iter_mut().for_each(|dim| *dim = *random.pick(EDGES));
    }
    let indices = TensorProto {
        dims: vec![1],
        data_type: 7,
        int64_data: vec![*random.pick(EDGES)],
        ..Default::default()
    };
    SparseTensorProto {
        values: MessageField::some(values),
        indices: MessageField::some(indices),
        dims,
        ..Default::default()
    }
}

pub fn change_type(ty: &mut TypeProto, random: &mut Random) {
    match (&mut ty.value, random.below(8)) {
        (Some(Value::TensorType(tensor)), 0) => tensor.elem_type = random.below(30) as i32,
        (Some(Value::TensorType(tensor)), 1) => tensor.shape = MessageField::none(),
        (Some(Value::TensorType(tensor)), 2..6) => {
            let shape = tensor.shape.mut_or_insert_default();
            change_shape(shape, random);
        }
        (_, 6) => nested(ty, random),
        _ => {
            let mut tensor = Tensor::new();
            tensor.elem_type = random.below(30) as i32;
            for _ in 0..random.below(5) {
                let shape = tensor.shape.mut_or_insert_default();
                shape.dim.push(dimension_of(random));
            }
            ty.value = Some(Value::TensorType(tensor));
        }
    }
}

fn change_shape(shape: &mut TensorShapeProto, random: &mut Random) {
    match random.below(4) {
        0 => shape.dim.push(dimension_of(random)),
        1 => drop(shape.dim.pop()),
        _ => {
            if let Some(dim) = some(&mut shape.dim, random) {
                *dim = dimension_of(random);
            }
        }
    }
}

fn dimension_of(random: &mut Random) -> Dimension {
    let mut dim = Dimension::new();
    dim.value = match random.below(5) {
        0 => None,
        1 => Some(dimension::Value::DimParam(any_name(random))),
        2 => {
            let names = [
                "batch",
                "sequence",
                "batch*2",
                "2*(a + b)",
                "floor(s/2)",
                "-n",
            ];
            Some(dimension::Value::DimParam(
                (*random.pick(&names)).to_owned(),
            ))
        }
        _ => Some(dimension::Value::DimValue(*random.pick(EDGES))),
    };
    dim
}

/// A sequence of optional sequences, and so on.
fn nested(ty: &mut TypeProto, random: &mut Random) {
    for _ in 0..1 << random.below(9) {
        let inner = MessageField::some(std::mem::take(ty));
        ty.value = Some(match random.below(5) {
            0 => Value::OptionalType(Optional {
                elem_type: inner,
                ..Default::default()
            }),
            1 => Value::SparseTensorType(SparseTensor::new()),
            _ => Value::SequenceType(Sequence {
                elem_type: inner,
                ..Default::default()
            }),
        });
    }
}
