//! Every way to hold a tensor's elements ends in the same little-endian bytes, or is refused.

use super::build::*;
use super::*;
use crate::graph::{Tensor, TensorData};
use crate::onnx::proto::*;
use crate::onnx::wire::{put_header, put_varint};

fn typed(number: i32, dims: &[i64], fill: impl FnOnce(&mut TensorProto)) -> TensorProto {
    let mut tensor = TensorProto {
        name: text("d"),
        data_type: Some(number),
        dims: dims.to_vec(),
        ..TensorProto::default()
    };
    fill(&mut tensor);
    tensor
}

fn int32(number: i32, dims: &[i64], entries: &[i32]) -> TensorProto {
    typed(number, dims, |tensor| tensor.int32_data = entries.to_vec())
}

fn with(tensor: &TensorProto) -> ModelProto {
    small_with(|graph| graph.initializer.push(tensor.clone()))
}

/// The tensor as it is imported; it is written as it was found.
#[track_caller]
fn imported(tensor: &TensorProto) -> Tensor {
    let model = accepted(&with(tensor));
    assert_eq!(written(&model), serialized(&with(tensor)));
    let id = model.graph.find_value("d").unwrap();
    model.graph.value(id).tensor().unwrap().clone()
}

#[track_caller]
fn check(tensor: &TensorProto, expected: &[u8]) {
    match imported(tensor).data {
        TensorData::Raw(raw) => assert_eq!(raw[..], *expected),
        other => panic!("{other:?}"),
    }
    let raw = typed(tensor.data_type.unwrap(), &tensor.dims, |raw| {
        raw.raw_data = Some(Bytes::copy_from_slice(expected));
    });
    assert!(matches!(imported(&raw).data, TensorData::Raw(bytes) if bytes[..] == *expected));
}

#[track_caller]
fn check_refused(tensor: &TensorProto, word: &str) {
    let (codes, messages) = refused(serialized(&with(tensor)));
    assert_eq!(codes, [Code::E0605], "{messages}");
    assert!(
        messages.contains("`d`") && messages.contains(word),
        "{messages}"
    );
}

#[test]
fn half_precision_lies_in_int32_data() {
    for number in [10, 16] {
        check(
            &int32(number, &[2], &[0x3c00, 0xffff]),
            &[0x00, 0x3c, 0xff, 0xff],
        );
        check_refused(&int32(number, &[2], &[0, 1 << 16]), "range, the 1th");
        check_refused(&int32(number, &[2], &[-1, 0]), "range, the 0th");
        check_refused(&int32(number, &[2], &[0]), "1 entries");
    }
}

#[test]
fn numbers_of_four_and_eight_bytes_have_fields_of_their_own() {
    let le = |values: &[f64]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let complex = typed(15, &[1], |t| t.double_data = vec![1.0, -2.0]);
    check(&complex, &le(&[1.0, -2.0]));
    check(
        &typed(11, &[2], |t| t.double_data = vec![1.0, -2.0]),
        &le(&[1.0, -2.0]),
    );
    check(
        &typed(14, &[1], |t| t.float_data = vec![1.0, 0.0]),
        &[0, 0, 128, 63, 0, 0, 0, 0],
    );
    check_refused(&typed(14, &[1], |t| t.float_data = vec![1.0]), "1 entries");
    check(
        &typed(7, &[1], |t| t.int64_data = vec![-2]),
        &(-2i64).to_le_bytes(),
    );
    check(
        &typed(13, &[1], |t| t.uint64_data = vec![u64::MAX]),
        &[0xff; 8],
    );
    check(&typed(12, &[1], |t| t.uint64_data = vec![7]), &[7, 0, 0, 0]);
    check_refused(&typed(12, &[1], |t| t.uint64_data = vec![1 << 32]), "range");
    check_refused(&typed(1, &[1], |t| t.double_data = vec![1.0]), "field");
    check_refused(&typed(7, &[1], |t| t.int32_data = vec![1]), "field");
}

#[test]
fn strings_are_bytes() {
    let strings = |values: &[&'static [u8]]| -> Vec<Bytes> {
        values.iter().map(|v| Bytes::from_static(v)).collect()
    };
    let all = strings(&[b"", b"\xff\x00", b"text"]);
    let tensor = typed(8, &[3], |t| t.string_data = all.clone());
    assert!(matches!(imported(&tensor).data, TensorData::Strings(found) if found == all));
    check_refused(
        &typed(8, &[3], |t| t.string_data = strings(&[b"a"])),
        "1 entries",
    );
    check_refused(
        &typed(1, &[1], |t| t.string_data = strings(&[b"a"])),
        "field",
    );
}

#[test]
fn small_types_are_packed_from_the_low_bits() {
    // u4, i4 and f4: two to an entry, whatever is in the bits behind the last one.
    for number in [21, 22, 23] {
        check(&int32(number, &[3], &[0x21, 0x03]), &[0x21, 0x03]);
        check_refused(&int32(number, &[3], &[1, 2, 3]), "3 entries");
        check_refused(&int32(number, &[3], &[0x100, 0]), "range");
    }
    // Signed readings of a byte are met, too.
    check(&int32(22, &[2], &[-1]), &[0xff]);
    check_refused(&int32(21, &[2], &[-1]), "range");
    for number in [25, 26] {
        check(&int32(number, &[5], &[0xe4, 0x01]), &[0xe4, 0x01]);
    }
    check(&int32(26, &[4], &[-28]), &[0xe4]);
    // f6: one to an entry, four to three bytes.
    for number in [27, 28] {
        check(&int32(number, &[4], &[1, 2, 3, 63]), &[0x81, 0x30, 0xfc]);
        check(&int32(number, &[1], &[63]), &[0x3f]);
        check_refused(&int32(number, &[1], &[64]), "range");
    }
    for number in [17, 18, 19, 20, 24] {
        check(&int32(number, &[2], &[0x38, 0xff]), &[0x38, 0xff]);
        check_refused(&int32(number, &[1], &[256]), "range");
    }
}

#[test]
fn integers_of_one_and_two_bytes_have_their_range() {
    check(&int32(9, &[2], &[1, 0]), &[1, 0]);
    check_refused(&int32(9, &[1], &[2]), "range");
    check(&int32(2, &[1], &[255]), &[255]);
    check_refused(&int32(2, &[1], &[-1]), "range");
    check(&int32(3, &[2], &[-128, 127]), &[128, 127]);
    check(&int32(4, &[1], &[65535]), &[255, 255]);
    check(&int32(5, &[1], &[-2]), &[254, 255]);
    check_refused(&int32(5, &[1], &[32768]), "range");
    check(&int32(6, &[1], &[-2]), &[254, 255, 255, 255]);
}

/// Protobuf lets a list of numbers stand as one packed record, as several, and number by number.
#[test]
fn lists_of_numbers_may_be_packed_or_not() {
    let mut proto = typed(7, &[4], |_| {}).encode_to_vec();
    put_header(7, 2, &mut proto);
    proto.extend([1, 2]);
    for value in [3, 4] {
        put_varint(7 << 3, &mut proto);
        put_varint(value, &mut proto);
    }
    let tensor = TensorProto::decode(&proto[..]).unwrap();
    assert_eq!(tensor.int64_data, [1, 2, 3, 4]);
    let mut graph = small().graph.unwrap().encode_to_vec();
    put_header(5, proto.len() as u64, &mut graph);
    graph.extend(&proto);
    let mut rest = small();
    rest.graph = None;
    let mut bytes = rest.encode_to_vec();
    put_header(7, graph.len() as u64, &mut bytes);
    bytes.extend(&graph);
    let (imported, codes) = accepted_with_warnings(Bytes::from(bytes));
    assert_eq!(codes, []);
    let graph = &imported.model.graph;
    let tensor = graph
        .value(graph.find_value("d").unwrap())
        .tensor()
        .unwrap();
    let expected: Vec<u8> = [1i64, 2, 3, 4]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    assert!(matches!(&tensor.data, TensorData::Raw(raw) if raw[..] == expected));
    let again = ModelProto::decode(&written(&imported.model)[..]).unwrap();
    // The record itself is the one that was found.
    let found = again.graph.unwrap().initializer.pop().unwrap();
    assert_eq!(found.int64_data, [1, 2, 3, 4]);
    let out = written(&imported.model);
    assert!(out.windows(proto.len()).any(|window| window == proto));
}
