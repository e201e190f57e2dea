//! Gradients of several nodes at once: activations that are written as chains, softmax in attention.

use super::gradients;
use super::tests::Build;
use crate::diag::Sink;
use crate::graph::{Attribute, Model, NodeId, ValueId};
use crate::reference::{self, Array};
use crate::ty::DType;
use std::collections::BTreeSet;

fn array(dims: &[usize], values: Vec<f64>) -> Array {
    Array::floats(DType::F32, dims, values).unwrap()
}

/// Numbers between -2 and 2.
fn noise(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 51) as f64 - 2.0
    };
    (0..count + 4).map(|_| next()).skip(4).collect()
}

fn loss_of(model: &Model, inputs: &[(&str, Array)], name: &str) -> Vec<f64> {
    let options = reference::Options::default();
    let evaluator = reference::Evaluator::new(model, &options).unwrap();
    let values = evaluator.values(inputs, &[name]);
    let values = values.unwrap_or_else(|why| panic!("{why}"));
    values[0].1.to_f64s()
}

/// Checks the gradients of `loss` by these inputs and returns the model that computes them.
#[track_caller]
fn check(build: Build, inputs: &[(&str, &[usize])], wrt: &[&str]) -> Model {
    let plain = build.0;
    let mut model = plain.clone();
    let id = |model: &Model, name: &str| model.graph.find_value(name).unwrap();
    let loss = id(&model, "loss");
    let wrt_ids: Vec<ValueId> = wrt.iter().map(|name| id(&model, name)).collect();
    let mut sink = Sink::new();
    let found = gradients(&mut model, loss, &wrt_ids, &mut sink);
    let found = found.unwrap_or_else(|_| panic!("{:#?}", sink.diagnostics()));
    let given: Vec<(&str, Array)> = inputs
        .iter()
        .zip(1..)
        .map(|((name, dims), seed)| (*name, array(dims, noise(seed, dims.iter().product()))))
        .collect();
    for (name, gradient) in wrt.iter().zip(found) {
        let gradient_name = model.graph.value(gradient).name.to_string();
        let gradient = loss_of(&model, &given, &gradient_name);
        assert!(
            gradient.iter().all(|g| g.is_finite()),
            "{name}: {gradient:?}"
        );
        let at = given.iter().position(|(other, _)| other == name).unwrap();
        let direction = noise(99, gradient.len());
        let moved = |step: f64| {
            let mut moved = given.clone();
            let own = &given[at].1;
            let values = own.to_f64s();
            let values = values.iter().zip(&direction).map(|(x, v)| x + step * v);
            moved[at].1 = array(own.dims(), values.collect());
            loss_of(&plain, &moved, "loss")[0]
        };
        let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        let analytic: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
        assert!(
            (numeric - analytic).abs() <= 1e-6 * (1.0 + numeric.abs()),
            "{name}: {analytic}, not {numeric}"
        );
    }
    model
}

/// What of the forward pass the gradient is computed from, by name.
fn read_again(model: &Model) -> Vec<String> {
    let graph = &model.graph;
    let is_new = |id: NodeId| graph.node(id).name.starts_with("grad");
    let new = graph.node_ids().filter(|id| is_new(*id));
    let read = new.flat_map(|id| graph.operands(id)).flatten();
    let own = read.filter(|value| {
        let value = graph.value(*value);
        let producer = graph
            .find_value(&value.name)
            .and_then(|id| graph.producer(id));
        value.constant().is_none() && !producer.is_some_and(is_new)
    });
    let names: BTreeSet<String> = own
        .map(|value| graph.value(value).name.to_string())
        .collect();
    names.into_iter().collect()
}

/// `loss = Σ p · y`, so that no gradient is the same everywhere.
fn weighted(build: Build, dims: &[&str]) -> Build {
    build
        .input("p", DType::F32, dims)
        .node("Mul", &["y", "p"], "weighted")
        .sum("weighted")
}

const X: (&str, &[usize]) = ("x", &[2, 5]);
const P: (&str, &[usize]) = ("p", &[2, 5]);
const DIMS: &[&str] = &["B", "5"];

fn start() -> Build {
    Build::new(17).input("x", DType::F32, DIMS)
}

fn silu(build: Build) -> Build {
    build
        .node("Sigmoid", &["x"], "s")
        .node("Mul", &["x", "s"], "y")
}

/// With the error function.
fn gelu(build: Build) -> Build {
    build
        .scalar("root", std::f32::consts::SQRT_2)
        .scalar("one", 1.0)
        .scalar("half", 0.5)
        .node("Div", &["x", "root"], "scaled")
        .node("Erf", &["scaled"], "erf")
        .node("Add", &["erf", "one"], "shifted")
        .node("Mul", &["x", "shifted"], "product")
        .node("Mul", &["product", "half"], "y")
}

/// With the hyperbolic tangent.
fn gelu_tanh(build: Build) -> Build {
    build
        .scalar("three", 3.0)
        .scalar("cubic", 0.044715)
        .scalar("root", (2.0 / std::f32::consts::PI).sqrt())
        .scalar("one", 1.0)
        .scalar("half", 0.5)
        .node("Mul", &["half", "x"], "halved")
        .node("Pow", &["x", "three"], "cube")
        .node("Mul", &["cubic", "cube"], "small")
        .node("Add", &["x", "small"], "inner")
        .node("Mul", &["root", "inner"], "scaled")
        .node("Tanh", &["scaled"], "t")
        .node("Add", &["t", "one"], "shifted")
        .node("Mul", &["halved", "shifted"], "y")
}

#[test]
fn an_activation_that_is_written_as_a_chain_keeps_its_operand_alone() {
    for chain in [silu, gelu, gelu_tanh] {
        let model = check(weighted(chain(start()), DIMS), &[X, P], &["x"]);
        assert_eq!(read_again(&model), ["p", "x"]);
        // Without a product behind it.
        let build = chain(start()).node("Exp", &["y"], "z").sum("z");
        let model = check(build, &[X], &["x"]);
        assert_eq!(read_again(&model), ["x", "z"]);
    }
}

#[test]
fn a_gate_keeps_its_operands_alone() {
    for chain in [silu, gelu, gelu_tanh] {
        for factors in [["y", "u"], ["u", "y"]] {
            let build = chain(start().input("u", DType::F32, &["5"]))
                .node("Mul", &factors, "gated")
                .input("p", DType::F32, DIMS)
                .node("Mul", &["gated", "p"], "weighted")
                .sum("weighted");
            let inputs: &[(&str, &[usize])] = &[X, ("u", &[5]), P];
            let model = check(build, inputs, &["x", "u"]);
            assert_eq!(read_again(&model), ["p", "u", "x"]);
        }
    }
}

#[test]
fn a_chain_may_begin_with_what_could_be_part_of_it() {
    let build = Build::new(17)
        .input("v", DType::F32, DIMS)
        .input("b", DType::F32, &["5"])
        .node("Add", &["v", "b"], "x")
        .scalar("root", std::f32::consts::SQRT_2)
        .scalar("one", 1.0)
        .scalar("half", 0.5)
        .node("Div", &["x", "root"], "scaled")
        .node("Erf", &["scaled"], "erf")
        .node("Add", &["one", "erf"], "shifted")
        .node("Mul", &["shifted", "half"], "halved")
        .node("Mul", &["halved", "x"], "y");
    let inputs: &[(&str, &[usize])] = &[("v", &[2, 5]), ("b", &[5]), P];
    let model = check(weighted(build, DIMS), inputs, &["v", "b"]);
    assert_eq!(read_again(&model), ["p", "x"]);
}

#[test]
fn a_chain_that_is_no_known_activation_is_differentiated_node_by_node() {
    // With a factor in the sigmoid, times more than its operand, and beside a straight line.
    let double = start()
        .scalar("two", 2.0)
        .node("Mul", &["x", "two"], "double")
        .node("Sigmoid", &["double"], "s")
        .node("Mul", &["x", "s"], "y");
    let late = silu(start().node("Mul", &["x", "x"], "square")).node("Mul", &["y", "square"], "z");
    let far = start()
        .scalar("small", 1e-3)
        .node("Sigmoid", &["x"], "s")
        .node("Mul", &["x", "small"], "line")
        .node("Add", &["s", "line"], "sum")
        .node("Mul", &["x", "sum"], "y");
    for (build, last) in [(double, "y"), (late, "z"), (far, "y")] {
        let build = build
            .input("p", DType::F32, DIMS)
            .node("Mul", &[last, "p"], "weighted")
            .sum("weighted");
        check(build, &[X, P], &["x"]);
    }
}

#[test]
fn a_sigmoid_of_the_negated_operand_is_told_apart() {
    // x · (1 - σ(-x)) is the activation, its sigmoid is another.
    let build = start()
        .scalar("one", 1.0)
        .node("Neg", &["x"], "negated")
        .node("Sigmoid", &["negated"], "s")
        .node("Sub", &["one", "s"], "rest")
        .node("Mul", &["rest", "x"], "y");
    let model = check(weighted(build, DIMS), &[X, P], &["x"]);
    assert_eq!(read_again(&model), ["p", "x"]);
}

#[test]
fn a_value_within_a_chain_has_its_gradient_if_it_is_asked_for() {
    // d loss / d s = p · x.
    for wrt in [vec!["s"], vec!["s", "x"]] {
        let (model, found, _) = weighted(silu(start()), DIMS).differentiated(&wrt);
        let inputs = [
            ("x", array(X.1, noise(1, 10))),
            ("p", array(P.1, noise(2, 10))),
        ];
        let name = model.graph.value(found[0]).name.to_string();
        let expected = inputs[0].1.to_f64s().into_iter().zip(inputs[1].1.to_f64s());
        let expected: Vec<f64> = expected.map(|(x, p)| x * p).collect();
        assert_eq!(loss_of(&model, &inputs, &name), expected);
    }
}

#[test]
fn a_gate_whose_activation_is_asked_for_has_its_gradient() {
    let build = silu(start().input("u", DType::F32, DIMS)).node("Mul", &["y", "u"], "z");
    let build = build
        .input("p", DType::F32, DIMS)
        .node("Mul", &["z", "p"], "weighted");
    let (model, found, _) = build.sum("weighted").differentiated(&["y", "x"]);
    let inputs = ["x", "u", "p"].map(|name| (name, array(X.1, noise(name.len() as u64, 10))));
    let name = model.graph.value(found[0]).name.to_string();
    let square = inputs[0].1.to_f64s().into_iter().map(|v| v * v);
    assert_eq!(loss_of(&model, &inputs, &name), square.collect::<Vec<_>>());
}

#[test]
fn no_gradient_goes_past_a_node_that_holds_it_up() {
    // y = x · σ(x) with a gradient through the first x alone: d loss / d x = p · σ(x).
    let mut build = weighted(silu(start()), DIMS);
    let graph = &mut build.0.graph;
    let sigmoid = graph.producer(graph.find_value("s").unwrap()).unwrap();
    graph.node_mut(sigmoid).metadata = vec![("peftc.gradient".to_owned(), "stop".to_owned())];
    let (model, found, _) = build.differentiated(&["x"]);
    let inputs = [
        ("x", array(X.1, noise(1, 10))),
        ("p", array(P.1, noise(2, 10))),
    ];
    let name = model.graph.value(found[0]).name.to_string();
    let expected = inputs[0].1.to_f64s().into_iter().zip(inputs[1].1.to_f64s());
    let expected = expected.map(|(x, p)| p / (1.0 + (-x).exp()));
    for (found, expected) in loss_of(&model, &inputs, &name).into_iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-12, "{found}, not {expected}");
    }
}

#[test]
fn a_number_that_is_trained_has_its_gradient() {
    let swish = |build: Build| {
        build
            .node("Mul", &["x", "beta"], "double")
            .node("Sigmoid", &["double"], "s")
            .node("Mul", &["x", "s"], "y")
    };
    let build = weighted(swish(start().input("beta", DType::F32, &[])), DIMS);
    check(build, &[X, P, ("beta", &[])], &["x", "beta"]);
    // Of value 1, where it would be an activation of the chain.
    let build = weighted(swish(start().scalar("beta", 1.0)), DIMS);
    let (model, found, _) = build.differentiated(&["beta", "x"]);
    let inputs = [
        ("x", array(X.1, noise(1, 10))),
        ("p", array(P.1, noise(2, 10))),
    ];
    let name = model.graph.value(found[0]).name.to_string();
    let terms = inputs[0].1.to_f64s().into_iter().zip(inputs[1].1.to_f64s());
    let expected: f64 = terms
        .map(|(x, p)| (1.0 / (1.0 + (-x).exp()), x, p))
        .map(|(s, x, p)| p * x * x * s * (1.0 - s))
        .sum();
    assert!((loss_of(&model, &inputs, &name)[0] - expected).abs() <= 1e-12);
}

/// `y = softmax(mask(q kᵀ)) v` of one head.
fn attention(masked: bool) -> Build {
    let mut build = Build::new(17)
        .input("q", DType::F32, &["B", "S", "3"])
        .input("k", DType::F32, &["B", "3", "S"])
        .input("v", DType::F32, &["B", "S", "2"])
        .node("MatMul", &["q", "k"], "scores");
    let last = || vec![Attribute::int("axis", -1)];
    if masked {
        // Every key of the second sample is masked, as padding on the left has it.
        build = build
            .floats("floor", &[2, 1, 1], &[0.0, f32::NEG_INFINITY])
            .scalar("zero", 0.0)
            .node("Add", &["scores", "floor"], "masked")
            .node_with("Softmax", &["masked"], "raw", last())
            .node("IsNaN", &["raw"], "isnan")
            .node("Where", &["isnan", "zero", "raw"], "weights");
    } else {
        build = build.node_with("Softmax", &["scores"], "weights", last());
    }
    build.node("MatMul", &["weights", "v"], "y")
}

const ATTENDED: &[(&str, &[usize])] = &[
    ("q", &[2, 4, 3]),
    ("k", &[2, 3, 4]),
    ("v", &[2, 4, 2]),
    ("p", &[2, 4, 2]),
];

/// How many products as large as the scores the gradient has.
fn large_products(model: &Model) -> usize {
    let graph = &model.graph;
    let scores = graph.value(graph.find_value("scores").unwrap()).ty.clone();
    assert!(scores.is_some());
    let products = graph.node_ids().filter(|id| {
        let result = graph.result(*id, 0).unwrap();
        graph.node(*id).op.is("Mul") && graph.value(result).ty == scores
    });
    products.count()
}

#[test]
fn attention_sums_over_heads_and_not_over_keys() {
    let build = weighted(attention(false), &["B", "S", "2"]);
    let model = check(build, ATTENDED, &["q", "k", "v"]);
    // The weights times what is left of their gradient.
    assert_eq!(large_products(&model), 1);
    assert!(read_again(&model).contains(&"y".to_owned()));
}

#[test]
fn attention_sums_over_what_follows_its_heads() {
    let perm = vec![Attribute::ints("perm", vec![1, 0, 2])];
    let build = attention(false)
        .node_with("Transpose", &["y"], "exchanged", perm)
        .input("p", DType::F32, &["S", "B", "2"])
        .node("Mul", &["exchanged", "p"], "weighted")
        .sum("weighted");
    let mut inputs = ATTENDED.to_vec();
    inputs[3] = ("p", &[4, 2, 2]);
    let model = check(build, &inputs, &["q", "k", "v"]);
    assert_eq!(large_products(&model), 1);
    let read = read_again(&model);
    assert!(read.contains(&"exchanged".to_owned()) && !read.contains(&"y".to_owned()));
}

#[test]
fn weights_that_are_read_elsewhere_are_summed_over_keys() {
    // Σ weights², besides.
    let build = attention(false)
        .node("Mul", &["weights", "weights"], "square")
        .node_with("ReduceSum", &["square"], "more", vec![])
        .input("p", DType::F32, &["B", "S", "2"])
        .node("Mul", &["y", "p"], "weighted")
        .node("Add", &["weighted", "more"], "both")
        .sum("both");
    check(build, ATTENDED, &["q", "k", "v"]);
}

#[test]
fn weights_that_are_stretched_are_summed_over_keys() {
    let build = Build::new(17)
        .input("scores", DType::F32, &["1", "S", "S"])
        .input("v", DType::F32, &["B", "S", "2"])
        .node_with("Softmax", &["scores"], "weights", vec![])
        .node("MatMul", &["weights", "v"], "y");
    let inputs: &[(&str, &[usize])] =
        &[("scores", &[1, 4, 4]), ("v", &[3, 4, 2]), ("p", &[3, 4, 2])];
    check(weighted(build, &["B", "S", "2"]), inputs, &["scores", "v"]);
}

#[test]
fn weights_on_the_right_are_summed_over_keys() {
    let build = Build::new(17)
        .input("scores", DType::F32, &["B", "4", "4"])
        .input("v", DType::F32, &["B", "4", "4"])
        .node_with("Softmax", &["scores"], "weights", vec![])
        .node("MatMul", &["v", "weights"], "y");
    let dims: &[usize] = &[2, 4, 4];
    let inputs: &[(&str, &[usize])] = &[("scores", dims), ("v", dims), ("p", dims)];
    check(weighted(build, &["B", "4", "4"]), inputs, &["scores", "v"]);
}

#[test]
fn weights_whose_rows_are_cut_are_summed_over_keys() {
    let build = Build::new(17)
        .input("scores", DType::F32, &["B", "4"])
        .input("v", DType::F32, &["2", "3"])
        .ints("cut", &[-1, 2, 2])
        .node_with("Softmax", &["scores"], "weights", vec![])
        .node("Reshape", &["weights", "cut"], "halves")
        .node("MatMul", &["halves", "v"], "y");
    let inputs: &[(&str, &[usize])] = &[("scores", &[3, 4]), ("v", &[2, 3]), ("p", &[3, 2, 3])];
    check(weighted(build, &["B", "2", "3"]), inputs, &["scores", "v"]);
}

#[test]
fn an_exchange_with_the_last_axis_is_left_alone() {
    let perm = vec![Attribute::ints("perm", vec![0, 2, 1])];
    let build = attention(false).node_with("Transpose", &["y"], "exchanged", perm);
    let build = build
        .input("p", DType::F32, &["B", "2", "S"])
        .node("Mul", &["exchanged", "p"], "weighted")
        .sum("weighted");
    let mut inputs = ATTENDED.to_vec();
    inputs[3] = ("p", &[2, 2, 4]);
    let model = check(build, &inputs, &["q", "k", "v"]);
    assert_eq!(large_products(&model), 1);
}

#[test]
fn rows_of_which_every_key_is_masked_have_no_gradient() {
    let build = weighted(attention(true), &["B", "S", "2"]);
    check(build, ATTENDED, &["q", "k", "v"]);
}

#[test]
fn rows_may_be_replaced_by_others_than_zeros() {
    let build = Build::new(17)
        .input("scores", DType::F32, &["2", "3"])
        .input("v", DType::F32, &["3", "4"])
        .floats("first", &[2, 1], &[1.0, 0.0])
        .scalar("one", 1.0)
        .node_with("Cast", &["first"], "masked", vec![Attribute::int("to", 9)])
        .node_with("Softmax", &["scores"], "raw", vec![])
        .node("Where", &["masked", "one", "raw"], "weights")
        .node("MatMul", &["weights", "v"], "y");
    let inputs: &[(&str, &[usize])] = &[("scores", &[2, 3]), ("v", &[3, 4]), ("p", &[2, 4])];
    check(weighted(build, &["2", "4"]), inputs, &["scores", "v"]);
}

#[test]
fn columns_that_are_masked_behind_a_softmax_have_no_gradient() {
    // What is replaced are no rows: the others of the row are not 0.
    let build = Build::new(17)
        .input("scores", DType::F32, &["B", "3"])
        .floats("first", &[3], &[1.0, 0.0, 0.0])
        .scalar("zero", 0.0)
        .node_with("Cast", &["first"], "masked", vec![Attribute::int("to", 9)])
        .node_with("Softmax", &["scores"], "raw", vec![])
        .node("Where", &["masked", "zero", "raw"], "y");
    let inputs: &[(&str, &[usize])] = &[("scores", &[2, 3]), ("p", &[2, 3])];
    check(weighted(build, &["B", "3"]), inputs, &["scores"]);
}
