//! The layers of a recording of `fixtures/methods` as a model: every site has its own input and output.

use crate::differentiated::new_node;
use crate::reference::array;
use peftc::graph::{Attribute, Graph, Model, Operand, Patch, Tensor};
use peftc::reference::Array;
use peftc::runtime::NamedTensors;
use peftc::ty::{DType, Dim, Shape, TensorType};
use serde_json::Value;

/// Inputs `input.<site>`, outputs `output.<site>`, weights under torch's names.
pub(crate) fn net(description: &Value, recording: &NamedTensors) -> Model {
    let mut patch = Patch::new();
    patch.front();
    let input = |patch: &mut Patch, name: &str| {
        let given = recording.get(name).unwrap();
        let dims = given.dims().iter().map(|dim| Dim::from(*dim)).collect();
        let ty = TensorType {
            dtype: given.dtype(),
            shape: Some(Shape(dims)),
        };
        patch.input(name, ty, None)
    };
    for name in token_inputs(recording) {
        input(&mut patch, name);
    }
    for (site, facts) in description["sites"].as_object().unwrap() {
        let x = input(&mut patch, &format!("input.{site}"));
        let constant = |patch: &mut Patch, part: &str| {
            let found = recording.get(&format!("base.{site}.{part}"))?;
            let tensor = Tensor::from_raw(found.dtype(), found.dims(), found.bytes().clone());
            Some(patch.constant(&format!("{site}.{part}"), tensor))
        };
        let weight = constant(&mut patch, "weight").unwrap();
        let bias = constant(&mut patch, "bias");
        let y = layer(&mut patch, facts, x, weight, bias);
        patch.named_output(y, &format!("output.{site}"));
    }
    let mut graph = Graph::new("methods");
    graph.apply(patch).unwrap();
    Model::new("net.onnx", graph, 10, 23)
}

/// What the rows of all inputs hold, where the recording says it.
fn token_inputs(recording: &NamedTensors) -> impl Iterator<Item = &'static str> {
    let names = ["input_ids", "attention_mask"].into_iter();
    names.filter(|name| recording.get(name).is_some())
}

/// The inputs of the net, with what was recorded.
pub(crate) fn inputs(description: &Value, recording: &NamedTensors) -> Vec<(String, Array)> {
    let sites = description["sites"].as_object().unwrap().keys();
    let sites = sites.map(|site| format!("input.{site}"));
    let names = token_inputs(recording).map(str::to_owned).chain(sites);
    names
        .map(|name| {
            let given = array(recording.get(&name).unwrap());
            (name, given)
        })
        .collect()
}

fn layer(
    patch: &mut Patch,
    facts: &Value,
    x: Operand,
    weight: Operand,
    bias: Option<Operand>,
) -> Operand {
    let ints = |key: &str| -> Vec<i64> {
        let all = facts[key].as_array().unwrap().iter();
        all.map(|value| value.as_i64().unwrap()).collect()
    };
    let node = |patch: &mut Patch, op: &str, inputs: &[Operand], attributes| {
        patch.node(new_node(op, inputs, attributes), None)
    };
    match facts["class"].as_str().unwrap() {
        "Linear" => {
            let turn = vec![Attribute::ints("perm", [1, 0])];
            let turned = node(patch, "Transpose", &[weight], turn);
            let product = node(patch, "MatMul", &[x, turned], vec![]);
            match bias {
                Some(bias) => node(patch, "Add", &[product, bias], vec![]),
                None => product,
            }
        }
        "Conv1d" | "Conv2d" => {
            let padding = ints("padding");
            let attributes = vec![
                Attribute::ints("strides", ints("stride")),
                Attribute::ints("pads", [padding.clone(), padding].concat()),
                Attribute::int("group", facts["groups"].as_i64().unwrap()),
            ];
            let inputs: Vec<Operand> = [x, weight].into_iter().chain(bias).collect();
            node(patch, "Conv", &inputs, attributes)
        }
        "Embedding" => node(patch, "Gather", &[weight, x], vec![]),
        "LayerNorm" => {
            let inputs: Vec<Operand> = [x, weight].into_iter().chain(bias).collect();
            let epsilon = vec![Attribute::float("epsilon", 1e-5)];
            node(patch, "LayerNormalization", &inputs, epsilon)
        }
        "RMSNorm" => {
            let epsilon = vec![Attribute::float("epsilon", 1e-6)];
            node(patch, "RMSNormalization", &[x, weight], epsilon)
        }
        other => panic!("a layer of class {other}"),
    }
}

/// Appends `Σ loss · output` over all sites.
pub(crate) fn loss(
    model: &mut Model,
    description: &Value,
    recording: &NamedTensors,
) -> peftc::graph::ValueId {
    let mut patch = Patch::new();
    let sites = description["sites"].as_object().unwrap();
    let mut total: Option<Operand> = None;
    let last = model.graph.node_ids().last().unwrap();
    patch.behind(last);
    for site in sites.keys() {
        let output = model.graph.find_value(&format!("output.{site}")).unwrap();
        let found = recording.get(&format!("loss.{site}")).unwrap();
        let tensor = Tensor::from_raw(DType::F32, found.dims(), found.bytes().clone());
        let factors = patch.constant(&format!("loss.{site}"), tensor);
        let product = patch.node(new_node("Mul", &[output.into(), factors], vec![]), None);
        let all = vec![Attribute::int("keepdims", 0)];
        let sum = patch.node(new_node("ReduceSum", &[product], all), None);
        total = Some(match total {
            Some(before) => patch.node(new_node("Add", &[before, sum], vec![]), None),
            None => sum,
        });
    }
    let total = total.unwrap();
    patch.output(total);
    let applied = model.graph.apply(patch).unwrap();
    let Operand::New(index) = total else {
        unreachable!()
    };
    applied.values[index as usize]
}
