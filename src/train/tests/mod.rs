//! Losses, optimizers and dropout on graphs of a few nodes, evaluated in f64, against numbers of
//! PyTorch 2 in f64 (`torch.optim`, `torch.nn.functional`).

mod eight_bits;
mod embeddings;
mod heads;

use super::{
    Adam, Base, Graphs, Memory, Optimizer, Parameter, Recipe, Sgd, Task, TrainingGraph, graphs,
};
use crate::adapt::Hooks;
use crate::diag::{Code, Sink};
use crate::graph::{Attribute, Graph, Model, NewNode, OpName, Patch, Tensor, Value, ValueKind};
use crate::ops::NOISE;
use crate::reference::{self, Array, Rounding};
use crate::ty::{DType, Dim, Shape, TensorType};

/// `y = dropout(x) + w` with `x: f32[rows, columns]` and a trained `w` of zeros.
fn model(dims: &[i64], dropout: Option<f32>) -> Model {
    let mut graph = Graph::new("test");
    let shape = Shape(dims.iter().map(|dim| Dim::from(*dim)).collect());
    let ty = TensorType::new(DType::F32, shape);
    let kind = ValueKind::Input { default: None };
    let mut from = graph
        .add_value(Value::with_kind("x", Some(ty), kind))
        .unwrap();
    let count = dims.iter().product::<i64>() as usize;
    let zeros = Tensor::from_f32(dims, &vec![0.0; count]);
    let weight = graph.add_value(Value::initializer("w", zeros)).unwrap();
    if let Some(p) = dropout {
        let kept = graph.add_value(Value::computed("kept", None)).unwrap();
        let ratio = Tensor::from_f32(&[], &[p]);
        let ratio = graph.add_value(Value::initializer("p", ratio)).unwrap();
        let op = OpName::new("", "Dropout");
        let operands = [Some(from), Some(ratio)];
        graph.add_node(
            op,
            "drop",
            Vec::<Attribute>::new(),
            &operands,
            &[Some(kept)],
        );
        from = kept;
    }
    let y = graph.add_value(Value::computed("y", None)).unwrap();
    let op = OpName::new("", "Add");
    let operands = [Some(from), Some(weight)];
    graph.add_node(op, "add", Vec::new(), &operands, &[Some(y)]);
    graph.add_output(y);
    Model::new("test.onnx", graph, 10, 20)
}

fn made(model: &Model, recipe: &Recipe) -> Graphs {
    made_with_rate(1.0, model, recipe)
}

fn made_with_rate(rate: f64, model: &Model, recipe: &Recipe) -> Graphs {
    let mut sink = Sink::new();
    let parameter = Parameter {
        initializer: "w".to_owned(),
        module: None,
        name: "w".to_owned(),
        rate,
    };
    graphs(model, &[parameter], &Hooks::default(), recipe, &mut sink)
        .unwrap_or_else(|_| panic!("{:?}", sink.diagnostics()))
}

fn recipe(task: Task, optimizer: Optimizer) -> Recipe {
    Recipe {
        task,
        output: None,
        optimizer,
        max_grad_norm: None,
        base: Base::Own,
        rates: Vec::new(),
        memory: Memory::default(),
    }
}

fn floats(dims: &[usize], values: &[f64]) -> Array {
    Array::floats(DType::F32, dims, values.to_vec()).unwrap()
}

fn integer(value: i64) -> Array {
    Array::ints(DType::I64, &[], vec![value.into()]).unwrap()
}

fn run(graph: &TrainingGraph, inputs: &[(&str, Array)]) -> Vec<(String, Array)> {
    reference::run(&graph.model, inputs, &reference::Options::default()).unwrap()
}

fn get(found: &[(String, Array)], name: &str) -> Vec<f64> {
    let found = found.iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.to_f64s()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        // Constants of the graph, such as a smoothing of 0.1, are f32.
        assert!((a - b).abs() <= 1e-7, "{found:?} is not {expected:?}");
    }
}

const LOGITS: [f64; 12] = [1.0, 2.0, 0.5, 0.1, -1.0, 3.0, 0.0, 0.0, 1.0, 2.0, 1.0, -1.0];

/// Loss and its derivative by the output, which is that by `w`. What is measured is the loss without
/// smoothing.
fn loss(task: Task, labels: Array) -> (f64, Vec<f64>) {
    let of = |task: Task| {
        let recipe = recipe(task, Optimizer::AdamW(Adam::default()));
        made(&model(&[4, 3], None), &recipe)
    };
    let graphs = of(task);
    let inputs = [
        ("x", floats(&[4, 3], &LOGITS)),
        ("w", floats(&[4, 3], &[0.0; 12])),
        ("labels", labels),
    ];
    let found = run(&graphs.grad, &inputs);
    assert_eq!(
        get(&run(&of(task.measured()).grad, &inputs), "loss"),
        get(&run(&graphs.eval, &inputs), "loss")
    );
    (get(&found, "loss")[0], get(&found, "w.grad"))
}

#[test]
fn cross_entropy_is_pytorchs_with_ignored_labels_and_smoothing() {
    let labels = || Array::vector(&[1, -100, 0, 2]);
    let (value, gradient) = loss(
        Task::Classification {
            label_smoothing: 0.0,
        },
        labels(),
    );
    assert_close(&[value], &[1.788275238269394]);
    assert_close(
        &gradient,
        &[
            0.0770746325,
            -0.12382276,
            0.0467481277,
            0.0,
            0.0,
            0.0,
            -0.262686147,
            0.0706471859,
            0.192038962,
            0.235128171,
            0.0864988201,
            -0.321626991,
        ],
    );
    let (value, gradient) = loss(
        Task::Classification {
            label_smoothing: 0.1,
        },
        labels(),
    );
    assert_close(&[value], &[1.749386349380505]);
    assert_close(
        &gradient,
        &[
            0.0659635214,
            -0.101600538,
            0.0356370166,
            0.0,
            0.0,
            0.0,
            -0.240463925,
            0.0595360748,
            0.18092785,
            0.22401706,
            0.075387709,
            -0.299404769,
        ],
    );
}

#[test]
fn a_batch_without_labels_has_a_loss_of_zero() {
    let labels = Array::vector(&[-100; 4]);
    let (value, gradient) = loss(
        Task::Classification {
            label_smoothing: 0.0,
        },
        labels,
    );
    assert_eq!(value, 0.0);
    assert!(gradient.iter().all(|g| *g == 0.0));
}

#[test]
fn multi_label_and_regression_are_pytorchs() {
    let labels = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0];
    let (value, gradient) = loss(Task::MultiLabel, floats(&[4, 3], &labels));
    assert_close(&[value], &[0.7894599847186975]);
    assert_close(
        &gradient,
        &[
            -0.0224117851,
            0.0733997565,
            -0.0314617224,
            0.0437482656,
            0.0224117851,
            -0.0039521561,
            -0.0416666667,
            -0.0416666667,
            0.0609215482,
            0.0733997565,
            -0.0224117851,
            0.0224117851,
        ],
    );
    let (value, gradient) = loss(Task::Regression, floats(&[4, 3], &labels));
    assert_close(&[value], &[1.4383333333333332]);
    assert_close(
        &gradient,
        &[
            0.0,
            0.333333333,
            -0.0833333333,
            0.0166666667,
            -0.166666667,
            0.333333333,
            -0.166666667,
            -0.166666667,
            0.166666667,
            0.333333333,
            0.0,
            -0.166666667,
        ],
    );
}

/// The label of a position is the next token's: the loss is that of labels moved by hand.
#[test]
fn a_language_model_predicts_the_next_token() {
    let graphs = made(
        &model(&[1, 4, 3], None),
        &recipe(
            Task::CausalLm {
                label_smoothing: 0.0,
            },
            Optimizer::AdamW(Adam::default()),
        ),
    );
    let labels = Array::ints(DType::I64, &[1, 4], vec![2, 1, -100, 0]).unwrap();
    let found = run(
        &graphs.eval,
        &[
            ("x", floats(&[1, 4, 3], &LOGITS)),
            ("w", floats(&[1, 4, 3], &[0.0; 12])),
            ("labels", labels),
        ],
    );
    let moved = loss(
        Task::Classification {
            label_smoothing: 0.0,
        },
        Array::vector(&[1, -100, 0, -100]),
    );
    assert_close(&get(&found, "loss"), &[moved.0]);
    assert_eq!(get(&found, "count"), [2.0]);
    // The likeliest of the first is class 1, of the third class 2.
    assert_eq!(get(&found, "correct"), [1.0]);
}

/// A gradient of a mean over so many rows is hardly a number of f16: spaces between those are 6e-8. It
/// comes through scaled.
#[test]
fn small_gradients_pass_through_f16() {
    let rows = 30_000;
    let task = Task::Classification {
        label_smoothing: 0.0,
    };
    let exact = model(&[rows, 2], None);
    let mut half = exact.clone();
    let mut patch = Patch::new();
    let y = half.graph.outputs()[0];
    let node = NewNode {
        op: OpName::new("", "Cast"),
        name: "half".to_owned(),
        attributes: vec![Attribute::int("to", i64::from(DType::F16.number()))],
        inputs: vec![Some(y.into())],
        metadata: Vec::new(),
    };
    patch.drop_outputs();
    let shape = Shape(vec![Dim::from(rows), Dim::from(2)]);
    let cast = patch.node(node, Some(TensorType::new(DType::F16, shape)));
    patch.output(cast);
    half.graph.apply(patch).unwrap();
    let count = rows as usize;
    let logits: Vec<f64> = (0..2 * count).map(|at| (at % 7) as f64 * 0.25).collect();
    let labels: Vec<i64> = (0..rows).map(|at| at % 2).collect();
    let gradient = |model: &Model| {
        let graphs = made(model, &recipe(task, Optimizer::AdamW(Adam::default())));
        let inputs = [
            ("x", floats(&[count, 2], &logits)),
            ("w", floats(&[count, 2], &vec![0.0; 2 * count])),
            ("labels", Array::vector(&labels)),
        ];
        let options = reference::Options {
            rounding: Rounding::Declared,
            ..reference::Options::default()
        };
        let found = reference::run(&graphs.grad.model, &inputs, &options).unwrap();
        get(&found, "w.grad")
    };
    let (exact, half) = (gradient(&exact), gradient(&half));
    let worst = exact.iter().zip(&half).map(|(a, b)| ((a - b) / a).abs());
    let worst = worst.fold(0.0, f64::max);
    // f16 has 11 bits.
    assert!(worst <= 1e-3, "{worst}");
}

/// Three updates of [0.5, −1, 2].
fn updated(optimizer: Optimizer, max_grad_norm: Option<f64>) -> Vec<f64> {
    updated_at(1.0, 0.1, optimizer, max_grad_norm)
}

/// The same, at a learning rate and with a factor for it.
fn updated_at(
    rate: f64,
    learning_rate: f64,
    optimizer: Optimizer,
    max_grad_norm: Option<f64>,
) -> Vec<f64> {
    let task = Task::Regression;
    let recipe = Recipe {
        max_grad_norm,
        ..recipe(task, optimizer)
    };
    let graphs = made_with_rate(rate, &model(&[3], None), &recipe);
    let mut parameter = vec![0.5, -1.0, 2.0];
    let states: Vec<&str> = optimizer.states().iter().map(|(name, _)| *name).collect();
    let mut state = vec![vec![0.0; 3]; states.len()];
    let gradients = [[0.1, -2.0, 3.0], [0.4, 1.0, -0.5], [-0.3, 0.2, 0.1]];
    for (step, gradient) in gradients.iter().enumerate() {
        let names: Vec<String> = states.iter().map(|s| format!("optimizer.{s}")).collect();
        let mut inputs = vec![
            ("w", floats(&[3], &parameter)),
            ("w.grad", floats(&[3], gradient)),
            // What a trainer passes is f32; here the evaluator takes it as it is.
            ("learning_rate", floats(&[], &[learning_rate])),
            ("step", integer(step as i64 + 1)),
        ];
        for (name, value) in names.iter().zip(&state) {
            inputs.push((name, floats(&[3], value)));
        }
        let found = run(&graphs.update, &inputs);
        parameter = get(&found, "w.next");
        state = names
            .iter()
            .map(|name| get(&found, &format!("{name}.next")))
            .collect();
    }
    parameter
}

/// Constants of the graph are f32: nine digits of 0.999 are not to be had.
fn assert_updated(found: &[f64], expected: &[f64]) {
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 1e-6, "{found:?} is not {expected:?}");
    }
}

#[test]
fn updates_are_pytorchs() {
    let adam = Adam {
        weight_decay: 0.01,
        ..Adam::default()
    };
    let sgd = |nesterov, weight_decay| {
        Optimizer::Sgd(Sgd {
            momentum: 0.9,
            nesterov,
            weight_decay,
        })
    };
    // Clipped to norm 1.
    let found = updated(Optimizer::AdamW(adam), Some(1.0));
    assert_updated(&found, &[0.315500488, -0.954142591, 1.84116296]);
    let found = updated(Optimizer::Adam(adam), None);
    assert_updated(&found, &[0.292196716, -0.85733615, 1.80099741]);
    assert_updated(
        &updated(sgd(false, 0.01), None),
        &[0.424175389, -0.663054599, 1.2618793],
    );
    assert_updated(&updated(sgd(true, 0.0), None), &[0.41421, -0.6212, 1.0848]);
}

/// A rate of its own does what a parameter group of PyTorch with that learning rate does, weight decay
/// included.
#[test]
fn a_parameter_has_a_learning_rate_of_its_own() {
    let adam = Adam {
        weight_decay: 0.1,
        ..Adam::default()
    };
    let sgd = Optimizer::Sgd(Sgd {
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.1,
    });
    for optimizer in [Optimizer::AdamW(adam), Optimizer::Adam(adam), sgd] {
        let expected = updated_at(1.0, 0.4, optimizer, Some(1.0));
        assert_updated(&updated_at(16.0, 0.025, optimizer, Some(1.0)), &expected);
        assert_ne!(updated_at(1.0, 0.025, optimizer, Some(1.0)), expected);
    }
}

/// Which elements are kept: 1 / (1 − p) or 0, read off the gradient of `x`'s stand-in.
fn kept(seed: i64, count: usize, p: f32) -> Vec<bool> {
    let graphs = made(
        &model(&[1, count as i64], Some(p)),
        &recipe(Task::Regression, Optimizer::AdamW(Adam::default())),
    );
    let inputs = [
        ("x", floats(&[1, count], &vec![1.0; count])),
        ("w", floats(&[1, count], &vec![0.0; count])),
        ("labels", floats(&[1, count], &vec![0.0; count])),
        ("seed", integer(seed)),
    ];
    // d mean(y²) / dw = 2 y / n.
    let gradient = get(&run(&graphs.grad, &inputs), "w.grad");
    let scale = 1.0 / (1.0 - f64::from(p));
    gradient
        .iter()
        .map(|g| {
            let y = g * count as f64 / 2.0;
            assert!(y == 0.0 || (y - scale).abs() < 1e-6 * scale, "{y}");
            y != 0.0
        })
        .collect()
}

/// Frequencies within four standard deviations of what independent draws have.
#[test]
fn dropout_draws_evenly_and_its_seed_decides() {
    let count = 20_000;
    let p = 0.25f32;
    let share = |hits: usize, of: usize, expected: f64| {
        let deviation = (expected * (1.0 - expected) / of as f64).sqrt();
        let found = hits as f64 / of as f64;
        assert!(
            (found - expected).abs() < 4.0 * deviation,
            "{found} {expected}"
        );
    };
    let first = kept(1, count, p);
    assert_eq!(first, kept(1, count, p));
    share(first.iter().filter(|k| **k).count(), count, 0.75);
    let both = 0.75 * 0.75;
    for lag in [1, 2, 3, 64, 128, 1000] {
        let pairs = first.iter().zip(&first[lag..]);
        share(pairs.filter(|(a, b)| **a && **b).count(), count - lag, both);
    }
    for other in [0, 2, 3, 1 << 20, 1 << 40] {
        let second = kept(other, count, p);
        let pairs = first.iter().zip(&second);
        share(pairs.filter(|(a, b)| **a && **b).count(), count, both);
    }
}

/// Noise of a seed: y is noise + w, with w zero.
fn noise(seed: i64, count: usize) -> Vec<f64> {
    let mut model = model(&[1, count as i64], Some(0.5));
    let node = model
        .graph
        .node_ids()
        .find(|id| model.graph.node(*id).op.is("Dropout"))
        .unwrap();
    let mark = (NOISE.0.to_owned(), NOISE.1.to_owned());
    model.graph.node_mut(node).metadata.push(mark);
    let recipe = recipe(Task::Regression, Optimizer::AdamW(Adam::default()));
    let graphs = made(&model, &recipe);
    let inputs = [
        ("x", floats(&[1, count], &vec![0.0; count])),
        ("w", floats(&[1, count], &vec![0.0; count])),
        ("labels", floats(&[1, count], &vec![0.0; count])),
        ("seed", integer(seed)),
    ];
    // d mean(y²) / dw = 2 y / n.
    let gradient = get(&run(&graphs.grad, &inputs), "w.grad");
    gradient.iter().map(|g| g * count as f64 / 2.0).collect()
}

/// Moments and correlations within four standard deviations of those of normal numbers.
#[test]
fn noise_is_normal_and_its_seed_decides() {
    let count = 20_000;
    let mean = |values: &mut dyn Iterator<Item = f64>, deviation: f64, expected: f64| {
        let found = values.sum::<f64>() / count as f64;
        let bound = 4.0 * deviation / (count as f64).sqrt();
        assert!((found - expected).abs() < bound, "{found} {expected}");
    };
    let first = noise(1, count);
    assert_eq!(first, noise(1, count));
    // Variances of the powers of a normal number: 1, 2, 15, 96.
    mean(&mut first.iter().copied(), 1.0, 0.0);
    mean(&mut first.iter().map(|v| v.powi(2)), 2f64.sqrt(), 1.0);
    mean(&mut first.iter().map(|v| v.powi(3)), 15f64.sqrt(), 0.0);
    mean(&mut first.iter().map(|v| v.powi(4)), 96f64.sqrt(), 3.0);
    for lag in [1, 2, 64, 1000] {
        let around = first.iter().cycle().skip(lag);
        mean(&mut first.iter().zip(around).map(|(a, b)| a * b), 1.0, 0.0);
    }
    for other in [0, 2, 1 << 20] {
        let second = noise(other, count);
        mean(&mut first.iter().zip(&second).map(|(a, b)| a * b), 1.0, 0.0);
    }
}

#[test]
fn smoothing_over_an_open_number_of_classes_is_refused() {
    let mut model = model(&[4, 1], None);
    let open = Shape(vec![Dim::from(4), Dim::symbol("classes")]);
    let x = model.graph.find_value("x").unwrap();
    model.graph.set_type(x, TensorType::new(DType::F32, open));
    let task = Task::Classification {
        label_smoothing: 0.1,
    };
    let recipe = recipe(task, Optimizer::AdamW(Adam::default()));
    let parameter = Parameter {
        initializer: "w".to_owned(),
        module: None,
        name: "w".to_owned(),
        rate: 1.0,
    };
    let (mut sink, none) = (Sink::new(), Hooks::default());
    assert!(graphs(&model, &[parameter], &none, &recipe, &mut sink).is_err());
    let codes: Vec<Code> = sink.diagnostics().iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::E0753]);
}

#[test]
fn an_output_that_does_not_fit_the_task_is_refused() {
    let (mut sink, none) = (Sink::new(), Hooks::default());
    let parameter = Parameter {
        initializer: "w".to_owned(),
        module: None,
        name: "w".to_owned(),
        rate: 1.0,
    };
    let task = Task::CausalLm {
        label_smoothing: 0.0,
    };
    let recipe = recipe(task, Optimizer::AdamW(Adam::default()));
    assert!(
        graphs(
            &model(&[4, 3], None),
            &[parameter],
            &none,
            &recipe,
            &mut sink
        )
        .is_err()
    );
    assert!(graphs(&model(&[4, 3], None), &[], &none, &recipe, &mut sink).is_err());
    let codes: Vec<Code> = sink.diagnostics().iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::E0752, Code::E0751]);
}
