//! Which nodes a base in fewer bits has, on a graph of three products.

use super::*;
use crate::adapt::Hooks;
use crate::graph::{Value, ValueKind};
use crate::train::{Graphs, Memory, Optimizer, Parameter, Recipe, Recompute, Sgd, Task, graphs};

/// `tanh((p - x) W)`, a `Gemm` with a transposed weight and a bias, and the first weight again, transposed;
/// `p` is trained.
fn model(opset: i64) -> Model {
    let mut graph = Graph::new("test");
    let ty = TensorType::new(DType::F32, Shape(vec![Dim::symbol("rows"), Dim::from(64)]));
    let kind = ValueKind::Input { default: None };
    let x = Value::with_kind("x", Some(ty.clone()), kind);
    let mut constant = |name: &str, dims: &[i64]| {
        let count = dims.iter().product::<i64>();
        let values: Vec<f32> = (0..count)
            .map(|at| ((at * 37 % 101) as f32 - 50.0) * 0.01)
            .collect();
        let tensor = Tensor::from_f32(dims, &values);
        graph.add_value(Value::initializer(name, tensor)).unwrap()
    };
    let [p, bias] = ["p", "bias"].map(|name| constant(name, &[64]));
    let [first, second] = ["first", "second"].map(|name| constant(name, &[64, 64]));
    let x = graph.add_value(x).unwrap();
    let mut node = |op: &str, result: &str, attributes, operands: &[ValueId], ty| {
        let value = graph.add_value(Value::computed(result, Some(ty))).unwrap();
        let operands: Vec<Option<ValueId>> = operands.iter().copied().map(Some).collect();
        let op = OpName::new("", op);
        graph.add_node(op, result, attributes, &operands, &[Some(value)]);
        value
    };
    let square = TensorType::new(DType::F32, Shape(vec![Dim::from(64), Dim::from(64)]));
    let negative = node("Neg", "negative", Vec::new(), &[x], ty.clone());
    let sum = node("Add", "sum", Vec::new(), &[negative, p], ty.clone());
    let one = node("MatMul", "one", Vec::new(), &[sum, first], ty.clone());
    let bent = node("Tanh", "bent", Vec::new(), &[one], ty.clone());
    let trans_b = vec![Attribute::int("transB", 1)];
    let two = node("Gemm", "two", trans_b, &[bent, second, bias], ty.clone());
    let turned = node("Transpose", "turned", Vec::new(), &[first], square);
    let three = node("MatMul", "three", Vec::new(), &[two, turned], ty.clone());
    let y = node("MatMul", "y", Vec::new(), &[three, first], ty);
    graph.add_output(y);
    Model::new("test.onnx", graph, 10, opset)
}

/// The model with its base rounded and kept, or only planned.
fn rounded(base: Base, is_planned: bool) -> Model {
    let mut model = model(20);
    let mut sink = Sink::new();
    let read = |tensor: &Tensor, _: &mut Sink| match &tensor.data {
        TensorData::Raw(bytes) => Ok(bytes.clone()),
        _ => panic!("it is in memory"),
    };
    let mut keep = |bytes: &[u8], _: &mut Sink| {
        Ok(ExternalData {
            location: "data".to_owned(),
            offset: 0,
            length: bytes.len() as u64,
        })
    };
    let rounding = match is_planned {
        true => Rounding::Planned,
        false => Rounding::Written(&read, &mut keep),
    };
    let excepted = FxHashSet::from_iter(["p"]);
    round_base(&mut model, base, &excepted, rounding, &mut sink).unwrap();
    model
}

/// Training graphs of `p`.
fn trained(model: &Model, base: Base, recompute: Recompute) -> Graphs {
    let recipe = Recipe {
        task: Task::Regression,
        output: None,
        optimizer: Optimizer::Sgd(Sgd {
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        }),
        max_grad_norm: None,
        base,
        rates: Vec::new(),
        memory: Memory {
            recompute,
            ..Memory::default()
        },
    };
    let parameter = Parameter {
        initializer: "p".to_owned(),
        module: None,
        name: "p".to_owned(),
        rate: 1.0,
    };
    let mut sink = Sink::new();
    graphs(model, &[parameter], &Hooks::default(), &recipe, &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()))
}

fn all_of(graph: &Graph, op: &str) -> Vec<NodeId> {
    let nodes = graph.node_ids();
    nodes.filter(|node| graph.node(*node).op.is(op)).collect()
}

/// Names and sizes of constants of more than one element.
fn constants(graph: &Graph) -> Vec<(String, DType, Vec<i64>, u64)> {
    let ids = graph.initializers().iter();
    let tensors = ids.filter_map(|id| {
        let value = graph.value(*id);
        let tensor = value.constant()?;
        let name = value.name.to_string();
        Some((name, tensor.dtype, tensor.dims.clone(), tensor.byte_len()))
    });
    tensors.filter(|(_, _, dims, _)| !dims.is_empty()).collect()
}

/// A node as a line.
fn lines(model: &Model) -> Vec<String> {
    let graph = &model.graph;
    let order = graph.order().unwrap();
    let name =
        |id: Option<ValueId>| id.map_or(String::new(), |id| graph.value(id).name.to_string());
    let line = |node: NodeId| {
        let operands = graph.operands(node).into_iter().map(name);
        let results = graph.results(node).into_iter();
        let types = results.map(|id| graph.value(id.unwrap()).ty.clone());
        let operands: Vec<String> = operands.collect();
        let types: Vec<Option<TensorType>> = types.collect();
        format!("{} {operands:?} {types:?}", graph.node(node).op.op_type)
    };
    order.into_iter().map(line).collect()
}

#[test]
fn what_is_planned_is_what_is_written() {
    for base in [Base::Int8, Base::Int8Weights, Base::Bf16, Base::F16] {
        let (written, planned) = (rounded(base, false), rounded(base, true));
        assert_eq!(lines(&written), lines(&planned), "{}", base.name());
        let found = constants(&planned.graph);
        assert_eq!(constants(&written.graph), found, "{}", base.name());
        let estimates = [&written, &planned].map(|model| trained(model, base, Recompute::Off));
        let [written, planned] = estimates.map(|graphs| graphs.estimate);
        assert_eq!(written, planned, "{}", base.name());
    }
}

#[test]
fn weights_in_8_bits_leave_products_as_they_are() {
    let model = rounded(Base::Int8Weights, false);
    let graph = &model.graph;
    assert_eq!(all_of(graph, "MatMul").len(), 3);
    let gemm = all_of(graph, "Gemm")[0];
    // The codes lie as the product wants them.
    assert_eq!(graph.node(gemm).int("transB"), None);
    assert_eq!(graph.operands(gemm).len(), 3);
    assert!(all_of(graph, "Transpose").is_empty());
    let rounded = all_of(graph, "DequantizeLinear");
    // Of two weights, one of which is read transposed, too.
    assert_eq!(rounded.len(), 3);
    for node in rounded {
        let [codes, scale] = [0, 1].map(|slot| {
            let id = graph.operand(node, slot).unwrap();
            let tensor = graph.value(id).constant().unwrap();
            (tensor.dtype, tensor.dims.clone())
        });
        assert_eq!(codes, (DType::I8, vec![64, 64]));
        assert_eq!(scale, (DType::F32, vec![64]));
        assert_eq!(graph.node(node).int("axis"), Some(-1));
    }
    let left = constants(graph);
    let floats = left
        .iter()
        .filter(|(_, dtype, dims, _)| *dtype == DType::F32 && dims.len() == 2);
    assert_eq!(floats.count(), 0, "{left:?}");
}

/// Otherwise the floats of every weight would be there from its forward to its backward product.
#[test]
fn every_product_makes_its_floats_itself() {
    let model = rounded(Base::Int8Weights, false);
    for recompute in [Recompute::Off, Recompute::Blocks] {
        let graphs = trained(&model, Base::Int8Weights, recompute);
        for (graph, readers) in [(&graphs.eval, 4), (&graphs.grad, 8), (&graphs.step, 8)] {
            let graph = &graph.model.graph;
            let of_codes = all_of(graph, "DequantizeLinear");
            assert_eq!(of_codes.len(), readers);
            let mut scales = FxHashSet::default();
            for node in &of_codes {
                let floats = graph.result(*node, 0).unwrap();
                assert_eq!(graph.use_count(floats), 1);
                // ONNX Runtime would make one node again of two that are equal.
                assert!(scales.insert(graph.operand(*node, 1)));
            }
            let codes = constants(graph).into_iter();
            let codes = codes.filter(|(_, dtype, ..)| *dtype == DType::I8);
            assert_eq!(codes.count(), 3);
            // Of the operands of a product what stands first is made last.
            let order = graph.order().unwrap();
            let place = |node: NodeId| order.iter().position(|other| *other == node);
            for node in of_codes {
                let (product, _) = graph.uses(graph.result(node, 0).unwrap())[0];
                let before = graph.producer(graph.operand(product, 0).unwrap());
                assert!(place(before.unwrap()) > place(node));
            }
        }
    }
}

#[test]
fn a_scale_a_column_needs_its_opset() {
    let mut model = model(12);
    let mut sink = Sink::new();
    let excepted = FxHashSet::default();
    let base = Base::Int8Weights;
    let found = round_base(&mut model, base, &excepted, Rounding::Planned, &mut sink);
    assert!(found.is_err());
    let said = &sink.diagnostics()[0];
    assert_eq!(said.code, crate::diag::Code::E0754);
    assert!(said.message.contains("opset 12"), "{}", said.message);
}
