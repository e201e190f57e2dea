//! Tests of running whole graphs; operators are tested beside their evaluations.

use super::check::{floats, ints};
use super::{Array, Evaluator, Failure, Fault, Options, run};
use crate::graph::{Attribute, AttributeValue, Graph, Model, OpName, Tensor, Value, ValueKind};
use crate::ty::{DType, Shape, TensorType};

/// A graph under construction: every node has one result, named after it.
struct Builder(Graph);

impl Builder {
    fn new() -> Self {
        Builder(Graph::new("test"))
    }

    fn input(mut self, name: &str, dtype: DType) -> Self {
        let ty = Some(TensorType::new(dtype, Shape::default()));
        let kind = ValueKind::Input { default: None };
        self.0.add_value(Value::with_kind(name, ty, kind)).unwrap();
        self
    }

    fn constant(mut self, name: &str, tensor: Tensor) -> Self {
        self.0.add_value(Value::initializer(name, tensor)).unwrap();
        self
    }

    fn captured(mut self, name: &str) -> Self {
        self.0.capture_value(name);
        self
    }

    fn node(self, op: &str, inputs: &[&str], output: &str) -> Self {
        self.node_with(op, inputs, &[output], Vec::new())
    }

    fn node_with(
        mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> Self {
        let find = |graph: &Graph, name: &&str| graph.find_value(name);
        let operands: Vec<_> = inputs.iter().map(|name| find(&self.0, name)).collect();
        let results: Vec<_> = outputs
            .iter()
            .map(|name| Some(self.0.add_value(Value::computed(name, None)).unwrap()))
            .collect();
        let captures: Vec<_> = attributes
            .iter()
            .flat_map(|attribute| attribute.value.graphs())
            .flat_map(|body| body.value_ids().map(|id| body.value(id)))
            .filter(|value| matches!(value.kind, ValueKind::Captured))
            .filter_map(|value| self.0.find_value(&value.name))
            .collect();
        let node = self
            .0
            .add_node(OpName::new("", op), "", attributes, &operands, &results);
        captures
            .into_iter()
            .for_each(|value| self.0.add_capture(node, value));
        self
    }

    fn typed(mut self, name: &str, ty: TensorType) -> Self {
        let id = self.0.find_value(name).unwrap();
        self.0.set_type(id, ty);
        self
    }

    fn body(self, outputs: &[&str]) -> AttributeValue {
        AttributeValue::Graph(Box::new(self.outputs(outputs)))
    }

    fn outputs(mut self, names: &[&str]) -> Graph {
        for name in names {
            let id = self.0.find_value(name).unwrap();
            self.0.add_output(id);
        }
        self.0
    }

    fn model(self, outputs: &[&str]) -> Model {
        Model::new("test.onnx", self.outputs(outputs), 8, 18)
    }
}

#[track_caller]
fn check_run(model: &Model, inputs: &[(&str, Array)], expected: &[f64]) {
    let results = run(model, inputs, &Options::default()).unwrap();
    assert_eq!(results[0].1.to_f64s(), expected);
}

#[track_caller]
fn check_failure(model: &Model, inputs: &[(&str, Array)], words: &str) -> Failure {
    let failure = run(model, inputs, &Options::default()).unwrap_err();
    assert!(failure.to_string().contains(words), "{failure}");
    failure
}

/// `y = (x + w)²`.
fn squared_sum() -> Model {
    Builder::new()
        .input("x", DType::F32)
        .constant("w", Tensor::from_f32(&[2], &[1.0, 2.0]))
        .node("Add", &["x", "w"], "sum")
        .node("Mul", &["sum", "sum"], "y")
        .model(&["y"])
}

#[test]
fn what_is_given_is_not_computed() {
    let model = squared_sum();
    let x = || ("x", floats(&[2], &[0.5, 1.0]));
    check_run(&model, &[x()], &[2.25, 9.0]);
    check_run(
        &model,
        &[x(), ("w", floats(&[2], &[0.0, 0.0]))],
        &[0.25, 1.0],
    );
    check_run(&model, &[("sum", floats(&[1], &[3.0]))], &[9.0]);
}

#[test]
fn only_what_is_wanted_is_computed() {
    let model = squared_sum();
    let evaluator = Evaluator::new(&model, &Options::default()).unwrap();
    let values = evaluator
        .values(&[("x", floats(&[1], &[0.0]))], &["sum", "x"])
        .unwrap();
    assert_eq!(values[0].1.to_f64s(), [1.0, 2.0]);
    assert_eq!(values[1].0, "x");
    assert_eq!(evaluator.values(&[], &["w"]).unwrap()[0].1.len(), 2);
}

#[test]
fn a_missing_or_wrong_input_is_named() {
    let model = squared_sum();
    check_failure(&model, &[], "value `x`: it is neither given nor computed");
    check_failure(
        &model,
        &[("z", floats(&[], &[1.0]))],
        "there is no value `z`",
    );
    let words = "input `x`: a tensor of type i64, f32 is needed";
    check_failure(&model, &[("x", ints(&[], &[1]))], words);
    let words = "`sum` (Add): sizes 3 and 2 do not broadcast";
    check_failure(&model, &[("x", floats(&[3], &[0.0; 3]))], words);
}

#[test]
fn an_unknown_operator_is_named() {
    let model = Builder::new()
        .input("x", DType::F32)
        .node("Frobnicate", &["x"], "y")
        .model(&["y"]);
    let words = "`y` (Frobnicate): the reference has no evaluation of the operator";
    let failure = check_failure(&model, &[("x", floats(&[], &[1.0]))], words);
    assert_eq!(failure.fault, Fault::Unknown);
}

#[test]
fn floats_keep_their_width_in_casts() {
    let half = vec![Attribute::int("to", i64::from(DType::F16.number()))];
    let model = Builder::new()
        .input("x", DType::F32)
        .node_with("Cast", &["x"], &["y"], half)
        .model(&["y"]);
    let x = [("x", floats(&[1], &[0.1]))];
    check_run(&model, &x, &[0.1]);
    let options = Options {
        rounding: super::Rounding::Declared,
        ..Options::default()
    };
    let rounded = run(&model, &x, &options).unwrap();
    assert_eq!(rounded[0].1.to_f64s(), [0.0999755859375]);
}

/// `y = if c { x + x } else { x }`.
#[test]
fn a_branch_reads_the_enclosing_graph() {
    let then = Builder::new()
        .captured("x")
        .node("Add", &["x", "x"], "twice")
        .body(&["twice"]);
    let other = Builder::new().captured("x").body(&["x"]);
    let branches = vec![
        Attribute::new("then_branch", then),
        Attribute::new("else_branch", other),
    ];
    let model = Builder::new()
        .input("c", DType::Bool)
        .input("x", DType::F32)
        .node_with("If", &["c"], &["y"], branches)
        .model(&["y"]);
    let inputs = |c| {
        [
            ("c", Array::bools(&[], vec![c]).unwrap()),
            ("x", floats(&[1], &[3.0])),
        ]
    };
    check_run(&model, &inputs(true), &[6.0]);
    check_run(&model, &inputs(false), &[3.0]);
}

/// `total = Σ w` for so many turns, and every partial sum.
fn summing_loop(condition: bool) -> Model {
    let body = Builder::new()
        .input("i", DType::I64)
        .input("c", DType::Bool)
        .input("before", DType::F32)
        .captured("w")
        .node("Identity", &["c"], "again")
        .node("Add", &["before", "w"], "after")
        .node("Identity", &["after"], "partial")
        .typed("partial", TensorType::new(DType::F32, Shape::default()))
        .body(&["again", "after", "partial"]);
    let body = vec![Attribute::new("body", body)];
    let mut builder = Builder::new()
        .input("m", DType::I64)
        .constant("w", Tensor::from_f32(&[], &[2.0]))
        .constant("zero", Tensor::from_f32(&[], &[0.0]));
    if condition {
        let raw = Tensor::from_raw(DType::Bool, &[], vec![1]);
        builder = builder.constant("on", raw);
    }
    builder
        .node_with("Loop", &["m", "on", "zero"], &["total", "partials"], body)
        .model(&["partials", "total"])
}

#[test]
fn a_loop_carries_and_stacks() {
    let model = summing_loop(true);
    check_run(&model, &[("m", ints(&[], &[3]))], &[2.0, 4.0, 6.0]);
    check_run(&model, &[("m", ints(&[], &[0]))], &[]);
}

#[test]
fn an_endless_loop_ends() {
    let model = summing_loop(false);
    let failure = check_failure(&model, &[("m", ints(&[], &[i64::MAX]))], "turns of loops");
    assert!(matches!(failure.fault, Fault::TooLarge(_)));
}

#[test]
fn a_size_that_data_states_has_a_limit() {
    let model = Builder::new()
        .input("dims", DType::I64)
        .node("ConstantOfShape", &["dims"], "y")
        .model(&["y"]);
    check_run(&model, &[("dims", ints(&[2], &[1, 2]))], &[0.0, 0.0]);
    check_failure(
        &model,
        &[("dims", ints(&[2], &[1 << 20, 1 << 20]))],
        "at most",
    );
    check_failure(&model, &[("dims", ints(&[1], &[-1]))], "a size of -1");
}

#[test]
fn an_infinite_input_stays_what_it_is() {
    let model = squared_sum();
    check_run(
        &model,
        &[("x", floats(&[2], &[f64::INFINITY, 0.0]))],
        &[f64::INFINITY, 4.0],
    );
}

/// Registered operators without an evaluation, with the reason.
const LACKING: &[(&str, &str, &str)] = &[
    ("com.microsoft", "MoE", "adapters are not put into experts"),
    ("com.microsoft", "QMoE", "adapters are not put into experts"),
];

#[test]
fn every_registered_operator_has_an_evaluation() {
    let mut lacking = Vec::new();
    for entry in crate::ops::FAMILIES.iter().copied().flatten() {
        if super::table::find(entry.domain, entry.name, entry.since).is_none() {
            lacking.push((entry.domain, entry.name));
        }
    }
    let known: Vec<_> = LACKING
        .iter()
        .map(|(domain, name, _)| (*domain, *name))
        .collect();
    assert_eq!(lacking, known);
}

#[test]
fn an_operator_is_evaluated_as_its_version_says() {
    let x = floats(&[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let sums = |opset| {
        let y = super::check::first("Softmax", opset, &[&x], &[]).to_f64s();
        [y[0] + y[1], y[0] + y[1] + y[2] + y[3]].map(f64::round)
    };
    // Over everything from axis 1 on, then over the last axis alone.
    assert_eq!(sums(11), [0.0, 1.0]);
    assert_eq!(sums(13), [1.0, 2.0]);
}
