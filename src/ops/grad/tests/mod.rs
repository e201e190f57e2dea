//! Every rule against central differences in a random direction.
//!
//! A node is written as text. Operands: a distribution and a type, `normal[2, S]`; `_` is absent;
//! `i64[2] = [0, 1]` is a constant; `frozen normal[2]` is not differentiated by. Letters are symbolic
//! sizes; a node with some is checked a second time with numbers in their place. The loss is a random
//! projection of all float results.
//!
//! The reference evaluates the node as it is for the differences, and the emitted graph for the
//! gradient, in double precision. ONNX Runtime runs the emitted graph in single precision, optimized
//! and not, wherever it runs the node itself.

mod activation;
mod attention;
mod conv;
mod einsum;
mod elementwise;
mod fused;
mod gather;
mod matmul;
mod movement;
mod normalization;
mod pool;
mod project;
mod reduce;
mod resize;
mod run;
mod select;
mod shape;
mod text;

use crate::autodiff::gradients;
use crate::diag::Sink;
use crate::graph::{Attribute, Graph, Model, OpName, Value, ValueId, ValueKind};
use crate::ops::FAMILIES;
use crate::ops::registry::{Grad, MICROSOFT};
use crate::passes;
use crate::runtime::Optimization;
use crate::tolerances::{RULE_DIFFERENCE, RULE_SINGLE};
use crate::ty::DType;
use project::{Terms, add_outputs, project};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use run::{Named, evaluate, execute, execute_fused};
use text::{Given, constant, draw, normal, number, parse, with_float};

/// The step of the differences, in double precision.
const STEP: f64 = 1e-5;
/// A node under test.
pub struct Case<'a> {
    pub op: &'a str,
    pub opset: i64,
    pub operands: &'a [&'a str],
    pub attributes: &'a [Attribute],
    pub results: usize,
    /// Results that the node does not list.
    pub absent: &'a [usize],
}

#[track_caller]
pub fn check_grad(op: &str, opset: i64, operands: &[&str], attributes: &[Attribute]) {
    check_case(&Case {
        op,
        opset,
        operands,
        attributes,
        results: 1,
        absent: &[],
    });
}

#[track_caller]
pub fn check_case(case: &Case<'_>) {
    let symbolic = case.operands.iter().any(|text| {
        let dims = text.split_once('[').map_or("", |(_, rest)| rest);
        let dims = dims.split(']').next().unwrap_or("");
        dims.chars().any(char::is_uppercase)
    });
    for numbers in [false, true] {
        if numbers || symbolic {
            let check = Check::new(case, numbers);
            check.against_differences();
            check.in_onnx_runtime();
            let plain = Check {
                terms: Terms::Plain,
                ..check
            };
            plain.against_differences();
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
        absent: &[],
    };
    let (mut model, loss, wrt) = Check::new(&case, false).model(DType::F32);
    let mut sink = Sink::new();
    let found = gradients(&mut model, loss, &wrt, &mut sink);
    assert!(found.is_err(), "{op} has a gradient");
    let message = &sink.diagnostics()[0].message;
    assert!(message.contains(words), "{message:?} says {words:?}");
}

/// One run in ONNX Runtime of a node with one operand to differentiate by: the operand, the first
/// result, its projection and the gradient.
pub fn forward_and_backward(case: &Case<'_>, dtype: DType) -> [Vec<f64>; 4] {
    let check = Check::new(case, true);
    let (mut model, loss, wrt) = check.model(dtype);
    let result = model.graph.find_value("y0").unwrap();
    let found = gradients(&mut model, loss, &wrt, &mut Sink::new()).unwrap();
    add_outputs(&mut model, &[result, found[0]]);
    let inputs = check.inputs(dtype);
    let outputs = execute(&model, &inputs, Optimization::All).unwrap();
    let input = |name: &str| {
        let found = inputs.iter().find(|input| input.name == name);
        found.unwrap().values.clone()
    };
    let output = |at: usize| outputs[at].values.clone();
    [input("x0"), output(1), input("p0"), output(2)]
}

struct Check<'a> {
    case: &'a Case<'a>,
    given: Vec<Given>,
    terms: Terms,
}

/// A model whose outputs are the loss and its gradients, and what they are the gradients of.
struct Differentiated {
    model: Model,
    wrt: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(case: &'a Case<'a>, numbers: bool) -> Self {
        let given = case.operands.iter().map(|text| parse(text, numbers));
        Check {
            case,
            given: given.collect(),
            terms: Terms::Weighted,
        }
    }

    #[track_caller]
    fn against_differences(&self) {
        let (forward, ..) = self.model(DType::F64);
        let inputs = self.inputs(DType::F64);
        let differentiated = self.differentiated(DType::F64);
        let outputs = evaluate(&differentiated.model, &inputs);
        let loss = |inputs: &[Named]| evaluate(&forward, inputs)[0].values[0];
        let (found, expected) = (outputs[0].values[0], loss(&inputs));
        assert!(
            (found - expected).abs() <= RULE_DIFFERENCE * (1.0 + expected.abs()),
            "{}: the loss is {found}, not {expected}",
            self.what()
        );
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for (name, gradient) in differentiated.wrt.iter().zip(&outputs[1..]) {
            let at = inputs.iter().position(|input| input.name == *name).unwrap();
            assert_eq!(gradient.dims, inputs[at].dims, "{}: {name}", self.what());
            let gradient = &gradient.values;
            let direction: Vec<f64> = gradient.iter().map(|_| normal(&mut rng)).collect();
            let loss_at = |step: f64| {
                let mut moved = inputs.clone();
                let values = moved[at].values.iter_mut();
                values.zip(&direction).for_each(|(x, v)| *x += step * v);
                loss(&moved)
            };
            let numeric = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
            let analytic: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            let scale = length(gradient) * length(&direction);
            // Differences of a large loss lose digits.
            let least = 1e-2 * (1.0 + expected.abs());
            assert!(
                (numeric - analytic).abs() <= RULE_DIFFERENCE * (scale + least),
                "{}: along {name} the loss changes by {numeric}, the gradient says {analytic} at \
                 a scale of {scale}",
                self.what()
            );
        }
    }

    #[track_caller]
    fn in_onnx_runtime(&self) {
        let (forward, ..) = self.model(DType::F32);
        let inputs = self.inputs(DType::F32);
        let own = match execute(&forward, &inputs, Optimization::Disabled) {
            Ok(own) => own,
            Err(words) => {
                let no_kernel = [
                    "Could not find an implementation",
                    "is not a registered",
                    "not implemented for CPU",
                    "implemented only on the CUDA",
                ];
                let known = no_kernel.iter().any(|known| words.contains(known));
                assert!(known, "{}: {words}", self.what());
                return;
            }
        };
        let differentiated = self.differentiated(DType::F32);
        let expected = evaluate(&differentiated.model, &inputs);
        // The node as it is, which a lowering has to agree with, unless it rounds its activations.
        let attributes = self.case.attributes;
        if !attributes.iter().any(|a| a.name == "accuracy_level") {
            self.agree("as it is", &own, &expected[..1]);
        }
        for optimization in [Optimization::Disabled, Optimization::All] {
            let found = execute(&differentiated.model, &inputs, optimization)
                .unwrap_or_else(|words| panic!("{}: {words}", self.what()));
            self.agree(&format!("{optimization:?}"), &found, &expected);
        }
        if let Some(found) = execute_fused(&differentiated.model, &inputs) {
            let found = found.unwrap_or_else(|words| panic!("{}: {words}", self.what()));
            self.agree("with kernels", &found, &expected);
        }
    }

    #[track_caller]
    fn agree(&self, how: &str, found: &[Named], expected: &[Named]) {
        for (found, expected) in found.iter().zip(expected) {
            let scale = expected.values.iter().fold(1.0_f64, |s, v| s.max(v.abs()));
            for (found, expected) in found.values.iter().zip(&expected.values) {
                assert!(
                    (found - expected).abs() <= RULE_SINGLE * scale,
                    "{}: {found}, not {expected}, {how}",
                    self.what()
                );
            }
        }
    }

    fn what(&self) -> String {
        format!("{} of {:?}", self.case.op, self.case.operands)
    }

    #[track_caller]
    fn differentiated(&self, dtype: DType) -> Differentiated {
        let (mut model, loss, wrt) = self.model(dtype);
        let names = wrt.iter().map(|id| model.graph.value(*id).name.to_string());
        let names = names.collect();
        let mut sink = Sink::new();
        let found = gradients(&mut model, loss, &wrt, &mut sink)
            .unwrap_or_else(|_| panic!("{}: {:#?}", self.what(), sink.diagnostics()));
        for (id, operand) in found.iter().zip(&wrt) {
            let (gradient, own) = (model.graph.value(*id), model.graph.value(*operand));
            assert_eq!(gradient.ty, own.ty, "type of the gradient of {}", own.name);
        }
        add_outputs(&mut model, &found);
        Differentiated { model, wrt: names }
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
                    let value = Value::with_kind(&name, Some(ty), kind);
                    let id = graph.add_value(value).unwrap();
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
                let value = Value::computed(&format!("y{slot}"), None);
                let listed = !self.case.absent.contains(&slot);
                listed.then(|| graph.add_value(value).unwrap())
            })
            .collect();
        let attributes = self.case.attributes.to_vec();
        let op = OpName::new(domain, op_type);
        graph.add_node(op, "node", attributes, &operands, &results);
        let mut model = Model {
            name: "check.onnx".to_owned(),
            graph,
            ir_version: 10,
            opsets: vec![(String::new(), self.case.opset), (MICROSOFT.to_owned(), 1)],
            metadata: Vec::new(),
            header: None,
            source: None,
        };
        let mut sink = Sink::new();
        passes::infer(&mut model, &mut sink).unwrap();
        assert!(sink.diagnostics().is_empty(), "{:#?}", sink.diagnostics());
        let loss = project(&mut model, &results, self.terms);
        (model, loss, wrt)
    }

    /// Values for every input, the projections included.
    fn inputs(&self, dtype: DType) -> Vec<Named> {
        let (model, ..) = self.model(dtype);
        let mut rng = ChaCha8Rng::seed_from_u64(self.case.op.len() as u64);
        let mut inputs = Vec::new();
        for id in model.graph.inputs() {
            let value = model.graph.value(*id);
            let ty = value.ty.clone().unwrap();
            let slot = value
                .name
                .strip_prefix('x')
                .map(|slot| slot.parse::<usize>());
            let kind = match slot.map(|slot| &self.given[slot.unwrap()]) {
                Some(Given::Drawn { kind, .. }) => kind.as_str(),
                _ => "normal",
            };
            let dims: Vec<i64> = ty.shape.unwrap().0.iter().map(number).collect();
            let count = dims.iter().product::<i64>() as usize;
            inputs.push(Named {
                name: value.name.to_string(),
                dtype: ty.dtype,
                values: draw(kind, count, &mut rng),
                dims,
            });
        }
        inputs
    }
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn every_rule_is_checked() {
    let written = [
        include_str!("activation.rs"),
        include_str!("attention.rs"),
        include_str!("conv.rs"),
        include_str!("einsum.rs"),
        include_str!("elementwise.rs"),
        include_str!("fused.rs"),
        include_str!("gather.rs"),
        include_str!("matmul.rs"),
        include_str!("movement.rs"),
        include_str!("normalization.rs"),
        include_str!("pool.rs"),
        include_str!("reduce.rs"),
        include_str!("resize.rs"),
        include_str!("select.rs"),
        include_str!("shape.rs"),
    ]
    .concat();
    for entry in FAMILIES.iter().copied().flatten() {
        if matches!(entry.grad, Grad::Rule(_) | Grad::Lower(_)) {
            let name = format!("{}\"", entry.name);
            assert!(written.contains(&name), "no check of {name}");
        }
    }
}
