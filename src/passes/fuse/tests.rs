use super::fuse;
use crate::diag::Sink;
use crate::graph::{
    Attribute, AttributeValue, Graph, Model, OpName, Tensor, Value, ValueId, ValueKind,
};
use crate::kernels::{DOMAIN, Op, PROGRAM, Program};
use crate::ty::{DType, Dim, Shape, TensorType};

/// A graph with `x: f32[batch, tokens, 64]`, written node by node.
pub(super) struct Draft(pub(super) Graph);

impl Draft {
    fn new() -> (Draft, ValueId) {
        let mut graph = Graph::new("test");
        let dims = ["batch", "tokens"].map(Dim::symbol);
        let dims = dims.into_iter().chain([Dim::from(64)]).collect();
        let ty = TensorType::new(DType::F32, Shape(dims));
        let kind = ValueKind::Input { default: None };
        let x = graph
            .add_value(Value::with_kind("x", Some(ty), kind))
            .unwrap();
        (Draft(graph), x)
    }

    pub(super) fn node(&mut self, op: &str, name: &str, operands: &[ValueId]) -> ValueId {
        self.with(op, name, operands, Vec::new())
    }

    pub(super) fn with(
        &mut self,
        op: &str,
        name: &str,
        operands: &[ValueId],
        attributes: Vec<Attribute>,
    ) -> ValueId {
        let result = self.0.add_value(Value::computed(name, None)).unwrap();
        let operands: Vec<Option<ValueId>> = operands.iter().map(|id| Some(*id)).collect();
        let op = OpName::new("", op);
        self.0
            .add_node(op, name, attributes, &operands, &[Some(result)]);
        result
    }

    fn weight(&mut self, dims: &[i64]) -> ValueId {
        let count = dims.iter().product::<i64>() as usize;
        let tensor = Tensor::from_f32(dims, &vec![0.5; count]);
        self.0.add_value(Value::initializer("w", tensor)).unwrap()
    }

    /// The operators of the fused graph in their order, and the programs among them.
    fn fused(mut self, outputs: &[ValueId]) -> (Vec<String>, Vec<Program>, Model) {
        outputs.iter().for_each(|id| self.0.add_output(*id));
        let mut model = model(self.0);
        let count = fuse(&mut model, &mut Sink::new()).unwrap();
        let order = model.graph.order().unwrap();
        let nodes = order.iter().map(|id| model.graph.node(*id));
        let programs: Vec<Program> = nodes
            .clone()
            .filter(|node| &*node.op.domain == DOMAIN)
            .map(|node| Program::decode(node.ints(PROGRAM).unwrap()).unwrap())
            .collect();
        assert_eq!(programs.len(), count);
        let ops = nodes.map(|node| node.op.op_type.to_string()).collect();
        (ops, programs, model)
    }
}

fn model(graph: Graph) -> Model {
    Model::new("test.onnx", graph, 10, 20)
}

#[test]
fn neighbours_become_one_program_and_keep_the_names_that_others_read() {
    let (mut draft, x) = Draft::new();
    let a = draft.node("Sigmoid", "a", &[x]);
    let b = draft.node("Mul", "b", &[x, a]);
    let c = draft.node("Neg", "c", &[b]);
    let (ops, programs, model) = draft.fused(&[b, c]);
    assert_eq!(ops, ["Rows"]);
    let steps: Vec<Op> = programs[0].steps.iter().map(|step| step.op).collect();
    assert_eq!(steps, [Op::Sigmoid, Op::Mul, Op::Neg]);
    assert_eq!(programs[0].outputs.len(), 2);
    assert!(model.graph.find_value("b").is_some() && model.graph.find_value("a").is_none());
    assert_eq!(model.opset(DOMAIN), Some(1));
}

#[test]
fn what_lies_between_keeps_nodes_apart() {
    let (mut draft, x) = Draft::new();
    let w = draft.weight(&[64, 64]);
    let a = draft.node("Sigmoid", "a", &[x]);
    let b = draft.node("Mul", "b", &[x, a]);
    let product = draft.node("MatMul", "product", &[b, w]);
    let c = draft.node("Add", "c", &[product, b]);
    let d = draft.node("Exp", "d", &[c]);
    let (ops, ..) = draft.fused(&[d]);
    assert_eq!(ops, ["Rows", "MatMul", "Rows"]);
}

#[test]
fn one_group_may_wait_for_another_only_once() {
    // Two chains that read each other: as two groups each would wait for the other.
    let (mut draft, x) = Draft::new();
    let w = draft.weight(&[64, 64]);
    let a = draft.node("Sigmoid", "a", &[x]);
    let a = draft.node("Mul", "a2", &[x, a]);
    let b = draft.node("MatMul", "product", &[x, w]);
    let b = draft.node("Exp", "b", &[b]);
    let b = draft.node("Mul", "b2", &[b, b]);
    let p = draft.node("MatMul", "p", &[b, w]);
    let q = draft.node("MatMul", "q", &[a, w]);
    let a = draft.node("Add", "a3", &[a, p]);
    let b = draft.node("Add", "b3", &[b, q]);
    let (ops, programs, _) = draft.fused(&[a, b]);
    assert_eq!(programs.len(), 2);
    assert_eq!(ops.iter().filter(|op| *op == "Add").count(), 1);
}

#[test]
fn nodes_that_only_move_or_stand_alone_stay() {
    let (mut draft, x) = Draft::new();
    let negative = draft.node("Neg", "negative", &[x]);
    let both = draft.with(
        "Concat",
        "both",
        &[negative, x],
        vec![Attribute::int("axis", 2)],
    );
    let turned = draft.with(
        "Transpose",
        "t",
        &[x],
        vec![Attribute::ints("perm", [1, 0, 2])],
    );
    let alone = draft.node("Exp", "alone", &[turned]);
    let (ops, programs, _) = draft.fused(&[both, alone]);
    assert!(programs.is_empty(), "{ops:?}");
}

#[test]
fn sums_over_other_axes_than_rows_stay() {
    for (axis, expected) in [(2, "Rows"), (-1, "Rows"), (1, "ReduceMean")] {
        let (mut draft, x) = Draft::new();
        let axes = Value::initializer("axes", Tensor::from_i64(&[1], &[axis]));
        let axes = draft.0.add_value(axes).unwrap();
        let mean = draft.node("ReduceMean", "mean", &[x, axes]);
        let centred = draft.node("Sub", "centred", &[x, mean]);
        let square = draft.node("Mul", "square", &[centred, centred]);
        let (ops, ..) = draft.fused(&[square]);
        assert_eq!(ops[0], expected);
    }
}

/// In a body, which the node that owns it still has, with the outputs that it had.
#[test]
fn bodies_run_programs_too() {
    let (mut body, x) = Draft::new();
    let a = body.node("Sigmoid", "a", &[x]);
    let b = body.node("Mul", "b", &[x, a]);
    body.0.add_output(b);
    let (mut draft, rows) = Draft::new();
    let attributes = vec![
        Attribute::new("body", AttributeValue::Graph(Box::new(body.0))),
        Attribute::int("num_scan_inputs", 1),
    ];
    let all = draft.with("Scan", "all", &[rows], attributes);
    draft.0.add_output(all);
    let mut model = model(draft.0);
    assert_eq!(fuse(&mut model, &mut Sink::new()).unwrap(), 1);
    let owner = model.graph.producer(all).unwrap();
    let body = &model.graph.node(owner).attributes[0].value.graphs()[0];
    let ops: Vec<&str> = body
        .node_ids()
        .map(|id| &*body.node(id).op.op_type)
        .collect();
    assert_eq!(ops, ["Rows"]);
    assert_eq!(&*body.value(body.outputs()[0]).name, "b");
    assert_eq!(model.opset(DOMAIN), Some(1));
}
