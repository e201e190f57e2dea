//! Small models, written with another ONNX library than peftc's own.

use onnx_protobuf::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_shape_proto::Dimension, type_proto,
};
use protobuf::Message;

/// `sum = x + bias` with `x: f32[N, 2]` and `bias = [10, 20]`.
pub fn add_bias() -> Vec<u8> {
    let bias = TensorProto {
        name: "bias".into(),
        data_type: 1,
        dims: vec![2],
        float_data: vec![10.0, 20.0],
        ..Default::default()
    };
    let node = NodeProto {
        op_type: "Add".into(),
        input: vec!["x".into(), "bias".into()],
        output: vec!["sum".into()],
        ..Default::default()
    };
    model(GraphProto {
        name: "add_bias".into(),
        node: vec![node],
        input: vec![float_value("x", &[Err("N"), Ok(2)])],
        output: vec![float_value("sum", &[Err("N"), Ok(2)])],
        initializer: vec![bias],
        ..Default::default()
    })
}

/// `next = state + x` and `sum = Σ next`, with everything `f32[2]`.
pub fn running_sum() -> Vec<u8> {
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        ..Default::default()
    };
    model(GraphProto {
        name: "running_sum".into(),
        node: vec![
            node("Add", &["state", "x"], "next"),
            node("ReduceSum", &["next"], "sum"),
        ],
        input: vec![float_value("x", &[Ok(2)]), float_value("state", &[Ok(2)])],
        output: vec![float_value("next", &[Ok(2)]), float_value("sum", &[Ok(1)])],
        ..Default::default()
    })
}

/// `y = x w` with `x: f32[1, 2]`; the product is the module `fc`.
pub fn linear() -> Vec<u8> {
    model(linear_graph())
}

/// [`linear`] with a weight that claims to have 2⁴⁰ rows.
pub fn huge_tensor() -> Vec<u8> {
    let mut graph = linear_graph();
    graph.initializer[0].dims[0] = 1 << 40;
    model(graph)
}

fn linear_graph() -> GraphProto {
    let weight = TensorProto {
        name: "w".into(),
        data_type: 1,
        dims: vec![2, 3],
        raw_data: 0.5f32.to_le_bytes().repeat(6),
        ..Default::default()
    };
    let node = NodeProto {
        name: "/fc/MatMul".into(),
        op_type: "MatMul".into(),
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        ..Default::default()
    };
    GraphProto {
        name: "linear".into(),
        node: vec![node],
        input: vec![float_value("x", &[Ok(1), Ok(2)])],
        output: vec![float_value("y", &[Ok(1), Ok(3)])],
        initializer: vec![weight],
        ..Default::default()
    }
}

/// A serialized model of opset 17 around a graph.
pub fn model(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto {
        version: 17,
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![opset],
        graph: Some(graph).into(),
        ..Default::default()
    };
    model.write_to_bytes().expect("a model serializes")
}

/// A float value; a dimension is a number or a name.
pub fn float_value(name: &str, dims: &[Result<i64, &str>]) -> ValueInfoProto {
    let dim = |dim: &Result<i64, &str>| {
        let mut one = Dimension::new();
        match dim {
            Ok(size) => one.set_dim_value(*size),
            Err(name) => one.set_dim_param((*name).into()),
        }
        one
    };
    let shape = TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
        ..Default::default()
    };
    let mut ty = TypeProto::new();
    ty.set_tensor_type(type_proto::Tensor {
        elem_type: 1,
        shape: Some(shape).into(),
        ..Default::default()
    });
    ValueInfoProto {
        name: name.into(),
        type_: Some(ty).into(),
        ..Default::default()
    }
}
