//! Subgraphs and local functions made of a model's own nodes.

use super::{any_name, graph, name_in, node};
use crate::random::Random;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    ValueInfoProto,
};
use protobuf::MessageField;

/// The domain of the functions.
const DOMAIN: &str = "f";

/// Puts some nodes into the bodies of a control-flow node, once or many times over.
pub fn subgraph(graph: &mut GraphProto, random: &mut Random) {
    let Some(range) = some_nodes(graph, random) else {
        return;
    };
    let levels = match random.once_in(3) {
        true => 1 << random.below(7),
        false => 1,
    };
    let (op, bodies) = *random.pick(&[
        ("If", &["then_branch", "else_branch"][..]),
        ("Loop", &["body"]),
        ("Scan", &["body"]),
    ]);
    let mut nodes: Vec<NodeProto> = graph.node.drain(range.clone()).collect();
    for level in 0..levels {
        let outputs: Vec<String> = nodes.iter().flat_map(|n| n.output.clone()).collect();
        let body = GraphProto {
            node: nodes,
            name: any_name(random),
            output: outputs.iter().map(|name| value(name)).collect(),
            ..Default::default()
        };
        let mut owner = NodeProto {
            op_type: op.to_owned(),
            name: format!("level{level}"),
            input: vec![name_in(graph, random)],
            output: outputs,
            ..Default::default()
        };
        // Two bodies at every level would double the model each time.
        let both = level == 0 || random.once_in(8);
        for name in bodies.iter().take(if both { 2 } else { 1 }) {
            owner.attribute.push(AttributeProto {
                name: (*name).to_owned(),
                type_: AttributeType::GRAPH.into(),
                g: MessageField::some(body.clone()),
                ..Default::default()
            });
        }
        nodes = vec![owner];
    }
    graph.node.splice(range.start..range.start, nodes);
}

/// Some nodes that follow one another.
fn some_nodes(graph: &GraphProto, random: &mut Random) -> Option<std::ops::Range<usize>> {
    let start = random.below(graph.node.len());
    let end = (start + 1 + random.below(6)).min(graph.node.len());
    (start < end).then_some(start..end)
}

fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.to_owned(),
        ..Default::default()
    }
}

/// Makes a function of some nodes, and functions that call it again and again, up to a call of the
/// last one in the graph.
pub fn function(model: &mut ModelProto, random: &mut Random) {
    let Some(graph) = model.graph.as_mut() else {
        return;
    };
    let Some(range) = some_nodes(graph, random) else {
        return;
    };
    let nodes: Vec<NodeProto> = graph.node.drain(range.clone()).collect();
    let inputs: Vec<String> = nodes.iter().flat_map(|n| n.input.clone()).collect();
    let outputs: Vec<String> = nodes.iter().flat_map(|n| n.output.clone()).collect();
    let call = |level: usize, outputs: Vec<String>| NodeProto {
        op_type: format!("f{level}"),
        domain: DOMAIN.to_owned(),
        input: inputs.clone(),
        output: outputs,
        ..Default::default()
    };
    let define = |level: usize, nodes: Vec<NodeProto>| FunctionProto {
        name: format!("f{level}"),
        domain: DOMAIN.to_owned(),
        input: inputs.clone(),
        output: outputs.clone(),
        node: nodes,
        opset_import: model.opset_import.clone(),
        ..Default::default()
    };
    let levels = match random.once_in(3) {
        true => 1 << random.below(7),
        false => 1,
    };
    let calls = random.below(4);
    let mut functions = vec![define(0, nodes)];
    for level in 1..levels {
        let renamed = |n: usize| outputs.iter().map(|o| format!("{o}.{n}")).collect();
        let mut body: Vec<NodeProto> = (0..calls).map(|n| call(level - 1, renamed(n))).collect();
        // Sometimes it calls itself.
        let inner = if random.once_in(20) { level } else { level - 1 };
        body.push(call(inner, outputs.clone()));
        functions.push(define(level, body));
    }
    let last = call(levels - 1, outputs.clone());
    graph.node.insert(range.start, last);
    model.functions.extend(functions);
    if !model
        .opset_import
        .iter()
        .any(|entry| entry.domain == DOMAIN)
    {
        model.opset_import.push(OperatorSetIdProto {
            domain: DOMAIN.to_owned(),
            version: 1,
            ..Default::default()
        });
    }
}

/// Changes the body of a function as if it were a graph, or its interface.
pub fn change_function(function: &mut FunctionProto, random: &mut Random) {
    match random.below(6) {
        0 => drop(function.input.pop()),
        1 => function.output.push(any_name(random)),
        2 => function.attribute.push("axis".to_owned()),
        3 => function.opset_import.clear(),
        _ => {
            let mut body = GraphProto {
                node: std::mem::take(&mut function.node),
                value_info: std::mem::take(&mut function.value_info),
                ..Default::default()
            };
            match random.once_in(3) {
                true => graph::change(&mut body, random),
                false => node::change_some(&mut body, random),
            }
            function.node = body.node;
            function.value_info = body.value_info;
        }
    }
}
