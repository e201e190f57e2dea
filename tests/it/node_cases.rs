//! The ONNX project's own node test cases (`fixtures/node_cases.zip`): inferred types agree with
//! the expected outputs, and the reference evaluator gives them.

use crate::adapters::fixtures;
use crate::inference::{Bindings, Counts, contradiction, remove_statements};
use crate::tolerances::{
    NODE_ABSOLUTE, NODE_ABSOLUTE_ROUNDED, NODE_RELATIVE, NODE_RELATIVE_F16, NODE_UNITS_BF16,
};
use onnx_protobuf::{ModelProto, TensorProto};
use peftc::diag::Sink;
use peftc::graph::Model;
use peftc::reference::{self, Array, Options, Rounding};
use peftc::ty::{DType, Dim, Shape, TensorType};
use peftc::{onnx, ops, passes};
use protobuf::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;

/// A case: a model, its inputs by name, its expected outputs in order.
pub(crate) struct Case {
    pub name: String,
    pub model: ModelProto,
    pub inputs: Vec<(String, Array)>,
    pub outputs: Vec<Array>,
}

/// Every packed case, and those that are left out with the reason.
pub(crate) fn cases() -> (Vec<Case>, BTreeMap<String, String>) {
    let file = std::fs::File::open(fixtures().join("node_cases.zip")).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        archive
            .by_name(name)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    };
    let index: Value = serde_json::from_slice(&read("cases.json")).unwrap();
    let data = read("data.bin");
    let blob = |place: &Value| {
        let at = |i: usize| place[i].as_u64().unwrap() as usize;
        &data[at(0)..at(0) + at(1)]
    };
    let tensors = |places: &Value| -> Vec<Array> {
        let places = places.as_array().unwrap().iter();
        places.map(|place| tensor(blob(place))).collect()
    };
    let case = |case: &Value| {
        let model = ModelProto::parse_from_bytes(blob(&case["model"])).unwrap();
        let names = model.graph.input.iter().map(|input| input.name.clone());
        Case {
            name: case["name"].as_str().unwrap().to_owned(),
            inputs: names.zip(tensors(&case["inputs"])).collect(),
            outputs: tensors(&case["outputs"]),
            model,
        }
    };
    let cases = index["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(case)
        .collect();
    (
        cases,
        serde_json::from_value(index["left_out"].clone()).unwrap(),
    )
}

fn tensor(bytes: &[u8]) -> Array {
    let proto = TensorProto::parse_from_bytes(bytes).unwrap();
    let dtype = DType::from_number(proto.data_type).unwrap();
    reference::decode(dtype, &proto.dims, &proto.raw_data)
        .unwrap_or_else(|fault| panic!("{dtype}{:?}: {fault}", proto.dims))
}

pub(crate) fn imported(proto: &ModelProto) -> Result<Model, String> {
    let mut sink = Sink::new();
    let bytes = proto.write_to_bytes().unwrap();
    let imported = onnx::import_bytes("case.onnx", bytes.into(), &mut sink);
    let mut model = imported
        .map_err(|_| format!("{:?}", sink.diagnostics()))?
        .model;
    let inferred = passes::infer(&mut model, &mut sink);
    inferred.map_err(|_| format!("{:?}", sink.diagnostics()))?;
    Ok(model)
}

fn type_of(array: &Array) -> TensorType {
    let dims = array.dims().iter().map(|n| Dim::from(*n as i64));
    TensorType::new(array.dtype(), Shape(dims.collect()))
}

/// Inference from the types of the inputs alone agrees with the expected outputs.
fn check_types(case: &Case, counts: &mut Counts) -> Result<(), String> {
    let mut bare = case.model.clone();
    remove_statements(bare.graph.as_mut().unwrap());
    let model = imported(&bare)?;
    let mut bindings = Bindings::default();
    for (id, expected) in model.graph.outputs().iter().zip(&case.outputs) {
        let value = model.graph.value(*id);
        counts.values += 1;
        let Some(ty) = &value.ty else {
            counts.unranked += 1;
            continue;
        };
        if let Some(why) = contradiction(ty, &type_of(expected), &mut bindings, counts) {
            return Err(format!("inferred `{}`: {why}", value.name));
        }
    }
    Ok(())
}

fn check_values(case: &Case) -> Result<(), String> {
    let model = imported(&case.model)?;
    let inputs = case.inputs.iter();
    let inputs: Vec<(&str, Array)> = inputs.map(|(name, a)| (name.as_str(), a.clone())).collect();
    let options = Options {
        rounding: Rounding::Declared,
        ..Options::default()
    };
    let results = reference::run(&model, &inputs, &options).map_err(|f| f.to_string())?;
    for ((name, found), expected) in results.iter().zip(&case.outputs) {
        if type_of(found) != type_of(expected) {
            return Err(format!(
                "`{name}`: {}, not {}",
                type_of(found),
                type_of(expected)
            ));
        }
        let (a, b) = (found.to_f64s(), expected.to_f64s());
        if let Some(at) =
            (0..a.len()).find(|at| !close(&case.name, expected.dtype(), a[*at], b[*at]))
        {
            return Err(format!("`{name}`[{at}]: {}, not {}", a[at], b[at]));
        }
    }
    Ok(())
}

fn close(case: &str, dtype: DType, found: f64, expected: f64) -> bool {
    if found == expected || found.is_nan() && expected.is_nan() {
        return true;
    }
    let absolute = match ROUNDED.contains(&case) {
        true => NODE_ABSOLUTE_ROUNDED,
        false => NODE_ABSOLUTE,
    };
    let relative = match dtype {
        DType::F32 | DType::F64 => NODE_RELATIVE,
        DType::F16 => NODE_RELATIVE_F16,
        DType::BF16 => return units_apart(found, expected) <= NODE_UNITS_BF16,
        _ => return false,
    };
    (found - expected).abs() <= absolute + relative * expected.abs()
}

/// How many bf16 numbers further one is than the other; all if their signs differ.
fn units_apart(a: f64, b: f64) -> u16 {
    let (a, b) = (half::bf16::from_f64(a), half::bf16::from_f64(b));
    match a.is_sign_negative() == b.is_sign_negative() {
        true => a.to_bits().abs_diff(b.to_bits()),
        false => u16::MAX,
    }
}

/// Cases whose expected outputs are written with four digits.
const ROUNDED: &[&str] = &[
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_gridsample_bicubic",
    "test_roialign_aligned_false",
    "test_roialign_aligned_true",
];

const TIES: &str = "numbers halfway between two codes, as single precision rounds them";

/// Cases that are packed and cannot hold, with the reason.
const EXCLUDED: &[(&str, &str)] = &[
    ("test_dynamicquantizelinear", TIES),
    ("test_dynamicquantizelinear_expanded", TIES),
    (
        "test_resize_downsample_scales_cubic_align_corners",
        "ONNX Runtime and ONNX's text divide by the whole size of the result",
    ),
    (
        "test_resize_downsample_scales_linear_align_corners",
        "ONNX Runtime and ONNX's text divide by the whole size of the result",
    ),
    (
        "test_scan_sum",
        "Scan before opset 9 is not in the registry",
    ),
];

/// What the reference does not evaluate, and says so: such a case is left out by this reason.
const UNDEFINED: &str = "random numbers";

#[test]
fn no_case_is_left_out_whose_operators_are_registered() {
    let (_, left_out) = cases();
    for (case, why) in left_out {
        let Some(name) = why.strip_suffix(" is not in the registry") else {
            continue;
        };
        let name = name.strip_prefix("operator ").unwrap();
        let (domain, name) = name.split_once(':').unwrap_or(("", name));
        let known = ops::find(domain, name, i64::MAX);
        assert!(known.is_none(), "{case}: run fixtures/make_node_cases.py");
    }
}

#[test]
fn the_node_cases_of_onnx_give_what_onnx_expects() {
    let (cases, left_out) = cases();
    let (mut passed, mut counts) = (0, Counts::default());
    let mut excluded: BTreeMap<String, usize> = BTreeMap::new();
    let mut faults = Vec::new();
    for case in &cases {
        let known = EXCLUDED.iter().find(|(name, _)| *name == case.name);
        match check_types(case, &mut counts).and_then(|()| check_values(case)) {
            Ok(()) if known.is_some() => faults.push(format!("{}: holds now", case.name)),
            Ok(()) => passed += 1,
            Err(_) if known.is_some() => {
                let why = known.map_or("", |(_, why)| why);
                *excluded.entry(why.to_owned()).or_default() += 1;
            }
            Err(why) if why.contains(UNDEFINED) => {
                *excluded.entry(UNDEFINED.to_owned()).or_default() += 1;
            }
            Err(why) => faults.push(format!("{}: {why}", case.name)),
        }
    }
    for why in left_out.into_values() {
        *excluded.entry(why).or_default() += 1;
    }
    eprintln!("{passed} node cases pass; {counts:?}; excluded: {excluded:#?}");
    assert!(faults.is_empty(), "{}: {faults:#?}", faults.len());
    // As measured: neither the evaluator nor inference can silently know less.
    assert!(passed >= 1_642, "{passed}");
    assert!(counts.known >= 4_712 && counts.open <= 723 && counts.unranked <= 40);
}
