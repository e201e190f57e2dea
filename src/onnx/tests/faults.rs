//! Every malformation has its code, and its message names what is wrong.

use super::build::*;
use super::*;
use crate::onnx::proto::*;

fn check(model: &ModelProto, code: Code, words: &[&str]) {
    check_bytes(serialized(model), code, words);
}

fn check_bytes(bytes: Bytes, code: Code, words: &[&str]) {
    let (codes, messages) = refused(bytes);
    assert_eq!(codes, [code], "{messages}");
    for word in words {
        assert!(messages.contains(word), "no `{word}` in: {messages}");
    }
}

#[test]
fn files_that_are_no_models_are_named() {
    let check = |bytes: &'static [u8], word| {
        check_bytes(Bytes::from_static(bytes), Code::E0601, &["test.onnx", word]);
    };
    check(b"", "empty");
    check(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS");
    check(b"{\"a\": 1}", "JSON");
    check(b"just text", "it is a text");
    check(b"\x08\x0a", "no graph");
    check(&[0xff; 40], "not protobuf");
    // A serialized tensor: field 2 is a number there.
    check(b"\x08\x01\x10\x01", "field 2");
}

#[test]
fn a_truncated_model_says_what_is_missing() {
    let bytes = serialized(&small());
    // In the middle of the graph; at its very end the opset would be missing.
    check_bytes(
        bytes.slice(..bytes.len() / 2),
        Code::E0602,
        &["cut off", &format!("{} bytes", bytes.len() / 2)],
    );
}

#[test]
fn unknown_versions_are_refused() {
    let mut model = small();
    model.ir_version = Some(15);
    check(&model, Code::E0603, &["15", "14"]);
    model.ir_version = Some(0);
    check(&model, Code::E0603, &["0"]);
    let mut model = small();
    model.opset_import = vec![opset("", 29)];
    check(&model, Code::E0604, &["29", "28"]);
    model.opset_import = vec![opset("com.microsoft", 1)];
    check(&model, Code::E0604, &["opset"]);
    model.opset_import = vec![opset("", 20), opset("ai.onnx", 21)];
    check(&model, Code::E0604, &["20", "21"]);
}

#[test]
fn tensors_are_checked_before_any_memory_is_taken() {
    let check = |change: fn(&mut TensorProto), words: &[&str]| {
        let model = small_with(|graph| change(&mut graph.initializer[0]));
        let words = [&["initializer `w`"], words].concat();
        check(&model, Code::E0605, &words);
    };
    check(|t| t.dims = vec![-1, 3], &["-1"]);
    check(|t| t.dims = vec![1 << 40, 1 << 40], &["more elements"]);
    check(|t| t.dims = vec![1 << 40, 1 << 40, 0], &["more elements"]);
    check(|t| t.dims = vec![1 << 38], &["24 bytes", "1099511627776"]);
    check(|t| t.data_type = Some(99), &["99"]);
    check(|t| t.data_type = None, &["0"]);
    check(|t| t.float_data = vec![0.0; 6], &["twice"]);
    check(
        |t| {
            t.raw_data = None;
            t.float_data = vec![0.0; 5];
        },
        &["5 entries", "6"],
    );
    check(
        |t| {
            t.raw_data = None;
            t.int64_data = vec![0; 6];
        },
        &["field"],
    );
    check(|t| t.raw_data = None, &["0 entries"]);
    check(|t| t.segment = Some(Default::default()), &["segment"]);
    check(
        |t| {
            t.raw_data = None;
            t.data_type = Some(2);
            t.int32_data = vec![0, 1, 2, 3, 4, 256];
        },
        &["5th"],
    );
}

#[test]
fn a_value_has_one_definition() {
    let check = |change: fn(&mut GraphProto), words: &[&str]| {
        check(&small_with(change), Code::E0502, words);
    };
    check(
        |g| g.node.push(node("Abs", &["x"], &["h"])),
        &["`h`", "MatMul_h", "Abs_h"],
    );
    check(
        |g| g.node.push(node("Abs", &["x"], &["x"])),
        &["`x`", "a graph input", "Abs_x"],
    );
    check(
        |g| g.node.push(node("Abs", &["x"], &["w"])),
        &["`w`", "an initializer", "Abs_w"],
    );
    check(
        |g| g.node.push(node("Split", &["x"], &["a", "a"])),
        &["`a`", "Split_a_a"],
    );
    check(
        |g| g.initializer.push(floats("w", &[1])),
        &["`w`", "an initializer"],
    );
    check(|g| g.input.push(info("x", None)), &["`x`", "a graph input"]);
}

#[test]
fn a_value_that_is_read_is_defined() {
    let check = |change: fn(&mut GraphProto), words: &[&str]| {
        check(&small_with(change), Code::E0503, words);
    };
    check(
        |g| g.node.push(node("Abs", &["nothing"], &["z"])),
        &["`nothing`", "Abs_z"],
    );
    check(|g| g.output[0].name = text("z"), &["`z`"]);
    check(|g| g.output[0].name = None, &["``"]);
}

#[test]
fn nodes_do_not_wait_for_each_other() {
    check(
        &small_with(|g| {
            g.node[0].input[0] = "back".to_owned();
            g.node.push(node("Abs", &["y"], &["back"]));
        }),
        Code::E0504,
        &["`MatMul_h` → `Abs_back` → `Relu_y` → `MatMul_h`"],
    );
    check(
        &small_with(|g| g.node[1].input[0] = "y".to_owned()),
        Code::E0504,
        &["`Relu_y` → `Relu_y`"],
    );
}

#[test]
fn nodes_and_attributes_say_what_they_are() {
    let check = |attribute: AttributeProto, word| {
        let model = small_with(|graph| graph.node[1].attribute.push(attribute));
        check(&model, Code::E0606, &["Relu_y", "`a`", word]);
    };
    let attribute = AttributeProto {
        name: text("a"),
        ..AttributeProto::default()
    };
    let with = |change: fn(&mut AttributeProto)| {
        let mut attribute = attribute.clone();
        change(&mut attribute);
        attribute
    };
    check(attribute.clone(), "neither type nor value");
    check(
        with(|a| {
            a.i = Some(1);
            a.f = Some(1.0);
        }),
        "several values",
    );
    check(with(|a| a.r#type = Some(77)), "77");
    check(
        with(|a| a.r#type = Some(attribute_type::TENSOR)),
        "no value",
    );
    check(with(|a| a.ref_attr_name = text("b")), "`b`");
    let twice = small_with(|graph| {
        let int = with(|a| a.i = Some(1));
        graph.node[1].attribute = vec![int.clone(), int];
    });
    super::faults::check(&twice, Code::E0606, &["`a` twice"]);
    let nothing = small_with(|graph| graph.node[1].op_type = None);
    super::faults::check(&nothing, Code::E0606, &["no operator"]);
}

#[test]
fn faults_are_reported_together() {
    let model = small_with(|g| {
        g.node.push(node("Abs", &["nothing"], &["z"]));
        g.node.push(node("Abs", &["x"], &["h"]));
        g.output[0].name = text("q");
    });
    let (codes, _) = refused(serialized(&model));
    assert_eq!(codes, [Code::E0502, Code::E0503, Code::E0503]);
}
