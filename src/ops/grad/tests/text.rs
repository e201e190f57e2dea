//! Operands of a node under test, written as text.

use crate::graph::Tensor;
use crate::ty::{DType, Dim, Shape, Symbol, TensorType};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// What the symbolic sizes are in a run.
const SIZES: &[(&str, i64)] = &[("B", 2), ("S", 3), ("T", 4), ("N", 5), ("H", 6), ("W", 7)];

/// An operand.
pub(super) enum Given {
    Absent,
    Constant(String, TensorType),
    Drawn {
        trained: bool,
        kind: String,
        ty: TensorType,
    },
}

/// The type, with this element type if it is a float.
pub(super) fn with_float(ty: &TensorType, dtype: DType) -> TensorType {
    TensorType {
        dtype: if ty.dtype.is_float() { dtype } else { ty.dtype },
        shape: ty.shape.clone(),
    }
}

pub(super) fn parse(text: &str, numbers: bool) -> Given {
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
        None if kind.starts_with("int") || kind == "alternating" => DType::I32,
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

pub(super) fn number(dim: &Dim) -> i64 {
    let size = |symbol: &Symbol| {
        let found = SIZES.iter().find(|(name, _)| *name == symbol.name());
        found.map(|(_, size)| Dim::from(*size))
    };
    dim.substitute(&size)
        .known()
        .unwrap_or_else(|| panic!("the size {dim} is a number in a run"))
}

pub(super) fn constant(elements: &str, ty: &TensorType) -> Tensor {
    let values: Vec<f64> = elements
        .trim_matches(['[', ']'])
        .split(", ")
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().expect("a number"))
        .collect();
    let dims: Vec<i64> = ty.shape.as_ref().unwrap().0.iter().map(number).collect();
    Tensor::from_raw(ty.dtype, &dims, bytes(ty.dtype, &values))
}

pub(super) fn bytes(dtype: DType, values: &[f64]) -> Vec<u8> {
    let all = values.iter();
    match dtype {
        DType::F64 => all.flat_map(|v| v.to_le_bytes()).collect(),
        DType::F32 => all.flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        DType::I64 => all.flat_map(|v| (*v as i64).to_le_bytes()).collect(),
        DType::U8 => all.map(|v| *v as u8).collect(),
        DType::I8 => all.map(|v| (*v as i8) as u8).collect(),
        DType::I32 => all.flat_map(|v| (*v as i32).to_le_bytes()).collect(),
        DType::Bool => all.map(|v| u8::from(*v > 0.0)).collect(),
        other => panic!("no test has values of type {other}"),
    }
}

fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b) = (1.0 - uniform(rng), uniform(rng));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// So many values of a distribution.
pub(super) fn draw(kind: &str, count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
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
        .map(|at| match kind {
            // A mask that keeps something of every row of more than one element.
            "alternating" => (1 - at % 2) as f64,
            "normal" | "bool" => normal(rng),
            "positive" => 0.5 + 1.5 * uniform(rng),
            "above_one" => 1.1 + 2.0 * uniform(rng),
            "unit" => 1.8 * uniform(rng) - 0.9,
            // Floats, zero among them.
            "whole" => (rng.next_u64() % 3) as f64,
            _ => match kind.strip_prefix("index").or(kind.strip_prefix("int")) {
                Some(limit) => (rng.next_u64() % limit.parse::<u64>().unwrap()) as f64,
                None => panic!("no distribution is called {kind}"),
            },
        })
        .collect()
}
