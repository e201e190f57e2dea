//! Short ways to make models for tests.

use crate::onnx::errors::NEWEST_OPSET;
use crate::onnx::proto::*;
use crate::ty::DType;
use bytes::Bytes;

pub fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        input: strings(inputs),
        output: strings(outputs),
        name: Some(format!("{op}_{}", outputs.join("_"))),
        op_type: text(op),
        ..NodeProto::default()
    }
}

/// A value of type f32 with known sizes, or without a shape for `None`.
pub fn info(name: &str, dims: Option<&[i64]>) -> ValueInfoProto {
    let shape = dims.map(|dims| TensorShapeProto {
        dim: dims
            .iter()
            .map(|dim| Dimension {
                value: Some(DimensionValue::DimValue(*dim)),
                denotation: None,
            })
            .collect(),
    });
    ValueInfoProto {
        name: text(name),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: Some(DType::F32.number()),
                shape,
            })),
            denotation: None,
        }),
        ..ValueInfoProto::default()
    }
}

pub fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let elements: i64 = dims.iter().product();
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(DType::F32.number()),
        name: text(name),
        raw_data: Some(Bytes::from(vec![0; elements as usize * 4])),
        ..TensorProto::default()
    }
}

pub fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: text(domain),
        version: Some(version),
    }
}

pub fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        producer_name: text("test"),
        graph: Some(graph),
        opset_import: vec![opset("", NEWEST_OPSET)],
        ..ModelProto::default()
    }
}

/// `y = relu(x w)` with a bias that is an overridable input if `overridable`.
pub fn small() -> ModelProto {
    model(GraphProto {
        node: vec![
            node("MatMul", &["x", "w"], &["h"]),
            node("Relu", &["h"], &["y"]),
        ],
        name: text("main"),
        initializer: vec![floats("w", &[2, 3])],
        input: vec![info("x", Some(&[1, 2]))],
        output: vec![info("y", Some(&[1, 3]))],
        value_info: vec![info("h", Some(&[1, 3]))],
        ..GraphProto::default()
    })
}

/// [`small`] with a change to its graph.
pub fn small_with(change: impl FnOnce(&mut GraphProto)) -> ModelProto {
    let mut model = small();
    change(graph(&mut model));
    model
}

pub fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}
