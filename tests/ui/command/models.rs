//! Models with a fault each, written with another ONNX library than peftc's own.

use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
    tensor_shape_proto::Dimension, type_proto,
};
use protobuf::{Message, UnknownFields};
use std::fs::File;
use std::io::Write;
use std::path::Path;

const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// Writes the model of this name.
pub fn write(name: &str, path: &Path) -> Result<(), String> {
    let fail = |error: std::io::Error| error.to_string();
    if name == "almost_2_gib" {
        return almost_2_gib(path).map_err(fail);
    }
    let mut model = small();
    match name {
        "ir_15" => model.ir_version = 15,
        "opset_9" => model.opset_import = vec![opset("", 9)],
        "opset_29" => model.opset_import = vec![opset("", 29)],
        "no_opset" => model.opset_import = vec![opset("com.microsoft", 1)],
        "two_opsets" => model.opset_import.push(opset("ai.onnx", 21)),
        "function_in_a_circle" => functions(&mut model, &[("A", &["B"]), ("B", &["A"])]),
        "function_of_opset_18" => {
            functions(&mut model, &[("A", &[])]);
            model.functions[0].opset_import = vec![opset("", 18)];
        }
        "function_bomb" => {
            let names: Vec<String> = (0..10).map(|level| format!("F{level}")).collect();
            let next = |level: usize| match names.get(level + 1) {
                Some(name) => vec![&**name; 10],
                None => Vec::new(),
            };
            let calls: Vec<Vec<&str>> = (0..10).map(next).collect();
            let list = names.iter().zip(&calls);
            let list: Vec<_> = list.map(|(name, calls)| (&**name, &calls[..])).collect();
            functions(&mut model, &list);
        }
        _ => change(name, model.graph.mut_or_insert_default())?,
    }
    let mut bytes = model.write_to_bytes().expect("a model serializes");
    if name == "cut_off" {
        bytes.truncate(bytes.len() / 2);
    }
    std::fs::write(path, bytes).map_err(fail)
}

/// Adds local functions of one input and one output that call others one after another; the first
/// of them takes the place of the last node.
fn functions(model: &mut ModelProto, list: &[(&str, &[&str])]) {
    let local = |op: &str, input: &str, output: &str| NodeProto {
        domain: "local".into(),
        ..node(op, &[input], &[output])
    };
    for (name, calls) in list {
        let mut nodes = vec![node("Relu", &["a"], &["r0"])];
        for (at, called) in calls.iter().enumerate() {
            nodes.push(local(called, &format!("r{at}"), &format!("r{}", at + 1)));
        }
        model.functions.push(FunctionProto {
            name: (*name).into(),
            domain: "local".into(),
            input: vec!["a".into()],
            output: vec![format!("r{}", calls.len())],
            node: nodes,
            opset_import: vec![opset("", 20), opset("local", 1)],
            ..Default::default()
        });
    }
    model.opset_import.push(opset("local", 1));
    model.graph.mut_or_insert_default().node[1] = local(list[0].0, "h", "y");
}

/// `y = relu(x w)`; the product is the module `fc`.
fn small() -> ModelProto {
    let mut product = node("MatMul", &["x", "w"], &["h"]);
    product.name = "/fc/MatMul".into();
    ModelProto {
        ir_version: 10,
        opset_import: vec![opset("", 20)],
        graph: Some(GraphProto {
            name: "main".into(),
            node: vec![product, node("Relu", &["h"], &["y"])],
            initializer: vec![floats("w", &[2, 3])],
            input: vec![value("x", FLOAT, &[1, 2])],
            output: vec![value("y", FLOAT, &[1, 3])],
            value_info: vec![value("h", FLOAT, &[1, 3])],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

fn change(name: &str, graph: &mut GraphProto) -> Result<(), String> {
    match name {
        "small" | "cut_off" => {}
        // Of the graph.
        "defined_twice" => graph.node.push(node("Abs", &["x"], &["h"])),
        "input_defined_twice" => graph.node.push(node("Abs", &["x"], &["x"])),
        "not_defined" => graph.node[1].input[0] = "hh".into(),
        "output_not_defined" => graph.output[0].name = "yy".into(),
        "cycle" => {
            graph.node[0].input[0] = "back".into();
            graph.node.push(node("Abs", &["y"], &["back"]));
        }
        "not_sorted" => graph.node.reverse(),
        "same_names" => graph.node[1].name = graph.node[0].name.clone(),
        "input_twice" => graph.input.push(graph.input[0].clone()),
        "overridable" => graph.input.push(value("w", FLOAT, &[2, 3])),
        "types_contradict" => graph.output[0] = value("y", INT64, &[1, 3]),
        "shapes_contradict" => graph.output[0] = value("y", FLOAT, &[1, 4]),
        "operands_do_not_fit" => graph.input[0] = value("x", FLOAT, &[1, 5]),
        "deep" => {
            for _ in 0..40 {
                let body = std::mem::take(graph);
                *graph = around(body);
            }
        }
        // Of nodes and tensors.
        "nameless" => graph.node[0].name.clear(),
        "nameless_pair" => {
            graph.node[0].name.clear();
            graph.initializer.push(floats("u", &[3, 3]));
            graph.node[1] = node("MatMul", &["h", "u"], &["y"]);
        }
        "attribute_without_value" => graph.node[1].attribute.push(AttributeProto {
            name: "alpha".into(),
            ..Default::default()
        }),
        "no_operator" => graph.node[1].op_type.clear(),
        "huge_tensor" => graph.initializer[0].dims = vec![1 << 40],
        "unknown_type" => graph.initializer[0].data_type = 99,
        "unknown_field" => unknown_field(graph.node[0].mut_unknown_fields()),
        "unknown_field_lost" => {
            sparse(graph, &[2, 3]);
            unknown_field(graph.sparse_initializer[0].mut_unknown_fields());
        }
        // An entry of a node that an adapter changes.
        "unknown_field_rewritten" => {
            let mut entry = StringStringEntryProto {
                key: "from".into(),
                value: "a tool".into(),
                ..Default::default()
            };
            unknown_field(entry.special_fields.mut_unknown_fields());
            graph.node[0].metadata_props.push(entry);
        }
        "sparse" => sparse(graph, &[2, 3]),
        "sparse_huge" => sparse(graph, &[1 << 20, 1 << 20]),
        "not_finite" => graph.initializer[0].raw_data = f32::NAN.to_le_bytes().repeat(6),
        // Of external data.
        "external" => external(graph, &[("location", "w.bin")]),
        "external_elsewhere" => external(graph, &[("location", "../w.bin")]),
        "external_length" => external(graph, &[("location", "w.bin"), ("length", "23")]),
        "external_checksum" => external(
            graph,
            &[("location", "w.bin"), ("checksum", &"0123456789".repeat(4))],
        ),
        "external_md5" => external(graph, &[("location", "w.bin"), ("checksum", "md5:123")]),
        "external_key" => external(graph, &[("location", "w.bin"), ("prepacked", "x")]),
        // Of what only ONNX Runtime sees.
        "rounded" => graph.node[1].op_type = "Round".into(),
        "unknown_operator" => graph.node[1].op_type = "Relo".into(),
        "index_outside" => {
            graph.initializer.push(int("seven", 7));
            graph.node[1] = node("Gather", &["h", "seven"], &["y"]);
            graph.output[0] = value("y", FLOAT, &[3]);
        }
        // 256 TiB, which no process can address.
        "huge_result" => {
            graph.initializer.push(TensorProto {
                name: "sizes".into(),
                dims: vec![2],
                data_type: INT64,
                int64_data: vec![1 << 45, 2],
                ..Default::default()
            });
            graph.node[1] = node("Expand", &["x", "sizes"], &["y"]);
            graph.node[1].name = "stretch".into();
            graph.output[0] = value("y", FLOAT, &[1 << 45, 2]);
        }
        "sequence" => {
            let elements = value("all", FLOAT, &[1, 3]).type_;
            let mut all = TypeProto::new();
            all.mut_sequence_type().elem_type = elements;
            graph.output.push(ValueInfoProto {
                name: "all".into(),
                type_: Some(all).into(),
                ..Default::default()
            });
            graph.node.push(node("SequenceConstruct", &["y"], &["all"]));
        }
        other => return Err(format!("no model `{other}`")),
    }
    Ok(())
}

/// A graph whose only node has `body` as both branches.
fn around(body: GraphProto) -> GraphProto {
    let branch = |name: &str, body: GraphProto| AttributeProto {
        name: name.into(),
        type_: AttributeType::GRAPH.into(),
        g: Some(body).into(),
        ..Default::default()
    };
    let inner = GraphProto {
        input: Vec::new(),
        ..body.clone()
    };
    let mut choice = node("If", &["condition"], &["y"]);
    choice.attribute = vec![branch("then_branch", inner), branch("else_branch", leaf())];
    GraphProto {
        name: "main".into(),
        node: vec![choice],
        input: vec![value("condition", 9, &[]), value("x", FLOAT, &[1, 2])],
        output: vec![value("y", FLOAT, &[1, 3])],
        ..Default::default()
    }
}

fn leaf() -> GraphProto {
    GraphProto {
        name: "leaf".into(),
        node: vec![node("Identity", &["one"], &["y"])],
        initializer: vec![floats("one", &[1, 3])],
        output: vec![value("y", FLOAT, &[1, 3])],
        ..Default::default()
    }
}

/// [`small`] with one more initializer that fills the file up to protobuf's limit. The file is
/// sparse: it takes no room on the disk.
fn almost_2_gib(path: &Path) -> std::io::Result<()> {
    const LIMIT: u64 = (1 << 31) - 1;
    let varint = |mut number: u64| {
        let mut bytes = Vec::new();
        while number >= 128 {
            bytes.push(number as u8 | 128);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let field = |number: u64, length: u64| [varint(number << 3 | 2), varint(length)].concat();
    let mut small = small();
    let graph = small.graph.take().expect("it has a graph");
    let rest = small.write_to_bytes().expect("a model serializes");
    let graph = graph.write_to_bytes().expect("a graph serializes");
    // 200 bytes less than the limit are less than an adapter takes.
    let data = (LIMIT - 200 - (rest.len() + graph.len()) as u64) / 4 * 4;
    let mut tensor = floats("padding", &[]);
    tensor.dims = vec![data as i64 / 4];
    tensor.raw_data.clear();
    let tensor = tensor.write_to_bytes().expect("a tensor serializes");
    let tensor = [tensor, field(9, data)].concat();
    let tensor_size = tensor.len() as u64 + data;
    let initializer = [field(5, tensor_size), tensor].concat();
    let graph_size = graph.len() as u64 + initializer.len() as u64 + data;
    let start = [rest, field(7, graph_size), graph, initializer].concat();
    let mut file = File::create(path)?;
    file.write_all(&start)?;
    file.set_len(start.len() as u64 + data)
}

/// A field that no version of ONNX has.
fn unknown_field(fields: &mut UnknownFields) {
    fields.add_varint(99, 1);
}

/// Makes `w` sparse, with one value.
fn sparse(graph: &mut GraphProto, dims: &[i64]) {
    graph.initializer.clear();
    let mut indices = int("", 4);
    indices.dims = vec![1];
    graph.sparse_initializer.push(SparseTensorProto {
        values: Some(floats("w", &[1])).into(),
        indices: Some(indices).into(),
        dims: dims.to_vec(),
        ..Default::default()
    });
}

fn external(graph: &mut GraphProto, pairs: &[(&str, &str)]) {
    let tensor = &mut graph.initializer[0];
    tensor.raw_data.clear();
    tensor.data_location = DataLocation::EXTERNAL.into();
    tensor.external_data = pairs
        .iter()
        .map(|(key, value)| StringStringEntryProto {
            key: (*key).into(),
            value: (*value).into(),
            ..Default::default()
        })
        .collect();
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    NodeProto {
        op_type: op.into(),
        name: format!("{op}_{}", outputs.join("_")),
        input: strings(inputs),
        output: strings(outputs),
        ..Default::default()
    }
}

fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let elements = dims.iter().product::<i64>() as usize;
    TensorProto {
        name: name.into(),
        data_type: FLOAT,
        dims: dims.to_vec(),
        raw_data: vec![0; elements * 4],
        ..Default::default()
    }
}

fn int(name: &str, number: i64) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: INT64,
        raw_data: number.to_le_bytes().to_vec(),
        ..Default::default()
    }
}

fn value(name: &str, elements: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = |size: &i64| {
        let mut dim = Dimension::new();
        dim.set_dim_value(*size);
        dim
    };
    let shape = TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
        ..Default::default()
    };
    let mut ty = TypeProto::new();
    ty.set_tensor_type(type_proto::Tensor {
        elem_type: elements,
        shape: Some(shape).into(),
        ..Default::default()
    });
    ValueInfoProto {
        name: name.into(),
        type_: Some(ty).into(),
        ..Default::default()
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: domain.into(),
        version,
        ..Default::default()
    }
}
