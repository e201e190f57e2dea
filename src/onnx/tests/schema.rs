//! The messages and the tables of this room are those of the published schema, which
//! `fixtures/make_schema.py` recorded.

use crate::onnx::proto::*;
use crate::onnx::schema::{ALL, Schema};
use crate::onnx::wire::{put_header, put_varint};
use prost::Message;
use serde_json::{Map, Value};

fn recorded() -> Map<String, Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/onnx_schema.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all["messages"].as_object().unwrap().clone()
}

fn number(field: &Value) -> u32 {
    field["number"].as_u64().unwrap() as u32
}

/// A record of the field with a value that is not its default.
fn record(field: &Value) -> Vec<u8> {
    let (kind, mut out) = (field["type"].as_str().unwrap(), Vec::new());
    let value: &[u8] = match kind {
        "double" => &[1; 8],
        "float" => &[1; 4],
        "int32" | "int64" | "uint64" | "enum" => &[1],
        "string" | "bytes" => b"a",
        "message" => b"",
        other => panic!("no {other}"),
    };
    let wire = match kind {
        "double" => 1,
        "float" => 5,
        "string" | "bytes" | "message" => 2,
        _ => 0,
    };
    if wire == 2 || field["packed"] == true {
        put_header(number(field), value.len() as u64, &mut out);
    } else {
        put_varint(u64::from(number(field)) << 3 | wire, &mut out);
    }
    out.extend_from_slice(value);
    out
}

fn again<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes).unwrap().encode_to_vec()
}

/// Reads and writes a message of this name.
fn round_trip(name: &str) -> fn(&[u8]) -> Vec<u8> {
    macro_rules! by_name {
        ($($($part:ident).+: $ty:ty),* $(,)?) => {
            match name {
                $(stringify!($($part).+) => again::<$ty>,)*
                other => panic!("no message {other}"),
            }
        };
    }
    by_name! {
        AttributeProto: AttributeProto,
        DeviceConfigurationProto: DeviceConfigurationProto,
        FunctionProto: FunctionProto,
        GraphProto: GraphProto,
        IntIntListEntryProto: IntIntListEntryProto,
        ModelProto: ModelProto,
        NodeDeviceConfigurationProto: NodeDeviceConfigurationProto,
        NodeProto: NodeProto,
        OperatorSetIdProto: OperatorSetIdProto,
        ShardedDimProto: ShardedDimProto,
        ShardingSpecProto: ShardingSpecProto,
        SimpleShardedDimProto: SimpleShardedDimProto,
        SparseTensorProto: SparseTensorProto,
        StringStringEntryProto: StringStringEntryProto,
        TensorAnnotation: TensorAnnotation,
        TensorProto: TensorProto,
        TensorProto.Segment: tensor_proto::Segment,
        TensorShapeProto: TensorShapeProto,
        TensorShapeProto.Dimension: Dimension,
        TrainingInfoProto: TrainingInfoProto,
        TypeProto: TypeProto,
        TypeProto.Map: type_proto::Map,
        TypeProto.Opaque: type_proto::Opaque,
        TypeProto.Optional: type_proto::Optional,
        TypeProto.Sequence: type_proto::Sequence,
        TypeProto.SparseTensor: type_proto::SparseTensor,
        TypeProto.Tensor: type_proto::Tensor,
        ValueInfoProto: ValueInfoProto,
    }
}

#[test]
fn every_field_of_the_published_schema_is_read_and_written() {
    let mut fields = 0;
    for (name, list) in &recorded() {
        let read_and_write = round_trip(name);
        for field in list.as_array().unwrap() {
            let bytes = record(field);
            assert_eq!(read_and_write(&bytes), bytes, "{name}: {field}");
            fields += 1;
        }
    }
    assert!(fields > 130, "{fields} fields");
}

#[test]
fn the_tables_of_known_fields_are_the_published_schema() {
    let recorded = recorded();
    let mut names: Vec<&str> = ALL.iter().map(|schema| schema.name).collect();
    names.sort_unstable();
    assert!(names.iter().eq(recorded.keys()), "{names:?}");
    for schema in ALL {
        let list = recorded[schema.name].as_array().unwrap();
        let numbers: Vec<u32> = list.iter().map(number).collect();
        let known: Vec<u32> = (0..40).filter(|field| schema.knows(*field)).collect();
        assert_eq!(known, numbers, "{}", schema.name);
        let nested: Vec<(u32, &str)> = list
            .iter()
            .filter_map(|field| Some((number(field), field["message"].as_str()?)))
            .collect();
        let name = |(field, inner): &(u32, &'static Schema)| (*field, inner.name);
        let mut ours: Vec<(u32, &str)> = schema.nested.iter().map(name).collect();
        ours.sort_unstable();
        assert_eq!(ours, nested, "{}", schema.name);
    }
}
