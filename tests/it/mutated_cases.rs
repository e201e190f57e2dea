//! The reference evaluator on broken operands and attributes: ONNX's node cases, and those of ONNX
//! Runtime's own operators, each changed in a few places. Nothing may panic.

use crate::contrib_cases::contrib_cases;
use crate::node_cases::{cases, imported};
use peftc::graph::{Attribute, AttributeValue};
use peftc::reference::{self, Array, Call, Elements, Rounding};
use peftc::ty::DType;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A node with its operands.
#[derive(Clone)]
pub(crate) struct Node {
    pub name: String,
    pub domain: String,
    pub op_type: String,
    pub opset: i64,
    pub attributes: Vec<Attribute>,
    pub operands: Vec<Option<Array>>,
    pub results: usize,
}

impl Node {
    pub fn evaluate(&self) -> Result<Vec<Array>, reference::Fault> {
        let operands: Vec<Option<&Array>> = self.operands.iter().map(Option::as_ref).collect();
        reference::evaluate(&Call {
            domain: &self.domain,
            op_type: &self.op_type,
            opset: self.opset,
            attributes: &self.attributes,
            operands: &operands,
            results: self.results,
            rounding: Rounding::None,
        })
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }

    fn int(&mut self) -> i64 {
        const ALL: &[i64] = &[
            -1,
            0,
            1,
            2,
            3,
            4,
            7,
            64,
            -2,
            -5,
            i64::MIN,
            i64::MAX,
            1 << 31,
            -(1 << 31),
            1 << 62,
        ];
        ALL[self.below(ALL.len())]
    }

    fn float(&mut self) -> f64 {
        const ALL: &[f64] = &[
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            3.7,
            1e-30,
            1e30,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        ALL[self.below(ALL.len())]
    }

    fn attribute(&mut self, attributes: &mut Vec<Attribute>) {
        if attributes.is_empty() {
            return;
        }
        let at = self.below(attributes.len());
        if self.below(5) == 0 {
            attributes.remove(at);
            return;
        }
        match &mut attributes[at].value {
            AttributeValue::Int(value) => *value = self.int(),
            AttributeValue::Float(value) => *value = self.float() as f32,
            AttributeValue::Ints(values) => self.list(values, Random::int),
            AttributeValue::Floats(values) => self.list(values, |r| r.float() as f32),
            AttributeValue::String(word) => {
                const ALL: &[&str] = &["", "nope", "SAME_UPPER", "linear", "reflect", "max", "->"];
                *word = ALL[self.below(ALL.len())].as_bytes().to_vec();
            }
            AttributeValue::Strings(words) => {
                words.pop();
            }
            _ => {}
        }
    }

    fn list<T>(&mut self, values: &mut Vec<T>, make: impl Fn(&mut Random) -> T) {
        match self.below(4) {
            0 => values.push(make(self)),
            1 => {
                values.pop();
            }
            _ if values.is_empty() => {}
            _ => {
                let at = self.below(values.len());
                values[at] = make(self);
            }
        }
    }

    fn operands(&mut self, operands: &mut Vec<Option<Array>>) {
        let count = operands.len();
        if count == 0 {
            return;
        }
        let at = self.below(count);
        match (self.below(9), operands[at].clone()) {
            (0, _) => operands[at] = None,
            (1, _) => {
                operands.truncate(at);
            }
            (2, _) => {
                let other = self.below(count);
                operands.swap(at, other);
            }
            (_, None) => operands[at] = Some(Array::vector(&[self.int()])),
            (3 | 4, Some(array)) => operands[at] = Some(self.values(&array)),
            (5, Some(array)) => operands[at] = Some(self.retyped(&array)),
            (_, Some(array)) => operands[at] = Some(self.reshaped(&array)),
        }
    }

    fn values(&mut self, array: &Array) -> Array {
        let (dims, dtype) = (array.dims(), array.dtype());
        let at = self.below(array.len());
        match array.elements().clone() {
            Elements::Floats(mut data) if !data.is_empty() => {
                data[at] = self.float();
                Array::floats(dtype, dims, data).unwrap()
            }
            Elements::Ints(mut data) if !data.is_empty() => {
                data[at] = i128::from(self.int());
                Array::ints(dtype, dims, data).unwrap()
            }
            _ => array.clone(),
        }
    }

    fn retyped(&mut self, array: &Array) -> Array {
        const ALL: &[DType] = &[
            DType::F32,
            DType::F16,
            DType::I64,
            DType::U8,
            DType::I8,
            DType::Bool,
        ];
        let dtype = ALL[self.below(ALL.len())];
        if dtype.is_float() {
            return Array::floats(dtype, array.dims(), array.to_f64s()).unwrap();
        }
        let data = array.to_f64s().into_iter().map(|x| x as i128).collect();
        Array::ints(dtype, array.dims(), data).unwrap()
    }

    /// Other dimensions, with the elements as far as there are any.
    fn reshaped(&mut self, array: &Array) -> Array {
        let mut dims = array.dims().to_vec();
        match self.below(6) {
            0 => dims.insert(0, 1),
            1 => dims.reverse(),
            2 => {
                dims.pop();
            }
            3 => dims = vec![array.len()],
            _ if dims.is_empty() => dims.push(2),
            _ => {
                let at = self.below(dims.len());
                dims[at] = self.below(4);
            }
        }
        let count: usize = dims.iter().product();
        let cycle = |i: usize| i % array.len().max(1);
        match array.elements() {
            Elements::Floats(data) => {
                let one = |i| data.get(cycle(i)).copied().unwrap_or(1.0);
                Array::floats(array.dtype(), &dims, (0..count).map(one).collect()).unwrap()
            }
            Elements::Ints(data) => {
                let one = |i| data.get(cycle(i)).copied().unwrap_or(1);
                Array::ints(array.dtype(), &dims, (0..count).map(one).collect()).unwrap()
            }
        }
    }
}

/// The only node of each case that has no more, with the operands that the case gives it.
fn single_nodes() -> Vec<Node> {
    let mut nodes = Vec::new();
    for case in cases().0 {
        let model = imported(&case.model).unwrap();
        let graph = &model.graph;
        let order = graph.order().unwrap();
        let [id] = order.as_slice() else {
            continue;
        };
        let node = graph.node(*id);
        let find = |name: &str| {
            let (_, array) = case.inputs.iter().find(|(input, _)| input == name)?;
            Some(array.clone())
        };
        let operands = graph.operands(*id).into_iter();
        nodes.push(Node {
            name: case.name.clone(),
            domain: node.op.domain.to_string(),
            op_type: node.op.op_type.to_string(),
            opset: model.opset(&node.op.domain).unwrap_or(1),
            attributes: node.attributes.clone(),
            operands: operands
                .map(|value| find(&graph.value(value?).name))
                .collect(),
            results: graph.results(*id).len(),
        });
    }
    nodes
}

/// How often each case is changed; more by hand with `TRIALS`.
fn trials() -> u64 {
    let stated = std::env::var("TRIALS").ok();
    stated.and_then(|n| n.parse().ok()).unwrap_or(25)
}

#[test]
fn no_changed_case_panics() {
    let nodes: Vec<Node> = single_nodes().into_iter().chain(contrib_cases()).collect();
    let (mut results, mut refusals, mut panics) = (0, 0, Vec::new());
    for node in &nodes {
        for seed in 0..trials() {
            let mut random = Random(seed);
            let mut changed = node.clone();
            for _ in 0..1 + random.below(3) {
                match random.below(3) {
                    0 => random.attribute(&mut changed.attributes),
                    _ => random.operands(&mut changed.operands),
                }
            }
            match catch_unwind(AssertUnwindSafe(|| changed.evaluate())) {
                Ok(Ok(_)) => results += 1,
                Ok(Err(_)) => refusals += 1,
                Err(_) => panics.push(format!("{} ({}), seed {seed}", node.name, node.op_type)),
            }
        }
    }
    eprintln!(
        "{} cases: {results} results, {refusals} refusals",
        nodes.len()
    );
    assert!(panics.is_empty(), "{}: {panics:#?}", panics.len());
    assert!(nodes.len() > 900, "{} cases", nodes.len());
    assert!(
        results.min(refusals) > 5_000,
        "{results} results, {refusals} refusals"
    );
}
