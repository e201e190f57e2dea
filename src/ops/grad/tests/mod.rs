//! Every rule against central differences in a random direction, in ONNX Runtime.
//!
//! A node is written as text. Operands: a distribution and a type, `normal[2, S]`; `_` is absent;
//! `i64[2] = [0, 1]` is a constant. Letters are symbolic sizes, [`SIZES`]; a node with some is
//! checked a second time with numbers in their place. The loss is a random projection of all float
//! results. Double precision, or single where ONNX Runtime has no kernel.

mod activation;
mod conv;
mod einsum;
mod elementwise;
mod gather;
mod matmul;
mod movement;
mod normalization;
mod pool;
mod reduce;
mod resize;
mod select;
mod shape;

use crate::autodiff::gradients;
use crate::diag::Sink;
use crate::graph::{
    Attribute, Graph, Model, NewNode, OpName, Operand, Patch, Tensor, Value, ValueId, ValueKind,
};
use crate::onnx::write_model;
use crate::ops::registry::MICROSOFT;
use crate::passes;
use crate::runtime::{
    self, HostTensor, ModelSource, NamedTensors, Network, Optimization, Options, Session,
    Surroundings, Wanted,
};
use crate::ty::{DType, Dim, Shape, Symbol, TensorType};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What the symbolic sizes are in a run.
const SIZES: &[(&str, i64)] = &[("B", 2), ("S", 3), ("T", 4), ("N", 5), ("H", 6), ("W", 7)];

/// Largest error of a directional derivative, relative to the product of the lengths of gradient
/// and direction: what central differences reach in each precision.
const TOLERANCE: &[(DType, f64, f64)] = &[(DType::F64, 1e-5, 1e-6), (DType::F32, 1e-2, 3e-3)];

/// A node under test.
pub struct Case<'a> {
    pub op: &'a str,
    pub opset: i64,
    pub operands: &'a [&'a str],
    pub attributes: &'a [Attribute],
    pub results: usize,
    /// The precision, where the node itself prescribes one.
    pub only: Option<DType>,
}

#[track_caller]
pub fn check_grad(op: &str, opset: i64, operands: &[&str], attributes: &[Attribute]) {
    check_case(&Case {
        op,
        opset,
        operands,
        attributes,
        results: 1,
        only: None,
    });
}

#[track_caller]
pub fn check_case(case: &Case<'_>) {
    let symbolic = case.operands.iter().any(|text| {
        let dims = text.split_once('[').map_or("", |(_, rest)| rest);
        dims.split(']')
            .next()
            .unwrap_or("")
            .chars()
            .any(char::is_uppercase)
    });
    for numbers in [false, true] {
        if numbers || symbolic {
            Check::new(case, numbers).run();
        }
    }
}

/// Asserts that the rule refuses the node, with a message that contains the text.
#[track_caller]
pub fn check_refused(
    op: &str,
    opset: i64,
    operands: &[&str],
    attributes: &[Attribute],
    words: &str,
) {
    let case = Case {
        op,
        opset,
        operands,
        attributes,
        results: 1,
        only: None,
    };
    let check = Check::new(&case, false);
    let (mut model, loss, wrt) = check.model(DType::F32);
    let mut sink = Sink::new();
    assert!(
        gradients(&mut model, loss, &wrt, &mut sink).is_err(),
        "{op}"
    );
    let message = &sink.diagnostics()[0].message;
    assert!(message.contains(words), "{message:?} says {words:?}");
}

/// One run of a node with one operand to differentiate by: the operand, the first result, its
/// projection and the gradient.
pub fn forward_and_backward(case: &Case<'_>) -> [Vec<f64>; 4] {
    let check = Check::new(case, true);
    let (mut model, loss, wrt) = check.model(DType::F64);
    let result = model.graph.find_value("y0").unwrap();
    let found = gradients(&mut model, loss, &wrt, &mut Sink::new()).unwrap();
    let outputs = named_outputs(&mut model, &[result, found[0]]);
    let inputs = check.inputs(DType::F64);
    let mut session = open(&model, Optimization::All).unwrap();
    let run = run(&mut session, &inputs);
    [
        floats(&inputs, "x0"),
        floats(&run, &outputs[0]),
        floats(&inputs, "p0"),
        floats(&run, &outputs[1]),
    ]
}

enum Given {
    Absent,
    Constant(String, TensorType),
    Drawn {
        trained: bool,
        kind: String,
        ty: TensorType,
    },
}

struct Check<'a> {
    case: &'a Case<'a>,
    given: Vec<Given>,
}

impl<'a> Check<'a> {
    fn new(case: &'a Case<'a>, numbers: bool) -> Self {
        let given = case.operands.iter().map(|text| parse(text, numbers));
        Check {
            case,
            given: given.collect(),
        }
    }

    #[track_caller]
    fn run(&self) {
        let only = self.case.only;
        let done = TOLERANCE
            .iter()
            .filter(|(dtype, ..)| only.is_none_or(|only| only == *dtype))
            .any(|(dtype, step, tolerance)| self.run_in(*dtype, *step, *tolerance));
        assert!(done, "ONNX Runtime has no kernel for {}", self.case.op);
    }

    /// Runs the check, unless ONNX Runtime has no kernels for the type.
    #[track_caller]
    fn run_in(&self, dtype: DType, step: f64, tolerance: f64) -> bool {
        let (forward, ..) = self.model(dtype);
        let (mut model, loss, wrt) = self.model(dtype);
        let names: Vec<String> = wrt
            .iter()
            .map(|id| model.graph.value(*id).name.to_string())
            .collect();
        let mut sink = Sink::new();
        let found = gradients(&mut model, loss, &wrt, &mut sink)
            .unwrap_or_else(|_| panic!("{}: {:#?}", self.case.op, sink.diagnostics()));
        for (id, operand) in found.iter().zip(&wrt) {
            let (gradient, own) = (model.graph.value(*id), model.graph.value(*operand));
            assert_eq!(gradient.ty, own.ty, "type of the gradient of {}", own.name);
        }
        let outputs = named_outputs(&mut model, &found);
        let sessions = [
            self.open(&forward, Optimization::Disabled),
            self.open(&model, Optimization::Disabled),
            self.open(&model, Optimization::All),
        ];
        let [Some(mut forward), Some(mut plain), Some(mut optimized)] = sessions else {
            return false;
        };
        let inputs = self.inputs(dtype);
        let plain = run(&mut plain, &inputs);
        let optimized = run(&mut optimized, &inputs);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for (name, output) in names.iter().zip(&outputs) {
            assert_eq!(
                plain.get(output).unwrap().dims(),
                inputs.get(name).unwrap().dims(),
                "shape of the gradient of {name}"
            );
            let gradient = floats(&plain, output);
            for (plain, optimized) in gradient.iter().zip(floats(&optimized, output)) {
                let close = (plain - optimized).abs() <= tolerance * (1.0 + plain.abs());
                assert!(
                    close,
                    "{}: optimized {optimized}, not {plain}",
                    self.case.op
                );
            }
            let direction: Vec<f64> = gradient.iter().map(|_| normal(&mut rng)).collect();
            let mut loss_at = |step: f64| {
                let moved = shifted(&inputs, name, &direction, step);
                run(&mut forward, &moved).0[0].1.to_f64s().unwrap()[0]
            };
            let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
            let analytic: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            let length = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let scale = length(&gradient) * length(&direction);
            assert!(
                (numeric - analytic).abs() <= tolerance * (scale + 1e-3),
                "{} of {:?}: along {name} the loss changes by {numeric}, the gradient says \
                 {analytic} at a scale of {scale}",
                self.case.op,
                self.case.operands,
            );
        }
        true
    }

    /// A session, if ONNX Runtime has the kernels.
    fn open(&self, model: &Model, optimization: Optimization) -> Option<Session> {
        const NO_KERNEL: &[&str] = &[
            "Could not find an implementation",
            "NOT_IMPLEMENTED",
            "Type 'tensor(double)'",
        ];
        match open(model, optimization) {
            Ok(session) => Some(session),
            Err(words) if NO_KERNEL.iter().any(|known| words.contains(known)) => None,
            Err(words) => panic!("{}: {words}", self.case.op),
        }
    }

    /// The node and its loss; the loss and the operands to differentiate by.
    fn model(&self, dtype: DType) -> (Model, ValueId, Vec<ValueId>) {
        let mut graph = Graph::new("check");
        let (mut operands, mut wrt) = (Vec::new(), Vec::new());
        for (slot, given) in self.given.iter().enumerate() {
            let name = format!("x{slot}");
            operands.push(match given {
                Given::Absent => None,
                Given::Constant(elements, ty) => {
                    let ty = with_float(ty, dtype);
                    let value = Value::initializer(&name, constant(elements, &ty));
                    Some(graph.add_value(value).unwrap())
                }
                Given::Drawn { trained, ty, .. } => {
                    let ty = with_float(ty, dtype);
                    let is_float = ty.dtype.is_float();
                    let kind = ValueKind::Input { default: None };
                    let id = graph
                        .add_value(Value::with_kind(&name, Some(ty), kind))
                        .unwrap();
                    if *trained && is_float {
                        wrt.push(id);
                    }
                    Some(id)
                }
            });
        }
        let (domain, op_type) = match self.case.op.strip_prefix("com.microsoft:") {
            Some(op_type) => (MICROSOFT, op_type),
            None => ("", self.case.op),
        };
        let results: Vec<Option<ValueId>> = (0..self.case.results)
            .map(|slot| {
                graph
                    .add_value(Value::computed(&format!("y{slot}"), None))
                    .ok()
            })
            .collect();
        let attributes = self.case.attributes.to_vec();
        graph.add_node(
            OpName::new(domain, op_type),
            "node",
            attributes,
            &operands,
            &results,
        );
        let mut model = Model {
            name: "check.onnx".to_owned(),
            graph,
            ir_version: 10,
            opsets: vec![(String::new(), self.case.opset), (MICROSOFT.to_owned(), 1)],
            metadata: Vec::new(),
            header: None,
        };
        let mut sink = Sink::new();
        passes::infer(&mut model, &mut sink).unwrap();
        assert!(sink.diagnostics().is_empty(), "{:#?}", sink.diagnostics());
        let loss = project(&mut model, &results);
        (model, loss, wrt)
    }

    /// Values for every input, the projections included.
    fn inputs(&self, dtype: DType) -> NamedTensors {
        let (model, ..) = self.model(dtype);
        let mut rng = ChaCha8Rng::seed_from_u64(self.case.op.len() as u64);
        let mut inputs = NamedTensors::default();
        for id in model.graph.inputs() {
            let value = model.graph.value(*id);
            let ty = value.ty.clone().unwrap();
            let slot = value
                .name
                .strip_prefix('x')
                .and_then(|slot| slot.parse::<usize>().ok());
            let kind = match slot.map(|slot| &self.given[slot]) {
                Some(Given::Drawn { kind, .. }) => kind.as_str(),
                _ => "normal",
            };
            let dims: Vec<i64> = ty.shape.unwrap().0.iter().map(number).collect();
            let values = draw(kind, dims.iter().product::<i64>() as usize, &mut rng);
            inputs.push(value.name.to_string(), host(ty.dtype, &dims, &values));
        }
        inputs
    }
}

/// Appends `loss = Σ p · y` over the float results, with inputs `p`.
fn project(model: &mut Model, results: &[Option<ValueId>]) -> ValueId {
    let mut patch = Patch::new();
    let mut sums = Vec::new();
    for (slot, id) in results.iter().enumerate() {
        let ty = model.graph.value(id.unwrap()).ty.clone();
        let Some(ty) = ty.filter(|ty| ty.dtype.is_float()) else {
            continue;
        };
        let weights = patch.input(&format!("p{slot}"), ty, None);
        let product = node(
            &mut patch,
            "Mul",
            &[Operand::Existing(id.unwrap()), weights],
            vec![],
        );
        let drop = vec![Attribute::int("keepdims", 0)];
        sums.push(node(&mut patch, "ReduceSum", &[product], drop));
    }
    let mut total = sums[0];
    for sum in &sums[1..] {
        total = node(&mut patch, "Add", &[total, *sum], vec![]);
    }
    let loss = patch.node(new_node("Identity", &[total], vec![]), None);
    patch.output(loss);
    let applied = model.graph.apply(patch).unwrap();
    let Operand::New(index) = loss else {
        unreachable!()
    };
    let loss = applied.values[index as usize];
    passes::infer(model, &mut Sink::new()).unwrap();
    loss
}

fn new_node(op_type: &str, inputs: &[Operand], attributes: Vec<Attribute>) -> NewNode {
    NewNode {
        op: OpName::new("", op_type),
        name: op_type.to_owned(),
        attributes,
        inputs: inputs.iter().map(|i| Some(*i)).collect(),
        metadata: Vec::new(),
    }
}

fn node(
    patch: &mut Patch,
    op_type: &str,
    inputs: &[Operand],
    attributes: Vec<Attribute>,
) -> Operand {
    patch.node(new_node(op_type, inputs, attributes), None)
}

/// Makes the values outputs and returns their names.
fn named_outputs(model: &mut Model, values: &[ValueId]) -> Vec<String> {
    let mut patch = Patch::new();
    for value in values {
        patch.output(Operand::Existing(*value));
    }
    model.graph.apply(patch).unwrap();
    values
        .iter()
        .map(|value| model.graph.value(*value).name.to_string())
        .collect()
}

fn with_float(ty: &TensorType, dtype: DType) -> TensorType {
    TensorType {
        dtype: if ty.dtype.is_float() { dtype } else { ty.dtype },
        shape: ty.shape.clone(),
    }
}

fn parse(text: &str, numbers: bool) -> Given {
    if text == "_" {
        return Given::Absent;
    }
    if let Some((ty, elements)) = text.split_once(" = ") {
        return Given::Constant(elements.to_owned(), parse_type(ty, numbers).1);
    }
    let (trained, text) = match text.strip_prefix("frozen ") {
        Some(text) => (false, text),
        None => (true, text),
    };
    let (kind, ty) = parse_type(text, numbers);
    Given::Drawn { trained, kind, ty }
}

fn parse_type(text: &str, numbers: bool) -> (String, TensorType) {
    let (kind, dims) = text.split_once('[').expect("a type is written normal[N]");
    let dims = dims.strip_suffix(']').expect("a type ends in ]");
    let dtype = match DType::ALL.iter().find(|dtype| dtype.name() == kind) {
        Some(dtype) => *dtype,
        None if kind.starts_with("index") => DType::I64,
        None => DType::F64,
    };
    let dims = dims
        .split(", ")
        .filter(|dim| !dim.is_empty())
        .map(|dim| match dim.parse::<i64>() {
            Ok(size) => Dim::from(size),
            Err(_) if numbers => Dim::from(number(&Dim::symbol(dim))),
            Err(_) => Dim::symbol(dim),
        });
    (
        kind.to_owned(),
        TensorType::new(dtype, Shape(dims.collect())),
    )
}

fn number(dim: &Dim) -> i64 {
    let size = |symbol: &Symbol| {
        let found = SIZES.iter().find(|(name, _)| *name == symbol.name());
        found.map(|(_, size)| Dim::from(*size))
    };
    dim.substitute(&size)
        .known()
        .unwrap_or_else(|| panic!("the size {dim} is a number in a run"))
}

fn constant(elements: &str, ty: &TensorType) -> Tensor {
    let values: Vec<f64> = elements
        .trim_matches(['[', ']'])
        .split(", ")
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().expect("a number"))
        .collect();
    let dims: Vec<i64> = ty.shape.as_ref().unwrap().0.iter().map(number).collect();
    Tensor::from_raw(ty.dtype, &dims, bytes(ty.dtype, &values))
}

fn bytes(dtype: DType, values: &[f64]) -> Vec<u8> {
    let all = values.iter();
    match dtype {
        DType::F64 => all.flat_map(|v| v.to_le_bytes()).collect(),
        DType::F32 => all.flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        DType::I64 => all.flat_map(|v| (*v as i64).to_le_bytes()).collect(),
        DType::I32 => all.flat_map(|v| (*v as i32).to_le_bytes()).collect(),
        DType::Bool => all.map(|v| u8::from(*v > 0.0)).collect(),
        other => panic!("no test has values of type {other}"),
    }
}

fn host(dtype: DType, dims: &[i64], values: &[f64]) -> HostTensor {
    HostTensor::new(dtype, dims, bytes(dtype, values)).unwrap()
}

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b) = (1.0 - uniform(rng), uniform(rng));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// So many values of a distribution.
fn draw(kind: &str, count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    if kind == "apart" {
        // Far from each other, from zero and from the bends of activations: for operators with a
        // corner.
        let mut values: Vec<f64> = (0..count)
            .map(|at| (at as f64 - (count as f64 - 1.0) / 2.0) * 0.37 + 0.11)
            .collect();
        for at in (1..count).rev() {
            values.swap(at, (rng.next_u64() % (at as u64 + 1)) as usize);
        }
        return values;
    }
    (0..count)
        .map(|_| match kind {
            "normal" | "bool" => normal(rng),
            "positive" => 0.5 + 1.5 * uniform(rng),
            "above_one" => 1.1 + 2.0 * uniform(rng),
            "unit" => 1.8 * uniform(rng) - 0.9,
            _ => match kind.strip_prefix("index") {
                Some(limit) => (rng.next_u64() % limit.parse::<u64>().unwrap()) as f64,
                None => panic!("no distribution is called {kind}"),
            },
        })
        .collect()
}

fn shifted(inputs: &NamedTensors, name: &str, direction: &[f64], step: f64) -> NamedTensors {
    let mut moved = NamedTensors::default();
    for (other, tensor) in inputs.iter() {
        let mut tensor = tensor.clone();
        if other == name {
            let values = tensor.to_f64s().unwrap();
            let values: Vec<f64> = values
                .iter()
                .zip(direction)
                .map(|(x, v)| x + step * v)
                .collect();
            tensor = host(tensor.dtype(), tensor.dims(), &values);
        }
        moved.push(other, tensor);
    }
    moved
}

fn floats(outputs: &NamedTensors, name: &str) -> Vec<f64> {
    outputs.get(name).unwrap().to_f64s().unwrap()
}

fn run(session: &mut Session, inputs: &NamedTensors) -> NamedTensors {
    let mut sink = Sink::new();
    session
        .run(inputs, &mut sink)
        .unwrap_or_else(|_| panic!("{:#?}", sink.diagnostics()))
}

/// A session, or ONNX Runtime's words.
fn open(model: &Model, optimization: Optimization) -> Result<Session, String> {
    let surroundings = Surroundings::new(|name| std::env::var_os(name), None);
    let library = runtime::ready(&surroundings, Wanted::Cpu, Network::Allowed, &mut |_| {})
        .unwrap_or_else(|diagnostic| panic!("{diagnostic:#?}"));
    let mut bytes = Vec::new();
    write_model(model, &mut bytes).unwrap();
    let options = Options {
        optimization,
        threads: std::num::NonZeroUsize::new(1),
        ..Options::default()
    };
    let mut sink = Sink::new();
    let source = ModelSource::Bytes {
        name: "check",
        bytes: &bytes,
    };
    Session::open(library, source, &options, &mut sink).map_err(|_| {
        let found = &sink.diagnostics()[0];
        format!("{} {:?} {:?}", found.message, found.notes, found.help)
    })
}
