//! Sparse initializers are made dense, or refused with a reason.

use super::build::*;
use super::*;
use crate::graph::TensorData;
use crate::onnx::proto::*;

fn longs(values: &[i64], dims: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(7),
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// A sparse `w` of two rows and three columns that holds 7 at `[0, 1]` and 8 at `[1, 2]`.
fn sparse() -> SparseTensorProto {
    SparseTensorProto {
        values: Some(TensorProto {
            dims: vec![2],
            data_type: Some(1),
            name: text("w"),
            float_data: vec![7.0, 8.0],
            ..TensorProto::default()
        }),
        indices: Some(longs(&[1, 5], &[2])),
        dims: vec![2, 3],
    }
}

fn with(change: impl FnOnce(&mut SparseTensorProto)) -> ModelProto {
    small_with(|graph| {
        let mut tensor = sparse();
        change(&mut tensor);
        graph.initializer.clear();
        graph.sparse_initializer = vec![tensor];
    })
}

#[track_caller]
fn check_dense(model: &ModelProto, expected: &[f32]) {
    let (imported, codes) = accepted_with_warnings(serialized(model));
    assert_eq!(codes, [Code::W0606]);
    let graph = &imported.model.graph;
    let tensor = graph
        .value(graph.find_value("w").unwrap())
        .tensor()
        .unwrap();
    let TensorData::Raw(raw) = &tensor.data else {
        panic!("{:?}", tensor.data)
    };
    let bytes: Vec<u8> = expected.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(raw[..], bytes);
    let again = ModelProto::decode(&written(&imported.model)[..]).unwrap();
    let graph = again.graph.unwrap();
    assert!(graph.sparse_initializer.is_empty());
    assert_eq!(graph.initializer[0].raw_data.as_deref(), Some(&bytes[..]));
    assert_eq!(graph.initializer[0].name, text("w"));
}

#[test]
fn both_layouts_of_indices_are_read() {
    let expected = [0.0, 7.0, 0.0, 0.0, 0.0, 8.0];
    check_dense(&with(|_| {}), &expected);
    check_dense(
        &with(|t| t.indices = Some(longs(&[0, 1, 1, 2], &[2, 2]))),
        &expected,
    );
    let nothing = |t: &mut SparseTensorProto| {
        let values = t.values.as_mut().unwrap();
        (values.dims, values.float_data) = (vec![0], Vec::new());
        t.indices = None;
    };
    check_dense(&with(nothing), &[0.0; 6]);
}

#[test]
fn a_body_with_a_sparse_initializer_is_written_dense() {
    let body = GraphProto {
        node: vec![node("Identity", &["w"], &["b"])],
        name: text("body"),
        output: vec![info("b", None)],
        sparse_initializer: vec![sparse()],
        ..GraphProto::default()
    };
    let model = small_with(|graph| {
        let mut choice = node("If", &["x"], &["c"]);
        let branch = |name: &str| AttributeProto {
            name: text(name),
            g: Some(body.encode_to_vec().into()),
            r#type: Some(attribute_type::GRAPH),
            ..AttributeProto::default()
        };
        choice.attribute = vec![branch("then_branch"), branch("else_branch")];
        graph.node.push(choice);
    });
    let (imported, codes) = accepted_with_warnings(serialized(&model));
    assert_eq!(codes, [Code::W0606]);
    let again = ModelProto::decode(&written(&imported.model)[..]).unwrap();
    let node = &again.graph.as_ref().unwrap().node[2];
    let bytes = node.attribute[0].g.clone().unwrap();
    let body = GraphProto::decode(bytes).unwrap();
    assert_eq!(
        (body.initializer.len(), body.sparse_initializer.len()),
        (1, 0)
    );
}

#[test]
fn what_contradicts_itself_or_is_too_large_is_refused() {
    let check = |change: fn(&mut SparseTensorProto), code: Code, words: &[&str]| {
        let (codes, messages) = refused(serialized(&with(change)));
        assert_eq!(codes, [code], "{messages}");
        for word in words {
            assert!(messages.contains(word), "no `{word}` in: {messages}");
        }
    };
    let invalid = |change, words: &[&str]| check(change, Code::E0605, words);
    invalid(
        |t| t.indices = Some(longs(&[5, 1], &[2])),
        &["`w`", "ascend"],
    );
    invalid(|t| t.indices = Some(longs(&[1, 1], &[2])), &["twice"]);
    invalid(|t| t.indices = Some(longs(&[1, 6], &[2])), &["range", "6"]);
    invalid(
        |t| t.indices = Some(longs(&[-1, 5], &[2])),
        &["range", "-1"],
    );
    invalid(
        |t| t.indices = Some(longs(&[0, 1, 0, 3], &[2, 2])),
        &["range", "3"],
    );
    invalid(|t| t.indices = Some(longs(&[1], &[1])), &["[1]", "[2, 2]"]);
    invalid(|t| t.indices = Some(longs(&[0; 6], &[2, 3])), &["[2, 3]"]);
    invalid(|t| t.indices = None, &["no indices"]);
    invalid(
        |t| t.indices.as_mut().unwrap().data_type = Some(99),
        &["the indices", "99"],
    );
    invalid(
        |t| {
            t.indices = Some(TensorProto {
                data_type: Some(6),
                int32_data: vec![1, 5],
                ..longs(&[], &[2])
            });
        },
        &["i32", "i64"],
    );
    invalid(|t| t.dims = Vec::new(), &["no dimension"]);
    invalid(|t| t.dims = vec![-2, 3], &["-2"]);
    invalid(
        |t| t.values.as_mut().unwrap().dims = vec![1, 2],
        &["[1, 2]"],
    );
    let claims = |change, words: &[&str]| check(change, Code::E0616, words);
    claims(
        |t| t.dims = vec![1 << 40, 3],
        &["`w`", "13194139533312 bytes"],
    );
    claims(
        |t| {
            let values = t.values.as_mut().unwrap();
            values.data_type = Some(22);
            values.float_data.clear();
            values.int32_data = vec![0x21];
        },
        &["i4"],
    );
    let unnamed = with(|t| t.values.as_mut().unwrap().name = None);
    let (codes, _) = refused(serialized(&unnamed));
    assert_eq!(codes, [Code::E0606]);
    let twice = small_with(|graph| graph.sparse_initializer = vec![sparse()]);
    let (codes, messages) = refused(serialized(&twice));
    assert_eq!(codes, [Code::E0502, Code::W0606], "{messages}");
}

#[test]
fn sparse_initializers_are_bounded_together() {
    let model = small_with(|graph| {
        graph.initializer.clear();
        for name in ["w", "v"] {
            let mut tensor = sparse();
            // 96 MiB.
            tensor.dims = vec![1 << 23, 3];
            tensor.values.as_mut().unwrap().name = text(name);
            graph.sparse_initializer.push(tensor);
        }
    });
    let (codes, _) = refused(serialized(&model));
    assert_eq!(codes, [Code::E0616, Code::W0606]);
    let mut one = model;
    graph(&mut one).sparse_initializer.truncate(1);
    let (_, codes) = accepted_with_warnings(serialized(&one));
    assert_eq!(codes, [Code::W0606]);
}
