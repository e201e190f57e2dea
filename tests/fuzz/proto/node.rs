//! Nodes: rewired, turned into other operators, with other attributes.

use super::graph::some;
use super::{EDGES, any_name, metadata, name_in, tensor};
use crate::random::Random;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, GraphProto, NodeProto};
use protobuf::EnumOrUnknown;

const OPERATORS: &[&str] = &[
    "MatMul",
    "Gemm",
    "Reshape",
    "Transpose",
    "Identity",
    "Cast",
    "If",
    "Loop",
    "Scan",
    "Constant",
    "Slice",
    "Concat",
    "Conv",
    "Gather",
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "BatchNormalization",
    "GroupQueryAttention",
    "DequantizeLinear",
    "MatMulNBits",
    "Expand",
    "Split",
    "Einsum",
    "ConstantOfShape",
    "Range",
    "Pad",
    "Tile",
    "Resize",
    "Unsqueeze",
    "Squeeze",
    "Shape",
    "ReduceMean",
    "TopK",
    "LSTM",
    "Attention",
    "SequenceConstruct",
    "f",
];

const ATTRIBUTES: &[&str] = &[
    "axis",
    "axes",
    "perm",
    "value",
    "to",
    "transA",
    "transB",
    "alpha",
    "beta",
    "group",
    "pads",
    "strides",
    "dilations",
    "kernel_shape",
    "equation",
    "num_outputs",
    "keepdims",
    "allowzero",
    "then_branch",
    "else_branch",
    "body",
    "num_scan_inputs",
    "K",
    "N",
    "bits",
    "block_size",
    "epsilon",
    "start",
    "end",
    "value_ints",
];

pub fn change_some(graph: &mut GraphProto, random: &mut Random) {
    let name = name_in(graph, random);
    let Some(node) = some(&mut graph.node, random) else {
        return;
    };
    match random.below(12) {
        // Cycles, captures, uses before definitions.
        0..3 => {
            if let Some(input) = some(&mut node.input, random) {
                *input = name;
            }
        }
        3 => node.input.push(name),
        4 => drop(node.input.pop()),
        // A value with two producers.
        5 => match some(&mut node.output, random) {
            Some(output) => *output = name,
            None => node.output.push(name),
        },
        6 => node.output.push(name),
        7 => operator(node, random),
        8 => node.name = any_name(random),
        9 => node.metadata_props.push(metadata(random)),
        _ => attribute(node, random),
    }
}

fn operator(node: &mut NodeProto, random: &mut Random) {
    match random.below(4) {
        0 => {
            let domain = random.pick(&["", "ai.onnx", "com.microsoft", "f", "é"]);
            node.domain = (*domain).to_owned();
        }
        1 => node.overload = any_name(random),
        _ => node.op_type = (*random.pick(OPERATORS)).to_owned(),
    }
}

fn attribute(node: &mut NodeProto, random: &mut Random) {
    let at = random.below(node.attribute.len());
    match random.below(5) {
        0 => node.attribute.push(new_attribute(random)),
        1 if !node.attribute.is_empty() => drop(node.attribute.remove(at)),
        2 if !node.attribute.is_empty() => {
            let copy = node.attribute[at].clone();
            node.attribute.push(copy);
        }
        _ => {
            if let Some(attribute) = node.attribute.get_mut(at) {
                change_attribute(attribute, random);
            }
        }
    }
}

fn new_attribute(random: &mut Random) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: (*random.pick(ATTRIBUTES)).to_owned(),
        ..Default::default()
    };
    match random.below(4) {
        0 => attribute.type_ = AttributeType::INT.into(),
        1 => attribute.type_ = AttributeType::INTS.into(),
        2 => attribute.type_ = AttributeType::STRING.into(),
        _ => {
            attribute.type_ = AttributeType::TENSOR.into();
            attribute.t = Some(tensor::declared(String::new(), random)).into();
        }
    }
    change_attribute(&mut attribute, random);
    attribute
}

fn change_attribute(attribute: &mut AttributeProto, random: &mut Random) {
    match random.below(9) {
        0 => attribute.type_ = EnumOrUnknown::from_i32(random.below(17) as i32),
        1 => attribute.name = (*random.pick(ATTRIBUTES)).to_owned(),
        2 => attribute.ref_attr_name = (*random.pick(ATTRIBUTES)).to_owned(),
        3 => attribute.f = *random.pick(&[f32::NAN, f32::INFINITY, -0.0, f32::MAX, 1e-30]),
        4 => attribute.s = any_name(random).into_bytes(),
        5 => {
            if let Some(tensor) = attribute.t.as_mut() {
                tensor::change(tensor, random);
            }
        }
        6 => attribute.i = *random.pick(EDGES),
        7 => match some(&mut attribute.ints, random) {
            Some(number) => *number = *random.pick(EDGES),
            None => attribute.ints.push(*random.pick(EDGES)),
        },
        _ => match random.once_in(2) {
            true => attribute.ints.push(*random.pick(EDGES)),
            false => attribute.ints.truncate(1),
        },
    }
}
