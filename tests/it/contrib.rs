//! The reference evaluator gives what ONNX Runtime gives for single operators: those of
//! `contrib_cases`.

use crate::contrib_cases::contrib_cases;
use crate::mutated_cases::Node;
use crate::reference::array;
use crate::runtime::library;
use crate::tolerances::CONTRIB_RELATIVE;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TypeProto, ValueInfoProto, attribute_proto::AttributeType, type_proto,
};
use peftc::diag::Sink;
use peftc::graph::{Attribute, AttributeValue};
use peftc::reference::{Array, Elements, encode};
use peftc::runtime::{HostTensor, ModelSource, NamedTensors, Optimization, Options, Session};
use protobuf::{EnumOrUnknown, Message};

fn value_info(name: &str, array: &Array) -> ValueInfoProto {
    let dim = |size: &usize| {
        let mut dim = Dimension::new();
        dim.set_dim_value(*size as i64);
        dim
    };
    let mut ty = TypeProto::new();
    ty.set_tensor_type(type_proto::Tensor {
        elem_type: array.dtype().number(),
        shape: Some(TensorShapeProto {
            dim: array.dims().iter().map(dim).collect(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    });
    ValueInfoProto {
        name: name.to_owned(),
        type_: Some(ty).into(),
        ..Default::default()
    }
}

fn attribute(attribute: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto {
        name: attribute.name.clone(),
        ..Default::default()
    };
    let kind = match &attribute.value {
        AttributeValue::Int(value) => {
            proto.i = *value;
            AttributeType::INT
        }
        AttributeValue::Ints(values) => {
            proto.ints.clone_from(values);
            AttributeType::INTS
        }
        AttributeValue::Floats(values) => {
            proto.floats.clone_from(values);
            AttributeType::FLOATS
        }
        AttributeValue::Float(value) => {
            proto.f = *value;
            AttributeType::FLOAT
        }
        AttributeValue::String(value) => {
            proto.s.clone_from(value);
            AttributeType::STRING
        }
        other => panic!("{other:?}"),
    };
    proto.type_ = EnumOrUnknown::new(kind);
    proto
}

/// The model of a node, with its operands as inputs `x0, x1, …`.
fn model(node: &Node) -> Vec<u8> {
    let present = |slot: usize, operand: &Option<Array>| match operand {
        Some(_) => format!("x{slot}"),
        None => String::new(),
    };
    let operands = node.operands.iter().enumerate();
    let outputs: Vec<String> = (0..node.results).map(|slot| format!("y{slot}")).collect();
    let proto = NodeProto {
        op_type: node.op_type.clone(),
        domain: node.domain.clone(),
        input: operands
            .clone()
            .map(|(slot, operand)| present(slot, operand))
            .collect(),
        output: outputs.clone(),
        attribute: node.attributes.iter().map(attribute).collect(),
        ..Default::default()
    };
    let inputs = operands
        .filter_map(|(slot, operand)| Some(value_info(&format!("x{slot}"), operand.as_ref()?)));
    let output = |name: &String| ValueInfoProto {
        name: name.clone(),
        ..Default::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: domain.to_owned(),
        version,
        ..Default::default()
    };
    let default = if node.domain.is_empty() {
        node.opset
    } else {
        17
    };
    let model = ModelProto {
        ir_version: 10,
        opset_import: vec![opset("", default), opset("com.microsoft", 1)],
        graph: Some(GraphProto {
            name: "case".into(),
            node: vec![proto],
            input: inputs.collect(),
            output: outputs.iter().map(output).collect(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    model.write_to_bytes().unwrap()
}

fn host(array: &Array) -> HostTensor {
    let dims: Vec<i64> = array.dims().iter().map(|n| *n as i64).collect();
    HostTensor::new(array.dtype(), &dims, encode(array)).unwrap()
}

/// What ONNX Runtime gives, by slot.
fn expected(node: &Node) -> Result<Vec<Array>, String> {
    let mut sink = Sink::new();
    let bytes = model(node);
    let source = ModelSource::Bytes {
        name: "case",
        bytes: &bytes,
    };
    let options = Options {
        optimization: Optimization::Disabled,
        ..Options::default()
    };
    let mut inputs = NamedTensors::default();
    for (slot, operand) in node.operands.iter().enumerate() {
        if let Some(operand) = operand {
            inputs.push(format!("x{slot}"), host(operand));
        }
    }
    let session = Session::open(library(), source, &options, &mut sink);
    let mut session = session.map_err(|_| format!("{:?}", sink.diagnostics()))?;
    let outputs = session.run(&inputs, &mut sink);
    let outputs = outputs.map_err(|_| format!("{:?}", sink.diagnostics()))?;
    let slots = 0..node.results;
    Ok(slots
        .map(|slot| array(outputs.get(&format!("y{slot}")).unwrap()))
        .collect())
}

fn check(node: &Node) -> Result<(), String> {
    let expected = expected(node)?;
    let found = node.evaluate().map_err(|fault| fault.to_string())?;
    for (slot, expected) in expected.iter().enumerate() {
        let found = found.get(slot).ok_or(format!("no result {slot}"))?;
        if (found.dtype(), found.dims()) != (expected.dtype(), expected.dims()) {
            return Err(format!(
                "result {slot}: {}{:?}, not {}{:?}",
                found.dtype(),
                found.dims(),
                expected.dtype(),
                expected.dims()
            ));
        }
        let (a, b) = (found.to_f64s(), expected.to_f64s());
        let size = b.iter().map(|x| x.abs()).fold(1e-3, f64::max);
        let bound = match expected.elements() {
            Elements::Floats(_) => CONTRIB_RELATIVE * size,
            // ONNX Runtime looks exponentials up in a table.
            Elements::Ints(_) if node.op_type == "QLinearSoftmax" => 1.0,
            Elements::Ints(_) => 0.0,
        };
        if let Some(at) = (0..a.len()).find(|at| (a[*at] - b[*at]).abs() > bound) {
            return Err(format!("result {slot}[{at}]: {}, not {}", a[at], b[at]));
        }
    }
    Ok(())
}

#[test]
fn operators_of_onnx_runtime_give_what_it_gives() {
    let cases = contrib_cases();
    let mut faults = Vec::new();
    for node in &cases {
        if let Err(why) = check(node) {
            faults.push(format!("{}: {why}", node.name));
        }
    }
    eprintln!("{} cases", cases.len());
    assert!(
        faults.is_empty(),
        "{} of {}: {faults:#?}",
        faults.len(),
        cases.len()
    );
}
